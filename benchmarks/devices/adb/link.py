"""The real `adb` client as a process: which phone, commands on it, files to it, lines from it as they come."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.devices import CHECK_S, Interrupted
from runtimes.errors import BadInput, NotInstalled, PocketshipError

COMMAND_S = 60.0
SLOWEST_BYTES_PER_S = 500_000
"""A link that is slower than this is taken for dead."""
LONGEST_LINE_BYTES = 1 << 28
MOST_ANSWER_BYTES, CHUNK_BYTES = 1 << 24, 1 << 16
STDERR_TAIL_BYTES = 4096
EXIT = "@exit "
"""What a command's last line begins with: adb's own exit code does not tell a dropped link from a failed command."""
LINK_REMEDY = "check the cable or the network, and bench again"
STATES = {
    "unauthorized": (
        "the phone has not allowed this computer to debug it",
        "unlock it and accept its question about USB debugging",
    ),
    "offline": ("the phone is offline", "unlock it, plug it in again, or run adb reconnect"),
    "no permissions": (
        "this user may not open the phone's USB device",
        "apt install android-sdk-platform-tools-common, and plug the phone in again",
    ),
}


@dataclass(frozen=True)
class Done:
    """How a command on the phone ended; `errors` is the end of its stderr, in one line."""

    code: int
    output: str
    errors: str


def pick(target: str) -> str:
    """The serial number of the phone that `adb` or `adb://SERIAL` means.

    Raises NotInstalled without adb, and BadInput where there is no such phone, more than one, or one that is not ready.
    """
    wanted = target.partition("://")[2]
    found = _connected()
    if ":" in wanted and found.get(wanted, "offline") == "offline":  # over the network, and adb has not gone back to it
        _adb("disconnect", wanted)
        _adb("connect", wanted)
        found = _connected()
    if not found:
        raise BadInput("no phone is connected", where=target, remedy="plug one in with USB debugging switched on")
    if wanted and wanted not in found:
        raise BadInput(f"no such phone, there is {', '.join(found)}", where=target, remedy="give one of them, or adb")
    if not wanted and len(found) > 1:
        choices = ", ".join(f"adb://{serial}" for serial in found)
        raise BadInput(f"{len(found)} phones are connected", where=target, remedy=f"give one of {choices}")
    serial = wanted or next(iter(found))
    state = found[serial]
    if state != "device":
        known = next((name for name in STATES if state.startswith(name)), None)
        what, remedy = STATES[known] if known else (f"the phone is in state {state!r}", "start Android on it")
        raise BadInput(what, where=f"adb://{serial}", remedy=remedy)
    return serial


def _connected() -> dict[str, str]:
    """serial -> state, in adb's order."""
    lines = _adb("devices").stdout.decode(errors="replace").splitlines()
    parts = (line.partition("\t") for line in lines if "\t" in line)
    return {serial: state.strip() for serial, _, state in parts}


