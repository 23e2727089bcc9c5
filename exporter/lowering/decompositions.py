"""Decompositions where a converter overlooks an argument (`alpha`, a GELU's approximation), is inexact, or fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from exporter.tracing.program import changes_in_place

aten = torch.ops.aten
Table = Mapping[Any, Callable[..., Any]]


def decomposed(exported: torch.export.ExportedProgram, table: Table) -> torch.export.ExportedProgram:
    """The program with these operations decomposed, all others as they are; itself where it calls none of them."""
    graphs = [m.graph for m in exported.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    calls = {n.target for graph in graphs for n in graph.nodes if n.op == "call_function"}
    # What is done in place shows what it is once it is functional.
    chosen = calls & set(table) or changes_in_place(exported)
    return exported.run_decompositions(dict(table)) if chosen else exported


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


def _is_negative(x: torch.Tensor) -> torch.Tensor:
    """Whether the sign bit is set, of -0.0 too."""
    return (x < 0) | ((x == 0) & (torch.full((), 1.0, dtype=x.dtype) / x < 0))


def _atan2(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Converters take atan(y / x), which is NaN for 0 / 0 and inf / inf, and they miss a quadrant where y is 0."""
    if not x.is_floating_point():
        x, y = x.float(), y.float()
    along, up = x.abs(), y.abs()
    least, most = torch.minimum(along, up), torch.maximum(along, up)
    angle = torch.atan(torch.where(least == most, (most != 0).to(x.dtype), least / most))  # 0 / 0: 0; inf / inf: 1
    angle = torch.where(up > along, math.pi / 2 - angle, angle)
    angle = torch.where(_is_negative(x), math.pi - angle, angle)
    return torch.where(_is_negative(y), -angle, angle)


Number = torch.Tensor | float


def _promoted(x: Number, y: Number) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as tensors of the type of the result of arithmetic with them."""
    dtype = torch.result_type(x, y)

    def tensor(value: Number) -> torch.Tensor:
        return value.to(dtype) if isinstance(value, torch.Tensor) else torch.full((), value, dtype=dtype)

    return tensor(x), tensor(y)


def _apart(rest: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Where a truncated remainder is not that of a division towards minus infinity."""
    return (rest != 0) & ((rest < 0) != (y < 0))


def _remainder(x: Number, y: Number) -> torch.Tensor:
    """torch's own formula: x - y * floor(x / y) is off by y where the quotient is rounded up to a whole number."""
    x, y = _promoted(x, y)
    rest = torch.fmod(x, y)
    return torch.where(_apart(rest, y), rest + y, rest)


def _remainder_of_floats(x: Number, y: Number) -> torch.Tensor:
    return _remainder(x, y) if torch.result_type(x, y).is_floating_point else NotImplemented


def _floor_divide(x: Number, y: Number) -> torch.Tensor:
    """torch's own formula for floats: floor(x / y) is 1 too much where the quotient is rounded up (1 // 0.1 is 9)."""
    x, y = _promoted(x, y)
    if not x.is_floating_point():
        return NotImplemented
    rest = torch.fmod(x, y)
    quotient = (x - rest) / y  # whole but for rounding
    quotient = torch.where(_apart(rest, y), quotient - 1, quotient)
    whole = torch.floor(quotient)
    whole = torch.where(quotient - whole > 0.5, whole + 1, whole)
    return torch.where(y == 0, x / y, whole)


def _divide(x: Any, y: Any, *, rounding_mode: str | None = None) -> torch.Tensor:
    """Of integers without floating point, which holds those up to 2**24."""
    if torch.result_type(x, y).is_floating_point:
        return _floor_divide(x, y) if rounding_mode == "floor" else NotImplemented
    if rounding_mode is None:
        return NotImplemented
    return torch.floor_divide(x if rounding_mode == "floor" else x - torch.fmod(x, y), y)


ALPHA = {aten.add.Tensor: _add, aten.sub.Tensor: _subtract, aten.rsub.Tensor: _subtract_from}


def _shift_left(x: torch.Tensor, bits: int) -> torch.Tensor:
    return x * 2**bits if isinstance(bits, int) and 0 <= bits < 31 else NotImplemented


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.floor_divide(x, 2**bits) if isinstance(bits, int) and 0 <= bits < 31 else NotImplemented


LOG_SIGMOID = {aten.log_sigmoid.default: _log_sigmoid}
ACTIVATIONS = {aten.gelu.default: _tanh_gelu, **LOG_SIGMOID}
QUADRANTS = {aten.atan2.default: _atan2}
REMAINDERS = {
    aten.remainder.Tensor: _remainder,
    aten.remainder.Scalar: _remainder,
    aten.remainder.Scalar_Tensor: _remainder,
}
REMAINDERS_OF_FLOATS = dict.fromkeys(REMAINDERS, _remainder_of_floats)
QUOTIENTS = {
    aten.floor_divide.default: _floor_divide,
    aten.floor_divide.Scalar: _floor_divide,
    aten.div.Tensor_mode: _divide,
    aten.div.Scalar_mode: _divide,
}
"""Both by `fmod`, which is exact."""
SHIFTS = {
    aten.__lshift__.Scalar: _shift_left,
    aten.__rshift__.Scalar: _shift_right,
    aten.bitwise_left_shift.Tensor_Scalar: _shift_left,
    aten.bitwise_right_shift.Tensor_Scalar: _shift_right,
}
INEXACT = {
    aten.log_softmax.int: _log_softmax,
    aten._log_softmax.default: _log_softmax,
    aten.reciprocal.default: _reciprocal,
}


def _fmod_by_remainder(x: Number, y: Number) -> torch.Tensor:
    """By `remainder`, which LiteRT computes by C's fmod, where litert-torch takes x - y * trunc(x / y)."""
    x, y = _promoted(x, y)
    if x.is_floating_point():
        rest = torch.remainder(x.abs(), y.abs())
        return torch.where(x < 0, -rest, rest)
    rest = torch.remainder(x, y)  # LiteRT has no absolute value of int64
    return torch.where((rest != 0) & ((x < 0) != (y < 0)), rest - y, rest)


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


TRUNCATED = {aten.fmod.Tensor: _fmod_by_remainder, aten.fmod.Scalar: _fmod_by_remainder}
FOLDED = {aten.layer_norm.default: _layer_norm}
"""For low-bit weights only."""
DOUBLED = {aten.prelu.default: _prelu_without_negation}
REFUSED = {aten.prelu.default: _prelu}
