"""Codes and scales of weights: symmetric integers of 8 or 4 bits, and ternary ones.

For a channel w of b bits, with L = 127 or 7: scale s = max|w| / L, codes q = round(w / s) half to even, the weight
becomes s * q (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, with a symmetric grid and one scale a channel as in Krishnamoorthi, "Quantizing Deep Convolutional
Networks for Efficient Inference: A Whitepaper", 2018, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exporter.low_bit.weight import LARGEST_CODE, LowBitWeight

CLIPPING = torch.linspace(1.0, 0.5, 26)
"""The scales that are tried with 4 bits, as shares of the one that clips nothing."""


@dataclass(frozen=True)
class Layer:
    """What is to become of a weight: its kind, its bits, and how the layers that use it take their activations."""

    kind: str
    bits: int
    activations: str


def quantize_weight(weight: Tensor, bits: int, clip: Tensor | float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Codes, int8 of the shape of `weight` `[channels, ...]`, and scales, float32 `[channels]`: see the module.

    `clip` (a number or `[channels]`) makes the scale smaller than max|w| / L; what is beyond it is clipped.
    """
    weight = weight.detach().float()
    scale = channel_scale(weight, bits, clip)
    return nearest_codes(weight, scale, bits).to(torch.int8).numpy(), scale.numpy()


def channel_scale(weight: Tensor, bits: int, clip: Tensor | float = 1.0) -> Tensor:
    """The scale of each channel, float32 `[channels]`; 1 for a channel of zeros (or nothing but subnormal numbers)."""
    scale = weight.detach().flatten(1).abs().amax(1) / LARGEST_CODE[bits] * clip
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


def nearest_codes(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    return torch.clamp(torch.round(weight / along(scale, weight)), -LARGEST_CODE[bits], LARGEST_CODE[bits])


def along(scale: Tensor, weight: Tensor) -> Tensor:
    """`[channels]` -> `[channels, 1, ...]`, to go with the weight."""
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def best_clip(weight: Tensor, bits: int, clip: bool = True) -> Tensor:
    """The share of max|w| / L, `[channels]`, that makes the least sum of (w - s * q)^2 over a channel, out of CLIPPING.

    It is 1 with 8 bits, where clipping gains nothing, and without `clip`. (OCTAV of Sakr et al., "Optimal Clipping and
    Magnitude-aware Differentiation for Improved Quantization-aware Training", 2022, minimizes the same error.)
    """
    best = torch.ones(len(weight))
    if bits == 8 or not clip:
        return best
    least = torch.full_like(best, torch.inf)
    for share in CLIPPING:
        scale = channel_scale(weight, bits, share)
        error = (weight - nearest_codes(weight, scale, bits) * along(scale, weight)).flatten(1).square().sum(1)
        best, least = torch.where(error < least, share, best), torch.minimum(error, least)
    return best


def low_bit_weight(weight: Tensor, layer: Layer, clip: Tensor | float = 1.0) -> LowBitWeight:
    """The low-bit weight of a layer, without ranges of its activations."""
    codes, scale = quantize_weight(weight, layer.bits, clip)
    return LowBitWeight(codes, scale, layer.bits, layer.kind, layer.activations)


def ternarize(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Codes, int8 of the shape of `weight` `[channels, ...]`, and scales, float32 `[channels]`, of least squared error.

    For a channel w with |w| sorted downwards, the k largest get the code sign(w), and s is their mean: k maximizes
    (sum of the k largest |w|)^2 / k, which is what sum (w - s q)^2 lacks to sum w^2. Li et al., "Ternary Weight
    Networks", 2016, solved exactly instead of by their rule, the threshold 0.7 * mean|w|. A channel of zeros (or of
    nothing but subnormal numbers) has s = 1 and no code but 0.
    """
    rows = weight.detach().float().flatten(1).numpy()
    magnitudes = np.abs(rows)
    largest = np.sort(magnitudes, axis=1)[:, ::-1]
    sums = largest.cumsum(axis=1, dtype=np.float64)
    best = (sums**2 / np.arange(1, rows.shape[1] + 1)).argmax(axis=1)[:, None]  # [channels, 1], k - 1
    scale = (np.take_along_axis(sums, best, 1) / (best + 1)).astype(np.float32)  # [channels, 1]
    normal = scale > np.finfo(np.float32).tiny
    codes = np.sign(rows) * (magnitudes >= np.take_along_axis(largest, best, 1)) * normal
    return codes.astype(np.int8).reshape(weight.shape), np.where(normal, scale, np.float32(1))[:, 0]
