"""The files of keys, signatures and sealed content: read with a limit, written in one rename."""

from __future__ import annotations

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


def write_file(path: Path, content: bytes) -> None:
    """In one rename.

    Raises BadInput where it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> BadInput:
    """What to raise for a file that cannot be written."""
    return BadInput(f"cannot be written ({error.strerror})", where=str(path), remedy="give another place")
