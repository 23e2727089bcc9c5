"""What an artifact says of itself: read from its bytes without the runtime's library, and nothing is computed."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Set, Tuple

from runtimes import wire
from runtimes.errors import BadInput
from runtimes.mil.package import specification_of
from runtimes.session import format_of

METADATA = "pocketship"
"""The key under which every file of ours holds what its manifest says, as JSON."""
FLOAT_TYPES = ("float16", "float32")
ENUM = (1 << 32) - 1
"""Of a wider value protobuf's own readers take these bits as one of an enumeration."""


@dataclass(frozen=True)
class Facts:
    """`metadata` is the text under METADATA, None where the file has none, `external` the files that it reads besides.

    `compute` is the type that most of its floating-point operations give, None where it has no such operation; `stored`
    are the types of its constants of two axes or more.
    """

    metadata: Optional[str]
    external: Tuple[str, ...]
    compute: Optional[str]
    stored: Tuple[str, ...]


def read_facts(path: Path) -> Facts:
    """The facts of an artifact.

    Raises BadInput for a file that is not of the format that its name says.
    """
    read = READERS[format_of(path)]
    file = specification_of(path) if path.suffix == ".mlpackage" else path
    try:
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return read(content)
    except (OSError, ValueError, IndexError, struct.error, RecursionError) as error:
        raise BadInput(
            f"its bytes cannot be read ({type(error).__name__}: {error})", where=str(path), remedy="export it again"
        ) from error


def answer_facts(job: Dict[str, Any], emit: Callable[[Dict[str, Any]], None]) -> Dict[str, Any]:
    """`read_facts` as a child's work."""
    return asdict(read_facts(Path(job["artifact"])))


# --- ONNX: fields of onnx.proto3 --------------------------------------------------------------------------------------

GRAPH, FUNCTIONS, TRAINING, PROPERTIES = 7, 25, 20, 14  # of ModelProto
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15  # of GraphProto
TENSORS, SPARSE_TENSORS, GRAPHS = (5, 10), (22, 23), (6, 11)  # of AttributeProto
DIMS, DATA_TYPE, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 13, 14  # of TensorProto
ONNX_TYPES = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}


def _onnx(file: Any) -> Facts:
    whole = (0, len(file))
    external: Set[str] = set()
    stored: Set[str] = set()
    for tensor in _onnx_tensors(file, whole):
        axes, kind, moved, places = 0, "", False, []
        for number, value in wire.fields(file, tensor):
            if number == DIMS:  # packed, or one by one: a length of less than 128 takes one byte
                axes += 1 if isinstance(value, int) else _packed(file, value)
            elif number == DATA_TYPE and isinstance(value, int):
                kind = ONNX_TYPES.get(value & ENUM, "")
            elif number == DATA_LOCATION:
                moved = moved or bool(value)
            elif number == EXTERNAL_DATA and isinstance(value, tuple):
                parts = {n: wire.text(file, v) for n, v in wire.fields(file, value) if isinstance(v, tuple)}
                moved = True
                places += [parts.get(2, "")] if parts.get(1) == "location" else []
        external.update(places or [""] * moved)
        if axes > 1 and kind:
            stored.add(kind)
    metadata = dict(wire.entries(file, whole, PROPERTIES))
    found = wire.text(file, metadata[METADATA]) if METADATA in metadata else None
    return Facts(found, tuple(sorted(external)), "float32", tuple(sorted(stored)))


def _packed(file: Any, place: Optional[wire.Place]) -> int:
    """How many numbers lie in a packed field: each ends with the one byte below 128."""
    return sum(byte < 0x80 for byte in file[place[0] : place[1]]) if place else 0


