"""Rounding in which later weights of a row amend the errors of earlier ones, on the inputs that the layer really sees.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.modules.weight_uses import Use, watched_weights, weight_uses
from exporter.tracing.flat_module import FlatModule, Tensors

CONVOLUTIONS = {3: nn.functional.conv1d, 4: nn.functional.conv2d, 5: nn.functional.conv3d}
"""By the number of axes of the weight."""


class _Seen(Exception):
    """All that a run was for has been seen."""


def input_hessian(flat: FlatModule, name: str, samples: Sequence[Tensors]) -> Tensor | None:
    """H = 2 / n * sum of x x^T over the n inputs x of the layers that use the weight `name`, float64 `[in, in]`.

    It is the second derivative of the mean of |(w - q) x|^2 in a row w `[in]` of the weight. The inputs of a
    convolution are its patches, `in` = channels * kernel. None for a weight that is used as an embedding, in groups, or
    in a convolution that is no module of its own.
    """
    layer = flat.module.get_submodule(name.rpartition(".")[0])
    uses = weight_uses(flat)[name]
    if any(not _has_rows(layer, use) for use in uses):
        return None
    total, count, calls = torch.zeros((), dtype=torch.float64), 0, 0

    def see(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal total, count, calls
        if use.name == name:
            rows = value.flatten(0, -2) if use.kind == "linear" else _patches(layer, value, weight)
            total, count, calls = total + (rows.T @ rows).double(), count + len(rows), calls + 1
            if calls % len(uses) == 0:
                raise _Seen
        return value, weight

    with torch.no_grad(), watched_weights(flat.module, see):
        for inputs in samples:
            with contextlib.suppress(_Seen):  # what comes after the layer need not be computed
                flat.compute(inputs)
    return total * 2 / count


def compensated_codes(weight: Tensor, hessian: Tensor, scale: Tensor, largest: int, damping: float) -> Tensor:
    """Codes within -largest..largest of a weight `[out, in]` with scales `[out]`, float64 `[out, in]`.

    Column by column, in order: q_i = round(w_i / s) is fixed and its error (w_i - s q_i) / U_ii, times U_ij, is taken
    from every later column j; U is the upper Cholesky factor of (H + damping * mean(diag H) * I)^-1. An input that is
    always zero has no say in the others, and a weight that is exactly zero (a pruned one) keeps the code 0.
    """
    work, scale = weight.double().clone(), scale.double()
    codes = torch.zeros_like(work)
    factor = _inverse_factor(hessian, damping)
    for i in range(work.shape[1]):
        nearest = torch.clamp(torch.round(work[:, i] / scale), -largest, largest)
        codes[:, i] = torch.where(weight[:, i] == 0, 0.0, nearest)
        error = (work[:, i] - scale * codes[:, i]) / factor[i, i]
        work[:, i + 1 :] -= error[:, None] * factor[i, i + 1 :]
    return codes


def _inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    damped = hessian.clone()
    diagonal = damped.diagonal()
    diagonal += damping * diagonal.mean()
    diagonal[diagonal == 0] = 1.0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def _has_rows(layer: nn.Module, use: Use) -> bool:
    convolution = use.kind == "conv" and use.groups == 1 and isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return use.kind == "linear" or convolution


def _patches(layer: Any, value: Tensor, weight: Tensor) -> Tensor:
    """The inputs of every place of a convolution, `[places, channels * kernel]`, cut out by one with an identity."""
    size = weight[0].numel()
    identity = torch.eye(size).view(size, *weight.shape[1:])
    padding = layer.padding if layer.padding_mode == "zeros" else 0  # others are in the value already
    found = CONVOLUTIONS[weight.ndim](value, identity, None, layer.stride, padding, layer.dilation)
    return found.movedim(1, -1).flatten(0, -2)
