"""Write a file in one rename, by a name that nobody can plant a link at; what a killed writer left is cleared."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Iterable, List, Tuple

from runtimes.errors import BadInput


def write_file(path: Path, content: Iterable[bytes], *, secret: bool = False) -> int:
    """Write pieces as one file, in one rename after they have reached the disk; their bytes in all.

    A secret is for its owner alone from the first byte on. Of two that write one file at once the later one wins.

    Raises BadInput where it cannot be written: what was there before is still there.
    """
    try:
        if path.exists() and not path.is_file():  # a rename would put a device or a pipe away
            raise BadInput("cannot be written (it is no plain file)", where=str(path), remedy="give another place")
        mark = _mark(path)
        _clear(path.parent, mark)
        descriptor, part = _created(path.parent, mark, 0o600 if secret else 0o666)
        try:
            with open(descriptor, "wb") as stream:
                size = sum(map(stream.write, content))
                stream.flush()
                os.fsync(descriptor)
                part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    return size


def _mark(path: Path) -> str:
    """What the names of a file's unfinished ones have in common; its own name may be as long as any can be."""
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]


def _created(folder: Path, mark: str, mode: int) -> Tuple[int, Path]:
    """A new file under a name that nobody can foresee, and so plant a link at; it is locked as long as it is open."""
    while True:
        part = folder / f".pocketship-{mark}-{secrets.token_hex(8)}.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with contextlib.suppress(OSError):  # of file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if part.exists():
            return descriptor, part
        os.close(descriptor)  # somebody cleared it between the two lines


def _clear(folder: Path, mark: str) -> None:
    """Remove what a writer of the same file left behind when it was killed: nobody holds its lock any more."""
    left: List[Path] = []
    with contextlib.suppress(PermissionError):  # a folder to drop things into
        left = [
            path for path in folder.iterdir() if re.fullmatch(rf"\.pocketship-{mark}-[0-9a-f]{{16}}\.part", path.name)
        ]
    for part in left:
        with contextlib.suppress(OSError):  # another one writes it, or has just ended
            descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(descriptor)


def _sync(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # a folder to drop things into: only who may read it can have it written out
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> BadInput:
    """What to raise for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadInput("cannot be written (the disk is full)", where=str(path), remedy="free some space")
    return BadInput(f"cannot be written ({error.strerror})", where=str(path), remedy="give another place")
