"""The ratio of two latencies that were measured apart: not in turns, maybe on different days; pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from benchmarks.result import Block
from benchmarks.stats import CONFIDENCE, RESAMPLED_AT_ONCE, RESAMPLES, Estimate, median, ratio_interval

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's 97.5% quantile for 1, 2, ... degrees of freedom (any table); beyond, 2.131 is on the safe side."""


def latency_ratio(numerators: Sequence[Block], denominators: Sequence[Block], seed: int = 0) -> Estimate:
    """The ratio of two medians of block medians, of runs that are independent of each other, and its 95% interval.

    Where a side has several processes, they are resampled first and blocks within them next, since blocks of one
    process are alike; the interval is then stretched by sqrt(n / (n - 1)) t / z about its middle, in logarithms: few
    processes vary too little in a bootstrap (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
    """
    sides = [_by_process(blocks) for blocks in (numerators, denominators)]
    counts = [len(side) for side in sides if len(side) > 1]
    if not counts:
        return ratio_interval(sides[0][0], sides[1][0], paired=False, seed=seed)
    drawn = [_nested_medians(side, seed + i) for i, side in enumerate(sides)]
    logs = np.log(drawn[0] / drawn[1])
    value = median(np.concatenate(sides[0])) / median(np.concatenate(sides[1]))
    freedom = sum(count - 1 for count in counts)
    fewest = min(counts)
    t, z = T_95[min(freedom, len(T_95)) - 1], NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    stretch = max(1.0, t / z * float(np.sqrt(fewest / (fewest - 1))))
    middle = np.log(value)
    low, high = (
        middle + stretch * (np.quantile(logs, q) - middle) for q in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    return Estimate(value, float(np.exp(low)), float(np.exp(high)))


def _by_process(blocks: Sequence[Block]) -> list[np.ndarray]:
    """Block medians, an array for each process."""
    medians: dict[int, list[float]] = {}
    for block in blocks:
        medians.setdefault(block.process, []).append(median(block.times_ns))
    return [np.asarray(values) for values in medians.values()]


def _nested_medians(side: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Medians of RESAMPLES draws: as many processes as there are, and as many blocks within each as it has."""
    generator = np.random.default_rng(seed)
    lengths = np.array([len(values) for values in side])
    padded = np.full((len(side), lengths.max()), np.nan)  # [processes, blocks]
    for row, values in zip(padded, side, strict=True):
        row[: len(values)] = values
    found = []
    for _ in range(RESAMPLES // RESAMPLED_AT_ONCE):
        chosen = generator.integers(len(side), size=(RESAMPLED_AT_ONCE, len(side)))  # [draws, processes]
        blocks = generator.integers(lengths[chosen][..., None], size=(*chosen.shape, lengths.max()))
        drawn = padded[chosen[..., None], blocks]  # [draws, processes, blocks]
        drawn[np.arange(lengths.max()) >= lengths[chosen][..., None]] = np.nan  # no more than the process has
        found.append(np.nanmedian(drawn.reshape(RESAMPLED_AT_ONCE, -1), axis=1))
    return np.concatenate(found)
