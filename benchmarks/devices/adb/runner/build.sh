#!/usr/bin/env bash
# Builds the runner and lays ONNX Runtime's library beside it: build/runner/TARGET/{runner,libonnxruntime.so}.
#
#   benchmarks/devices/adb/runner/build.sh [android-arm64] [linux-arm64] [linux-x64]      (all three where none is given)
#      benchmarks/devices/adb/runner/build.sh headers      (only what is in ONNX Runtime's .aar, into build/runner/aar)
#
# The Android runner is built with $ANDROID_NDK_HOME where that is set; else with Debian's cross compiler, against our own
# declarations of Android's C library (android/) and stubs of its libraries. It is built and checked with readelf, and
# was never run: no Android is at hand where this is developed.
#
# Needs gcc, for arm64 gcc-aarch64-linux-gnu and libc6-dev-arm64-cross, npm, pip and unzip.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../../.." && pwd)"
out="${RUNNER_BUILD:-$root/build/runner}"
pip="${PIP:-$root/.venv/bin/pip}"

# Headers for all, and the library for Android: a third party's repackaging of ONNX Runtime's own .aar, held by its hash.
npm_package=com.github.asus4.onnxruntime@0.4.9
aar_sha256=98cddbac92640b4a6af72a03c42e0491851f366d3da66bbaeb5dd66310946cf2
# Libraries for Linux: those of the Python wheels.
wheel_version=1.32.0
wheel_sha256_aarch64=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c
wheel_sha256_x86_64=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d

work=
trap 'rm -rf "$work"' EXIT
warnings="-std=gnu11 -O2 -Wall -Wextra -Werror"

die() {
    echo "build.sh: $*" >&2
    exit 1
}

need() {
    command -v "$1" > /dev/null || die "$1 is not installed; apt install $2"
}

check_hash() { # FILE SHA256
    echo "$2  $1" | sha256sum --check --status || die "$1 is not the file that was pinned; its hash should be $2"
}

