"""Write a bundle so that a kill at any moment leaves the old one or the new one: sibling folder, fsync, one rename."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from exporter.processes.signals import deferred_signals
from runtimes.bundle import MANIFEST
from runtimes.errors import BadInput, PocketshipError
from runtimes.types import Manifest

NEW_BUNDLE = "bundle"
WORK = "work"
OURS = "written-by-pocketship"
"""An empty file that says so of a folder: without it nothing in the folder is touched."""
FULL_DISK_BYTES = 1 << 20


@contextlib.contextmanager
def partial_folder(output: Path, force: bool, marker: str = MANIFEST, what: str = "bundle") -> Iterator[Path]:
    """A sibling of `output`, locked and empty but for `work`, `bundle` and a mark; gone at the end, whatever happened.

    Only a folder with the file `marker`, which makes it a `what`, is ever replaced. A sibling that a killed export left
    behind is taken over. Raises BadInput when `output` exists (without `force`), is no such folder, cannot be written
    beside, or is being written by another export, and when the sibling is somebody else's.
    """
    check_output(output, force, marker, what)
    partial = output.parent / f".{output.name}.partial"
    created = _make_parents(output.parent)
    try:
        with writing_errors(output):
            lock = _lock(partial, output)
        try:
            check_output(output, force, marker, what)  # again: another export may have ended while we waited
            with writing_errors(output):
                for name in (NEW_BUNDLE, WORK):
                    (partial / name).mkdir()
            yield partial
        finally:
            with deferred_signals():
                with contextlib.suppress(OSError):
                    _clear(partial)
                    (partial / OURS).unlink()  # the last: what is left behind by a kill is known to be ours, or empty
                    partial.rmdir()
                os.close(lock)
    finally:
        with deferred_signals():
            for folder in created:
                with contextlib.suppress(OSError):  # not empty: the bundle, or somebody else's file, is in it
                    folder.rmdir()


def check_output(output: Path, force: bool, marker: str = MANIFEST, what: str = "bundle") -> None:
    """Raise BadInput when `output` may not be written."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise BadInput("the output is not a folder", where=str(output), remedy="give -o a folder that does not exist")
    if not output.exists():
        return
    if not force:
        raise BadInput("the output folder exists", where=str(output), remedy="add --force to replace it")
    if any(output.iterdir()) and not (output / marker).is_file():
        raise BadInput(
            f"the output folder is no {what}, and --force replaces nothing else",
            where=str(output),
            remedy="remove it yourself",
        )


@contextlib.contextmanager
def writing_errors(output: Path) -> Iterator[None]:
    """Turn what the system says of writing into one line with its cause and mend."""
    try:
        yield
    except OSError as error:
        raise cannot_write(output, error) from error


def cannot_write(output: Path, error: OSError) -> BadInput:
    """The refusal for an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadInput("the disk is full", where=str(output), remedy="free some space or give -o another disk")
    if error.errno == errno.EFBIG:
        largest = "files are cut off here where they would be larger than this process may write"
        return BadInput(largest, where=str(output), remedy="allow larger ones: ulimit -f unlimited")
    return BadInput(
        f"cannot write ({error.strerror or error})",
        where=str(error.filename or output),
        remedy="give -o a folder you may write",
    )


def _make_parents(folder: Path) -> list[Path]:
    """Create `folder` with its parents; those that were not there before, the innermost first."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    nearest = next(f for f in (folder, *folder.parents) if f.exists())
    if not nearest.is_dir():
        raise BadInput("a parent of the output is no folder", where=str(nearest), remedy="give another -o")
    with writing_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _lock(partial: Path, output: Path) -> int:
    """An exclusive lock on the folder `partial`, cleared and marked, held by the open descriptor that is returned.

    Raises BadInput where another export holds it, and where it is none of ours.
    """
    while True:
        with contextlib.suppress(FileExistsError):  # left behind, or another export's, or no folder: open tells
            partial.mkdir()
        try:
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # the other export ended between the two lines
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise BadInput(
                "another export is writing this folder", where=str(output), remedy="wait for it, or give another -o"
            ) from error
        with contextlib.suppress(FileNotFoundError):
            if partial.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # we locked a folder that its owner has removed since
    try:
        if any(partial.iterdir()) and not (partial / OURS).is_file():
            raise BadInput(
                "this folder would be cleared, and pocketship did not make it",
                where=str(partial),
                remedy="give it another name, or give another -o",
            )
        (partial / OURS).touch()
        _clear(partial)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _clear(partial: Path) -> None:
    """Remove all but the mark, never through a link."""
    for leftover in partial.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        elif leftover.name != OURS:
            leftover.unlink()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json: the same bytes for the same manifest."""
    text = json.dumps(asdict(manifest), indent=2, allow_nan=False, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def commit(partial: Path, output: Path) -> None:
    """Put the new bundle in the place of `output` in one step, after its bytes have reached the disk.

    Raises BadInput when the file system cannot swap two folders, which replacing a bundle needs.
    """
    new = partial / NEW_BUNDLE
    with writing_errors(output):
        mode = new.stat().st_mode & 0o777  # what the user's umask allows; coremltools writes for the owner alone
        for path in (*new.rglob("*"), new):
            path.chmod(mode if path.is_dir() else mode & 0o666)
            _sync(path)
        if output.exists():
            _swap(new, output)
        else:
            new.rename(output)
        _sync(output.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(new: Path, old: Path) -> None:
    """Exchange two folders in one step: renameat2(2) on Linux, renamex_np(2) on macOS."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(new), os.fsencode(old)
    if sys.platform == "darwin":
        result = libc.renamex_np(*paths, ctypes.c_uint(2))  # RENAME_SWAP
    else:
        here = ctypes.c_int(-100)  # AT_FDCWD
        result = libc.renameat2(here, paths[0], here, paths[1], ctypes.c_uint(2))  # RENAME_EXCHANGE
    if result != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise BadInput(
                "this file system cannot replace a folder in one step",
                where=str(old),
                remedy="remove it first, or give another -o",
            )
        raise OSError(code, os.strerror(code), str(old))


@contextlib.contextmanager
def explain_full_disk(output: Path, partial: Path) -> Iterator[None]:
    """Say so when a stage failed on a full disk, or cut a file in `partial` off: converters call it their own crash."""
    try:
        yield
    except PocketshipError as error:
        if isinstance(error, BadInput):
            raise
        if shutil.disk_usage(output.parent).free < FULL_DISK_BYTES:
            raise cannot_write(output, OSError(errno.ENOSPC, "")) from error
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        files = (file.lstat() for file in partial.rglob("*"))
        if limit != resource.RLIM_INFINITY and any(f.st_size >= limit for f in files if stat.S_ISREG(f.st_mode)):
            raise cannot_write(output, OSError(errno.EFBIG, "")) from error
        raise
