"""The ranges that activations take on calibration data, for layers that compute in int8 within fixed ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.tasks.task import Arrays, Split
from exporter.low_bit.weight import Range
from exporter.modules.weight_uses import Use, watched_weights
from exporter.sources.inputs import reference
from exporter.tracing.flat_module import FlatModule
from exporter.training.batches import batches
from runtimes.errors import BadInput

Method = Literal["min-max", "percentile", "entropy"]
BATCH = 32
PERCENTILE_BINS = 2**16
SIDE_LEVELS = 128
"""The levels that a quantized tensor has on one side of zero; one without negative values has twice as many."""
BINS_A_LEVEL = 16
"""2048 bins for 128 levels, as in "8-bit Inference with TensorRT"."""
WHERE = "calibration data"


@dataclass(frozen=True)
class Place:
    """The inputs or the outputs of all layers that use one weight."""

    weight: str
    inputs: bool


def calibrate(
    flat: FlatModule,
    split_inputs: Arrays,
    method: Method = "min-max",
    percentile: float = 99.99,
    limit: int | None = None,
    weights: Collection[str] | None = None,
) -> dict[str, tuple[Range, Range]]:
    """The ranges of the inputs and outputs (bias included) of each linear and convolution, by its weight's name.

    The first `limit` samples of `split_inputs` are run, all without it; uses of one weight are pooled; zero lies in
    every range. `weights` are the ones to look at, all unless given. The methods:

    * "min-max": the extremes;
    * "percentile": the central `percentile` percent of the values, the rest cut off in equal shares on both sides,
      to the width of one of PERCENTILE_BINS bins between the extremes;
    * "entropy": see `entropy_threshold`; on a tensor with values of both signs it chooses one threshold T for their
      magnitudes, and the range is the extremes cut to [-T, T]. Zeros do not count, since every grid holds zero.

    Raises BadInput for data that is empty, holds NaN or infinity, is the same in all samples, or does not fit the
    model, and for a layer whose input never varies.
    """
    split = _checked(split_inputs, limit)
    extremes: dict[Place, Range] = {}

    def widen(place: Place, value: Tensor) -> None:
        low, high = (float(v) for v in torch.aminmax(value))
        known = extremes.get(place, Range(low, high))
        extremes[place] = Range(float(np.minimum(low, known.low)), float(np.maximum(high, known.high)))  # NaN stays

    _observe(flat, split, weights, widen)
    for place, extent in extremes.items():
        _check_varies(place, extent)
    ranges = extremes if method == "min-max" else _by_histogram(flat, split, weights, extremes, method, percentile)
    with_zero = {place: Range(min(0.0, r.low), max(0.0, r.high)) for place, r in ranges.items()}
    return {p.weight: (with_zero[p], with_zero[Place(p.weight, inputs=False)]) for p in ranges if p.inputs}


def _checked(inputs: Arrays, limit: int | None) -> Split:
    """The samples to run, once they are known to be of use."""
    if not inputs or not all(len(a) for a in inputs.values()):
        raise BadInput("there are no samples", where=WHERE, remedy="give a calibration split with samples")
    split = Split(inputs).rows(slice(limit))
    for name, array in split.inputs.items():
        if not np.isfinite(array).all():
            raise BadInput(f"input {name!r} holds NaN or infinity", where=WHERE, remedy="clean the data")
    if all((a == (a[0] if len(a) > 1 else a.flat[0])).all() for a in split.inputs.values()):
        raise BadInput("it is constant: no sample differs from the first", where=WHERE, remedy="give real samples")
    return split


def _check_varies(place: Place, extent: Range) -> None:
    if not np.isfinite([extent.low, extent.high]).all():
        raise BadInput(
            f"layer {place.weight} computes NaN or infinity",
            where=WHERE,
            remedy="mend the model, or leave the layer out with layers_out",
        )
    if place.inputs and extent.low == extent.high:
        raise BadInput(
            f"the input of layer {place.weight} is {extent.low:g} in every sample",
            where=WHERE,
            remedy="give data on which it varies, or leave the layer out with layers_out",
        )


def _observe(
    flat: FlatModule, split: Split, weights: Collection[str] | None, see: Callable[[Place, Tensor], None]
) -> None:
    """Run all samples; `see` gets the input and the output of every use of a weight but an embedding's."""

    def watched(use: Use) -> bool:
        return use.kind != "embedding" and (weights is None or use.name in weights)

    def before(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        if watched(use):
            see(Place(use.name, inputs=True), value)
        return value, weight

    def after(use: Use, output: Tensor) -> Tensor:
        if watched(use):
            see(Place(use.name, inputs=False), output)
        return output

    with watched_weights(flat.module, before, after):
        for inputs, _ in batches(flat, split, BATCH):
            reference(flat, inputs)


def _by_histogram(
    flat: FlatModule,
    split: Split,
    weights: Collection[str] | None,
    extremes: dict[Place, Range],
    method: str,
    percentile: float,
) -> dict[Place, Range]:
    """The ranges by a second run that counts the values in bins, so that memory does not grow with data."""
    counts: dict[Place, np.ndarray] = {}

    def count(place: Place, value: Tensor) -> None:
        extent, value = extremes[place], value.float()
        if method == "percentile":
            found = torch.histc(value, PERCENTILE_BINS, extent.low, extent.high)
        else:
            bins = BINS_A_LEVEL * _levels(extent)
            found = torch.histc(value[value != 0].abs(), bins, 0.0, max(-extent.low, extent.high))
        counts[place] = counts.get(place, 0) + found.double().numpy()

    _observe(flat, split, weights, count)
    if method == "percentile":
        return {place: _percentile_range(counts[place], extent, percentile) for place, extent in extremes.items()}
    return {place: _entropy_range(counts[place], extent) for place, extent in extremes.items()}


def _percentile_range(counts: np.ndarray, extent: Range, percentile: float) -> Range:
    """`counts` in equal bins from `extent.low` to `extent.high`."""
    edges = np.linspace(extent.low, extent.high, len(counts) + 1)
    below = np.concatenate([[0.0], np.cumsum(counts)]) / max(1.0, counts.sum())
    cut = (1.0 - percentile / 100.0) / 2.0
    low, high = np.interp([cut, 1.0 - cut], below, edges)
    return Range(float(low), float(high))


def _entropy_range(counts: np.ndarray, extent: Range) -> Range:
    """`counts` of the magnitudes of the values other than zero, in equal bins from 0 to the largest."""
    largest = max(-extent.low, extent.high)
    threshold = largest * entropy_threshold(counts, _levels(extent)) / len(counts)
    return Range(max(extent.low, -threshold), min(extent.high, threshold))


def _levels(extent: Range) -> int:
    return SIDE_LEVELS if extent.low < 0.0 < extent.high else 2 * SIDE_LEVELS


def entropy_threshold(counts: np.ndarray, levels: int = SIDE_LEVELS) -> int:
    """How many of the equal bins that start at magnitude 0 to keep, `levels` of them at least.

    Migacz, "8-bit Inference with TensorRT", 2017: for each number n of bins, P is the first n counts with all later
    ones added to the last; Q is the same n counts in `levels` groups, each group's sum spread evenly over those of its
    bins that are not empty. The n with the least divergence sum P log(P / Q) of the two as distributions is chosen, the
    largest such n when they are equal.
    """
    kept = np.arange(levels, len(counts) + 1)  # [candidates]
    divergences = _divergences(counts, kept, levels)
    return int(kept[divergences <= divergences.min() + np.finfo(np.float32).eps ** 2].max())


def _divergences(counts: np.ndarray, kept: np.ndarray, levels: int) -> np.ndarray:
    """The divergence of P and Q in `entropy_threshold` for each number of bins; infinite where Q is 0 and P is not.

    With N values, n of them in the kept bins and t after them, sum P log(P / Q) = (sum p log p - sum p log q) / N +
    log(n / N), where q is the same in all filled bins of a level, so that sums up to each bin serve all candidates.
    """

    def up_to(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(values)])

    def entropy(values: np.ndarray) -> np.ndarray:
        return values * np.log(np.maximum(values, 1.0))

    edges = kept[:, None] * np.arange(levels + 1) // levels  # [candidates, levels + 1]
    sums, filled = np.diff(up_to(counts)[edges]), np.diff(up_to(counts > 0)[edges])  # [candidates, levels]
    log_means = np.log(np.where(filled > 0, sums / np.maximum(filled, 1.0), 1.0))
    inside, last = up_to(counts)[kept], counts[kept - 1]  # [candidates]
    tail = counts.sum() - inside
    p_log_p = up_to(entropy(counts))[kept] - entropy(last) + entropy(last + tail)
    p_log_q = (sums * log_means).sum(1) + tail * log_means[:, -1]
    possible = (inside > 0) & ((tail == 0) | (last > 0))
    inside_share = np.where(possible, inside, 1.0) / max(1.0, counts.sum())
    return np.where(possible, (p_log_p - p_log_q) / max(1.0, counts.sum()) + np.log(inside_share), np.inf)
