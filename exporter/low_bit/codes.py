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

from exporter.low_bit.weight import LARGEST_CODE, PER_CHANNEL, Granularity, LowBitWeight

CLIPPING = torch.linspace(1.0, 0.5, 26)
"""The scales that are tried with 4 bits, as shares of the one that clips nothing."""


@dataclass(frozen=True)
class Layer:
    """What is to become of a weight: its kind, its bits, how its layers take their activations, what shares a scale."""

    kind: str
    bits: int
    activations: str
    granularity: Granularity = PER_CHANNEL


def granularity_of(kind: str, grouped: bool = False) -> Granularity:
    """Per channel of the output: along the first axis of a weight, but for a transposed convolution's.

    Its `[in, out / groups, ...]` has them along the second; in groups, where each is of several outputs, those along
    the first are finer.
    """
    return Granularity(axis=1) if kind == "conv_transpose" and not grouped else PER_CHANNEL


def quantize_weight(
    weight: Tensor, bits: int, clip: Tensor | float = 1.0, granularity: Granularity = PER_CHANNEL
) -> tuple[np.ndarray, np.ndarray]:
    """Codes, int8 of the shape of `weight`, and scales, float32 `[channels]` or `[out, in / g]`: see the module.

    `clip` (a number, or one for each scale) makes the scale smaller than max|w| / L; what is beyond it is clipped.
    """
    weight = weight.detach().float()
    scale = largest_scale(weight, bits, clip, granularity)
    return nearest_codes(weight, scale, bits, granularity).to(torch.int8).numpy(), scale.numpy()


def sharing(weight: Tensor, granularity: Granularity) -> Tensor:
    """The values by the scale that they share: `[out, in]` -> `[out, in]`, with groups -> `[out, in / g, g]`."""
    by_channel = weight.movedim(granularity.axis, 0)
    return by_channel.reshape(*granularity.scale_shape(tuple(weight.shape)), -1)


def largest_scale(
    weight: Tensor, bits: int, clip: Tensor | float = 1.0, granularity: Granularity = PER_CHANNEL
) -> Tensor:
    """The scales, float32 `[channels]` or `[out, in / g]`; 1 where all are zeros (or nothing but subnormal numbers)."""
    scale = sharing(weight.detach(), granularity).abs().amax(-1) / LARGEST_CODE[bits] * clip
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


def nearest_codes(weight: Tensor, scale: Tensor, bits: int, granularity: Granularity = PER_CHANNEL) -> Tensor:
    """round(w / s), clipped to the codes of so many bits, of the shape and type of `weight`."""
    steps = weight / granularity.along(scale, tuple(weight.shape))
    return torch.clamp(torch.round(steps), -LARGEST_CODE[bits], LARGEST_CODE[bits])


def best_clip(weight: Tensor, bits: int, clip: bool = True, granularity: Granularity = PER_CHANNEL) -> Tensor:
    """The share of max|w| / L, one for each scale, that makes the least sum of (w - s * q)^2, out of CLIPPING.

    It is 1 with 8 bits, where clipping gains nothing, and without `clip`. (OCTAV of Sakr et al., "Optimal Clipping and
    Magnitude-aware Differentiation for Improved Quantization-aware Training", 2022, minimizes the same error.)
    """
    shape = tuple(weight.shape)
    best = torch.ones(granularity.scale_shape(shape))
    if bits == 8 or not clip:
        return best
    least = torch.full_like(best, torch.inf)
    for share in CLIPPING:
        scale = largest_scale(weight, bits, share, granularity)
        value = nearest_codes(weight, scale, bits, granularity) * granularity.along(scale, shape)
        error = sharing(weight - value, granularity).square().sum(-1)
        best, least = torch.where(error < least, share, best), torch.minimum(error, least)
    return best


def low_bit_weight(weight: Tensor, layer: Layer, clip: Tensor | float = 1.0) -> LowBitWeight:
    """The low-bit weight of a layer, without ranges of its activations."""
    codes, scale = quantize_weight(weight, layer.bits, clip, layer.granularity)
    return LowBitWeight(codes, scale, layer.bits, layer.kind, layer.activations, granularity=layer.granularity)


def ternarize(weight: Tensor, granularity: Granularity = PER_CHANNEL) -> tuple[np.ndarray, np.ndarray]:
    """Codes, int8 of the shape of `weight`, and float32 scales `[channels]` or `[out, in / g]`, of least squared error.

    For values w of one scale, with |w| sorted downwards, the k largest get the code sign(w), and s is their mean: k
    maximizes (sum of the k largest |w|)^2 / k, which is what sum (w - s q)^2 lacks to sum w^2. Li et al., "Ternary
    Weight Networks", 2016, solved exactly instead of by their rule, the threshold 0.7 * mean|w|. Zeros alone (or
    nothing but subnormal numbers) have s = 1 and no code but 0.
    """
    shared = sharing(weight.detach().float(), granularity)  # [*scales, values]
    rows = shared.flatten(0, -2).numpy()
    magnitudes = np.abs(rows)
    largest = np.sort(magnitudes, axis=1)[:, ::-1]
    sums = largest.cumsum(axis=1, dtype=np.float64)
    best = (sums**2 / np.arange(1, rows.shape[1] + 1)).argmax(axis=1)[:, None]  # [scales, 1], k - 1
    scale = (np.take_along_axis(sums, best, 1) / (best + 1)).astype(np.float32)  # [scales, 1]
    normal = scale > np.finfo(np.float32).tiny
    codes = np.sign(rows) * (magnitudes >= np.take_along_axis(largest, best, 1)) * normal  # [scales, values]
    moved = weight.movedim(granularity.axis, 0).shape
    in_order = np.moveaxis(codes.astype(np.int8).reshape(moved), 0, granularity.axis)
    scale = np.where(normal, scale, np.float32(1)).reshape(shared.shape[:-1])
    return np.ascontiguousarray(in_order), scale
