#!/usr/bin/env bash
# Lays a folder in which the JVM of this machine finds ONNX Runtime's Java library, from the very .aar that phones get:
#
#   tests/rigs/onnxruntime_jvm.sh FOLDER LIBONNXRUNTIME.so
#
# The .aar's JNI library for x86-64 is built for Android's C library. It calls eight functions of it, all of which glibc has:
# here their Android versions are taken off (patchelf), and libc.so, libm.so and libdl.so become empty libraries that bring
# glibc's along. libonnxruntime.so is such a one, too, over the library of the Python wheel. Start java with
# LD_LIBRARY_PATH=FOLDER and -Donnxruntime.native.path=FOLDER. Needs patchelf and gcc.
set -euo pipefail
folder=$1
library=$2
root="$(cd "$(dirname "$0")/../.." && pwd)"
aar="$root/build/runner/aar"
jni="$folder/libonnxruntime4j_jni.so"

"$root/benchmarks/devices/adb/runner/build.sh" headers
mkdir -p "$folder"
cp "$aar/jni/x86_64/libonnxruntime4j_jni.so" "$jni"
version=$(readelf --dyn-syms -W "$jni" | sed -n 's/.*OrtGetApiBase@\(VERS_[0-9.]*\).*/\1/p')
plain=()
for name in $(readelf --dyn-syms -W "$jni" | awk '$7 == "UND" && $8 ~ /@/ {sub(/@.*/, "", $8); print $8}'); do
    plain+=(--clear-symbol-version "$name")
done
patchelf "${plain[@]}" "$jni"

bridge() { # NAME VERSION SOURCE LIBRARIES...
    local name=$1 symbols=$2 source=$3
    shift 3
    gcc -shared -fPIC -Wl,--no-as-needed -Wl,-soname,"$name" -Wl,-rpath,"\$ORIGIN" \
        -Wl,--version-script=<(echo "$symbols { global: *; };") -o "$folder/$name" -x c <(echo "$source") -x none "$@"
}
for name in libc.so libm.so libdl.so; do bridge "$name" LIBC 'int pocketship_bionic;' -lm -ldl; done
cp -L "$library" "$folder/libonnxruntime.so.1"
# NNAPI is Android's: the JNI library names it, and nobody here calls it.
bridge libonnxruntime.so "$version" 'void *OrtSessionOptionsAppendExecutionProvider_Nnapi(void *o, unsigned f) { return (void)o, (void)f, (void *)0; }' \
    "$folder/libonnxruntime.so.1"
