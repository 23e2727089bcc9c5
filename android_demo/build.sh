#!/usr/bin/env bash
# Builds, signs and verifies the demo's APK without Android Studio, from packages that Debian, PyPI and npm have:
# build/android/pocketship-demo.apk. `make apk` calls it.
#
#   android_demo/build.sh models      only export the models and generate the two libraries (android_demo/generated)
#   android_demo/build.sh             those where they are missing, the JVM tests, and the APK
#
# android.jar and LiteRT's library are in none of these registries: the code is compiled against the declarations in
# stubs/, and the APK carries ONNX Runtime alone; the app says so. Gradle builds the same sources with both.
# Needs Debian's openjdk-17-jdk-headless, aapt, apksigner, zipalign, android-framework-res, libandroid-json-java, junit4,
# unzip and npm.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/.." && pwd)"
bin="${VENV:-$root/.venv}/bin"
out="$root/build/android"
generated="$here/generated"
aar="$root/build/runner/aar"
framework=/usr/share/android-framework-res/framework-res.apk
json=/usr/share/java/com.android.json.jar
junit=/usr/share/java/junit4.jar:/usr/share/java/hamcrest-core.jar
abi=arm64-v8a

# Android's dexer, D8, out of bundletool, which this wheel carries; a tool to build with, no part of the app.
dexer_wheel=mobsf==4.4.0
dexer_sha256=2d4ad908faea64047c1cc9cb747e6aa667c6ab192e09607bd16b67246a8cd6ae

die() {
    echo "android_demo/build.sh: $*" >&2
    exit 1
}

need() { # COMMAND_OR_FILE PACKAGE
    command -v "$1" > /dev/null || [ -e "$1" ] || die "$1 is not here; apt install $2"
}

step() {
    printf '%-9s %s\n' "$1" "$2"
}

generate() {
    local model target
    for model in minilm rnet; do
        target=$([ $model = minilm ] && echo "--quantize int8 --no-measure" || true)
        # shellcheck disable=SC2086
        "$bin/pocketship" export $model --target onnx,tflite $target -o "$out/bundles/$model" --force --quiet
        "$bin/pocketship" embed "$out/bundles/$model" --android "$generated/$model" --force --quiet
        step models "$model: $(du -h --apparent-size "$generated/$model/src/main/assets/$model/model.onnx" | cut -f1) ONNX, $(du -h --apparent-size "$generated/$model/src/main/assets/$model/model.tflite" | cut -f1) TFLite, code in generated/$model"
    done
}

fetch_dexer() {
    [ -f "$out/bundletool.jar" ] && return
    local work="$out/fetch.$$"
    mkdir -p "$work"
    "$bin/python" -m pip --disable-pip-version-check download --quiet --no-deps --dest "$work" "$dexer_wheel"
    unzip -q -j "$work"/mobsf-*.whl '*/bundletool-all-1.17.2.jar' -d "$work"
    echo "$dexer_sha256  $work/bundletool-all-1.17.2.jar" | sha256sum --check --status || die "bundletool is not the file that was pinned"
    mv "$work/bundletool-all-1.17.2.jar" "$out/bundletool.jar"
    rm -rf "$work"
}

sources() { # FOLDERS...
    find "$@" -name '*.java'
}

compile() { # NAME CLASSPATH SOURCES...
    local name=$1 path=$2
    shift 2
    rm -rf "${out:?}/$name"
    mkdir -p "$out/$name"
    javac -Xlint:all,-options -Werror --release 8 -encoding UTF-8 -cp "$path" -d "$out/$name" "$@"
}

resources() {
    mkdir -p "$out/resources"
    # aapt2 wants the package in the manifest, where Gradle forbids it.
    sed 's/<manifest /<manifest package="pocketship.demo" android:versionCode="1" android:versionName="1.0" /' \
        "$here/app/src/main/AndroidManifest.xml" > "$out/AndroidManifest.xml"
    aapt2 compile --dir "$here/app/src/main/res" -o "$out/resources.zip"
    rm -rf "$out/java"
    local assets=()
    for model in minilm rnet; do assets+=(-A "$generated/$model/src/main/assets"); done
    aapt2 link -I "$framework" --manifest "$out/AndroidManifest.xml" --min-sdk-version 26 --target-sdk-version 35 \
        "${assets[@]}" -0 onnx -0 tflite --java "$out/java" -o "$out/base.apk" "$out/resources.zip"
}

