"""A fine-tune as a sparse ternary task vector: ComPEFT (Yadav et al., "ComPEFT: Compression for communicating parameter
efficient updates via sparsification and quantization", 2023), tensor by tensor.

What a tensor of the new file differs by from the old one's is kept as the signs of its largest elements, times `alpha`
times its standard deviation, taken before the others are zeroed (as in the paper; its code takes it after). Small
tensors, the biases and norms, are kept whole in half precision: they are few, and weigh most.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from exporter.delivery import golomb
from runtimes.errors import BadInput

SMALL = 512
"""Tensors of up to so many elements are kept whole."""
WHOLE, TERNARY = 0, 1
ENTRY = struct.Struct("<QQBBQfI")
"""Of one tensor: byte offset in the file, elements, kind, remainder bits, positions, magnitude, bytes of its code."""
DAMAGED = "download the update again"


@dataclass(frozen=True)
class Region:
    """A float32 tensor in a file: where it begins, and how many elements it has."""

    offset: int
    count: int


def encode(old: bytes, new: bytes, regions: tuple[Region, ...], density: float, alpha: float) -> bytes:
    """The task vector of two files over their tensors; `density` is the share of elements kept of each large one."""
    parts = []
    for region in regions:
        before, after = _values(old, region), _values(new, region)
        if before.tobytes() == after.tobytes():
            continue  # a constant may be infinite
        delta = after - before
        parts.append(_whole(region, delta) if region.count <= SMALL else _ternary(region, delta, density, alpha))
    return struct.pack("<I", len(parts)) + b"".join(parts)


def _values(file: bytes, region: Region) -> np.ndarray:
    return np.frombuffer(file, "<f4", region.count, region.offset)


def is_finite_change(old: bytes, before: tuple[Region, ...], new: bytes, after: tuple[Region, ...]) -> bool:
    """Whether every tensor that changed holds numbers alone, before and after."""
    for mine, theirs in zip(before, after, strict=True):
        pair = _values(old, mine), _values(new, theirs)
        if pair[0].tobytes() != pair[1].tobytes() and not all(np.isfinite(values).all() for values in pair):
            return False
    return True


def _whole(region: Region, delta: np.ndarray) -> bytes:
    code = delta.astype("<f2").tobytes()
    return ENTRY.pack(region.offset, region.count, WHOLE, 0, region.count, 0.0, len(code)) + code


def _ternary(region: Region, delta: np.ndarray, density: float, alpha: float) -> bytes:
    kept = max(1, round(density * region.count))
    order = np.argsort(-np.abs(delta), kind="stable")[:kept]  # ties: the first come first
    positions = np.sort(order[delta[order] != 0])
    bits = golomb.remainder_bits(density)
    code = golomb.encode(positions, bits)
    signs = np.packbits(delta[positions] < 0).tobytes()
    magnitude = float(np.float32(alpha * delta.astype(np.float64).std()))
    head = ENTRY.pack(region.offset, region.count, TERNARY, bits, len(positions), magnitude, len(code) + len(signs))
    return head + code + signs


def apply(old: bytes, vector: bytes) -> bytes:
    """The file `old` with a task vector added.

    Raises BadInput for a vector that is cut off, or leads out of the file.
    """
    result = bytearray(old)
    at, (count,) = 4, _unpacked(struct.Struct("<I"), vector, 0)
    for _ in range(count):
        offset, elements, kind, bits, positions, magnitude, size = _unpacked(ENTRY, vector, at)
        at += ENTRY.size
        code = vector[at : at + size]
        at += size
        if len(code) != size or offset + 4 * elements > len(result):
            raise BadInput("the task vector is cut off, or leads out of the file", remedy=DAMAGED)
        values = np.frombuffer(result, "<f4", elements, offset)
        result[offset : offset + 4 * elements] = _added(values, kind, bits, positions, magnitude, code).tobytes()
    if at != len(vector):
        raise BadInput("the task vector has bytes that belong to no tensor", remedy=DAMAGED)
    return bytes(result)


def _unpacked(record: struct.Struct, data: bytes, at: int) -> tuple:
    if at + record.size > len(data):
        raise BadInput("the task vector is cut off", remedy=DAMAGED)
    return record.unpack_from(data, at)


def _added(values: np.ndarray, kind: int, bits: int, count: int, magnitude: float, code: bytes) -> np.ndarray:
    added = values.copy()
    if kind == WHOLE:
        if len(code) != 2 * len(values):
            raise BadInput("a whole tensor of the task vector has another size", remedy=DAMAGED)
        return added + np.frombuffer(code, "<f2").astype("<f4")
    sign_bytes = -(-count // 8)
    if kind != TERNARY or sign_bytes > len(code):
        raise BadInput("a tensor of the task vector is of no kind that is known", remedy=DAMAGED)
    positions = golomb.decode(code[: len(code) - sign_bytes], count, bits, len(values))
    signs = np.unpackbits(np.frombuffer(code[len(code) - sign_bytes :], np.uint8))[:count]
    added[positions] += np.where(signs == 1, np.float32(-magnitude), np.float32(magnitude))
    return added


# --- where the tensors lie -------------------------------------------------------------------------------------------


def regions_of(name: str, file: bytes) -> tuple[Region, ...]:
    """The float32 tensors of an ONNX or TFLite file, or of a Core ML package's weight.bin; none of any other."""
    if name.endswith(".onnx"):
        return _onnx(file)
    if name.endswith(".tflite"):
        return _tflite(file)
    return _weight_bin(file) if name.endswith("/weight.bin") else ()


def _onnx(file: bytes) -> tuple[Region, ...]:
    """In the order of the file, so that each is looked for behind the one before."""
    import onnx

    regions, at = [], 0
    for tensor in onnx.load_from_string(file).graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.raw_data:
            continue
        found = file.find(tensor.raw_data, at)
        if found >= 0:
            regions.append(Region(found, len(tensor.raw_data) // 4))
            at = found + len(tensor.raw_data)
    return tuple(regions)


def _tflite(file: bytes) -> tuple[Region, ...]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(file, 0)
    floats = {
        graph.Tensors(i).Buffer()
        for graph in (model.Subgraphs(s) for s in range(model.SubgraphsLength()))
        for i in range(graph.TensorsLength())
        if graph.Tensors(i).Type() == schema.TensorType.FLOAT32
    }
    regions = set()
    for i in floats:
        buffer = model.Buffers(i)
        field = buffer._tab.Offset(4)
        if field and buffer.DataLength():
            regions.add(Region(buffer._tab.Vector(field), buffer.DataLength() // 4))
    return tuple(sorted(regions, key=lambda region: region.offset))


BLOB = struct.Struct("<IIQQ")
BLOB_SENTINEL, BLOB_FLOAT32, BLOB_ALIGNMENT = 0xDEADBEEF, 2, 64


def _weight_bin(file: bytes) -> tuple[Region, ...]:
    """Each blob has a record of 64 bytes before it: a mark, its type, its size and its place (MIL's blob format 2)."""
    regions, at = [], BLOB_ALIGNMENT
    while at + BLOB.size <= len(file):
        sentinel, kind, size, offset = BLOB.unpack_from(file, at)
        if sentinel != BLOB_SENTINEL or offset + size > len(file):
            break
        if kind == BLOB_FLOAT32:
            regions.append(Region(offset, size // 4))
        end = offset + size
        at = end + -end % BLOB_ALIGNMENT
    return tuple(regions)
