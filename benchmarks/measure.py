"""Latency of several artifacts on this machine, measured in turns, so that whatever slows the machine slows all alike.

One child process holds all sessions and computes one run at a time. In each round every artifact computes one block of
runs, in an order of the round's own. Runs that follow each other are alike: the unit of statistics is a block's median.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stats import Estimate, median, ratio_interval
from runtimes import child
from runtimes.bundle import from_json
from runtimes.errors import PocketshipError
from runtimes.golden import read_golden
from runtimes.session import feeds, format_of, open_session
from runtimes.types import ExecutedBy

SECONDS = 2.0
"""How long each artifact is measured, unless another time is given."""
LEAST_ROUNDS = 25
"""Fewer block medians than this make bootstrap intervals too narrow."""
MOST_RUNS_A_BLOCK = 1000
WINDOW_NS = 50_000_000
STABLE_WINDOWS = 3
STABLE_RATIO = 1.05
WARMUP_LIMIT_NS = 10_000_000_000
TIMEOUT_S = 3600.0
OFF_DEVICE = "not measured here (off-device)"

Run = Callable[[], object]
Clock = Callable[[], int]
"""Nanoseconds that never go back."""


@dataclass(frozen=True)
class Samples:
    """What was measured of one artifact, raw: `blocks_ns[round]` holds the runs of one block, in order.

    `stable` says whether the warm-up settled before its time was up; `threads` is None where the runtime chooses.
    """

    path: str
    executed_by: ExecutedBy
    threads: int | None
    load_ns: int
    warmup_ns: tuple[int, ...]
    stable: bool
    blocks_ns: tuple[tuple[int, ...], ...]

    @property
    def block_medians_ns(self) -> tuple[float, ...]:
        """One figure a round."""
        return tuple(median(block) for block in self.blocks_ns)

    @property
    def median_ns(self) -> float:
        """The median of the block medians."""
        return median(self.block_medians_ns)


@dataclass(frozen=True)
class NotTimed:
    """An artifact that this machine cannot honestly time, and why."""

    path: str
    reason: str


def measure(
    paths: Sequence[Path],
    golden: Path,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    seed: int = 0,
    on_round: Callable[[int, int], None] = lambda done, total: None,
    log_path: Path | None = None,
    scratch: Path | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> tuple[Samples | NotTimed, ...]:
    """Time each artifact for about `seconds` on the first inputs of `golden`; in the order of `paths`.

    A Core ML package off macOS is never timed: its evaluator's speed says nothing of Core ML's.

    Raises PocketshipError, with its name, where an artifact crashes or hangs; BadInput where one cannot be run.
    """
    reasons = [not_timed(path) for path in paths]
    timed = [path for path, reason in zip(paths, reasons, strict=True) if not reason]
    found = iter(
        _in_child(timed, golden, threads, seconds, seed, on_round, log_path, scratch, on_start) if timed else ()
    )
    return tuple(
        NotTimed(str(path), reason) if reason else next(found) for path, reason in zip(paths, reasons, strict=True)
    )


def not_timed(path: Path) -> str:
    """Why this machine cannot time an artifact; empty where it can."""
    return OFF_DEVICE if format_of(path) == "coreml" and sys.platform != "darwin" else ""


def speedup(baseline: Samples, samples: Samples) -> Estimate:
    """How many times faster than `baseline`, both of one `measure`, with the interval over paired rounds."""
    return ratio_interval(baseline.block_medians_ns, samples.block_medians_ns, paired=True)


def _in_child(
    paths: Sequence[Path],
    golden: Path,
    threads: int,
    seconds: float,
    seed: int,
    on_round: Callable[[int, int], None],
    log_path: Path | None,
    scratch: Path | None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None,
) -> list[Samples]:
    running = [str(paths[0])]

    def on_event(event: dict[str, Any]) -> None:
        if "running" in event:
            running[0] = event["running"]
        else:
            on_round(*event["round"])

    outcome = child.call(
        "benchmarks.measure:time_artifacts",
        {
            "paths": [str(path) for path in paths],
            "golden": str(golden),
            "threads": threads,
            "seconds": seconds,
            "seed": seed,
        },
        timeout_s=TIMEOUT_S,
        log_path=log_path,
        scratch=scratch,
        on_event=on_event,
        on_start=on_start,
    )
    if isinstance(outcome, child.Refused):
        raise outcome.error
    if not isinstance(outcome, child.Completed):
        raise PocketshipError(f"{child.describe(outcome)} while it was timed", where=running[0])
    return [from_json(Samples, samples) for samples in outcome.value["samples"]]


def time_artifacts(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `measure`."""
    inputs = read_golden(Path(job["golden"])).inputs[0]
    clock = time.perf_counter_ns
    facts, runs = [], []
    gc.disable()
    for path in job["paths"]:
        emit({"running": path})
        threads = None if format_of(Path(path)) == "coreml" else job["threads"]
        started = clock()
        session = open_session(Path(path), threads)
        load_ns = clock() - started
        fed = feeds(inputs, session.signature)
        run = _run_of(session.run, fed)
        warmup_ns, stable = warm_up(run, clock)
        facts.append((path, session.executed_by, threads, load_ns, warmup_ns, stable))
        runs.append(run)
    blocks = take_turns(
        runs,
        [runs_a_block(fact[4], job["seconds"]) for fact in facts],
        clock,
        seconds=job["seconds"],
        seed=job["seed"],
        on_turn=lambda i: emit({"running": job["paths"][i]}),
        on_round=lambda done, total: emit({"round": [done, total]}),
    )
    return {"samples": [asdict(Samples(*fact, block)) for fact, block in zip(facts, blocks, strict=True)]}


