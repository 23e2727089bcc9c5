"""The file that an update travels in: a header in JSON, what each file of the new bundle is made from, and a hash.

An update comes from a network: nothing in it is believed before its hash, its sizes and its paths are checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import IO

from exporter.delivery.storage import pieces
from runtimes.bundle import inside
from runtimes.errors import BadInput
from runtimes.files import parse_json
from runtimes.records import from_json

MAGIC = b"pocketship update 1\n"
LONGEST_HEADER, MOST_PARTS = 1 << 22, 10_000
LARGEST_BUNDLE = 1 << 32
"""Bytes of all files together."""
MOST_BASES, MOST_RATIO, SMALL_BUNDLE = 4, 32, 1 << 24
"""What an update makes is at most four times its base, 32 times its own bytes (weights, sparse ones too, are compressed
to no less than a tenth) and 16 MiB: more is a bomb, and `delta` writes none."""
AGAIN = "download the update again"
KINDS = ("same", "vector", "patch")


@dataclass(frozen=True)
class Part:
    """One file of the new bundle, `size` bytes with this hash.

    `source` is the old bundle's file that it is made from, "" where there is none. `kind` "same": that file itself;
    "patch": a zstd frame with that file as its dictionary; "vector": such a frame, which gives the new file with the
    old tensors in it, and a task vector to add to those. Offsets and lengths are places in the update's data.
    """

    path: str
    kind: str
    size: int
    sha256: str
    source: str = ""
    offset: int = 0
    length: int = 0
    vector_offset: int = 0
    vector_length: int = 0


@dataclass(frozen=True)
class Header:
    """`base` and `result` are the SHA-256 of the old and the new bundle's manifest.json, which cover every file."""

    name: str
    base: str
    result: str
    base_update: int
    update: int
    parts: tuple[Part, ...]


def write(header: Header, data: bytes) -> bytes:
    """The update's bytes."""
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    content = MAGIC + len(text).to_bytes(8, "little") + text + data
    return content + hashlib.sha256(content).digest()


@dataclass(frozen=True)
class Update:
    """An update that was read: its header, and the stream in which its data begin at `start`."""

    header: Header
    size_bytes: int
    stream: IO[bytes]
    start: int

    def piece(self, offset: int, length: int) -> bytes:
        """So many bytes of its data."""
        self.stream.seek(self.start + offset)
        return self.stream.read(length)


def read(stream: IO[bytes], where: str = "") -> Update:
    """An update, of which the header alone is in memory; `where` is the file's name in an error.

    Raises BadInput for bytes that are no update, are cut off or changed, or lead out of the bundle.
    """
    size, start = stream.seek(0, os.SEEK_END), len(MAGIC) + 8
    stream.seek(0)
    if stream.read(len(MAGIC)) != MAGIC:
        raise BadInput("this is no update", where=where, remedy="give a file that pocketship delta wrote")
    stream.seek(0)
    digest = hashlib.sha256()
    for piece in pieces(stream, size - 32):
        digest.update(piece)
    if size < start + 32 or stream.read(32) != digest.digest():
        raise BadInput("the update is cut off or damaged", where=where, remedy=AGAIN)
    stream.seek(len(MAGIC))
    length = int.from_bytes(stream.read(8), "little")
    if length > min(LONGEST_HEADER, size - start - 32):
        raise BadInput("the update's header is too long", where=where, remedy=AGAIN)
    try:
        header: Header = from_json(Header, parse_json(stream.read(length)))
    except ValueError as error:
        raise BadInput(f"the update's header is no JSON ({error})", where=where, remedy=AGAIN) from error
    except BadInput as error:
        raise BadInput(f"the update's header: {error.where}: {error.what}", where=where, remedy=AGAIN) from error
    _check_header(header, size - start - length - 32, where)
    return Update(header, size, stream, start + length)


def _check_header(header: Header, data_bytes: int, where: str) -> None:
    """Raise BadInput where the header of an update with so many bytes of data makes no sense."""
    hashes = (header.base, header.result, *(part.sha256 for part in header.parts))
    if not all(re.fullmatch("[0-9a-f]{64}", found) for found in hashes):
        raise BadInput("a hash in the update makes no sense", where=where, remedy=AGAIN)
    if header.update != header.base_update + 1 or not 0 <= header.base_update < 1 << 62:
        raise BadInput("the number of the update makes no sense", where=where, remedy=AGAIN)
    total = sum(max(0, part.size) for part in header.parts)
    if total > LARGEST_BUNDLE or len(header.parts) > MOST_PARTS:
        most = f"{LARGEST_BUNDLE} bytes or {MOST_PARTS} files"
        raise BadInput(f"the update makes more than {most}", where=where, remedy=AGAIN)
    seen: set[str] = set()
    for part in header.parts:
        for path in (part.path, *([part.source] if part.source else [])):
            inside(path, "the update")
        pieces_of_it = ((part.offset, part.length), (part.vector_offset, part.vector_length))
        fits = all(0 <= offset <= offset + length <= data_bytes for offset, length in pieces_of_it)
        if part.kind not in KINDS or part.path in seen or not fits or part.size < 0:
            raise BadInput(f"the update's part {part.path!r:.60} makes no sense", where=where, remedy=AGAIN)
        seen.add(part.path)
    if data_bytes > sum(part.length + part.vector_length for part in header.parts):
        raise BadInput("the update holds bytes that make no part of it", where=where, remedy=AGAIN)


def check_growth(header: Header, base_bytes: int, update_bytes: int, *, where: str = "") -> None:
    """Raise BadInput where an update makes more than comes of its own bytes and of its base's `base_bytes`."""
    made = sum(part.size for part in header.parts)
    allowed = MOST_BASES * base_bytes + MOST_RATIO * update_bytes + SMALL_BUNDLE
    if made > allowed:
        raise BadInput(
            f"{update_bytes} bytes of update on {base_bytes} of bundle would make {made}, {allowed} are the most",
            where=where,
            remedy="get the new bundle whole (pocketship pack)",
        )
