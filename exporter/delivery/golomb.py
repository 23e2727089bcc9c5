"""Golomb-Rice codes of sorted positions: what lies between two of them takes little more than the entropy.

Golomb, "Run-length encodings", 1966; the parameter is that of ComPEFT (Yadav et al., 2023).
"""

from __future__ import annotations

import math

import numpy as np

from runtimes.errors import BadInput

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
LONGEST_REMAINDER = 40


def remainder_bits(density: float) -> int:
    """The number of bits after the unary part that is best where a share `density` of the positions is taken.

    1 + floor(log2(log(phi - 1) / log(1 - density))), at least 0.
    """
    if density >= 1.0:
        return 0
    ratio = math.log(GOLDEN_RATIO - 1) / math.log1p(-density)
    return max(0, 1 + math.floor(math.log2(ratio)))


def bits_a_position(density: float) -> float:
    """How many bits a position takes on average: the same paper's formula."""
    bits = remainder_bits(density)
    return bits + 1 / (1 - (1 - density) ** (2.0**bits))


def encode(positions: np.ndarray, bits: int) -> bytes:
    """Sorted, distinct positions: all unary parts, then all remainders of `bits` bits, so that numpy can read them."""
    gaps = np.diff(positions, prepend=-1) - 1
    quotients, remainders = gaps >> bits, gaps & ((1 << bits) - 1)
    ends = np.cumsum(quotients + 1) - 1
    unary = np.ones(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    unary[ends] = 0
    fixed = (remainders[:, np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(np.concatenate([unary, fixed.ravel().astype(np.uint8)])).tobytes()


def decode(code: bytes, count: int, bits: int, length: int) -> np.ndarray:
    """The `count` positions, each below `length`.

    Raises BadInput where the code does not hold them, or is longer than any of them needs: its bits are unpacked.
    """
    most = min(count * (1 + bits) + (length >> max(0, bits)) + 7, 2 * length + 64) if count >= 0 else 0
    if not 0 <= bits <= LONGEST_REMAINDER or not 0 <= count <= length or 8 * len(code) > most:
        raise BadInput("the positions of the update make no sense", remedy="download the update again")
    stream = np.unpackbits(np.frombuffer(code, np.uint8))
    ends = np.flatnonzero(stream == 0)[:count]
    start = int(ends[-1]) + 1 if count else 0
    if len(ends) < count or len(stream) < start + count * bits:
        raise BadInput("the positions of the update are cut off", remedy="download the update again")
    quotients = np.diff(ends, prepend=-1) - 1
    fixed = stream[start : start + count * bits].reshape(count, bits).astype(np.int64)
    remainders = fixed @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64)) if bits else np.zeros(count, np.int64)
    steps = max(int(quotients.max(initial=0)) << bits, int(remainders.max(initial=0)))  # each alone, or int64 wraps
    positions = np.cumsum((quotients << bits) + remainders + 1) - 1
    if count and (steps >= length or int(positions[-1]) >= length):
        raise BadInput("the positions of the update leave their tensor", remedy="download the update again")
    return positions
