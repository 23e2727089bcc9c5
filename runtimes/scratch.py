"""Temporary folders: gone at the end, and where their process was killed, when the next one asks for a folder."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Iterator, Optional, Tuple

PREFIX = "pocketship-tmp-"
OWNER = ".pocketship-owner"
"""The file in such a folder that its process holds a lock on for as long as it lives; it tells who that is."""
NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")


@contextlib.contextmanager
def scratch_folder(parent: Optional[Path] = None) -> Iterator[Path]:
    """A new folder in `parent`, by default the system's folder for such, which goes with all that is in it.

    Raises OSError where it cannot be written.
    """
    place = Path(parent or tempfile.gettempdir())
    if parent is None:
        clear_abandoned(place)
    folder, owner = _owned(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owner)


def _owned(place: Path) -> Tuple[Path, int]:
    """A new folder with our mark in it, and the lock on that."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError):  # another process took it for abandoned before it was locked
            owner = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX)
            os.write(owner, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n".encode())
            with contextlib.suppress(FileNotFoundError):
                if (folder / OWNER).stat().st_ino == os.fstat(owner).st_ino:
                    return folder, owner
            os.close(owner)


@functools.cache
def clear_abandoned(place: Path) -> None:
    """Remove, once a process, the folders there that processes of this user made and did not live to remove."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):  # another's, or another process was faster
                    _clear(Path(entry.path))


def _clear(folder: Path) -> None:
    if os.lstat(folder).st_uid != os.geteuid():
        return
    if not any(folder.iterdir()):  # its process was killed before it could leave its mark
        folder.rmdir()
        return
    descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
