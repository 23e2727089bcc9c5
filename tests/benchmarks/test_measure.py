"""The measuring loop on a machine of our own making, whose clock, speed and noise are known; then real artifacts."""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure import (
    LEAST_ROUNDS,
    MOST_RUNS_A_BLOCK,
    NotTimed,
    Samples,
    measure,
    runs_a_block,
    speedup,
    take_turns,
    warm_up,
)
from runtimes import child
from runtimes.errors import BadInput, PocketshipError
from runtimes.golden import Golden, write_golden
from runtimes.signature import ExecutedBy

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


def samples_of(machine: Machine, costs_ns: list[float], seconds: float = 1.0) -> list[Samples]:
    runs = [machine.run(str(i), cost) for i, cost in enumerate(costs_ns)]
    counts = [runs_a_block([int(cost)], seconds) for cost in costs_ns]
    blocks = take_turns(runs, counts, machine.clock, seconds=seconds, seed=machine.seed)
    by = ExecutedBy("test", "1", "physical")
    return [Samples(str(i), by, 1, 0, (), True, b) for i, b in enumerate(blocks)]


def drifting(now_ns: int) -> float:
    """A machine that throttles to half its speed within two seconds, with other load coming and going."""
    return 1.0 + min(1.0, now_ns / 2e9) + 0.1 * math.sin(now_ns / 3e8)


# --- what is found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.1, 1.5, 3.0, 0.6])
@pytest.mark.parametrize("slowness", [lambda now_ns: 1.0, drifting], ids=["steady", "drifting"])
def test_an_artifact_slower_by_a_known_factor_is_found(factor, slowness):
    slow, fast = samples_of(Machine(0.1, slowness), [factor * 2 * MS, 2 * MS])
    ratio = speedup(slow, fast)
    assert ratio.low <= factor * 1.01 and ratio.high >= factor * 0.99
    assert ratio.differs_from_one
    assert ratio.high / ratio.low < 1.2


@pytest.mark.parametrize("slowness", [lambda now_ns: 1.0, drifting], ids=["steady", "drifting"])
def test_the_same_artifact_twice_shows_no_difference(slowness):
    shown = 0
    for seed in range(20):
        first, second = samples_of(Machine(0.1, slowness, seed), [4 * MS, 4 * MS], seconds=0.5)
        shown += speedup(first, second).differs_from_one
    assert shown <= 3, "95% intervals leave out 1 once in twenty times"


def test_measured_one_after_the_other_the_drift_would_pass_for_a_difference():
    """What the turns are for: without them the test above could not hold."""
    machine = Machine(0.1, drifting)
    (first,), (second,) = samples_of(machine, [4 * MS]), samples_of(machine, [4 * MS])
    assert speedup(first, second).differs_from_one


# --- the loop ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 300.0), min_size=1, max_size=4), st.floats(0.1, 2.0), st.integers(0, 99))
def test_everybody_runs_once_a_round_until_time_and_count_are_met(costs_ms, seconds, seed):
    machine = Machine(seed=seed)
    samples = samples_of(machine, [cost * MS for cost in costs_ms], seconds)
    rounds = {len(s.blocks_ns) for s in samples}
    assert len(rounds) == 1 and rounds.pop() >= LEAST_ROUNDS
    assert all(len({len(block) for block in s.blocks_ns}) == 1 for s in samples)
    assert sum(map(sum, (block for s in samples for block in s.blocks_ns))) >= seconds * 1e9 * len(costs_ms) * 0.999
    for i, s in enumerate(samples):
        counted = sum(map(len, s.blocks_ns))
        uncounted = len(s.blocks_ns) if len(s.blocks_ns[0]) > 1 else 0
        assert Counter(machine.ran)[str(i)] == counted + uncounted


def test_turns_are_shuffled_anew_each_round_and_repeat():
    def order(seed: int) -> list[int]:
        turns: list[int] = []
        machine = Machine()
        runs = [machine.run(str(i), 10 * MS) for i in range(4)]
        take_turns(runs, [1] * 4, machine.clock, seconds=0.1, seed=seed, on_turn=turns.append)
        return turns

    turns = order(1)
    rounds = [tuple(turns[i : i + 4]) for i in range(0, len(turns), 4)]
    assert all(sorted(r) == [0, 1, 2, 3] for r in rounds)
    assert len(set(rounds)) > 10
    assert order(1) == turns != order(2)


def test_rounds_are_told_with_how_many_there_will_be():
    told: list[tuple[int, int]] = []
    machine = Machine()
    runs = [machine.run("a", 10 * MS)]
    take_turns(runs, [1], machine.clock, seconds=1.0, seed=0, on_round=lambda *r: told.append(r))
    assert told[0] == (1, 100) and told[-1] == (100, 100) and len(told) == 100


