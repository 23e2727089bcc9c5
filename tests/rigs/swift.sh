#!/usr/bin/env bash
# Runs a command where Swift's compiler is (build/rigs/swift, from tests/rigs/install.sh); FOLDER is /work there:
#
#   tests/rigs/swift.sh FOLDER COMMAND...
#
# Needs root. The mounts are in a namespace of their own and end with the command.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)/build/rigs/swift"
folder=$(realpath "$1")
shift
libraries=/usr/libexec/swift/lib/swift/linux:/usr/libexec/swift/lib/swift/host
# shellcheck disable=SC2016 # the inner shell expands it
exec unshare --mount bash -euc '
    root=$1 folder=$2 libraries=$3
    shift 3
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    mount --bind "$folder" "$root/work"
    exec chroot "$root" /usr/bin/env -i --chdir=/work HOME=/tmp PATH=/usr/libexec/swift/bin:/usr/bin LC_ALL=C \
        LD_LIBRARY_PATH="$libraries" "$@"' swift "$root" "$folder" "$libraries" "$@"
