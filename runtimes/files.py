"""Read files that others wrote: regular ones of a bounded size, never a pipe that waits; JSON whose values all fit."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import IO, Any, Dict, List, Tuple

DOCUMENT_BYTES = 1 << 24
"""The most that a file of JSON may have, where nothing else is said; a large model's manifest has 300 KB."""
MOST_CONTAINERS = 1 << 20
"""Lists and objects in it: Python makes up to thirty times the bytes of them."""
DEEPEST = 64
TOO_DEEP = f"nested more than {DEEPEST} deep"
WIDE_NUMBER = re.compile(rb"[0-9]{19}|[0-9.][eE][+]?[0-9]{3}")


def open_regular(path: Path, most_bytes: int) -> IO[bytes]:
    """Open a file for reading.

    Raises OSError, also for one that is not regular or has more than `most_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer would wait for one
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"{found.st_size:,} bytes are more than {most_bytes:,}", str(path))
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_regular(path: Path, most_bytes: int = DOCUMENT_BYTES) -> bytes:
    """The bytes of a file; raises OSError as `open_regular`."""
    with open_regular(path, most_bytes) as file:
        return file.read(most_bytes + 1)  # it may grow while it is read


def parse_json(data: bytes, most_containers: int = MOST_CONTAINERS) -> Any:
    """The value of JSON in UTF-8.

    Raises ValueError for what is none, is nested too deeply or has too many parts, and for a number or a text that
    could not be written again: of more than 64 bits, infinite, NaN, or half a character; and for two equal keys.
    """
    if data.count(b"{") + data.count(b"[") > most_containers:
        raise ValueError(f"more than {most_containers:,} lists and objects")
    hooks: Any = {"parse_int": _whole, "parse_float": _finite} if WIDE_NUMBER.search(data) else {}
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_unequal, **hooks)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    level = [value]
    for _ in range(DEEPEST):
        held = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [inner for values in held for inner in values if type(inner) in (dict, list)]
    if level:
        raise ValueError(TOO_DEEP)
    return value


def _unequal(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # Python takes the last of them, other readers take the first
        raise ValueError("an object has two equal keys")
    return found


def _no_number(token: str) -> None:
    raise ValueError(f"{token} is no JSON")


def _whole(text: str) -> int:
    value = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{text:.20}... has more than 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.20} is infinite")
    return value