fetch_aar() {
    [ -f "$out/aar/classes.jar" ] && return
    need npm npm
    need unzip unzip
    work="$out/fetch.$$"
    mkdir -p "$work"
    (cd "$work" && npm pack --silent "$npm_package" > /dev/null && tar -xzf ./*.tgz package/Plugins/Android/onnxruntime.aar)
    check_hash "$work/package/Plugins/Android/onnxruntime.aar" "$aar_sha256"
    unzip -q "$work/package/Plugins/Android/onnxruntime.aar" classes.jar 'headers/*' 'jni/arm64-v8a/*' \
        'jni/x86_64/libonnxruntime4j_jni.so' -d "$work/aar"
    rm -rf "$out/aar"
    mv "$work/aar" "$out/aar"
    rm -r "$work"
}

fetch_wheel() { # x86_64|aarch64 SHA256 FOLDER
    [ -f "$3/libonnxruntime.so" ] && return
    work="$out/fetch.$$"
    mkdir -p "$work"
    "$pip" --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
        --platform "manylinux_2_28_$1" --dest "$work" "onnxruntime==$wheel_version"
    check_hash "$work"/onnxruntime-*.whl "$2"
    unzip -q "$work"/onnxruntime-*.whl "onnxruntime/capi/libonnxruntime.so.$wheel_version" -d "$work"
    mv "$work/onnxruntime/capi/libonnxruntime.so.$wheel_version" "$3/libonnxruntime.so"
    rm -r "$work"
}

build_linux() { # COMPILER FOLDER
    "$1" $warnings -D_GNU_SOURCE -isystem "$out/aar/headers" -o "$2/runner.partial" "$here"/*.c -ldl
}

build_android_ndk() { # FOLDER
    local clang
    clang="$(echo "$ANDROID_NDK_HOME"/toolchains/llvm/prebuilt/*/bin/aarch64-linux-android24-clang)"
    [ -x "$clang" ] || die "$ANDROID_NDK_HOME has no aarch64-linux-android24-clang; install NDK r21 or newer"
    "$clang" $warnings -D_GNU_SOURCE -isystem "$out/aar/headers" -fPIE -pie -Wl,-z,max-page-size=16384 \
        -o "$1/runner.partial" "$here"/*.c -ldl
}

# Libraries that have the names and symbols of bionic's, to link against and nothing else.
build_stubs() { # FOLDER
    local declared
    declared="$(sed -n 's/^[A-Za-z][^(]*[ *]\([a-z_0-9]*\)(.*;$/\1/p' "$here/android/bionic.h" | sort -u)"
    for library in libc libdl; do
        for name in __libc_init $declared; do
            case "$library $name" in
                "libdl dl"*) ;;
                "libdl "* | "libc dl"*) continue ;;
            esac
            echo "void $name(void) {}"
        done | aarch64-linux-gnu-gcc -x c -w -ffreestanding -fno-builtin -nostdlib -shared -Wl,-soname,"$library.so" \
            -o "$1/$library.so" -
    done
}

build_android_stubs() { # FOLDER
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
    local own
    work="$out/stubs.$$"
    own="$(aarch64-linux-gnu-gcc -print-file-name=include)"
    mkdir -p "$work/include"
    build_stubs "$work"
    for header in stdlib string; do # which ONNX Runtime's header asks for
        echo '#include "bionic.h"' > "$work/include/$header.h"
    done
    aarch64-linux-gnu-gcc $warnings -DPOCKETSHIP_BIONIC -ffreestanding -nostdinc -isystem "$own" -isystem "$work/include" \
        -I "$here/android" -isystem "$out/aar/headers" -fPIE -fno-stack-protector -fno-asynchronous-unwind-tables \
        -mno-outline-atomics -nostdlib -pie -Wl,--dynamic-linker=/system/bin/linker64 -Wl,--no-undefined -Wl,-z,now \
        -Wl,-z,relro -Wl,-z,noexecstack -Wl,-z,max-page-size=16384 -Wl,--hash-style=both -Wl,--as-needed \
        -o "$1/runner.partial" "$here"/*.c "$here/android/start.c" -L "$work" -lc -ldl
    rm -r "$work"
}

# What Android's linker asks of a program, and that it needs nothing but Android's own libraries.
check_android() { # RUNNER
    local header dynamic
    header="$(readelf --wide --file-header --program-headers "$1")"
    dynamic="$(readelf --wide --dynamic "$1")"
    grep -q 'Machine: *AArch64' <<< "$header" || die "$1 is not for 64-bit ARM"
    grep -q 'Type: *DYN' <<< "$header" || die "$1 is not position independent"
    grep -q '/system/bin/linker64' <<< "$header" || die "$1 does not name Android's linker"
    ! grep -q 'TEXTREL' <<< "$dynamic" || die "$1 has relocations in its code"
    ! grep ' TLS ' <<< "$header" || die "$1 has thread-local storage, whose alignment Android refuses"
    local needed
    needed="$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<< "$dynamic" | sort | tr '\n' ' ')"
    [ "$needed" = "libc.so libdl.so " ] || [ "$needed" = "libc.so libdl.so libm.so " ] || die "$1 needs $needed"
    ! grep -q 'GLIBC' <<< "$(readelf --wide --dyn-syms "$1")" || die "$1 wants symbols of glibc"
}

build() { # TARGET
    local target="$out/$1"
    mkdir -p "$target"
    fetch_aar
    case "$1" in
        linux-x64)
            need gcc gcc
            fetch_wheel x86_64 "$wheel_sha256_x86_64" "$target"
            build_linux gcc "$target"
            ;;
        linux-arm64)
            need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
            fetch_wheel aarch64 "$wheel_sha256_aarch64" "$target"
            build_linux aarch64-linux-gnu-gcc "$target"
            ;;
        android-arm64)
            cp "$out/aar/jni/arm64-v8a/libonnxruntime.so" "$target/libonnxruntime.so"
            if [ -n "${ANDROID_NDK_HOME:-}" ]; then build_android_ndk "$target"; else build_android_stubs "$target"; fi
            check_android "$target/runner.partial"
            ;;
        *) die "no such target: $1; give android-arm64, linux-arm64 or linux-x64" ;;
    esac
    mv "$target/runner.partial" "$target/runner" # which may be running
    echo "$target/runner"
}

if [ "$*" = headers ]; then # for a C program of another part
    mkdir -p "$out"
    fetch_aar
    exit
fi
mkdir -p "$out"
exec 9> "$out/.lock"
flock 9 # several test processes may build at once
if [ $# -eq 0 ]; then set -- android-arm64 linux-arm64 linux-x64; fi
for target in "$@"; do build "$target"; done
