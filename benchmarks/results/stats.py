"""The mathematics of measuring: medians, their intervals and ratios, Wilson's interval of a share; pure and seeded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
RESAMPLED_AT_ONCE = 100
"""So many resamples lie in memory at once; RESAMPLES is a multiple of it."""
STRETCHES = 5
"""Of a process's blocks, in the order of time: each is long enough to average what blocks differ by at random."""
ANGLES = 20_001
NO_DIFFERENCE = "no difference shown"

Values = Sequence[float] | np.ndarray
Groups = Sequence[Values]
"""The block medians of a run, in the order of time, by the process that measured them."""


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
    return float(statistics.median(values)) if len(values) else math.nan  # numpy's takes far longer for a block's few


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


def process_median_interval(groups: Groups, *, confidence: float = CONFIDENCE) -> Estimate:
    """The median of all blocks and where the median of another run lies: value * exp(-+ t u), with the `_spread` u.

    t is Student's, with a degree of freedom less than there are processes, or stretches where there is one process.
    """
    return _around(median(np.concatenate(groups)), [_spread(groups)], confidence)


def process_ratio_interval(
    numerators: Groups, denominators: Groups, *, paired: bool, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """The ratio of two medians and its interval, where processes measured.

    `paired` groups took turns, block by block, in processes that ran side by side. Each pair of processes gives one
    ratio, the median over its rounds, which drift does not reach; n of them differ by where memory and code came to
    lie, and at random: their mean is sure to t s / sqrt(n) (Kalibera and Jones, "Rigorous Benchmarking in Reasonable
    Time", ISMM 2013). One pair alone has no such spread: then see `ratio_interval`, over its rounds.

    Else both sides ran by themselves, at their own time: their `_spread`s add up, with Welch's degrees of freedom.
    """
    if not paired:
        value = median(np.concatenate(numerators)) / median(np.concatenate(denominators))
        return _around(value, [_spread(numerators), _spread(denominators)], confidence)
    if len(numerators) == 1:
        return ratio_interval(numerators[0], denominators[0], paired=True, confidence=confidence, seed=seed)
    pairs = zip(numerators, denominators, strict=True)
    logs = np.array([np.median(np.log(np.asarray(above) / np.asarray(below))) for above, below in pairs])
    error = (float(logs.var(ddof=1)) / len(logs), len(logs) - 1)
    return _around(math.exp(logs.mean()), [error], confidence)


def _spread(groups: Groups) -> tuple[float, int]:
    """The variance of a run's log median, and its degrees of freedom.

    It is what the medians of processes vary by, plus what the medians of `STRETCHES` within a process do, and is not
    divided by their numbers: a machine's drift has the same variance from blocks over processes to runs, so that a
    run of seconds averages none of it away (flicker noise: Allan, "Statistics of Atomic Frequency Standards", 1966).
    Measured: of a model of 70 us on a shared machine of two cores, blocks within a process vary by 6.6%, medians of
    processes by 6.1%, and those of runs of three processes by 5.8% from one to the next, 10% eight runs later. Two
    scales in the sum stand for what the next longer ones add.
    """
    logs = [np.log(np.asarray(values, dtype=np.float64)) for values in groups]
    parts = [[np.median(part) for part in np.array_split(values, min(STRETCHES, len(values)))] for values in logs]
    within = float(np.mean([np.var(medians, ddof=1) if len(medians) > 1 else 0.0 for medians in parts]))
    if len(logs) == 1:
        return within, max(1, len(parts[0]) - 1)
    return float(np.var([np.median(values) for values in logs], ddof=1)) + within, len(logs) - 1


def _around(value: float, variances: Sequence[tuple[float, int]], confidence: float) -> Estimate:
    """value * exp(-+ t sqrt(sum of the variances)), with the degrees of freedom of Satterthwaite (1946)."""
    total = sum(variance for variance, _ in variances)
    below = sum(variance**2 / freedom for variance, freedom in variances)
    freedom = total**2 / below if below else 1.0
    reach = student_quantile((1.0 + confidence) / 2.0, freedom) * math.sqrt(total)
    return Estimate(value, value * math.exp(-reach), value * math.exp(reach))


def student_quantile(share: float, freedom: float) -> float:
    """Student's t below which `share` lies: sqrt(freedom) tan(a), where a has a density like cos(a)^(freedom - 1)."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, ANGLES)
    density = np.abs(np.cos(angles)) ** (freedom - 1.0)  # abs: the ends are 0, give or take rounding
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(share, below / below[-1], angles)))


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share, `(low, high)` within 0..1; all of 0..1 where nothing was tried.

    With p = successes / n and z the normal quantile of (1 + confidence) / 2:
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    (Wilson, "Probable inference, the law of succession, and statistical inference", 1927). `successes` may be a sum of
    shares. Unlike p -+ z sqrt(p (1 - p) / n) it has a width at 0 and at n, where the usual one claims certainty.
    """
    if n == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf((1.0 + confidence) / 2.0)
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