def _onnx_tensors(file: Any, model: wire.Place) -> Iterator[wire.Place]:
    """Every tensor of a model, those of inner graphs, functions and training as well."""
    pending = [(GRAPH, place) for place in wire.messages(file, model, GRAPH)]
    pending += [(GRAPH, place) for part in (1, 2) for place in wire.messages(file, model, TRAINING, part)]
    pending += [(NODE, place) for place in wire.messages(file, model, FUNCTIONS, 7)]
    pending += [(TENSORS[0], place) for place in wire.messages(file, model, FUNCTIONS, 11)]
    while pending:
        kind, place = pending.pop()
        for number, value in wire.fields(file, place):
            if not isinstance(value, tuple):
                continue
            if kind == NODE:
                if number == 5:
                    pending.append((TENSORS[0], value))
            elif kind == GRAPH:
                if number == NODE:
                    pending.append((NODE, value))
                elif number == INITIALIZER:
                    yield value
                elif number == SPARSE_INITIALIZER:
                    yield from (tensor for part in (1, 2) for tensor in wire.messages(file, value, part))
            elif number in TENSORS:
                yield value
            elif number in SPARSE_TENSORS:
                yield from (tensor for part in (1, 2) for tensor in wire.messages(file, value, part))
            elif number in GRAPHS:
                pending.append((GRAPH, value))


# --- TFLite: fields of schema.fbs, by their place -------------------------------------------------------------------

SUBGRAPHS, BUFFERS, MODEL_METADATA, GROUPS, EXTERNAL = 2, 4, 6, 8, 9  # of Model
MOST_TABLES = 1 << 20
"""Vectors may share their tables, so that a small file holds any number of them."""
MOST_READ = 4
"""Times the file's bytes: tables may share their texts, too."""
TFLITE_TYPES = {0: "float32", 1: "float16", 3: "uint8", 9: "int8", 17: "int4", 19: "int2", 20: "uint4"}


class _Flat:
    """Tables of a flatbuffer by field number; every place is checked by what reads it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self._left = MOST_TABLES
        self._bytes = MOST_READ * len(file)

    def number(self, at: int, form: str = "<I") -> int:
        if at < 0:
            raise IndexError("an offset leads out of the file")
        return int(struct.unpack_from(form, self.file, at)[0])

    def field(self, table: int, index: int) -> int:
        """Where a field lies; 0 where the table has none."""
        layout = table - self.number(table, "<i")
        entry = 4 + 2 * index
        offset = self.number(layout + entry, "<H") if entry < self.number(layout, "<H") else 0
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, form: str) -> int:
        at = self.field(table, index)
        return self.number(at, form) if at else 0

    def vector(self, table: int, index: int) -> Tuple[int, int]:
        """Where a vector's elements begin, and how many there are."""
        at = self.field(table, index)
        if not at:
            return 0, 0
        start = at + self.number(at)
        count = self.number(start)
        if start + 4 + count > len(self.file):
            raise IndexError("a vector leads out of the file")
        return start + 4, count

    def tables(self, table: int, index: int) -> Iterator[int]:
        start, count = self.vector(table, index)
        self._left -= count
        if self._left < 0:
            raise ValueError(f"more than {MOST_TABLES} tables")
        for at in range(start, start + 4 * count, 4):
            yield at + self.number(at)

    def read(self, start: int, count: int) -> bytes:
        """Bytes of the file, a copy."""
        self._bytes -= count
        if self._bytes < 0:
            raise ValueError(f"its tables hold more than {MOST_READ} times its bytes")
        return bytes(self.file[start : start + count])

    def bytes(self, table: int, index: int) -> bytes:
        return self.read(*self.vector(table, index))


def _tflite(file: Any) -> Facts:
    if bytes(file[4:8]) != b"TFL3":
        raise ValueError("no TFLite file")
    flat = _Flat(file)
    model = flat.number(0)
    buffers = list(flat.tables(model, BUFFERS))
    external = [flat.bytes(group, 0).decode() for group in flat.tables(model, GROUPS)]
    external += [""] * (flat.vector(model, EXTERNAL)[1] > 0 and not external)
    found = None
    for entry in flat.tables(model, MODEL_METADATA):
        if flat.bytes(entry, 0) == METADATA.encode():
            found = _data(flat, buffers[flat.scalar(entry, 1, "<I")]).rstrip(b"\0").decode()
    stored = set()
    for graph in flat.tables(model, SUBGRAPHS):
        for tensor in flat.tables(graph, 0):
            kind = TFLITE_TYPES.get(flat.scalar(tensor, 1, "<b"), "")
            buffer = buffers[flat.scalar(tensor, 2, "<I")]
            if kind and flat.vector(tensor, 0)[1] > 1 and (flat.vector(buffer, 0)[1] or flat.scalar(buffer, 2, "<Q")):
                stored.add(kind)
    return Facts(found, tuple(external), "float32", tuple(sorted(stored)))


