"""What an int8 runtime computes, in PyTorch: activations rounded to 256 values of their range, weights as they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from exporter.low_bit.grid import STEPS, Grid, grid_of, range_of
from exporter.low_bit.weight import LowBit
from exporter.modules.weight_uses import Use, watched_weights
from exporter.tracing.flat_module import FlatModule, Tensors

STOCHASTIC_RUNS = 3

Rounding = Callable[[Tensor], Tensor]


def quantized(value: Tensor, grid: Grid, rounding: Rounding = torch.round) -> Tensor:
    """`value` at the nearest values of the grid, as ONNX's QuantizeLinear and DequantizeLinear make it, float32.

    The gradient passes through the rounding unchanged and is zero outside the grid: the straight-through estimator
    (Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013).
    """
    low, high = -grid.zero_point, STEPS - grid.zero_point
    inside = torch.clamp(value, grid.scale * low, grid.scale * high)
    with torch.no_grad():
        nearest = torch.clamp(rounding(value / grid.scale), low, high) * grid.scale
    return inside + (nearest - inside).detach() if inside.requires_grad else nearest


@contextlib.contextmanager
def emulated(flat: FlatModule, low_bit: LowBit, rounding: Rounding = torch.round) -> Iterator[None]:
    """While it is active, `flat.compute` quantizes the activations of the layers whose weights are in `low_bit`.

    A "static" layer rounds its input, and its output once the bias is in it, within their calibrated ranges; a
    "dynamic" one rounds its input within the range of the whole tensor at hand. Embeddings and "float" layers round
    nothing, and no layer but these does: between them the runtime computes in float.
    """

    def before(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        layer = low_bit.get(use.name)
        if layer is None or layer.activations == "float" or use.kind == "embedding":
            return value, weight
        extent = layer.inputs if layer.activations == "static" else range_of(value)
        assert extent is not None, use.name
        return quantized(value, grid_of(extent), rounding), weight

    def after(use: Use, output: Tensor) -> Tensor:
        layer = low_bit.get(use.name)
        if layer is None or layer.activations != "static" or use.kind == "embedding":
            return output
        assert layer.outputs is not None, use.name
        return quantized(output, grid_of(layer.outputs), rounding)

    with watched_weights(flat.module, before, after):
        yield


def quantization_errors(flat: FlatModule, low_bit: LowBit, samples: Sequence[Tensors]) -> dict[str, list[np.ndarray]]:
    """By how much quantized activations alone change each floating-point output, one array a sample and a run.

    As an allowance for a runtime it must hold where the runtime, whose float arithmetic is another, rounds a value that
    lies halfway to the other side: an error of one step where rounding to the nearest makes half a step at most. So the
    activations are rounded to the nearest once and STOCHASTIC_RUNS times stochastically, up or down by chance (always
    the same chances), which makes errors of up to one step in every layer.
    """
    with torch.no_grad():
        exact = [flat.compute(dict(sample)) for sample in samples]
        errors: dict[str, list[np.ndarray]] = {n: [] for n, value in exact[0].items() if value.is_floating_point()}
        roundings: tuple[Rounding, ...] = (torch.round, *map(_stochastic, range(STOCHASTIC_RUNS)))
        for rounding in roundings:
            with emulated(flat, low_bit, rounding):
                rounded = [flat.compute(dict(sample)) for sample in samples]
            for name, a, b in (
                (name, a[name], b[name]) for a, b in zip(rounded, exact, strict=True) for name in errors
            ):
                errors[name].append((a - b).numpy())
    return errors


def quantization_noise(flat: FlatModule, low_bit: LowBit, samples: Sequence[Tensors]) -> dict[str, float]:
    """The largest of the `quantization_errors` of each output."""
    return largest_of(quantization_errors(flat, low_bit, samples))


def largest_of(errors: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """The largest absolute error of each output."""
    return {name: max(float(np.max(np.abs(e), initial=0.0)) for e in seen) for name, seen in errors.items()}


def signal_to_noise_db(exact: Tensors, outputs: Tensors) -> float:
    """The lowest 10 log10(sum y^2 / sum (y - y')^2) of the floating-point outputs; infinity where none changes."""
    found = [math.inf]
    for name, value in exact.items():
        if value.is_floating_point():
            signal, noise = value.double().square().sum(), (value.double() - outputs[name].double()).square().sum()
            if noise > 0:
                found.append(float(10.0 * torch.log10(signal / noise)))
    return min(found)


def _stochastic(seed: int) -> Rounding:
    """Rounding up with the probability of the fraction, else down (Gupta et al., "Deep Learning with Limited Numerical
    Precision", 2015)."""
    generator = torch.Generator().manual_seed(seed)
    return lambda value: torch.floor(value + torch.rand(value.shape, generator=generator))
