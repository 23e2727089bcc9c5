"""The files of keys, signatures and sealed content: read with a limit, written in one rename."""

from __future__ import annotations

import os
from pathlib import Path

from runtimes.errors import BadInput

LARGEST = 1 << 32
AGAIN = "get the file again, from where it is published"


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises BadInput where it is too large, or cannot be read.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput("the file is too large", where=str(path), remedy="give another")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path), remedy="check the path") from error


def write_file(path: Path, content: bytes, *, secret: bool = False) -> None:
    """In one rename; a secret is for its owner alone from the first byte on.

    Raises BadInput where it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o666), "wb") as stream:
            stream.write(content)
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> BadInput:
    """What to raise for a file that cannot be written."""
    return BadInput(f"cannot be written ({error.strerror})", where=str(path), remedy="give another place")
