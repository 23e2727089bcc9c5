#!/usr/bin/env bash
# Sets up what the tests marked `device` and `browser` need, from Debian's packages: build/rigs/arm64 and armhf (the roots
# of emulated Raspberry Pis, also the shell behind the adb double), qemu registered with the kernel, the instruction
# counter, adb, Chromium and Swift's compiler. Needs root and Debian 12 on x86-64; quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/rigs
rigs=build/rigs
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

packages=(
    mmdebstrap qemu-user gcc libc6-dev util-linux # the emulated board
    openssh-client                                 # its keys
    adb gcc-aarch64-linux-gnu libc6-dev-arm64-cross unzip # the phone's side
    chromium fonts-dejavu-core                     # the browser
    openjdk-17-jdk-headless aapt apksigner zipalign android-framework-res zip # the demo's APK
    libandroid-json-java junit4 patchelf           # its tests on the JVM, and ONNX Runtime's Java library there
    cmake g++                                      # the C++ library
)
board_packages=(
    python3 openssh-server openssh-sftp-server
    bash coreutils dash findutils grep libc-bin libstdc++6 procps sed tar
)

if [[ $(id -u) != 0 || $(uname -m) != x86_64 ]]; then
    echo "tests/rigs/install.sh: needs root on x86-64 Debian; run it there" >&2
    exit 1
fi
mkdir -p "$rigs"
exec 9>"$rigs/.lock"
flock 9 # several test processes may start it at once

install_packages() {
    local missing=() package
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
    done
    [[ ${#missing[@]} == 0 ]] && return
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=600)
    "${apt[@]}" update
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null </dev/null
}

# The kernel opens qemu once, here (flag F), so that it is found from inside any root; P keeps argv[0].
# Debian's own registration is not used: qemu-user-static takes no plugins.
register() { # NAME INTERPRETER MAGIC MASK
    local registered=/proc/sys/fs/binfmt_misc
    [[ -e $registered/register ]] || mount -t binfmt_misc binfmt_misc "$registered"
    [[ -e $registered/$1 ]] || printf ':%s:M::%s:%s:%s:PF' "$1" "$3" "$4" "$2" >"$registered/register"
}

register_qemu() {
    local head='\x7f\x45\x4c\x46' rest='\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    register pocketship-arm64 /usr/bin/qemu-aarch64 "$head"'\x02\x01\x01'"$rest"'\xb7\x00' "$mask"
    register pocketship-armhf /usr/bin/qemu-arm "$head"'\x01\x01\x01'"$rest"'\x28\x00' "$mask"
}

# Maintainer scripts do not run in mmdebstrap's quickest variant: what they would write is written here.
build_root() { # ARCHITECTURE QEMU PACKAGES...
    local architecture=$1 qemu=$2 root=$rigs/$1 stamp library
    shift 2
    stamp=$({ declare -f build_root; echo "$@"; cat "$qemu"; } | sha256sum)
    [[ -e $root/.stamp && $(<"$root/.stamp") == "$stamp" ]] && return
    rm -rf "$root.partial"
    mmdebstrap --quiet --variant=extract --architectures="$architecture" \
        --include="$(IFS=,; echo "$*")" "$suite" "$root.partial" "deb $mirror $suite main"
    root=$root.partial
    printf '%s\n' root:x:0:0::/root:/bin/bash pi:x:1000:1000::/home/pi:/bin/bash sshd:x:101:65534::/run/sshd:/bin/false \
        nobody:x:65534:65534::/nonexistent:/bin/false >"$root/etc/passwd"
    printf '%s\n' root:x:0: tty:x:5: pi:x:1000: nogroup:x:65534: >"$root/etc/group"
    printf '%s:*:19000:0:99999:7:::\n' root pi sshd nobody >"$root/etc/shadow"
    chmod 640 "$root/etc/shadow"
    mkdir -p "$root/run/sshd" "$root/home/pi" "$root/opt/rig"
    chown 1000:1000 "$root/home/pi"
    chmod 755 "$root" "$root/home/pi"
    # qemu is dynamic, as plugins need: the libraries of this machine, each at its own path
    { ldd "$qemu" | grep -o '/[^ ]*'; } | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    echo "$stamp" >"$root/.stamp"
    rm -rf "${root%.partial}"
    mv "$root" "${root%.partial}"
}

# What else maintainer scripts would do: the alternatives that numpy needs, and compiled modules, without which every
# start of Python there takes seconds.
finish_root() { # ARCHITECTURE
    local root=$rigs/$1 folder
    [[ -e $root/.finished ]] && return
    for folder in "$root"/usr/lib/*/{blas,lapack}; do
        [[ -d $folder ]] && ln -sf "${folder##*/}/lib${folder##*/}.so.3" "$folder/.."
    done
    chroot "$root" python3 -m compileall -q -x 'test|idlelib|lib2to3|ensurepip|tkinter|turtle|pydoc_data' \
        /usr/lib/python3 /usr/lib/python3.11
    touch "$root/.finished"
}

# Debian 12 has no Swift, Debian 13 has: its compiler runs in a root of its own (see swift.sh).
build_swift() {
    local root=$rigs/swift
    [[ -e $root ]] && return
    rm -rf "$root.partial"
    mmdebstrap --quiet --variant=extract --include=swiftlang,g++,bash,coreutils trixie "$root.partial" "deb $mirror trixie main"
    mkdir "$root.partial/work"
    mv "$root.partial" "$root"
}

build_plugin() {
    local built=$rigs/insn_plugin.so
    [[ $built -nt $here/insn_plugin.c && $built -nt $here/install.sh ]] && return
    gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$built.partial" "$here/insn_plugin.c"
    mv "$built.partial" "$built"
}

install_packages
register_qemu
build_plugin
# Each waits for the network most of its time: all at once.
roots=() failed=0
(build_root arm64 /usr/bin/qemu-aarch64 "${board_packages[@]}"; finish_root arm64) & roots+=($!)
(build_root armhf /usr/bin/qemu-arm "${board_packages[@]}" python3-numpy; finish_root armhf) & roots+=($!)
build_swift & roots+=($!)
for root in "${roots[@]}"; do wait "$root" || failed=1; done
exit $failed
