plugins {
    id("com.android.application")
}

android {
    namespace = "pocketship.demo"
    compileSdk = 35

    defaultConfig {
        applicationId = "pocketship.demo"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    androidResources {
        noCompress += listOf("onnx", "tflite")
    }
}

dependencies {
    implementation(project(":minilm"))
    implementation(project(":rnet"))

    testImplementation("junit:junit:4.13.2")
    testImplementation("org.json:json:20240303")
}
