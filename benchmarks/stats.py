"""The mathematics of measuring: medians, bootstrap intervals, Wilson's interval of a share; pure and seeded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
RESAMPLED_AT_ONCE = 100
"""So many resamples lie in memory at once; RESAMPLES is a multiple of it."""
NO_DIFFERENCE = "no difference shown"

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def differs_from_one(self) -> bool:
        """Whether the interval of a ratio leaves out 1: only then is a difference shown."""
        return not self.low <= 1.0 <= self.high


def median(values: Values) -> float:
    """The middle of the sorted values, or the mean of the two in the middle; NaN of none."""
    return quantile(values, 0.5)


def quantile(values: Values, share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, interpolated between neighbours; NaN of none."""
    return float(np.quantile(values, share)) if len(values) else math.nan


def median_interval(values: Values, *, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """The median and its percentile bootstrap interval (Efron 1979): quantiles of the medians of resamples.

    The values must be independent of each other: give the medians of blocks where runs that follow each other are not.
    """
    array = np.asarray(values, dtype=np.float64)
    medians = np.concatenate([np.median(array[chosen], axis=1) for chosen in _resampled(len(array), seed)])
    return Estimate(median(array), *_middle(medians, confidence))


def ratio_interval(
    numerators: Values,
    denominators: Values,
    *,
    paired: bool,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """The ratio of two medians and its percentile bootstrap interval.

    `paired` values, such as the blocks of one round, are resampled together, so that what disturbs a whole round
    cancels; else each side is resampled by itself.
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    draws = zip(_resampled(len(above), seed), _resampled(len(below), seed if paired else seed + 1), strict=True)
    ratios = np.concatenate([np.median(above[a], axis=1) / np.median(below[b], axis=1) for a, b in draws])
    return Estimate(median(above) / median(below), *_middle(ratios, confidence))


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share, `(low, high)` within 0..1; all of 0..1 where nothing was tried.

    With p = successes / n and z the normal quantile of (1 + confidence) / 2:
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    (Wilson, "Probable inference, the law of succession, and statistical inference", 1927). `successes` may be a sum of
    shares. Unlike p -+ z sqrt(p (1 - p) / n) it has a width at 0 and at n, where the usual one claims certainty.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    share = successes / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1.0 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * reach) / (1.0 + z * z / n) for sign in (-1.0, 1.0))
    return (0.0 if successes == 0 else max(0.0, low)), (1.0 if successes == n else min(1.0, high))


def in_words(ratio: Estimate) -> str:
    """A ratio as a report prints it: `1.52x (1.48 to 1.57)`, and no figure where the interval contains 1."""
    if not ratio.differs_from_one:
        return f"{NO_DIFFERENCE} ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _resampled(n: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of RESAMPLES draws of n out of n with replacement, `[some, n]` at a time."""
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES // RESAMPLED_AT_ONCE):
        yield generator.integers(n, size=(RESAMPLED_AT_ONCE, n))


def _middle(figures: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    return quantile(figures, tail), quantile(figures, 1.0 - tail)