jvm_tests() {
    compile tests "$out/classes:$out/stubs:$aar/classes.jar:$json:$junit" $(sources "$here/app/src/test")
    local classes
    classes=$(cd "$here/app/src/test/java" && find . -name '*Test.java' | sed 's|^\./||; s|\.java$||; s|/|.|g')
    # shellcheck disable=SC2086
    java -cp "$out/tests:$out/classes:$aar/classes.jar:$json:$junit" org.junit.runner.JUnitCore $classes > "$out/tests.log" \
        || { cat "$out/tests.log" >&2; die "the JVM tests fail"; }
    step tests "$(grep -E '^OK' "$out/tests.log"), on this JVM"
}

package() {
    rm -rf "$out/dex" "$out/apk"
    mkdir -p "$out/dex" "$out/apk/lib/$abi"
    (cd "$out/classes" && zip -q -r "$out/classes.zip" .)
    java -cp "$out/bundletool.jar" com.android.tools.r8.D8 --min-api 26 --lib "$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")" \
        --classpath "$out/stubs" --output "$out/dex" "$out/classes.zip" "$aar/classes.jar"
    rm "$out/classes.zip"
    cp "$aar/jni/$abi"/*.so "$out/apk/lib/$abi/"
    cp "$out/dex/classes.dex" "$out/apk/"
    cp "$out/base.apk" "$out/unaligned.apk"
    (cd "$out/apk" && zip -q -r "$out/unaligned.apk" classes.dex lib)
    zipalign -f -p 4 "$out/unaligned.apk" "$out/aligned.apk"
    rm "$out/unaligned.apk"
}

sign() {
    # A key for this machine alone: a demo is not for a store.
    [ -f "$out/debug.p12" ] || keytool -genkeypair -keystore "$out/debug.p12" -storetype PKCS12 -storepass pocketship \
        -alias demo -keyalg RSA -keysize 3072 -validity 10000 -dname "CN=pocketship demo" 2> /dev/null
    apksigner sign --ks "$out/debug.p12" --ks-pass pass:pocketship --min-sdk-version 26 --out "$out/pocketship-demo.apk" "$out/aligned.apk"
    rm -f "$out/aligned.apk" "$out/pocketship-demo.apk.idsig"
}

verify() {
    local apk="$out/pocketship-demo.apk" said file listing
    apksigner verify --min-sdk-version 26 --verbose "$apk" > "$out/verify.log" || { cat "$out/verify.log" >&2; die "apksigner refuses the APK"; }
    step signed "$(grep -E 'v[0-9.]+ scheme.*true' "$out/verify.log" | sed 's/Verified using //; s/ scheme.*//' | paste -sd ' ')"
    said=$(aapt dump badging "$apk" 2> "$out/badging.log") || { cat "$out/badging.log" >&2; die "aapt refuses the APK"; }
    grep -E "^(package|sdkVersion|targetSdkVersion|launchable-activity|native-code)" <<< "$said"
    listing=$(unzip -l "$apk")
    for file in classes.dex "lib/$abi/libonnxruntime.so" assets/minilm/model.onnx assets/minilm/model.tflite assets/minilm/vocab.txt \
        assets/rnet/model.onnx assets/rnet/golden.bin; do
        grep -q " $file$" <<< "$listing" || die "$file is not in the APK"
    done
    for file in pocketship/minilm/Minilm pocketship/rnet/Rnet pocketship/demo/BenchActivity; do
        grep -q "L$file;" "$out/dex/classes.dex" || die "$file is not in the APK's code"
    done
    step done "$apk: $(du -h --apparent-size "$apk" | cut -f1); built and verified, not run here"
}

need "$bin/pocketship" "nothing: run make setup"
if [ "${1:-}" = models ]; then
    generate
    exit
fi
for pair in javac:openjdk-17-jdk-headless aapt2:aapt apksigner:apksigner zipalign:zipalign unzip:unzip zip:zip \
    "$framework:android-framework-res" "$json:libandroid-json-java" /usr/share/java/junit4.jar:junit4; do
    need "${pair%%:*}" "${pair##*:}"
done
mkdir -p "$out"
[ -d "$generated/minilm" ] && [ -d "$generated/rnet" ] && [ -z "${FRESH:-}" ] || generate
"$root/benchmarks/devices/adb/runner/build.sh" headers
fetch_dexer
resources
compile stubs "" $(sources "$here/stubs")
compile classes "$out/stubs:$aar/classes.jar:$json" $(sources "$out/java" "$here/app/src/main" "$generated"/*/src/main)
step compiled "$(find "$out/classes" -name '*.class' | wc -l) classes"
jvm_tests
package
sign
verify
