"""Kernel truth: where an artifact really computes with low-bit weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class KernelTruth:
    """How the weights of an artifact reach its kernels, as shares (0 to 1) of all their values, which add up to 1.

    `low_bit_share` is read as codes by the operators themselves, `dequantized_share` is stored as codes and made
    floating point before it is used, `float_share` is stored as floating point. `time_share` is how much of an
    inference's time the operators that read codes take, None where nothing tells; `note` says how it was found.
    """

    low_bit_share: float
    dequantized_share: float
    float_share: float
    time_share: Optional[float] = None
    note: str = ""
