"""A phone that is none: adb's protocol over TCP, whose shell is the arm64 root of tests/rigs/install.sh under qemu.

`emulated_phone` starts one, in mounts and process numbers of its own; Debian's real adb client drives it. It tests our
side of adb, not Android: it answers getprop, STAT, SEND, RECV and shell v2 as adbd does, and on demand it cuts the
link, is full, or has not allowed the computer. (protocol.txt, sync.txt and shell_service.h of Android's sources.)
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pi

TMP = "/data/local/tmp"
PHONE = pi.Model("pocketship's double of a phone", "0", "cortex-a76", "0xd0b", "0x4", 1, pi.ARMV8_2)
PROPERTIES = {
    "ro.product.manufacturer": "Pocketship",
    "ro.product.model": "Double 1",
    "ro.soc.manufacturer": "QEMU",
    "ro.soc.model": "Cortex-A76",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.kernel.qemu": "1",
}
HOST_TOOLS = ("flock", "taskset")
"""Of this machine's util-linux: they need its C library alone, which the root has for qemu."""
VERSION, MOST_PAYLOAD = 0x01000000, 256 * 1024
TOKEN, SIGNATURE = 1, 2
START_S = 60.0


@dataclass
class Phone:
    """A running double; `root` are its files as seen from the host."""

    port: int
    pid: int
    process: subprocess.Popen[str]
    folder: Path

    @property
    def serial(self) -> str:
        """As adb names it."""
        return f"127.0.0.1:{self.port}"

    @property
    def target(self) -> str:
        """What a user types after --on."""
        return f"adb://{self.serial}"

    @property
    def root(self) -> Path:
        """The phone's files, as seen from the host."""
        return Path(f"/proc/{self.pid}/root{self.folder}/root")

    @property
    def store(self) -> Path:
        """Where pocketship keeps its files there."""
        return self.root / "data/local/tmp/pocketship"

    def tell(self, *words: object) -> None:
        """One of the commands of `Double.obey`; it is done when this returns."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def pushed(self) -> list[str]:
        """The names of all files that were pushed so far, in order."""
        log = self.folder / "pushed"
        return log.read_text().splitlines() if log.exists() else []

    def processes(self, ending: str) -> list[int]:
        """The phone's processes with a word on their command line that ends so; see `pi.processes_beside`."""
        return pi.processes_beside(self.pid, f"{ending}\0")