def _adb(*words: str, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[bytes]:
    client = shutil.which("adb")
    if client is None:
        raise NotInstalled("adb is not installed", remedy="apt install adb, or install Android's platform-tools")
    pipe, where = subprocess.PIPE, " ".join(words[:3])
    with subprocess.Popen([client, *words], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        try:
            stdout, stderr = _answer(process, time.monotonic() + timeout_s)
            code = process.wait(timeout_s)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            what = f"adb gave no answer within {timeout_s:g} s"
            raise Interrupted("link-lost", what, where=where, remedy=LINK_REMEDY) from error
        except OverflowError as error:
            what = f"an answer of more than {MOST_ANSWER_BYTES:,} bytes is of no bench"
            raise Interrupted("malformed", what, where=where, remedy="do not trust this phone") from error
        finally:
            process.kill()
    return subprocess.CompletedProcess(words, code, stdout, stderr)


def _answer(process: subprocess.Popen[bytes], until_s: float) -> list[bytes]:
    """All of a process's stdout and stderr; raises TimeoutError where it does not end, OverflowError for too much."""
    assert process.stdout and process.stderr
    found = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as waiting:
        for descriptor in found:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, until_s - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, CHUNK_BYTES)
                found[key.fd] += chunk
                if not chunk:
                    waiting.unregister(key.fd)
                if len(found[key.fd]) > MOST_ANSWER_BYTES:
                    raise OverflowError
    return [bytes(part) for part in found.values()]


class Phone:
    """A phone that `pick` found."""

    def __init__(self, serial: str, check: Callable[[], None] = lambda: None) -> None:
        self.serial, self._check = serial, check
        self.where = f"adb://{serial}"

    def shell(self, command: str, timeout_s: float = COMMAND_S) -> Done:
        """Run a command of the phone's shell, whose words the caller has quoted.

        Raises Interrupted where the link is lost.
        """
        done = _adb("-s", self.serial, "shell", marked(command), timeout_s=timeout_s)
        output, marker, code = done.stdout.decode(errors="replace").rpartition(EXIT)
        if not marker or not re.fullmatch(r"\d{1,3}", code.strip(), re.ASCII):
            raise self.lost(done.stderr)
        return Done(int(code), output, one_line(done.stderr))

    def push(self, path: Path, to: str) -> None:
        """Put a file on the phone: under another name first, so that half a file is never taken for a whole one.

        Raises Interrupted where the link is lost or the phone is full, BadInput where the phone refuses.
        """
        timeout_s = COMMAND_S + path.stat().st_size / SLOWEST_BYTES_PER_S
        part = f"{to}.part"
        done = _adb("-s", self.serial, "push", str(path.resolve()), part, timeout_s=timeout_s)
        said = one_line(done.stdout + done.stderr)
        if done.returncode == 0:
            moved = self.shell(f"chmod 755 {shlex.quote(part)} && mv {shlex.quote(part)} {shlex.quote(to)}")
            if moved.code == 0:
                return
            said = f"remote {moved.errors}"
        if "No space left" in said:
            self.forget(part)
            raise Interrupted(
                "disk-full", "the phone has no room left", where=self.where, remedy="free some of its storage"
            )
        if "remote " in said:
            remedy = "look at its storage with adb shell df, and bench again"
            raise BadInput(f"the phone does not take {path.name} ({said})", where=self.where, remedy=remedy)
        raise self.lost(done.stderr or done.stdout)

    def forget(self, path: str) -> None:
        """Remove a file or folder, if the phone is still there."""
        with contextlib.suppress(PocketshipError):
            self.shell(shlex.join(["rm", "-rf", path]), timeout_s=COMMAND_S / 3)

    def lines(self, command: str, quiet_s: float, tail: list[str]) -> Generator[bytes, None, None]:
        """The lines of a command's output as they come; the last one is of its exit code, and begins with `EXIT`.

        `tail` gets the end of its stderr. Raises Interrupted where the link is lost, no line comes for `quiet_s`, or
        one is too long to be of a bench.
        """
        client = shutil.which("adb") or "adb"
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [client, "-s", self.serial, "shell", marked(command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                ended = False
                for line in _lines_of(process, quiet_s, self._check):
                    ended = ended or line.startswith(EXIT.encode())
                    if line:
                        yield line
                    else:
                        raise self.lost(b"", f"the phone told nothing for {quiet_s:g} s")
            finally:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()
                errors.seek(max(0, errors.seek(0, 2) - STDERR_TAIL_BYTES))
                said = errors.read()
                tail.append(one_line(said))
            if not ended:
                raise self.lost(said)

    def lost(self, said: bytes, what: str = "the link to the phone was lost") -> Interrupted:
        """The error of a link that is gone; `said` is what adb had to say."""
        detail = f" ({one_line(said)})" if said.strip() else ""
        return Interrupted("link-lost", what + detail, where=self.where, remedy=LINK_REMEDY)


def _lines_of(
    process: subprocess.Popen[bytes], quiet_s: float, check: Callable[[], None]
) -> Generator[bytes, None, None]:
    """Lines until the process closes its stdout; an empty one where none came for `quiet_s`."""
    found: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout
        with contextlib.suppress(ValueError):  # the pipe is closed under us when the phone is given up
            while line := process.stdout.readline(LONGEST_LINE_BYTES):
                found.put(line)
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    heard_s = time.monotonic()
    while True:
        check()
        try:
            line = found.get(timeout=min(CHECK_S, quiet_s))
        except queue.Empty:
            if time.monotonic() - heard_s < quiet_s:
                continue
            yield b""
            return
        heard_s = time.monotonic()
        if line is None:
            return
        if len(line) >= LONGEST_LINE_BYTES:
            raise Interrupted("malformed", f"a line of {len(line)} bytes is of no bench", where="the phone's output")
        yield line


def marked(command: str) -> str:
    """A command that tells its own exit code in a line behind everything it printed."""
    return f'( {command}\n); code=$?; echo; echo "{EXIT}$code"'


def one_line(said: bytes) -> str:
    """Text of a process in one line."""
    return " ".join(said[-STDERR_TAIL_BYTES:].decode(errors="replace").split())
