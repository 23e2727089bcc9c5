"""Statistics against scipy, known distributions and known coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from benchmarks.stats import (
    NO_DIFFERENCE,
    Estimate,
    in_words,
    median,
    median_interval,
    quantile,
    ratio_interval,
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
