"""Which constant of a lowered file holds which low-bit weight: by its name first, and the value is the check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exporter.low_bit.weight import HALF_BITS, OTHER_USE, LowBit, LowBitWeight, Range

TOLERANCE = 8 * float(np.finfo(np.float32).eps)
"""How far a converter's own float32 arithmetic may have moved a weight, relative to it; its file's type rounds too."""


@dataclass(frozen=True)
class Layout:
    """What a format's converter may do to a weight, by the weight's rank.

    `orders` gives the orders of axes that a constant may have. With `first_rows` it may be an embedding's look-up of
    fixed positions, computed at conversion; with `factor` it may be a multiple of the weight.
    """

    orders: Callable[[int], Iterable[tuple[int, ...]]]
    first_rows: bool = False
    factor: bool = False


@dataclass(frozen=True)
class FoundWeight:
    """A low-bit weight that a constant holds `factor` times, its axes in the order `axes` of PyTorch's.

    `names` are several where weights are equal. `weight` is as PyTorch has it, but for what the converter did: cut to
    the rows that are looked up, its kernel turned around; its ranges cover all of the `names`.
    """

    names: tuple[str, ...]
    weight: LowBitWeight
    axes: tuple[int, ...]
    factor: float

    @property
    def codes(self) -> np.ndarray:
        """int8, as they lie in the constant."""
        return np.ascontiguousarray(self.weight.codes.transpose(self.axes))

    @property
    def axis(self) -> int:
        """That of the scales in the constant."""
        return self.axes.index(self.weight.granularity.axis)

    @property
    def scale(self) -> np.ndarray:
        """The scales, with an axis for each of the constant's: `[out, 1]`, in groups `[out, in / g]`."""
        scale, granularity = self.weight.scale, self.weight.granularity
        spread = scale if granularity.group else granularity.along(scale, self.weight.codes.shape)
        return np.ascontiguousarray(spread.transpose(self.axes))


def find(name: str, value: np.ndarray, low_bit: LowBit, layout: Layout) -> FoundWeight | None:
    """The low-bit weight that a constant of a lowered file holds, with all others of the same value; None if none.

    A weight that the constant is named after decides what it is, where its value agrees; then any other does.
    """
    matches = {key: match for key in _by_name(name, low_bit) if (match := _match(value, low_bit[key], layout))}
    if not matches:
        return _rearranged(value, low_bit)
    first, *_ = matches
    factors = [match.factor for match in matches.values()]
    factor = factors[0] if _is_named(name, first) or 1.0 not in factors else 1.0
    same = {key: match for key, match in matches.items() if match.factor == factor}
    names = tuple(key for key in low_bit if key in same)
    found = next(iter(same.values()))
    weight = _with_ranges_of_all(found.weight, [low_bit[key] for key in names])
    return FoundWeight(names, weight, found.axes, factor)


def _rearranged(value: np.ndarray, low_bit: LowBit) -> FoundWeight | None:
    """The float16 weights that together are a constant's values in another order, as the gates of recurrent operators.

    What float16 holds needs no more than that to be stored in it.
    """
    halves = {key: weight for key, weight in low_bit.items() if weight.bits == HALF_BITS}
    with np.errstate(over="ignore"):
        held = value.astype(np.float16) if halves and value.ndim > 1 else None
    if held is None or not np.array_equal(held, value):
        return None
    inside = {
        k: w.codes.ravel() for k, w in halves.items() if w.codes.size <= held.size and np.isin(w.codes, held).all()
    }
    if not inside or not np.array_equal(np.sort(np.concatenate([*inside.values()])), np.sort(held, axis=None)):
        return None
    weight = LowBitWeight(held, np.ones(len(held), np.float32), HALF_BITS, OTHER_USE)
    return FoundWeight(tuple(inside), weight, tuple(range(held.ndim)), 1.0)


def _by_name(name: str, low_bit: LowBit) -> list[str]:
    """The names of weights, those first that the constant is named after, the longest of them first."""
    return sorted(low_bit, key=lambda key: -len(key) if _is_named(name, key) else 0)


def _is_named(constant: str, weight: str) -> bool:
    """Whether a converter made the constant's name of the weight's: p_module_a_weight of a.weight."""
    words, wanted = (re.sub(r"\W", "_", name) for name in (constant, weight))
    return f"_{wanted}_" in f"_{words}_"


def _match(value: np.ndarray, weight: LowBitWeight, layout: Layout) -> FoundWeight | None:
    for changed, axes in _variants(weight, value.shape, layout):
        if tuple(changed.codes.shape[axis] for axis in axes) == value.shape:
            factor = _factor(value.transpose(np.argsort(axes)), changed, layout)
            if factor is not None:
                return FoundWeight((), changed, axes, factor)
    return None


def _variants(
    weight: LowBitWeight, shape: Sequence[int], layout: Layout
) -> Iterator[tuple[LowBitWeight, tuple[int, ...]]]:
    """What the converter may have made of a weight for a constant of this shape, and the order of its axes there."""
    codes, rank = weight.codes, len(shape)
    if codes.ndim == 3 and rank == 4:
        codes = codes[:, :, None]  # [out, in, k] -> [out, in, 1, k]
    if codes.ndim == rank:
        yield from ((replace(weight, codes=codes), axes) for axes in layout.orders(rank))
    if codes.ndim == rank and weight.kind == "conv_transpose":  # as a convolution, with its kernel turned around
        turned = replace(weight, codes=np.flip(codes, tuple(range(2, rank))))
        yield from ((turned, axes) for axes in layout.orders(rank))
    if layout.first_rows and weight.kind == "embedding" and rank > 1:
        *ones, rows, width = shape
        if set(ones) <= {1} and width == codes.shape[1] and rows <= len(codes):
            cut = codes[:rows].reshape(rows, *ones, width)  # [vocabulary, width] -> [rows, 1, ..., width]
            axes = (*range(1, rank - 1), 0, rank - 1)
            yield replace(weight, codes=cut, scale=weight.scale[:rows]), axes


def _factor(value: np.ndarray, weight: LowBitWeight, layout: Layout) -> float | None:
    """By which number a weight was multiplied to give `value`, None if by none that the layout allows."""
    scale = weight.granularity.along(weight.scale.astype(np.float32), weight.codes.shape)
    factor: float | None = None
    for part in (slice(1), slice(None)):  # most others differ in the first rows
        held = weight.codes[part] * (scale[part] if len(scale) > 1 else scale)
        factor = _multiple(value[part], held, layout.factor)
        if factor is None:
            return None
    return factor


def _multiple(value: np.ndarray, weight: np.ndarray, any_factor: bool) -> float | None:
    exact = weight.astype(np.float64)
    factors = [1.0, np.vdot(exact, value) / (np.vdot(exact, exact) or 1.0)] if any_factor else [1.0]
    for factor in factors:
        allowed = TOLERANCE * np.abs(factor * exact) + np.spacing(np.abs(value))
        if (np.abs(value - factor * exact) <= allowed).all():
            return float(factor)
    return None


def _with_ranges_of_all(found: LowBitWeight, weights: Sequence[LowBitWeight]) -> LowBitWeight:
    """The weight, its ranges wide enough for the layers of all that are equal: they cannot be told apart."""
    return replace(
        found,
        inputs=_widest(weight.inputs for weight in weights),
        outputs=_widest(weight.outputs for weight in weights),
    )


def _widest(ranges: Iterable[Range | None]) -> Range | None:
    known = [reach for reach in ranges if reach]
    return Range(min(r.low for r in known), max(r.high for r in known)) if known else None
