"""Relative paths inside a folder that somebody else filled, and what really lies there: no link is ever followed."""

from __future__ import annotations

import os
import stat
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Iterator, Tuple

from runtimes.errors import BadInput

LONGEST_PATH, DEEPEST_PATH = 1024, 32
"""Characters and names of a path in a bundle: each folder costs time and memory, and removing deep ones recurses."""


def inside(name: str, where: str) -> None:
    """Raise BadInput for a relative path that leads out of its folder, or is written in any but the plain way."""
    if len(name) > LONGEST_PATH or name.count("/") >= DEEPEST_PATH:
        what = f"path {name!r:.80} has more than {LONGEST_PATH} characters or {DEEPEST_PATH} names"
        raise BadInput(what, where=where, remedy="do not trust this bundle")
    if not name.isprintable():  # NUL and half characters, which no system call takes, and what commands a terminal
        what = f"path {name!r:.80} holds a character that cannot be printed"
        raise BadInput(what, where=where, remedy="do not trust this bundle")
    plain = PurePosixPath(name)
    if (
        not plain.parts
        or str(plain) != name
        or name.startswith("/")
        or "\\" in name
        or ":" in name
        or ".." in plain.parts
    ):
        raise BadInput(f"path {name!r:.80} leads out of the bundle", where=where, remedy="do not trust this bundle")


def folded(path: str) -> str:
    """What is the same of two paths that a file system may take for one.

    Some know no case, no spelling of a character (Unicode's compatibility caseless match), no characters that are not
    seen, no dots and spaces at the end of a name.
    """
    for _ in range(2):  # folding the case of one spelling may give another
        path = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", path).casefold())
    seen = "".join(character for character in path if unicodedata.category(character) != "Cf")
    return "/".join(name.rstrip(". ") for name in seen.split("/"))


def walk(folder: Path) -> Iterator[Tuple[str, str]]:
    """Every entry below a folder, in order: its path relative to the folder, and "file", "folder" or what else it is.

    A folder that is empty is told as "empty folder". Raises OSError where a folder cannot be read.
    """
    pending = [""]
    while pending:
        place = pending.pop()
        names = sorted(entry.name for entry in (folder / place).iterdir())
        if place:
            yield place, "folder" if names else "empty folder"
        for name in names:
            path = f"{place}/{name}" if place else name
            mode = os.lstat(folder / path).st_mode
            if stat.S_ISDIR(mode):
                pending.append(path)
            elif stat.S_ISREG(mode):
                yield path, "file"
            else:
                yield path, "symbolic link" if stat.S_ISLNK(mode) else "special file"
