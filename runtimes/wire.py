"""Protobuf's wire format, read field by field without the library: where a message's parts lie in a file."""

from __future__ import annotations

import mmap
from typing import Iterator, Tuple, Union

Bytes = Union[bytes, mmap.mmap]
Place = Tuple[int, int]
"""Where the bytes of a field begin and end."""
Field = Tuple[int, Union[int, Place, None]]

FIXED_BYTES = {1: 8, 5: 4}
"""Bytes of protobuf's two wire types of fixed size."""


def fields(file: Bytes, place: Place) -> Iterator[Field]:
    """Of a message, each field's number and its varint (up to 64 bits), or where its bytes lie; None for others.

    Raises ValueError or IndexError for bytes that are no message.
    """
    at, end = place
    while at < end:
        key, at = _varint(file, at)
        if (
            key >> 32
        ):  # of a wider one protobuf's own readers take the low bits, and find another field than is seen here
            raise ValueError("a field's number is too large")
        kind = key & 7
        value: Union[int, Place, None] = None
        if kind == 0:
            value, at = _varint(file, at)
        elif kind == 2:
            length, at = _varint(file, at)
            value, at = (at, at + length), at + length
        elif kind in FIXED_BYTES:
            at += FIXED_BYTES[kind]
        else:
            raise ValueError(f"protobuf knows no wire type {kind}")
        if at > end:
            raise ValueError("a field leads out of its message")
        yield key >> 3, value


def messages(file: Bytes, place: Place, *path: int) -> Iterator[Place]:
    """Where the messages lie that a path of field numbers leads to."""
    for number, value in fields(file, place):
        if number == path[0] and isinstance(value, tuple):
            if len(path) == 1:
                yield value
            else:
                yield from messages(file, value, *path[1:])


def text(file: Bytes, place: Place) -> str:
    """The bytes of a string field as text; raises ValueError where they are none."""
    return bytes(file[place[0] : place[1]]).decode()


def entries(file: Bytes, place: Place, *path: int) -> Iterator[Tuple[str, Place]]:
    """The entries of a map with text as keys: each key, and where its value lies."""
    for entry in messages(file, place, *path):
        found = {number: value for number, value in fields(file, entry) if isinstance(value, tuple)}
        if 1 in found and 2 in found:
            yield text(file, found[1]), found[2]


def _varint(file: Bytes, at: int) -> Tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = file[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        if shift > 63:
            raise ValueError("a number is too long")