@pytest.mark.parametrize(("run_ns", "runs"), [(1 * MS, 80), (1000 * MS, 1), (100, MOST_RUNS_A_BLOCK)])
def test_a_block_lasts_its_part_of_the_time(run_ns, runs):
    assert runs_a_block([50 * run_ns, run_ns, run_ns, run_ns], 2.0) == runs


def test_the_statistics_are_those_of_blocks():
    samples = Samples("a", ExecutedBy("r", "1", "physical"), 1, 0, (), True, ((1, 2, 90), (4, 4, 4), (7, 8, 9)))
    assert samples.block_medians_ns == (2.0, 4.0, 8.0)
    assert samples.median_ns == 4.0


# --- warm-up -------------------------------------------------------------------------------------------------------


def test_warm_up_lasts_until_it_is_stable():
    machine = Machine(slowness=lambda now_ns: 1.0 + 4.0 * math.exp(-now_ns / 1e9))
    times, stable = warm_up(machine.run("a", 1 * MS), machine.clock)
    assert stable
    assert 1e9 < sum(times) < 6e9


def test_warm_up_of_a_steady_artifact_is_three_windows():
    machine = Machine()
    times, stable = warm_up(machine.run("a", 10 * MS), machine.clock)
    assert stable and len(times) == 3 * 5


def test_warm_up_gives_up_after_ten_seconds_and_says_so():
    machine = Machine(slowness=lambda now_ns: 1.0 + now_ns / 1e9)
    times, stable = warm_up(machine.run("a", 60 * MS), machine.clock)
    assert not stable and 10e9 <= sum(times) < 11e9


# --- real artifacts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Products with matrices of 700 x 16 and 700 x 700, and golden inputs for them, made without the exporter."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("artifacts")

    def write(name: str, width: int) -> Path:
        weight = onnx.numpy_helper.from_array(np.ones((700, width), np.float32), "w")
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 700])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, width])
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        opset = helper.make_opsetid("", 20)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / name)
        return folder / name

    paths = {"small": write("small.onnx", 16), "large": write("large.onnx", 700)}
    inputs = {"x": np.ones((16, 700), np.float32)}
    write_golden(Golden((inputs,), ({"y": np.ones(1, np.float32)},)), folder / "golden.npz")
    return paths, folder / "golden.npz"


def test_real_artifacts_in_a_child(artifacts):
    (small, large), golden = artifacts[0].values(), artifacts[1]
    rounds: list[tuple[int, int]] = []
    slow, fast = measure([large, small], golden, seconds=0.2, on_round=lambda *r: rounds.append(r))
    assert isinstance(slow, Samples) and isinstance(fast, Samples)
    assert (slow.path, fast.path) == (str(large), str(small))
    assert slow.executed_by.runtime == "onnxruntime" and slow.threads == 1
    assert slow.load_ns > 0 and len(slow.warmup_ns) >= 3
    assert len(slow.blocks_ns) == len(fast.blocks_ns) == rounds[-1][0] >= LEAST_ROUNDS
    assert speedup(slow, fast).low > 2.0


def test_the_same_real_artifact_twice(artifacts):
    twins = measure([artifacts[0]["large"]] * 2, artifacts[1], seconds=0.3, seed=1)
    ratio = speedup(*twins)
    assert 0.8 < ratio.value < 1.25 and ratio.low < 1.05 and ratio.high > 0.95


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML can be timed here")
def test_core_ml_is_never_timed_off_macos(artifacts, tmp_path):
    package = tmp_path / "model.mlpackage"  # not even opened
    small = artifacts[0]["small"]
    refused, timed = measure([package, small], artifacts[1], seconds=0.05)
    assert refused == NotTimed(str(package), "not measured here (off-device)")
    assert isinstance(timed, Samples) and timed.path == str(small)
    assert measure([package], artifacts[1]) == (refused,)


def test_an_artifact_that_crashes_is_named(artifacts, monkeypatch):
    def crash(function, job, *, on_event, **rest):
        on_event({"running": job["paths"][0]})
        on_event({"running": job["paths"][1]})
        return child.Crashed("crashed with SIGSEGV", "")

    monkeypatch.setattr(child, "call", crash)
    with pytest.raises(PocketshipError, match=r"large\.onnx: crashed with SIGSEGV while it was timed"):
        measure([artifacts[0]["small"], artifacts[0]["large"]], artifacts[1])


def test_an_artifact_that_cannot_be_run_is_refused_as_ever(artifacts, tmp_path):
    with pytest.raises(BadInput, match="no such artifact"):
        measure([tmp_path / "gone.onnx"], artifacts[1])
