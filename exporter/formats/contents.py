"""What a reader tells of a format's file, the same for every format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtimes.signature import Signature

KINDS = ("linear", "conv", "embedding")
OTHER = "other"

Input = tuple[str, int | str]
"""An operation and which of its inputs: by position, in Core ML by name."""


@dataclass(frozen=True)
class StoredTensor:
    """A constant inside an artifact, as stored."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Contents:
    """A file's signature, the operations of its graphs by name, its constants, and the metadata stored in it."""

    signature: Signature
    operations: tuple[str, ...]
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Constant:
    """A constant of an artifact: `values` are its elements, codes of fewer than 8 bits one in each int8 or uint8.

    `dtype` is what is stored (float32, int4), `bits` what an element of it takes.
    """

    name: str
    dtype: str
    bits: int
    values: np.ndarray
    size_bytes: int


@dataclass(frozen=True)
class Operation:
    """What an operation reads, by input, and the names of its outputs."""

    name: str
    inputs: Mapping[int | str, str]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The constants of a file with their values, and its operations in graph order."""

    constants: tuple[Constant, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Region:
    """A floating-point tensor in a file: where it begins, how many elements it has, and numpy's type of them."""

    offset: int
    count: int
    dtype: str = "<f4"

    @classmethod
    def of(cls, offset: int, size_bytes: int, dtype: str) -> Region:
        """The tensor whose elements of this type fill so many bytes."""
        return cls(offset, size_bytes // np.dtype(dtype).itemsize, dtype)

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + np.dtype(self.dtype).itemsize * self.count


@dataclass(frozen=True)
class Reader:
    """What the code that knows no format asks of one.

    `contents` and `graph` read an artifact; they raise BadInput, or an error of their parser, where it is none.
    `readers_of_weights` says by kind of layer which input of which operation its weight is, `passed_on` which input of
    which operation comes out again as the same weight in another form. `sparse_bytes` is what a tensor of these values
    takes in the format's own sparse encoding, index overhead counted. `regions` finds the tensors of float32 and of
    float16 in the bytes of the file whose name ends as `tensors_in`. `snippet` is Python that loads the artifact: with
    low-bit weights in it (True), or without.
    """

    contents: Callable[[Path], Contents]
    graph: Callable[[Path], Graph]
    readers_of_weights: Mapping[str, set[Input]]
    passed_on: set[Input]
    sparse_bytes: Callable[[np.ndarray], int]
    regions: Callable[[bytes], tuple[Region, ...]]
    tensors_in: str
    snippet: Callable[[bool], str]
