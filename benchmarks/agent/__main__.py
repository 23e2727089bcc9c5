"""The agent's commands, on a board or here; each prints one JSON line unless it says otherwise.

It is run by path, from a folder that holds `benchmarks` and `runtimes`; a zip unpacks itself beside itself first.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
if not __package__:
    sys.path[0] = str(HERE.parents[2])  # else this folder's files could shadow the standard library's

LIBRARIES = ("numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime", "coremltools")
CHUNK_BYTES = 1 << 20
POLL_S = 0.05
STOP_S = 5.0
LOCK = "bench.lock"


def main() -> int:
    """Run one command: `COMMAND ARGUMENT... --OPTION VALUE...`, as the host writes it."""
    name, *words = sys.argv[1:]
    if name == "worker":
        from benchmarks.agent.worker import main as serve

        code = serve()
        sys.stderr.flush()
        os._exit(code)  # the libraries' own exit handlers are not ours to trust
    given: list[str] = []
    options: dict[str, str] = {}
    for word in (left := iter(words)):
        if word.startswith("--"):
            options[word[2:]] = next(left)
        else:
            given.append(word)
    if "site" in options:
        sys.path.insert(1, options["site"])
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = options["site"] + (os.pathsep + inherited if inherited else "")
    return COMMANDS[name](given, options)


def say(value: Any) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def facts(given: list[str], options: dict[str, str]) -> int:
    """Python's version, the system, and the versions of the libraries that are installed."""
    import importlib.util
    import platform

    modules = {name: _version(name) if importlib.util.find_spec(name) else None for name in LIBRARIES}
    system = {"machine": platform.machine(), "libc": platform.libc_ver()[1], "system": platform.system()}
    say({"python": list(sys.version_info[:2]), "bits": 64 if sys.maxsize > 2**32 else 32, **system, "modules": modules})
    return 0


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version({"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}.get(name, name))
    except PackageNotFoundError:
        return "unknown"


def check(given: list[str], options: dict[str, str]) -> int:
    """Reads {name: sha256} on stdin, prints the names that the folder lacks or has with other bytes."""
    wanted = json.load(sys.stdin)
    missing = []
    for name, sha256 in wanted.items():
        path = Path(given[0], name)
        if not path.is_file() or _sha256(path) != sha256:
            missing.append(name)
    say(missing)
    return 0


def _sha256(path: Path) -> str:
    import hashlib  # OpenSSL: megabytes that a worker has no use for

    found = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            found.update(chunk)
    return found.hexdigest()


def unpack(given: list[str], options: dict[str, str]) -> int:
    """Unpack wheels into a new folder, whole or not at all; a path that leads out of it is refused."""
    import shutil
    import zipfile

    into = Path(options["into"])
    part = into.with_name(into.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for wheel in given:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith("/") or ".." in name.split("/") or "\\" in name:
                    say({"refused": _refusal(f"{name!r} leads out of its folder", wheel, "do not trust it")})
                    return 2
            archive.extractall(part)
    part.replace(into)
    say({"unpacked": len(given)})
    return 0


def run(given: list[str], options: dict[str, str]) -> int:
    """Do a job and print its events; the runtimes' own output goes to stderr. One bench at a time, unless shared."""
    with contextlib.nullcontext() if "shared" in options else _locked() as refusal:
        if refusal:
            say({"refused": refusal})
            return 2
        _do(given[0], options["files"], say, sys.stderr.buffer)
    return 0


def _do(job: str, files: str, emit: Any, log: Any) -> None:
    from benchmarks.agent.run import run as do

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    path = Path(job).resolve()  # its folder is the job's own, and goes with it
    do(json.loads(path.read_text(encoding="utf-8")), Path(files), emit, log, path.parent)


def start(given: list[str], options: dict[str, str]) -> int:
    """Do a job in the background, out of reach of a link that breaks: its events go to a file, line by line."""
    with _locked() as refusal:
        if refusal:
            say({"refused": refusal})
            return 2
        Path(options["events"]).touch()
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            say({"pid": pid})
            os._exit(0)  # the lock goes with the child
        os.setsid()
        _note_lock()
        log = open(options["log"], "ab", buffering=0)  # noqa: SIM115
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((null, 0), (null, 1), (log.fileno(), 2)):
            os.dup2(descriptor, target)
        with open(options["events"], "a", encoding="utf-8", buffering=1) as events:
            _do(given[0], options["files"], lambda event: print(json.dumps(event), file=events, flush=True), log)
    return 0


def follow(given: list[str], options: dict[str, str]) -> int:
    """Print the bytes of a file of events from an offset on, as they come, until the agent that writes them is gone."""
    with open(given[0], "rb") as events:
        events.seek(int(options["from"]))
        while True:
            alive = _lives(int(options["pid"]))
            part = events.read(CHUNK_BYTES)
            if part:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            elif not alive:
                return 0
            else:
                time.sleep(POLL_S)


def stop(given: list[str], options: dict[str, str]) -> int:
    """End an agent and its workers."""
    pid = int(given[0])
    deadline = time.monotonic() + STOP_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while _lives(pid) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if _lives(pid):
            os.kill(pid, signal.SIGKILL)
    say({"stopped": pid})
    return 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # one that has ended and was not waited for still has a number
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except OSError:  # no Linux, or gone in this moment, which the next look will see
        return True
    return state != "Z"


@contextlib.contextmanager
def _locked() -> Iterator[dict[str, str]]:
    """The lock of this user's benches on this machine: what to say where another holds it, empty where it is ours."""
    import fcntl

    path = _cache() / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        remedy = "make that a folder which you may write, or set XDG_CACHE_HOME to one"
        yield _refusal(f"cannot keep other benches away ({error.strerror})", str(path), remedy)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 200).decode(errors="replace").strip()
        os.close(lock)
        yield _refusal(f"another bench runs here ({holder})", str(path), "wait for it, or stop it")
        return
    _note_lock()
    try:
        yield {}
    finally:
        os.close(lock)


def _note_lock() -> None:
    text = f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    (_cache() / LOCK).write_text(text, encoding="utf-8")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketship"


def _refusal(what: str, where: str, remedy: str) -> dict[str, str]:
    return {"what": what, "where": where, "remedy": remedy}


COMMANDS = {command.__name__: command for command in (facts, check, unpack, run, start, follow, stop)}

if __name__ == "__main__":
    sys.exit(main())
