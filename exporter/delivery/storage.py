"""The files of keys, signatures and sealed content, read with a limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from runtimes.errors import BadInput
from runtimes.files import open_regular

LARGEST = 1 << 32
LARGEST_KEY = 1 << 16
"""Bytes of a sealed file or an update; of a key or a signature."""
READ = 1 << 20
AGAIN = "get the file again, from where it is published"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A plain file, to be read piece by piece.

    Raises BadInput where it is none (a pipe would wait for ever), is too large, or cannot be read.
    """
    try:
        with open_regular(path, LARGEST) as stream:
            yield stream
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path), remedy="check the path") from error


class Readable(Protocol):
    """As much of a stream as is read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes."""


def pieces(stream: Readable, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a stream, a little at a time; fewer where it ends before."""
    while size > 0:
        piece = stream.read(min(size, READ))
        if not piece:
            return
        size -= len(piece)
        yield piece


def read_key(path: Path) -> bytes:
    """The bytes of a key's file.

    Raises BadInput where it is too large for one, or cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST_KEY + 1)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path), remedy="check the path") from error
    if len(content) > LARGEST_KEY:
        raise BadInput("the file is too large for a key", where=str(path), remedy="give another")
    return content
