"""An emulated Raspberry Pi: sshd in the arm64 root of tests/rigs/install.sh, reached on loopback with keys of its own.

`emulated_pi` starts one. Each has its own mounts, process numbers and port, so that several run side by side: the root
is the lower layer of an overlay in memory, /sys and /proc/cpuinfo are those of the board. (With the host's in sight
LiteRT crashes; without any it never loads XNNPACK, and other kernels would be tested.) All of it ends with one process.

Instruction counts: the board's environment names the qemu plugin in POCKETSHIP_INSN_PLUGIN. A process that is started
with QEMU_PLUGIN=file=$POCKETSHIP_INSN_PLUGIN and INSN_OUT=FILE in its environment counts in the 8 bytes of FILE, live:
the kernel starts qemu with the environment of the program that it is to run, and qemu reads QEMU_PLUGIN there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RIGS = Path(__file__).resolve().parent.parent.parent / "build" / "rigs"
PLUGIN = "/opt/rig/insn_plugin.so"
USER, USER_ID = "pi", 1000
START_S = 120.0


@dataclasses.dataclass(frozen=True)
class Model:
    """A board as /proc/cpuinfo shows it, and what qemu calls its processor."""

    name: str
    revision: str
    qemu_cpu: str
    part: str
    variant: str
    cpu_revision: int
    features: str
    architecture: str = "arm64"


ARMV8 = "fp asimd evtstrm crc32 cpuid"
ARMV8_2 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
ARMV7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32"
MODELS = {
    "3": Model("Raspberry Pi 3 Model B Plus Rev 1.3", "a020d3", "cortex-a53", "0xd03", "0x0", 4, ARMV8),
    "4": Model("Raspberry Pi 4 Model B Rev 1.5", "c03115", "cortex-a72", "0xd08", "0x0", 3, ARMV8),
    "5": Model("Raspberry Pi 5 Model B Rev 1.0", "c04170", "cortex-a76", "0xd0b", "0x4", 1, ARMV8_2),
    "4-32": Model("Raspberry Pi 4 Model B Rev 1.5", "c03115", "cortex-a15", "0xd08", "0x0", 3, ARMV7, "armhf"),
}
"""name -> model; "4-32" runs a 32-bit system, for which qemu names no processor of a Raspberry Pi."""


@dataclasses.dataclass(frozen=True)
class Pi:
    """A running board. `pid` is its first process, as the host numbers it: whatever it started ends with it."""

    model: Model
    port: int
    pid: int
    folder: Path

    @property
    def target(self) -> str:
        """What a user types after --on."""
        return f"ssh://{USER}@127.0.0.1:{self.port}"

    @property
    def identity(self) -> Path:
        """The private key that may log in."""
        return self.folder / "identity"

    @property
    def known_hosts(self) -> Path:
        """A file that knows the board's host key under its address."""
        return self.folder / "known_hosts"

    @property
    def root(self) -> Path:
        """The board's files, as seen from the host."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def home(self) -> Path:
        """The user's folder, as seen from the host."""
        return self.root / "home" / USER

    def enter(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the board as its root user, inside its mounts and process numbers."""
        command = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd=/", "--", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    def mount_small(self, path: str, size_bytes: int) -> None:
        """Put a file system of `size_bytes` on the board's folder `path`: a disk that gets full."""
        options = f"size={size_bytes},mode=755,uid={USER_ID},gid={USER_ID}"
        for folder in (Path(path).parent, Path(path)):
            (self.root / folder.relative_to("/")).mkdir(exist_ok=True)
            os.chown(self.root / folder.relative_to("/"), USER_ID, USER_ID)
        self._in_mounts("mount", "-t", "tmpfs", "-o", options, "tmpfs", f"{self.folder}/root{path}")

    def unmount(self, path: str) -> None:
        """Take away what `mount_small` put there."""
        self._in_mounts("umount", "--lazy", f"{self.folder}/root{path}")

    def _in_mounts(self, *words: str) -> None:
        """Run a program of the host among the board's mounts."""
        subprocess.run(["nsenter", f"--target={self.pid}", "--mount", "--", *words], check=True, timeout=60)

    def processes(self, word: str) -> list[int]:
        """The board's processes with `word` on their command line; see `processes_beside`."""
        return processes_beside(self.pid, word)

    def kill(self, word: str) -> None:
        """Kill the board's processes with `word` on their command line, and wait until they are gone."""
        for pid in self.processes(word):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.processes(word):
            time.sleep(0.05)


def processes_beside(pid: int, word: str) -> list[int]:
    """The processes that share process `pid`'s own numbers and have `word` on their command line, the oldest first.

    They are told as the host numbers them and sorted as the board does: the host's numbers may have wrapped around.
    """
    ours, found = Path(f"/proc/{pid}/ns/pid").readlink(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "ns/pid").readlink() == ours and word in (folder / "cmdline").read_text(errors="replace"):
                [numbers] = [line for line in (folder / "status").read_text().splitlines() if line.startswith("NSpid:")]
                found.append((int(numbers.split()[-1]), int(folder.name)))
    return [host for _, host in sorted(found)]


@contextlib.contextmanager
def emulated_pi(model: Model, folder: Path, *, counts: bool = True) -> Iterator[Pi]:
    """Start a board whose keys lie in `folder`; it ends, with its mounts and processes, when the context does.

    With `counts` its environment names the plugin that counts instructions: a bench there then takes longer.

    Raises RuntimeError where the rig is not installed, or sshd does not answer in time.
    """
    lower = RIGS / model.architecture
    if not (lower / ".finished").is_file() or not (RIGS / "insn_plugin.so").is_file():
        raise RuntimeError(f"{lower} is missing; run tests/rigs/install.sh")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("identity", "host_key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    port = _free_port()
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    asked = {
        "model": dataclasses.asdict(model),
        "lower": str(lower),
        "folder": str(folder),
        "port": port,
        "counts": counts,
    }
    words = json.dumps(asked)
    with open(folder / "sshd.log", "ab") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, "-I", __file__, words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_sshd(port, process, folder / "sshd.log")
        first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        yield Pi(model, port, first, folder)
    finally:
        process.send_signal(signal.SIGKILL)  # --kill-child: the first process of the board, and so all, end with it
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_sshd(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            link.settimeout(10)
            if link.recv(4) == b"SSH-":
                return
        time.sleep(0.1)
    raise RuntimeError(f"the emulated board's sshd does not answer; its log says: {log.read_text()[-2000:]}")


# --- Inside the board's own mounts and process numbers ---------------------------------------------------------------


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _cpuinfo(model: Model) -> str:
    architecture = "8" if model.architecture == "arm64" else "7"
    cores = [
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {model.features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: {architecture}\nCPU variant\t: {model.variant}\nCPU part\t: {model.part}\n"
        f"CPU revision\t: {model.cpu_revision}\n\n"
        for core in range(4)
    ]
    return "".join(cores) + f"Revision\t: {model.revision}\nSerial\t\t: 0000000000000000\nModel\t\t: {model.name}\n"


def _build_board(model: Model, lower: Path, folder: Path) -> Path:
    """Mount the board's root below `folder` and return it."""
    layer, root = folder / "layer", folder / "root"
    for path in (layer, root):
        path.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "tmpfs", str(layer))  # in memory: an overlay's upper layer may not lie on another overlay
    for name in ("upper", "work"):
        (layer / name).mkdir()
    _mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work", "overlay", str(root))
    _mount("-t", "proc", "proc", str(root / "proc"))
    (layer / "cpuinfo").write_text(_cpuinfo(model))
    _mount("--bind", str(layer / "cpuinfo"), str(root / "proc" / "cpuinfo"))
    _mount("-t", "tmpfs", "tmpfs", str(root / "sys"))
    _mount("-t", "tmpfs", "tmpfs", str(root / "dev" / "shm"))
    cpu = root / "sys" / "devices" / "system" / "cpu"
    cpu.mkdir(parents=True)
    for name in ("present", "possible", "online"):
        (cpu / name).write_text("0-3\n")
    tree = root / "sys" / "firmware" / "devicetree" / "base"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(model.name.encode() + b"\0")
    return root


def _configure_sshd(root: Path, folder: Path, port: int, environment: str) -> None:
    ssh = root / "etc" / "ssh"
    shutil.copy(folder / "host_key", ssh / "host_key")
    shutil.copy(folder / "identity.pub", ssh / "authorized_keys")
    (ssh / "authorized_keys").chmod(0o644)
    shutil.copy(RIGS / "insn_plugin.so", f"{root}{PLUGIN}")
    lines = (
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        "HostKey /etc/ssh/host_key",
        "AuthorizedKeysFile /etc/ssh/authorized_keys",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "PidFile none",
        "Subsystem sftp internal-sftp",
        f"SetEnv {environment}",
    )
    (ssh / "sshd_config").write_text("\n".join(lines) + "\n")


def main(words: str) -> None:
    """Become the board's sshd, its first process."""
    asked = json.loads(words)
    model, folder = Model(**asked["model"]), Path(asked["folder"])
    root = _build_board(model, Path(asked["lower"]), folder)
    counting = f" POCKETSHIP_INSN_PLUGIN={PLUGIN}" if asked["counts"] else ""
    _configure_sshd(root, folder, asked["port"], f"QEMU_CPU={model.qemu_cpu}{counting}")
    os.chroot(root)
    os.chdir("/")
    environment = {"QEMU_CPU": model.qemu_cpu, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    os.execve("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"], environment)


if __name__ == "__main__":
    main(sys.argv[1])