def _data(flat: _Flat, buffer: int) -> bytes:
    """A buffer's bytes, which in files above 2 GB lie behind the flatbuffer."""
    offset, size = flat.scalar(buffer, 1, "<Q"), flat.scalar(buffer, 2, "<Q")
    return flat.read(offset, size) if offset > 1 else flat.bytes(buffer, 0)


# --- Core ML: fields of Model.proto and MIL.proto ---------------------------------------------------------------------

DESCRIPTION, ML_PROGRAM, USER_DEFINED = 2, 502, (100, 100)
BLOCKS = (ML_PROGRAM, 2, 2, 3, 2)
"""Program.functions, its value, Function.block_specializations, its value."""
OPERATIONS, TYPE, INPUTS, OUTPUTS, INNER, ATTRIBUTES = 3, 1, 2, 3, 4, 5
MIL_TYPES = {10: "float16", 11: "float32", 21: "int8", 25: "int4", 31: "uint8", 35: "uint4", 36: "uint2", 37: "uint1"}
MIL_TYPES.update({38: "uint6", 39: "uint3"})
NOT_COMPUTED = ("const", "cast")
BLOBS = ((ATTRIBUTES, 2, 5, 1), (INPUTS, 2, 1, 2, 5, 1))
"""An operation's values that lie in a file: its name."""
WEIGHTS_FOLDER = "@model_path/weights"
"""In the package, whose hash covers it."""


def _coreml(file: Any) -> Facts:
    whole = (0, len(file))
    given: Dict[str, int] = Counter()
    stored: Set[str] = set()
    blobs: Set[str] = set()
    pending = list(wire.messages(file, whole, *BLOCKS))
    while pending:
        for operation in wire.messages(file, pending.pop(), OPERATIONS):
            name = next((wire.text(file, place) for place in wire.messages(file, operation, TYPE)), "")
            pending += wire.messages(file, operation, INNER)
            blobs |= {wire.text(file, place) for path in BLOBS for place in wire.messages(file, operation, *path)}
            outputs = list(_mil_types(file, operation, OUTPUTS, 2, 1))
            if name.startswith("const"):
                written = _mil_types(file, operation, ATTRIBUTES, 2, 2, 1)
                given_to_it = _mil_types(file, operation, INPUTS, 2, 1, 2, 2, 1)
                stored |= {kind for kind, axes in (*outputs, *written, *given_to_it) if axes > 1 and kind}
            elif name not in NOT_COMPUTED:
                for kind in {kind for kind, _ in outputs} & set(FLOAT_TYPES):
                    given[kind] += 1
    metadata = dict(wire.entries(file, whole, DESCRIPTION, *USER_DEFINED))
    found = wire.text(file, metadata[METADATA]) if METADATA in metadata else None
    compute = max(FLOAT_TYPES, key=lambda kind: given[kind]) if given else None
    external = sorted(name for name in blobs if name.rpartition("/")[0] != WEIGHTS_FOLDER)
    return Facts(found, tuple(external), compute, tuple(sorted(stored)))


def _mil_types(file: Any, place: wire.Place, *path: int) -> Iterator[Tuple[str, int]]:
    """Element type and number of axes of the tensor types that a path of fields leads to."""
    for tensor in wire.messages(file, place, *path):
        found = {number: value for number, value in wire.fields(file, tensor) if isinstance(value, int)}
        yield MIL_TYPES.get(found.get(1, 0) & ENUM, ""), found.get(2, 0)


READERS: Dict[str, Callable[[Any], Facts]] = {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml}
