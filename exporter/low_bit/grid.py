"""The 256 values that int8 activations take, and the range they are spread over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exporter.low_bit.weight import Range

STEPS = 255


@dataclass(frozen=True)
class Grid:
    """The values scale * (q - zero_point) for q in 0..255, zero among them; int8 formats shift q and zero by 128."""

    scale: float
    zero_point: int


def grid_of(reach: Range) -> Grid:
    """The 256 values of a range: scale = (high - low) / 255 in float32, zero point = round(-low / scale), half to even.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018,
    section 2.1. A range of zero alone has scale 1.
    """
    scale = float(np.float32((reach.high - reach.low) / STEPS))
    if not scale > np.finfo(np.float32).tiny:
        return Grid(1.0, 0)
    return Grid(scale, min(STEPS, max(0, round(-reach.low / scale))))


def range_of(value: Tensor) -> Range:
    """The range that a runtime takes from a tensor: its extremes, and zero."""
    low, high = torch.aminmax(value.detach())
    return Range(min(0.0, float(low)), max(0.0, float(high)))
