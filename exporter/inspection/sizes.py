"""What an artifact weighs: as stored, compressed, in its format's own sparse encoding, and where its bytes went."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.formats.contents import KINDS, OTHER, Constant
from exporter.formats.readers import READERS
from exporter.inspection.stored import stored_constants
from runtimes.bundle import digest
from runtimes.session import format_of

CHUNK_BYTES = 1 << 20
ZLIB_LEVEL = 9
ZEROS = ", zeros"
"""Ends the name of a part of the waterfall that holds only zeros."""
LEAST_ZEROS = 0.05
"""Rounding to 8 bits makes a few by itself, of which nothing needs to be said."""
OTHER_WEIGHTS = "other weights"
GRAPH = "graph and metadata"


@dataclass(frozen=True)
class Sizes:
    """See `LedgerRow`, which has the same fields."""

    size_bytes: int
    gzip_bytes: int
    sparse_bytes: int
    waterfall: dict[str, int]


def sizes_of(path: Path) -> Sizes:
    """The sizes of an artifact, read from its bytes.

    Raises BadInput where it is missing or none.
    """
    size_bytes = digest(path)[0]
    constants = stored_constants(path)
    encoded = READERS[format_of(path)].sparse_bytes
    saved = sum(
        max(0, constant.size_bytes - encoded(constant.values))
        for constant, kind in constants
        if kind in KINDS and constant.bits >= 8
    )
    return Sizes(size_bytes, gzip_bytes(path), size_bytes - saved, waterfall(constants, size_bytes))


def gzip_bytes(path: Path) -> int:
    """What zlib (DEFLATE, as in gzip and zip, level 9) makes of a file, or of each file of a package; repeatable."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = 0
    for file in files:
        compressor = zlib.compressobj(ZLIB_LEVEL)
        with open(file, "rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                total += len(compressor.compress(chunk))
        total += len(compressor.flush())
    return total


def waterfall(constants: Sequence[tuple[Constant, str]], size_bytes: int) -> dict[str, int]:
    """The bytes of a file by kind of layer and type as stored, in `part_order`; they add up to the file.

    `linear int8` are bytes of linear layers' weights that are not zero, `linear int8, zeros` those that are: elements
    whose code is 0, as in every representation that we write. They are told apart where they are a twentieth or more,
    but never in codes of fewer than 8 bits, where a zero is one of a few values.
    Then `other weights` (biases, normalization, scales, constants) and the rest, `graph and metadata`.
    """
    parts: Counter[str] = Counter()
    for constant, kind in constants:
        if kind == OTHER:
            parts[OTHER_WEIGHTS] += constant.size_bytes
            continue
        zeros = constant.values.size - int(np.count_nonzero(constant.values))
        told = constant.bits >= 8 and zeros >= constant.values.size * LEAST_ZEROS
        zero_bytes = constant.size_bytes * zeros // constant.values.size if told else 0
        parts[f"{kind} {constant.dtype}"] += constant.size_bytes - zero_bytes
        parts[f"{kind} {constant.dtype}{ZEROS}"] += zero_bytes
    found = {name: parts[name] for name in sorted(parts, key=part_order) if parts[name]}
    return {**found, GRAPH: size_bytes - sum(found.values())}


def part_order(name: str) -> tuple[int, str]:
    """A key to sort the parts of waterfalls by: layers by kind, then what is no layer's."""
    order = (*KINDS, OTHER_WEIGHTS, GRAPH)
    return order.index(name if name in order else name.split(" ")[0]), name


def explain(parts: dict[str, int], gzip: int, sparse: int) -> str:
    """A sentence that says what the zeros of an artifact cost it; empty where they are less than a twentieth of it."""
    size_bytes = sum(parts.values())
    zero_bytes = sum(count for name, count in parts.items() if name.endswith(ZEROS))
    if zero_bytes < size_bytes * LEAST_ZEROS:
        return ""
    sparse_words = (
        f"the format's sparse encoding would make it {megabytes(sparse)}"
        if sparse < size_bytes
        else "the format's sparse encoding would save nothing, its indices take more"
    )
    return (
        f"{megabytes(zero_bytes)} of {megabytes(size_bytes)} are zeros, which are stored like any other value; "
        f"gzip makes the file {megabytes(gzip)}, {sparse_words}"
    )


def megabytes(size_bytes: int) -> str:
    """Bytes in the unit that reads best: kB below a tenth of a megabyte."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