def _run_of(compute: Callable[[Any], object], inputs: dict[str, np.ndarray]) -> Run:
    return lambda: compute(inputs)


def warm_up(run: Run, clock: Clock) -> tuple[tuple[int, ...], bool]:
    """Run until the medians of three windows of 50 ms lie within 5%, or 10 s are over: every run's time, and which."""
    times: list[int] = []
    medians: list[float] = []
    started = clock()
    while clock() - started < WARMUP_LIMIT_NS:
        window: list[int] = []
        while sum(window) < WINDOW_NS and len(window) < MOST_RUNS_A_BLOCK:
            window += timed_block(run, 1, clock)
        times += window
        medians.append(median(window))
        latest = medians[-STABLE_WINDOWS:]
        if len(latest) == STABLE_WINDOWS and max(latest) <= STABLE_RATIO * min(latest):
            return tuple(times), True
    return tuple(times), False


def runs_a_block(warmup_ns: Sequence[int], seconds: float) -> int:
    """So many that `LEAST_ROUNDS` blocks last `seconds`, at least one; judged by the later half of the warm-up."""
    run_ns = median(warmup_ns[len(warmup_ns) // 2 :])
    return min(MOST_RUNS_A_BLOCK, max(1, round(seconds * 1e9 / LEAST_ROUNDS / run_ns)))


def take_turns(
    runs: Sequence[Run],
    block_runs: Sequence[int],
    clock: Clock,
    *,
    seconds: float,
    seed: int,
    on_turn: Callable[[int], None] = lambda index: None,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Blocks of `block_runs[i]` runs of each, in an order shuffled anew each round; the times by run and round, in ns.

    It ends when both `LEAST_ROUNDS` and, over all runs, `seconds` for each are reached. Before a block of several, one
    run is not counted: it finds the caches as another artifact left them.
    """
    generator = np.random.default_rng(seed)
    blocks: list[list[tuple[int, ...]]] = [[] for _ in runs]
    rounds, spent_ns, wanted_ns = 0, 0, seconds * 1e9 * len(runs)
    while rounds < LEAST_ROUNDS or spent_ns < wanted_ns:
        for i in map(int, generator.permutation(len(runs))):
            on_turn(i)
            if block_runs[i] > 1:
                runs[i]()
            blocks[i].append(tuple(timed_block(runs[i], block_runs[i], clock)))
            spent_ns += sum(blocks[i][-1])
        rounds += 1
        by_time = int(np.ceil(rounds * wanted_ns / max(spent_ns, 1)))
        on_round(rounds, max(LEAST_ROUNDS, by_time))
    return tuple(map(tuple, blocks))


def timed_block(run: Run, count: int, clock: Clock) -> list[int]:
    """How long each of `count` runs took, in ns."""
    times = []
    for _ in range(count):
        started = clock()
        run()
        times.append(clock() - started)
    return times
