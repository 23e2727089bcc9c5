"""The measuring loop on a machine of our own making, whose clock, speed and noise are known."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.agent.loop import (
    LEAST_ROUNDS,
    MOST_RUNS_A_BLOCK,
    MOST_TIMES_LONGER,
    half_width,
    runs_a_block,
    sustain,
    take_turns,
    timed_block,
    warm_up,
)
from benchmarks.results.stats import median, ratio_interval

MS = 1_000_000


@dataclass
class Machine:
    """Its clock stands still but for runs; `slowness(now_ns)` multiplies every cost, noise differs from run to run."""

    noise: float = 0.0
    slowness: object = staticmethod(lambda now_ns: 1.0)
    seed: int = 0
    now_ns: int = 0
    ran: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)

    def clock(self) -> int:
        return self.now_ns

    def run(self, name: str, cost_ns: float):
        def once() -> None:
            self.ran.append(name)
            self.now_ns += int(cost_ns * self.slowness(self.now_ns) * self.generator.lognormal(0.0, self.noise))

        return once


def measured(machine: Machine, costs_ns: list[float], seconds: float = 1.0, **options) -> list[list[list[int]]]:
    """The blocks of each artifact, dealt in turns."""
    runs = [machine.run(str(i), cost) for i, cost in enumerate(costs_ns)]
    counts = {i: runs_a_block([int(cost)], seconds) for i, cost in enumerate(costs_ns)}
    blocks: list[list[list[int]]] = [[] for _ in runs]

    def deal(case: int, runs_of_block: int) -> list[int]:
        if runs_of_block > 1:
            runs[case]()
        blocks[case].append(timed_block(runs[case], runs_of_block, machine.clock))
        return blocks[case][-1]

    take_turns(deal, counts, seconds=seconds, seed=machine.seed, **options)
    return blocks


def ratio_of(slow, fast):
    return ratio_interval([median(b) for b in slow], [median(b) for b in fast], paired=True)


def drifting(now_ns: int) -> float:
    """A machine that throttles to half its speed within two seconds, with other load coming and going."""
    return 1.0 + min(1.0, now_ns / 2e9) + 0.1 * math.sin(now_ns / 3e8)


# --- what is found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.1, 1.5, 3.0, 0.6])
@pytest.mark.parametrize("slowness", [lambda now_ns: 1.0, drifting], ids=["steady", "drifting"])
def test_an_artifact_slower_by_a_known_factor_is_found(factor, slowness):
    ratio = ratio_of(*measured(Machine(0.1, slowness), [factor * 2 * MS, 2 * MS]))
    assert ratio.low <= factor * 1.01 and ratio.high >= factor * 0.99
    assert ratio.differs_from_one
    assert ratio.high / ratio.low < 1.2


@pytest.mark.parametrize("slowness", [lambda now_ns: 1.0, drifting], ids=["steady", "drifting"])
def test_the_same_artifact_twice_shows_no_difference(slowness):
    shown = 0
    for seed in range(20):
        shown += ratio_of(*measured(Machine(0.1, slowness, seed), [4 * MS, 4 * MS], seconds=0.5)).differs_from_one
    assert shown <= 3, "95% intervals leave out 1 once in twenty times"


def test_measured_one_after_the_other_the_drift_would_pass_for_a_difference():
    """What the turns are for: without them the test above could not hold."""
    machine = Machine(0.1, drifting)
    (first,), (second,) = measured(machine, [4 * MS]), measured(machine, [4 * MS])
    assert ratio_of(first, second).differs_from_one


# --- turns ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 300.0), min_size=1, max_size=4), st.floats(0.1, 2.0), st.integers(0, 99))
def test_everybody_runs_once_a_round_until_time_and_count_are_met(costs_ms, seconds, seed):
    machine = Machine(seed=seed)
    blocks = measured(machine, [cost * MS for cost in costs_ms], seconds)
    rounds = {len(found) for found in blocks}
    assert len(rounds) == 1 and rounds.pop() >= LEAST_ROUNDS
    assert all(len({len(block) for block in found}) == 1 for found in blocks)
    assert sum(sum(map(sum, found)) for found in blocks) >= seconds * 1e9 * len(costs_ms) * 0.999
    for i, found in enumerate(blocks):
        uncounted = len(found) if len(found[0]) > 1 else 0
        assert Counter(machine.ran)[str(i)] == sum(map(len, found)) + uncounted


def order_of(seed: int) -> list[int]:
    turns: list[int] = []

    def deal(case: int, runs: int) -> list[int]:
        turns.append(case)
        return [10 * MS]

    take_turns(deal, dict.fromkeys(range(4), 1), seconds=0.1, seed=seed)
    return turns


def test_turns_are_shuffled_anew_each_round_and_repeat():
    turns = order_of(1)
    rounds = [tuple(turns[i : i + 4]) for i in range(0, len(turns), 4)]
    assert all(sorted(r) == [0, 1, 2, 3] for r in rounds)
    assert len(set(rounds)) > 10
    assert order_of(1) == turns != order_of(2)


def test_a_lost_case_is_left_out_and_the_others_get_their_time():
    dealt: Counter[int] = Counter()

    def deal(case: int, runs: int):
        dealt[case] += 1
        return None if case == 1 and dealt[1] == 3 else [10 * MS]

    take_turns(deal, {0: 1, 1: 1, 2: 1}, seconds=1.0, seed=0)
    assert dealt[1] == 3
    assert dealt[0] == dealt[2] and dealt[0] + dealt[2] + 2 == pytest.approx(200, abs=3)


def test_it_ends_once_all_are_lost():
    take_turns(lambda case, runs: None, {0: 1, 1: 1}, seconds=1.0, seed=0)


def test_rounds_are_told_with_how_many_there_will_be():
    told: list[tuple[int, int]] = []
    measured(Machine(), [10 * MS], seconds=1.0, on_round=lambda *r: told.append(r))
    assert told[0][1] == LEAST_ROUNDS and told[-1] == (25, 25) and len(told) == 25


@pytest.mark.parametrize(("run_ns", "runs"), [(1 * MS, 80), (1000 * MS, 1), (100, MOST_RUNS_A_BLOCK)])
def test_a_block_lasts_its_part_of_the_time(run_ns, runs):
    assert runs_a_block([50 * run_ns, run_ns, run_ns, run_ns], 2.0) == runs


# --- precision -----------------------------------------------------------------------------------------------------


def test_a_precision_takes_as_long_as_it_needs():
    wide = measured(Machine(0.1), [10 * MS], seconds=0.25)
    narrow = measured(Machine(0.1), [10 * MS], seconds=0.25, precision=0.02)
    assert half_width([median(b) for b in wide[0]]) > 0.02 >= half_width([median(b) for b in narrow[0]])
    assert LEAST_ROUNDS <= len(wide[0]) < len(narrow[0])


def test_a_precision_out_of_reach_ends_after_ten_times_the_seconds():
    blocks = measured(Machine(1.0), [10 * MS], seconds=0.5, precision=1e-6)
    assert MOST_TIMES_LONGER * 0.5e9 <= sum(map(sum, blocks[0])) < 1.2 * MOST_TIMES_LONGER * 0.5e9


def test_the_interval_by_ranks_covers_the_median_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        values = generator.exponential(size=100)
        reach = half_width(values.tolist()) * np.median(values) * 2
        ordered = np.sort(values)
        covered += ordered[int(50 - 9.8)] <= math.log(2) <= ordered[int(50 + 9.8)]
        assert reach == pytest.approx(ordered[59] - ordered[40])
    assert covered / 400 > 0.92


# --- warm-up -------------------------------------------------------------------------------------------------------


def test_warm_up_lasts_until_it_is_stable():
    machine = Machine(slowness=lambda now_ns: 1.0 + 4.0 * math.exp(-now_ns / 1e9))
    times, stable = warm_up(machine.run("a", 1 * MS), machine.clock, 10.0)
    assert stable
    assert 1e9 < sum(times) < 6e9


def test_warm_up_of_a_steady_artifact_is_three_windows():
    machine = Machine()
    times, stable = warm_up(machine.run("a", 10 * MS), machine.clock, 10.0)
    assert stable and len(times) == 3 * 5


def test_warm_up_gives_up_after_its_time_and_says_so():
    machine = Machine(slowness=lambda now_ns: 1.0 + now_ns / 1e9)
    times, stable = warm_up(machine.run("a", 60 * MS), machine.clock, 3.0)
    assert not stable and 3e9 <= sum(times) < 3.5e9


# --- sustained -----------------------------------------------------------------------------------------------------


def test_sustained_runs_go_on_without_a_pause_and_keep_the_first_of_a_second():
    machine = Machine(slowness=lambda now_ns: 1.0 + now_ns / 10e9)
    blocks = list(sustain(machine.run("a", 0.1 * MS), machine.clock, 10.0))
    assert 10 <= len(blocks) <= 11
    assert sum(runs for _, runs, _ in blocks) == len(machine.ran)
    assert all(len(times) == min(runs, MOST_RUNS_A_BLOCK) for _, runs, times in blocks)
    assert [at for at, _, _ in blocks] == sorted(at for at, _, _ in blocks)
    assert median(blocks[-1][2]) > 1.8 * median(blocks[0][2])


def test_a_clock_is_asked_twice_a_run():
    ticks = count()
    assert timed_block(lambda: None, 3, lambda: next(ticks)) == [1, 1, 1]
    assert next(ticks) == 6
