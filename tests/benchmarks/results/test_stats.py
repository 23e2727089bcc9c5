"""Statistics against scipy, known distributions and known coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from benchmarks.results.stats import (
    NO_DIFFERENCE,
    Estimate,
    in_words,
    median,
    median_interval,
    process_median_interval,
    process_ratio_interval,
    quantile,
    ratio_interval,
    student_quantile,
    wilson,
)

COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_medians_and_quantiles_by_hand():
    assert median([3, 1, 2]) == 2.0 and median([4, 1, 2, 3]) == 2.5
    assert quantile([0, 10], 0.9) == 9.0 and quantile([5], 0.1) == 5.0
    assert math.isnan(median([]))


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipy_s(counts, confidence):
    successes, n = counts
    expected = reference.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(COUNTS)
def test_wilson_holds_the_share_and_mirrors(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0 and high > low
    assert wilson(n - successes, n) == pytest.approx((1.0 - high, 1.0 - low), abs=1e-12)


def test_wilson_at_the_ends():
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(2.5, 10)  # shares add up too
    assert low < 0.25 < high


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_wilson_covers_what_it_says(share):
    counts = np.random.default_rng(0).binomial(200, share, size=4000)
    intervals = {k: wilson(int(k), 200) for k in set(counts.tolist())}
    covered = np.mean([intervals[k][0] <= share <= intervals[k][1] for k in counts.tolist()])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("draw", "truth"), [("normal", 0.0), ("exponential", math.log(2.0))])
def test_the_interval_of_a_median_covers_it(draw, truth):
    generator = np.random.default_rng(1)
    samples = [getattr(generator, draw)(size=40) for _ in range(200)]
    intervals = [median_interval(values, seed=i) for i, values in enumerate(samples)]
    assert all(e.low <= e.value <= e.high for e in intervals)
    assert 0.90 <= np.mean([e.low <= truth <= e.high for e in intervals]) <= 0.99


@pytest.mark.parametrize(("lengths", "paired"), [((40, 40), True), ((40, 30), False)])
def test_the_interval_of_a_ratio_covers_it(lengths, paired):
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        slow, fast = 3.0 * generator.lognormal(0, 0.2, lengths[0]), 2.0 * generator.lognormal(0, 0.2, lengths[1])
        estimate = ratio_interval(slow, fast, paired=paired, seed=seed)
        covered += estimate.low <= 1.5 <= estimate.high
    assert 0.90 <= covered / 200 <= 0.99


def test_pairs_cancel_what_both_saw():
    generator = np.random.default_rng(3)
    load = generator.uniform(1.0, 3.0, 60)  # the machine's, per round
    base, ours = load * generator.normal(1.0, 0.001, 60), load * generator.normal(0.98, 0.001, 60)
    assert ratio_interval(base, ours, paired=True).differs_from_one
    assert not ratio_interval(base, ours, paired=False).differs_from_one


def test_intervals_repeat_and_widen():
    values = np.random.default_rng(4).normal(size=50)
    assert median_interval(values, seed=7) == median_interval(values, seed=7)
    assert median_interval(values, seed=7) != median_interval(values, seed=8)
    narrow, wide = (median_interval(values, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_median_matches_scipy_s_bootstrap():
    values = np.random.default_rng(5).normal(10.0, 1.0, size=101)
    ours = median_interval(values)
    theirs = reference.bootstrap((values,), np.median, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.08)


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(1.524, 1.48, 1.567), "1.52x (1.48 to 1.57)"),
        (Estimate(0.85, 0.8, 0.9), "0.85x (0.80 to 0.90)"),
        (Estimate(1.02, 0.99, 1.05), f"{NO_DIFFERENCE} (0.99 to 1.05)"),
        (Estimate(1.02, 1.0, 1.05), f"{NO_DIFFERENCE} (1.00 to 1.05)"),
    ],
)
def test_a_ratio_in_words(estimate, words):
    assert in_words(estimate) == words


@pytest.mark.parametrize("freedom", [1, 2, 2.6, 4, 11, 300])
@pytest.mark.parametrize("share", [0.975, 0.9, 0.5, 0.025])
def test_student_s_quantile_is_scipy_s(freedom, share):
    assert student_quantile(share, freedom) == pytest.approx(reference.t.ppf(share, freedom), rel=1e-3, abs=1e-9)


def test_the_interval_over_processes_by_hand():
    # Processes at 1, e and e^2, whose blocks do not vary: their logarithms' variance is 1, t of 2 degrees is 4.303.
    found = process_median_interval([[math.e**i] * 10 for i in range(3)])
    reach = math.exp(4.30265)
    assert (found.value, found.low, found.high) == pytest.approx((math.e, math.e / reach, math.e * reach), rel=1e-4)
    # One process, with stretches at 0, 1, 2, 3 and 4: a variance of 2.5, t of 4 degrees is 2.776.
    found = process_median_interval([[math.e**i for i in range(5) for _ in range(4)]])
    reach = math.exp(2.77645 * math.sqrt(2.5))
    assert (found.low, found.high) == pytest.approx((math.e**2 / reach, math.e**2 * reach), rel=1e-4)
    # Both: processes at 1 and e with two blocks each, a factor of e^2 apart: variances of 0.5 and 2.
    found = process_median_interval([[1 / math.e, math.e], [1.0, math.e**2]])
    assert math.log(found.high / found.value) == pytest.approx(12.7062 * math.sqrt(2.5), rel=1e-4)


def test_two_runs_by_hand():
    # Variances of 1 and 0, of 2 degrees each: together 2 degrees (Welch), so that t is 4.303.
    ratio = process_ratio_interval([[math.e**i] for i in range(3)], [[1.0]] * 3, paired=False)
    reach = math.exp(4.30265)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((math.e, math.e / reach, math.e * reach), rel=1e-4)
    # Variances of 1 and 1: 4 degrees, 2.776 times the root of 2.
    sides = [[math.e**i] for i in range(3)]
    ratio = process_ratio_interval(sides, sides, paired=False)
    assert math.log(ratio.high) == pytest.approx(2.77645 * math.sqrt(2), rel=1e-4)


def test_pairs_of_processes_by_hand():
    # Drift that both see cancels in each round: ratios of 1, e and e^2 in the three pairs, t of 2 degrees, n of 3.
    drift = [1.0, 5.0, 3.0]
    above, below = [[d * math.e**i for d in drift] for i in range(3)], [drift] * 3
    ratio = process_ratio_interval(above, below, paired=True)
    assert ratio.value == pytest.approx(math.e)
    assert math.log(ratio.high / ratio.value) == pytest.approx(4.30265 / math.sqrt(3), rel=1e-4)
    assert process_ratio_interval(above[:1], below[:1], paired=True) == ratio_interval(above[0], below[0], paired=True)


def test_runs_that_do_not_vary_have_no_width():
    for found, value in (
        (process_median_interval([[7.0] * 5] * 3), 7.0),
        (process_median_interval([[7.0]]), 7.0),
        (process_ratio_interval([[6.0]] * 2, [[3.0]] * 2, paired=False), 2.0),
        (process_ratio_interval([[6.0]] * 2, [[3.0]] * 2, paired=True), 2.0),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((value, value, value), rel=1e-9)


def flicker(generator: np.random.Generator, n: int) -> np.ndarray:
    """Noise whose power falls with the frequency: averages over any time vary alike."""
    frequencies = np.fft.rfftfreq(n)
    frequencies[0] = np.inf
    spectrum = generator.normal(size=len(frequencies)) + 1j * generator.normal(size=len(frequencies))
    noise = np.fft.irfft(spectrum / np.sqrt(frequencies), n)
    return noise / noise.std()


def runs(seed: int, count: int, *, drift: float, layout: float, processes: int = 3, blocks: int = 25) -> list:
    """Block medians of `count` runs in a row, by process: the machine drifts, processes differ, blocks jitter."""
    generator = np.random.default_rng(seed)
    times = drift * flicker(generator, count * processes * blocks).reshape(count, processes, blocks)
    times += layout * generator.normal(size=(count, processes, 1)) + 0.002 * generator.normal(size=times.shape)
    return [list(np.exp(run)) for run in times]


def agreeing(found: list, interval) -> float:
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
    return float(np.mean([not interval(a, b).differs_from_one for a, b in pairs]))


@pytest.mark.parametrize(("drift", "layout"), [(0.02, 0.0), (0.01, 0.01), (0.0, 0.01), (0.0, 0.0)])
def test_runs_of_the_same_agree_though_the_machine_drifts_and_processes_differ(drift, layout):
    shares = [
        agreeing(runs(seed, 20, drift=drift, layout=layout), lambda a, b: process_ratio_interval(a, b, paired=False))
        for seed in range(5)
    ]
    assert np.mean(shares) >= 0.95


def test_a_bootstrap_over_all_blocks_would_not_let_them_agree():
    found = [np.concatenate(run) for run in runs(0, 12, drift=0.01, layout=0.01)]
    assert agreeing(found, lambda a, b: ratio_interval(a, b, paired=False)) < 0.5


@pytest.mark.parametrize("processes", [1, 3])
def test_the_interval_of_a_run_holds_the_median_of_all(processes):
    found = runs(3, 60, drift=0.01, layout=0.005 if processes > 1 else 0.0, processes=processes, blocks=75 // processes)
    middle = median(np.concatenate([np.concatenate(run) for run in found]))
    intervals = [process_median_interval(run) for run in found]
    share = np.mean([interval.low <= middle <= interval.high for interval in intervals])
    assert share >= (0.9 if processes > 1 else 0.7)  # one process does not show how processes differ


def test_a_run_that_is_slower_than_the_noise_is_found_though_its_processes_differ():
    before, after = (runs(seed, 40, drift=0.002, layout=0.003) for seed in (5, 6))
    slowed = [[np.asarray(values) * 1.05 for values in run] for run in after]
    ratios = [process_ratio_interval(b, a, paired=False) for a, b in zip(before, slowed, strict=True)]
    assert np.mean([ratio.low > 1.0 for ratio in ratios]) >= 0.8


def side_by_side(seed: int, slower: float) -> tuple[list, list]:
    """Two artifacts that took turns: the same drift in both, the processes of each laid out by themselves."""
    generator = np.random.default_rng(seed)
    drift = 0.03 * flicker(generator, 75).reshape(3, 25)

    def one(factor: float) -> list:
        layout = 0.004 * generator.normal(size=(3, 1))
        return list(factor * np.exp(drift + layout + 0.003 * generator.normal(size=(3, 25))))

    return one(slower), one(1.0)


def test_a_pair_shows_no_difference_where_there_is_none_and_finds_five_percent():
    alike = [process_ratio_interval(*side_by_side(seed, 1.0), paired=True) for seed in range(300)]
    slowed = [process_ratio_interval(*side_by_side(seed, 1.05), paired=True) for seed in range(300)]
    assert 0.92 <= np.mean([not ratio.differs_from_one for ratio in alike]) <= 0.98
    assert np.mean([ratio.low > 1.0 for ratio in slowed]) >= 0.95
    single = [ratio_interval(*(side[0] for side in side_by_side(seed, 1.0)), paired=True) for seed in range(60)]
    assert np.mean([ratio.differs_from_one for ratio in single]) > 0.15, "one pair does not tell how processes differ"
