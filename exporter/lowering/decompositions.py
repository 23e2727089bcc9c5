"""Decompositions where a converter overlooks an argument (`alpha`, a GELU's approximation), is inexact, or fails."""

from __future__ import annotations

import math

import torch

aten = torch.ops.aten


def _add(x: torch.Tensor, y: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    return NotImplemented if alpha == 1 else x + y * alpha  # NotImplemented: it stays one operation


def _subtract(x: torch.Tensor, y: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    return NotImplemented if alpha == 1 else x - y * alpha


def _subtract_from(x: torch.Tensor, y: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    return NotImplemented if alpha == 1 else y - x * alpha


def _tanh_gelu(x: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    """Written as coremltools fuses it to one operation again."""
    if approximate != "tanh":
        return NotImplemented
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def _log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return -torch.nn.functional.softplus(-x)


def _log_softmax(x: torch.Tensor, dim: int, half_to_float: bool = False) -> torch.Tensor:
    """coremltools takes the logarithm of a softmax, which underflows."""
    return x - torch.logsumexp(x, dim, keepdim=True)


def _reciprocal(x: torch.Tensor) -> torch.Tensor:
    """coremltools adds 1e-4 to the denominator of MIL's `inverse`; a division is exact."""
    return torch.full((), 1.0, dtype=x.dtype) / x


def _prelu(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """coremltools takes a slope for each channel only for `[batch, channels, height, width]`."""
    if x.ndim == 4 or weight.numel() == 1:
        return NotImplemented
    slope = weight.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else weight
    return torch.relu(x) - slope * torch.relu(-x)


ALPHA = {aten.add.Tensor: _add, aten.sub.Tensor: _subtract, aten.rsub.Tensor: _subtract_from}
ACTIVATIONS = {aten.gelu.default: _tanh_gelu, aten.log_sigmoid.default: _log_sigmoid}
INEXACT = {
    aten.log_softmax.int: _log_softmax,
    aten._log_softmax.default: _log_softmax,
    aten.reciprocal.default: _reciprocal,
}


def _prelu_without_negation(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """litert-torch negates the input, which its optimizer folds into a second copy of the weights before it."""
    slope = weight.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else weight
    return torch.relu(x) + slope * torch.clamp(x, max=0.0)


def _layer_norm(
    x: torch.Tensor,
    shape: list[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> torch.Tensor:
    """litert-torch's optimizer folds a product with constants into the weights of the layers that read it, which then
    are no codes any more: x + x * (weight - 1) it leaves alone."""
    axes = list(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    unit = centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    scaled = unit if weight is None else unit + unit * (weight - 1.0)
    return scaled if bias is None else scaled + bias


FOLDED = {aten.layer_norm.default: _layer_norm}
"""For low-bit weights only."""
DOUBLED = {aten.prelu.default: _prelu_without_negation}
REFUSED = {aten.prelu.default: _prelu}
