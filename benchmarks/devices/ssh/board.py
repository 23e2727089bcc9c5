"""What a board's Python runs while the agent is not there: this file's text is sent along with `python3 -c`.

Any Python 3 must be able to read it, to say that it is too old: no f-strings, plain annotations. Each command prints
JSON lines. Nothing outside ~/.cache/pocketship is written.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

CHUNK_BYTES = 1 << 16
LEFTOVER_S = 24 * 3600
GONE = 1 << 22
"""Stands for a process that has ended: Linux numbers none so high."""


def say(value: object) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def probe() -> None:
    """Python's version; our folder, its free bytes, who benches here. Sweeps up after benches that were killed."""
    folder = Path(os.environ.get("HOME") or "/").resolve() / ".cache" / "pocketship"
    found = {
        "python": list(sys.version_info[:2]),
        "folder": str(folder),
        "free_bytes": 0,
        "busy": "",
        "error": "",
        "has": [],
    }
    if tuple(found["python"]) >= (3, 9):  # type: ignore[arg-type]
        try:
            for name in ("files", "jobs"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            found["free_bytes"] = shutil.disk_usage(str(folder)).free
            found["busy"] = holder(folder / "bench.lock")
            sweep(folder)
            found["has"] = sorted(path.name for path in folder.iterdir())
        except OSError as error:
            found["error"] = error.strerror
    say(found)


def holder(path: Path) -> str:
    """What the agent that holds the lock wrote into it, empty where nobody holds it."""
    if not path.is_file():
        return ""
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return ""
        except BlockingIOError:
            return lock.read(200).strip() or "unknown"


def sweep(folder: Path) -> None:
    """Remove half files and jobs that nobody touched for a day."""
    old = time.time() - LEFTOVER_S
    for place, pattern in ((folder, "*.part"), (folder / "files", "*.part"), (folder / "jobs", "*")):
        for path in list(place.glob(pattern)):
            if path.lstat().st_mtime < old:
                remove(str(path))


def remove(*paths: str) -> None:
    """Remove files and folders; what is missing is as wanted."""
    for path in map(Path, paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            path.unlink()


def put(name: str, size_bytes: str, sha256: str, sender: str) -> None:
    """Take a file's bytes on stdin, from where an earlier try of the same sender was cut; once whole it gets its name.

    Prints how many bytes are there, then whether all is; nothing more where stdin ends too early.
    """
    path, part, wanted = Path(name), Path(name + "." + sender + ".part"), int(size_bytes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
        at = min(os.fstat(descriptor).st_size, wanted)
        say({"have": at})
        while at < wanted:  # at an offset: a reader that outlived its link writes the same bytes to the same place
            chunk = os.read(0, min(CHUNK_BYTES, wanted - at))
            if not chunk:
                return
            while chunk:
                written = os.pwrite(descriptor, chunk, at)
                at, chunk = at + written, chunk[written:]
        os.fsync(descriptor)
        if digest(descriptor) != sha256:
            remove(str(part))
            say({"error": "its bytes changed on the way", "full": False})
            return
        part.replace(path)
        say({"done": True})
    except OSError as error:
        remove(str(part))
        say({"error": error.strerror, "full": error.errno in (errno.ENOSPC, errno.EDQUOT)})


def digest(descriptor: int) -> str:
    """SHA-256 of an open file, in hexadecimal."""
    found = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while True:
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return found.hexdigest()
        found.update(chunk)


def tail(name: str, size_bytes: str) -> None:
    """The end of a file, as text; empty where there is none."""
    path = Path(name)
    say(path.read_bytes()[-int(size_bytes) :].decode("utf-8", "replace") if path.is_file() else "")


def running(job: str, events: str) -> None:
    """The number of the process that does a job, 0 where it was not begun, `GONE` where it has ended."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"start" in words and job.encode() in words:
                parents[int(place.name)] = int((place / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    firsts = [process for process in parents if parents[process] not in parents]  # not what it is about to start
    say(firsts[0] if firsts else GONE if Path(events).exists() else 0)


def leave(folder: str, sender: str) -> None:
    """Remove a job, and files of which a part has come."""
    parts = [path for place in (folder, folder + "/files") for path in Path(place).glob("*." + sender + ".part")]
    remove(folder + "/jobs/" + sender, *map(str, parts))


COMMANDS = {"probe": probe, "put": put, "remove": remove, "tail": tail, "running": running, "leave": leave}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
