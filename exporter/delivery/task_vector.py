"""A fine-tune as a sparse ternary task vector: ComPEFT (Yadav et al., "ComPEFT: Compression for communicating parameter
efficient updates via sparsification and quantization", 2023), tensor by tensor.

What a tensor of the new file differs by from the old one's is kept as the signs of its largest elements, times `alpha`
times its standard deviation, taken before the others are zeroed (as in the paper; its code takes it after). Small
tensors, the biases and norms, are kept whole in half precision (single, where a change is too large for half): they are
few, and weigh most.
"""

from __future__ import annotations

import struct

import numpy as np

from exporter.delivery import golomb
from exporter.formats.contents import Region
from exporter.formats.readers import READERS
from runtimes.errors import BadInput

MOST_DENSITY = 0.5
"""The largest share of a tensor's elements that is kept: each position costs memory where it is read."""
SMALL = 512
"""Tensors of up to so many elements are kept whole."""
WHOLE, TERNARY, WHOLE_SINGLE = 0, 1, 2
IN_HALF = 16
"""Added to the kind of a tensor whose elements are of half precision."""
LARGEST_HALF = float(np.finfo(np.float16).max)
MOST_TENSORS = 1 << 16
"""In one vector: each costs time, and compresses to next to nothing."""
ENTRY = struct.Struct("<QQBBQfI")
"""Of one tensor: byte offset in the file, elements, kind, remainder bits, positions, magnitude, bytes of its code."""
DAMAGED = "download the update again"


def encode(old: bytes, new: bytes, regions: tuple[Region, ...], density: float, alpha: float = 1.0) -> bytes:
    """The task vector of two files over their tensors; `density` is the share of elements kept of each large one."""
    parts = []
    for region in regions:
        before, after = values(old, region), values(new, region)
        if before.tobytes() == after.tobytes():
            continue  # a constant may be infinite
        delta = after - before
        parts.append(_whole(region, delta) if region.count <= SMALL else _ternary(region, delta, density, alpha))
    return struct.pack("<I", len(parts)) + b"".join(parts)


def scaled(vector: bytes, alpha: float) -> bytes:
    """The task vector with its ternary tensors' magnitudes times `alpha`; see `apply` for what is raised."""
    result = bytearray(vector)
    at, (count,) = 4, _unpacked(struct.Struct("<I"), vector, 0)
    for _ in range(count):
        *head, magnitude, size = _unpacked(ENTRY, vector, at)
        ENTRY.pack_into(result, at, *head, magnitude * alpha, size)
        at += ENTRY.size + size
    return bytes(result)


def values(file: bytes | bytearray, region: Region) -> np.ndarray:
    """A tensor's elements, as float32."""
    return np.frombuffer(file, region.dtype, region.count, region.offset).astype("<f4")


def is_finite_change(old: bytes, before: tuple[Region, ...], new: bytes, after: tuple[Region, ...]) -> bool:
    """Whether every tensor that changed holds numbers alone, before and after."""
    for mine, theirs in zip(before, after, strict=True):
        pair = values(old, mine), values(new, theirs)
        if pair[0].tobytes() != pair[1].tobytes() and not all(np.isfinite(tensor).all() for tensor in pair):
            return False
    return True


def _whole(region: Region, delta: np.ndarray) -> bytes:
    fits = bool(np.abs(delta).max(initial=0) <= LARGEST_HALF)
    code = delta.astype("<f2" if fits else "<f4").tobytes()
    kind = WHOLE if fits else WHOLE_SINGLE
    return ENTRY.pack(region.offset, region.count, _kind(kind, region), 0, region.count, 0.0, len(code)) + code


def _kind(kind: int, region: Region) -> int:
    return kind + IN_HALF if region.dtype == "<f2" else kind


