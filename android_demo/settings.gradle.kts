pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode.set(RepositoriesMode.FAIL_ON_PROJECT_REPOS)
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "pocketship-demo"
include(":app")

// What `pocketship embed --android` wrote: `make android-models` writes it anew.
include(":minilm", ":rnet")
project(":minilm").projectDir = file("generated/minilm")
project(":rnet").projectDir = file("generated/rnet")