@contextlib.contextmanager
def emulated_phone(folder: Path, properties: dict[str, str] | None = None) -> Iterator[Phone]:
    """Start a double; it ends, with its mounts and processes, when the context does.

    Raises RuntimeError where the rig is not installed.
    """
    lower = pi.RIGS / PHONE.architecture
    if not (lower / ".stamp").is_file() or shutil.which("adb") is None:
        raise RuntimeError(f"{lower} or adb is missing; run tests/rigs/install.sh")
    folder.mkdir(parents=True, exist_ok=True)
    words = json.dumps(
        {"lower": str(lower), "folder": str(folder), "properties": PROPERTIES if properties is None else properties}
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, "-I", __file__, words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        port = int(process.stdout.readline())
        first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        yield Phone(port, first, process, folder)
    finally:
        process.send_signal(signal.SIGKILL)  # --kill-child: all that it started ends with it
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe:
                    pipe.close()


@contextlib.contextmanager
def adb_server(home: Path) -> Iterator[dict[str, str]]:
    """The environment of an adb client whose server has a port and keys of its own; it ends with the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home.mkdir(parents=True, exist_ok=True)
    environment = {"ANDROID_ADB_SERVER_PORT": port, "HOME": str(home), "ANDROID_SDK_HOME": str(home), "ADB_MDNS": "0"}
    try:
        yield environment
    finally:
        words = ["adb", "-P", port, "kill-server"]
        subprocess.run(words, env={**os.environ, **environment}, capture_output=True, timeout=30, check=False)


# --- Inside the phone's own mounts and process numbers ---------------------------------------------------------------


class Double:
    """The phone: its root, its state, its links."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.links: list[socket.socket] = []
        self.allowed, self.reachable = True, True
        self.bytes_left: float = float("inf")

    def obey(self, words: list[str]) -> None:
        """What a test may ask for."""
        if words[0] == "cut":  # every link, and none is taken before "mend"
            self.reachable = False
            self.close_links()
        elif words[0] == "cut-after":  # so many bytes of a file that is pushed
            self.bytes_left = float(words[1])
        elif words[0] == "mend":
            self.reachable, self.bytes_left = True, float("inf")
        elif words[0] == "forbid":  # as before the user's answer to "Allow USB debugging?"
            self.allowed = False
            self.close_links()
        elif words[0] == "allow":
            self.allowed = True
            self.close_links()
        elif words[0] == "small":  # a storage of so many bytes
            options = f"size={words[1]},mode=1777"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", f"{self.root}{TMP}"], check=True)
        elif words[0] == "large":
            subprocess.run(["umount", "--lazy", f"{self.root}{TMP}"], check=True)
        else:
            raise ValueError(words)

    def close_links(self) -> None:
        """Drop every link, as a pulled cable does."""
        for link in self.links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        self.links.clear()

    def count(self, size_bytes: int) -> None:
        """A file's bytes came; the link may have to go."""
        self.bytes_left -= size_bytes
        if self.bytes_left < 0:
            self.obey(["cut"])

    def serve(self, listener: socket.socket) -> None:
        """Take links for ever."""
        while True:
            link, _ = listener.accept()
            if self.reachable:
                self.links.append(link)
                threading.Thread(target=Link(self, link).serve, daemon=True).start()
            else:
                link.close()


def command_number(name: str) -> int:
    """A message's four letters as the protocol sends them."""
    return int(struct.unpack("<I", name.encode())[0])


class Link:
    """One transport: messages of 24 bytes and a payload."""

    def __init__(self, double: Double, link: socket.socket) -> None:
        self.double, self._link = double, link
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._opened = 0

    def send(self, name: str, first: int, second: int, payload: bytes = b"") -> None:
        """One message; the checksum is the sum of its bytes."""
        number = command_number(name)
        head = struct.pack("<6I", number, first, second, len(payload), sum(payload) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._sending:
            self._link.sendall(head + payload)

    def serve(self) -> None:
        """Messages until the link is gone, which its streams hear of."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, first, second, size, _, _ = struct.unpack("<6I", self._receive(24))
                self._take(struct.pack("<I", number).decode("ascii"), first, second, self._receive(size))
        for stream in list(self._streams.values()):
            stream.end()

    def _receive(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            part = self._link.recv(size - len(got))
            if not part:
                raise EOFError
            got += part
        return got

    def _take(self, name: str, first: int, second: int, payload: bytes) -> None:
        if name == "CNXN" and self.double.allowed:
            banner = (
                "device::ro.product.name=double;ro.product.model=Double;ro.product.device=double;features=shell_v2,cmd"
            )
            self.send("CNXN", VERSION, MOST_PAYLOAD, banner.encode() + b"\0")
        elif name == "CNXN" or (
            name == "AUTH" and first == SIGNATURE
        ):  # no key is known here; the public key is ignored
            self.send("AUTH", TOKEN, 0, b"T" * 20)
        elif name == "OPEN":
            self._opened += 1
            stream = Stream(self, self._opened, first, payload.rstrip(b"\0").decode())
            self._streams[self._opened] = stream
            threading.Thread(target=stream.serve, daemon=True).start()
        elif name == "WRTE" and second in self._streams:
            self._streams[second].feed(payload)
            self.send("OKAY", second, first)
        elif name == "OKAY" and second in self._streams:
            self._streams[second].acknowledged.release()
        elif name == "CLSE" and second in self._streams:
            self._streams.pop(second).end()


class Stream:
    """One service of a link: a shell command, or files."""

    def __init__(self, link: Link, ours: int, theirs: int, service: str) -> None:
        self._link, self._ours, self._theirs, self._service = link, ours, theirs, service
        self.acknowledged = threading.Semaphore(0)
        self._changed = threading.Condition()
        self._buffer, self._ended = b"", False

    def feed(self, payload: bytes) -> None:
        """Bytes of the client."""
        with self._changed:
            self._buffer += payload
            self._changed.notify()

    def end(self) -> None:
        """The client closed the stream, or the link is gone."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self.acknowledged.release()

    def _read(self, size: int) -> bytes:
        with self._changed:
            while len(self._buffer) < size:
                if self._ended:
                    raise EOFError
                self._changed.wait()
            got, self._buffer = self._buffer[:size], self._buffer[size:]
            return got

    def _write(self, payload: bytes) -> None:
        for at in range(0, len(payload), 65536):
            if self._ended:
                raise EOFError
            self._link.send("WRTE", self._ours, self._theirs, payload[at : at + 65536])
            self.acknowledged.acquire()

    def serve(self) -> None:
        """Do what the client opened the stream for."""
        with contextlib.suppress(EOFError, OSError):
            self._link.send("OKAY", self._ours, self._theirs)
            if self._service.startswith("sync:"):
                self._sync()
            elif self._service.startswith("shell"):
                self._shell(*self._service.split(":", 1))
            self._link.send("CLSE", self._ours, self._theirs)

    def _shell(self, kind: str, command: str) -> None:
        words = ["chroot", str(self._link.double.root), "/bin/sh", "-c", command]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "QEMU_CPU": PHONE.qemu_cpu}
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        framed = kind.startswith("shell,v2")

        def pump(number: int, pipe: int) -> None:
            with contextlib.suppress(EOFError, OSError):
                while part := os.read(pipe, 32768):
                    self._write(struct.pack("<BI", number, len(part)) + part if framed else part)

        assert process.stdout and process.stderr
        errors = threading.Thread(target=pump, args=(2, process.stderr.fileno()), daemon=True)
        errors.start()
        pump(1, process.stdout.fileno())
        if self._ended:  # the link is gone: what still writes meets a closed pipe, as on a phone
            process.stdout.close()
            process.stderr.close()
            raise EOFError
        errors.join()
        code = process.wait()
        if framed:
            self._write(struct.pack("<BIB", 3, 1, code & 255 if code >= 0 else 128 - code))

    # --- files

    def _path(self, name: str) -> Path:
        return Path(f"{self._link.double.root}{posixpath.normpath('/' + name)}")

    def _sync(self) -> None:
        while True:
            kind, size = struct.unpack("<4sI", self._read(8))
            if kind == b"QUIT":
                return
            name = self._read(size).decode()
            if kind == b"STAT":
                try:
                    found = self._path(name).stat()
                    self._write(struct.pack("<4sIII", b"STAT", found.st_mode, found.st_size, int(found.st_mtime)))
                except OSError:
                    self._write(struct.pack("<4sIII", b"STAT", 0, 0, 0))
            elif kind == b"SEND":
                self._take_file(*name.rsplit(",", 1))
            elif kind == b"RECV":
                self._give_file(name)

    def _take_file(self, name: str, mode: str) -> None:
        fault = ""
        target = None
        try:
            target = open(self._path(name), "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            fault = str(error.strerror)
        with open(self._link.double.folder / "pushed", "a") as log:
            log.write(posixpath.basename(name) + "\n")
        while True:
            kind, size = struct.unpack("<4sI", self._read(8))
            if kind == b"DONE":
                break
            content = self._read(size)
            self._link.double.count(size)
            try:
                if target and not fault:
                    written = target.write(content)
                    if written < size:
                        target.write(content[written:])
            except OSError as error:
                fault = str(error.strerror)
        if target:
            target.close()
            self._path(name).chmod(int(mode) & 0o777)
        message = fault.encode()
        self._write(struct.pack("<4sI", b"FAIL" if fault else b"OKAY", len(message)) + message)

    def _give_file(self, name: str) -> None:
        try:
            content = self._path(name).read_bytes()
        except OSError as error:
            message = str(error.strerror).encode()
            self._write(struct.pack("<4sI", b"FAIL", len(message)) + message)
            return
        for at in range(0, len(content), 65536):
            part = content[at : at + 65536]
            self._write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self._write(struct.pack("<4sI", b"DONE", 0))


def _furnish(root: Path, properties: dict[str, str]) -> None:
    """What a phone has and the root has not."""
    (root / TMP[1:]).mkdir(parents=True)
    lines = [f"echo {shlex.quote(f'[{key}]: [{value}]')}" for key, value in properties.items()]
    getprop = root / "usr/bin/getprop"
    if properties:
        getprop.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
        getprop.chmod(0o755)
    for name in HOST_TOOLS:
        shutil.copy(f"/usr/bin/{name}", root / "usr/bin" / name)


def main(words: str) -> None:
    """Serve, and obey the commands on stdin."""
    asked = json.loads(words)
    folder = Path(asked["folder"])
    root = pi._build_board(PHONE, Path(asked["lower"]), folder)
    _furnish(root, asked["properties"])
    double = Double(root, folder)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=double.serve, args=(listener,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        double.obey(line.split())
        print("done", flush=True)
    time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
