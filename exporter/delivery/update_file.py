"""The file that an update travels in: a header in JSON, what each file of the new bundle is made from, and a hash.

An update comes from a network: nothing in it is believed before its hash, its sizes and its paths are checked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from runtimes.bundle import inside
from runtimes.errors import BadInput
from runtimes.records import from_json

MAGIC = b"pocketship update 1\n"
LONGEST_HEADER = 1 << 24
LARGEST_BUNDLE = 1 << 32
"""Bytes of all files together."""
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


def read(content: bytes, where: str = "") -> tuple[Header, bytes]:
    """The header of an update, and the data that its parts point into; `where` is the file's name in an error.

    Raises BadInput for bytes that are no update, are cut off or changed, or lead out of the bundle.
    """
    if not content.startswith(MAGIC):
        raise BadInput("this is no update", where=where, remedy="give a file that pocketship delta wrote")
    start = len(MAGIC) + 8
    if len(content) < start + 32 or hashlib.sha256(content[:-32]).digest() != content[-32:]:
        raise BadInput("the update is cut off or damaged", where=where, remedy=AGAIN)
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if length > min(LONGEST_HEADER, len(content) - start - 32):
        raise BadInput("the update's header is too long", remedy=AGAIN)
    try:
        header: Header = from_json(Header, json.loads(content[start : start + length]))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the update's header is no JSON ({error})", remedy=AGAIN) from error
    except BadInput as error:
        raise BadInput(f"the update's header: {error.where}: {error.what}", remedy=AGAIN) from error
    data = content[start + length : -32]
    if sum(max(0, part.size) for part in header.parts) > LARGEST_BUNDLE:
        raise BadInput(f"the update makes more than {LARGEST_BUNDLE} bytes", remedy=AGAIN)
    seen: set[str] = set()
    for part in header.parts:
        for path in (part.path, *([part.source] if part.source else [])):
            inside(path, "the update")
        pieces = ((part.offset, part.length), (part.vector_offset, part.vector_length))
        fits = all(0 <= offset <= offset + length <= len(data) for offset, length in pieces)
        fits = fits and part.size >= 0
        if part.kind not in KINDS or part.path in seen or not fits:
            raise BadInput(f"the update's part {part.path!r:.60} makes no sense", remedy=AGAIN)
        seen.add(part.path)
    return header, data