def _ternary(region: Region, delta: np.ndarray, density: float, alpha: float) -> bytes:
    kept = max(1, round(density * region.count))
    order = np.argsort(-np.abs(delta), kind="stable")[:kept]  # ties: the first come first
    positions = np.sort(order[delta[order] != 0])
    bits = golomb.remainder_bits(density)
    code = golomb.encode(positions, bits)
    signs = np.packbits(delta[positions] < 0).tobytes()
    magnitude = float(np.float32(alpha * delta.astype(np.float64).std()))
    kind, size = _kind(TERNARY, region), len(code) + len(signs)
    return ENTRY.pack(region.offset, region.count, kind, bits, len(positions), magnitude, size) + code + signs


def apply(old: bytes, vector: bytes) -> bytes:
    """The file `old` with a task vector added.

    Raises BadInput for a vector that is cut off, leads out of the file, or changes one tensor twice: that would cost as
    often the file's size.
    """
    result = bytearray(old)
    end, at, (count,) = 0, 4, _unpacked(struct.Struct("<I"), vector, 0)
    if count > MOST_TENSORS:
        raise BadInput(f"the task vector changes more than {MOST_TENSORS} tensors", remedy=DAMAGED)
    for _ in range(count):
        offset, elements, kind, bits, positions, magnitude, size = _unpacked(ENTRY, vector, at)
        at += ENTRY.size
        code = vector[at : at + size]
        at += size
        region = Region(offset, elements, "<f2" if kind & IN_HALF else "<f4")
        if len(code) != size or region.end > len(result):
            raise BadInput("the task vector is cut off, or leads out of the file", remedy=DAMAGED)
        if not elements or offset < end:
            raise BadInput("the task vector changes a tensor twice, or an empty one", remedy=DAMAGED)
        end = region.end
        with np.errstate(all="ignore"):  # what a crafted vector makes is refused by its hash
            added = _added(values(result, region), kind & ~IN_HALF, bits, positions, magnitude, code)
            result[offset:end] = added.astype(region.dtype).tobytes()
    if at != len(vector):
        raise BadInput("the task vector has bytes that belong to no tensor", remedy=DAMAGED)
    return bytes(result)


def _unpacked(record: struct.Struct, data: bytes, at: int) -> tuple:
    if at + record.size > len(data):
        raise BadInput("the task vector is cut off", remedy=DAMAGED)
    return record.unpack_from(data, at)


def _added(added: np.ndarray, kind: int, bits: int, count: int, magnitude: float, code: bytes) -> np.ndarray:
    if kind in (WHOLE, WHOLE_SINGLE):
        dtype = np.dtype("<f2" if kind == WHOLE else "<f4")
        if len(code) != dtype.itemsize * len(added):
            raise BadInput("a whole tensor of the task vector has another size", remedy=DAMAGED)
        return added + np.frombuffer(code, dtype).astype("<f4")
    sign_bytes = -(-count // 8)
    if kind != TERNARY or sign_bytes > len(code):
        raise BadInput("a tensor of the task vector is of no kind that is known", remedy=DAMAGED)
    if count > MOST_DENSITY * len(added) + 1:
        raise BadInput(f"a tensor of the task vector changes in more than {MOST_DENSITY:.0%}", remedy=DAMAGED)
    positions = golomb.decode(code[: len(code) - sign_bytes], count, bits, len(added))
    signs = np.unpackbits(np.frombuffer(code[len(code) - sign_bytes :], np.uint8))[:count]
    added[positions] += np.where(signs == 1, np.float32(-magnitude), np.float32(magnitude))
    return added


# --- where the tensors lie -------------------------------------------------------------------------------------------


def regions_of(name: str, file: bytes) -> tuple[Region, ...]:
    """The float32 and float16 tensors of an ONNX or TFLite file, or of a Core ML package's weight.bin; none of others.

    Raises BadInput where the file is not of the kind that its name says.
    """
    find = next((reader.regions for reader in READERS.values() if name.endswith(reader.tensors_in)), None)
    if find is None:
        return ()
    try:
        regions = find(file)
    except (struct.error, IndexError, ValueError, TypeError) as error:  # of damaged bytes
        raise BadInput(f"its tensors cannot be found ({error})", where=name, remedy="add --exact") from error
    if any(region.end > len(file) for region in regions):
        raise BadInput("a tensor of it leads out of the file", where=name, remedy="add --exact")
    return regions
