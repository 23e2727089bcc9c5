"""Our bench beside a loop in C and onnxruntime's own tool, beside itself, and beside the bare runtime."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.agent.loop import runs_a_block, take_turns, timed_block
from benchmarks.agent.run import Worker
from benchmarks.bench import Plan
from benchmarks.devices.local import do
from benchmarks.job import Case, Job, JobArtifact, Json
from benchmarks.peers.native import PERF_TEST, Loop, compile_loop, library, perf_test, perf_test_p50_ns
from benchmarks.peers.processes import Line, print_figures
from benchmarks.peers.stacks import LARGE, MIDDLE, SMALL, Stack, stack, stack_of
from benchmarks.peers.start import print_starts, starts
from benchmarks.results.record import Recorder
from benchmarks.results.result import ArtifactFacts, Result
from benchmarks.results.stats import Estimate, median, process_ratio_interval, ratio_interval
from runtimes.errors import PocketshipError

PARTS = ("50us", "50ms", "overhead", "repeats", "alike", "start")
MODELS = {"50us": (50e3, SMALL), "50ms": (50e6, LARGE)}
"""part -> (about how long an inference takes in ns, shape of a layer)."""
PAIRS_A_ROUND, REPEATS_A_ROUND, BENCHES_A_ROUND, STARTS_A_ROUND = 2, 8, 20, 4
"""So that the five rounds by default are 10 pairs of processes, 40 repeats, 100 benches and 20 starts."""
PAIR_S, TIMEOUT_S, WARMUP_S = 2.0, 120.0, 10.0
SHORT_S = 0.3
"""A bench of the comparison with itself; each of its processes still does 25 blocks."""
LAYERS, SLOWED_LAYERS = 40, 42
"""5% more of the same work."""
EMPTY_RUNS, EMPTY_BLOCKS = 1000, 50
MOST_APART, MOST_OVERHEAD_US, LEAST_AGREE, LEAST_ALIKE, LEAST_FOUND = 2.0, 2.0, 95.0, 95.0, 80.0
US, PERCENT = 1e3, 100.0


def bench_peers(rounds: int, parts: Sequence[str]) -> dict[str, object]:
    """Run the comparison of benches; prints its tables, returns what was measured."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {library().name}; ", end=""
    )
    print("stacks of matrix products with random weights, 1 thread\n")
    results: dict[str, object] = {"rounds": rounds}
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="pocketship-peers-") as name:
        folder = Path(name)
        try:
            for part in parts:
                print(f"## {TITLES[part]}\n")
                found, figures = RUNS[part](rounds, part, folder)
                results[part] = found
                lines += figures
                print()
        except PocketshipError as error:
            sys.exit(str(error))
    print_figures(lines)
    return results


Found = tuple[Mapping[str, object], tuple[Line, ...]]


@dataclass(frozen=True)
class Pairs:
    """Block medians in ns, by pair of processes: ours, and the C loop's of the same rounds."""

    ours: list[list[float]]
    loop: list[list[float]]

    @property
    def ratio(self) -> Estimate:
        """Ours over the C loop's."""
        return process_ratio_interval(self.ours, self.loop, paired=True)

    @property
    def more_us(self) -> float:
        """How much longer an inference takes in ours: the median over all rounds."""
        return float(np.median(np.concatenate(self.ours) - np.concatenate(self.loop))) / US


def against_native(rounds: int, part: str, folder: Path) -> Found:
    """Our median beside the C loop's and the tool's."""
    one = stack_of(folder, *MODELS[part], part)
    program = compile_loop(folder)
    count = rounds * PAIRS_A_ROUND
    pairs = Pairs([], [])
    for i in range(count):
        ours, loop = pair(one, program, i)
        pairs.ours.append(ours)
        pairs.loop.append(loop)
        print(f"{part}: pair {i + 1} of {count}", file=sys.stderr)
    ratio = pairs.ratio
    print("| who | median us | ours / theirs | 95% interval | ours longer by us |\n|---|---:|---:|---|---:|")
    print(f"| ours | {median(np.concatenate(pairs.ours)) / US:.2f} | | | |")
    print(f"| a loop in C | {median(np.concatenate(pairs.loop)) / US:.2f} {_cells(ratio)} | {pairs.more_us:.2f} |")
    lines = [_apart(f"{part}: ours and a loop in C are apart, %", ratio)]
    found: dict[str, object] = {**asdict(pairs), "ratio": asdict(ratio), "layers": one.layers}
    tool = perf_test()
    if tool:
        ours_ns, tool_ns = beside_tool(tool, one, count)
        ratio = ratio_interval(ours_ns, tool_ns, paired=True)
        more_us = (median(ours_ns) - median(tool_ns)) / US
        print(f"| {PERF_TEST} | {median(tool_ns) / US:.2f} {_cells(ratio)} | {more_us:.2f} |")
        lines.append(_apart(f"{part}: ours and {PERF_TEST} are apart, %", ratio))
        found[PERF_TEST] = {"ours_ns": ours_ns, "tool_ns": tool_ns}
    else:
        print(f"\n{PERF_TEST} is not to be had here: it is not on PATH, and no wheel holds it.")
    return found, tuple(lines)


def _cells(ratio: Estimate) -> str:
    return f"| {ratio.value:.4f} | {ratio.low:.4f} to {ratio.high:.4f}"


def _apart(figure: str, ratio: Estimate) -> Line:
    apart = abs(ratio.value - 1) * PERCENT
    return Line(figure, apart, MOST_APART, apart <= MOST_APART)


def pair(one: Stack, program: Path, seed: int) -> tuple[list[float], list[float]]:
    """A worker of the agent and the C program, each in its process, take turns: their block medians in ns."""
    asked: Json = {"file": str(one.path), "golden": str(one.golden), "data": None, "notes": []}
    settings = {"affinity": None, "batch": None, "seed": 0, "threads": 1}
    medians: dict[int, list[float]] = {0: [], 1: []}
    with tempfile.TemporaryFile() as log:
        worker = Worker(0, {**asked, **settings}, lambda event: None, log, TIMEOUT_S, {})
        loop = Loop(program, one, threads=1)
        try:
            worker.wait()
            warmup_ns = worker.do("warm", limit_s=WARMUP_S)[-1]["warmup_ns"]
            loop.times_ns(len(warmup_ns))
            runs = runs_a_block(warmup_ns, PAIR_S)

            def deal(case: int, count: int) -> list[int]:
                if case == 0:
                    times: list[int] = worker.do("block", runs=count)[-1]["times_ns"]
                else:  # as the worker does: of several, a first one is not counted
                    times = loop.times_ns(count + 1)[1:] if count > 1 else loop.times_ns(1)
                medians[case].append(median(times))
                return times

            take_turns(deal, {0: runs, 1: runs}, seconds=PAIR_S, seed=seed)
        finally:
            worker.kill()
            loop.close()
    return medians[0], medians[1]


def beside_tool(tool: str, one: Stack, rounds: int) -> tuple[list[float], list[float]]:
    """Medians in ns of whole benches and of whole runs of the tool, in turns."""
    shuffle = random.Random(0).shuffle
    ours: list[float] = []
    tools: list[float] = []
    runs = 100
    for i in range(rounds):
        order = [True, False]
        shuffle(order)
        for is_ours in order:
            if is_ours:
                (result,) = benched([one], seconds=PAIR_S, processes=1, seed=i)
                assert result.samples
                ours.append(median(result.samples.block_medians_ns))
                runs = len(result.samples.times_ns)
            else:
                tools.append(perf_test_p50_ns(tool, one, 1, runs))
        print(f"{PERF_TEST}: round {i + 1} of {rounds}", file=sys.stderr)
    return ours, tools


def benched(stacks: Sequence[Stack], *, seconds: float, processes: int, seed: int) -> tuple[Result, ...]:
    """One bench here, of an agent of its own.

    Raises PocketshipError where one fails.
    """
    files = {f"{i}{path.suffix}": path for i, one in enumerate(stacks) for path in (one.path, one.golden)}
    artifacts = tuple(JobArtifact(f"{i}.onnx", "onnx", f"{i}.onnx", 0, "", f"{i}.npz") for i in range(len(stacks)))
    cases = tuple(Case(i, 1) for i in range(len(stacks)))
    job = Job("peers", artifacts, cases, seconds=seconds, processes=processes, seed=seed, profile=False)
    facts = [ArtifactFacts(a.name, a.format, a.size_bytes, a.sha256) for a in artifacts]
    recorder = Recorder("local", job, facts, [None] * len(facts))
    do(job, files, recorder.add)
    results = recorder.results()
    for result in results:
        if result.failure:
            raise PocketshipError(f"a bench failed ({result.failure.detail})", remedy="run the comparison again")
    return results


def overhead(rounds: int, part: str, folder: Path) -> Found:
    """What the measuring loop takes with a run that does nothing: in a reading, and in all."""
    empty = partial(int)  # a call of C from C, as a bound inference is
    readings: list[float] = []
    loops: list[float] = []
    gc.disable()
    try:
        for _ in range(rounds * EMPTY_BLOCKS):
            started = time.perf_counter_ns()
            readings.append(median(timed_block(empty, EMPTY_RUNS, time.perf_counter_ns)))
            loops.append((time.perf_counter_ns() - started) / EMPTY_RUNS)
    finally:
        gc.enable()
    reading_ns, loop_ns = median(readings), median(loops)
    print(f"An empty run reads as {reading_ns:.0f} ns; with the loop around it, it takes {loop_ns:.0f} ns.")
    line = Line("harness: us an inference", loop_ns / US, MOST_OVERHEAD_US, loop_ns / US < MOST_OVERHEAD_US)
    return {"reading_ns": reading_ns, "loop_ns": loop_ns}, (line,)


def repeats(rounds: int, part: str, folder: Path) -> Found:
    """Whole benches of the same artifact, again and again: how many pairs of them agree."""
    count = rounds * REPEATS_A_ROUND
    stacks = {
        "50 us": stack_of(folder, 50e3, SMALL, "repeat-50us"),
        "5 ms": stack_of(folder, 5e6, MIDDLE, "repeat-5ms"),
    }
    found: dict[str, list[Result]] = {name: [] for name in stacks}
    for i in range(count):
        for name, one in stacks.items():
            found[name] += benched([one], seconds=Plan.seconds, processes=Plan.processes, seed=i)
        print(f"repeat {i + 1} of {count}", file=sys.stderr)
    print(
        "| model | repeats | medians, least to most us | interval, median half width | hold the middle | pairs agree |"
    )
    print("|---|---:|---|---:|---:|---:|")
    lines = []
    for name, results in found.items():
        statistics = [r.statistics for r in results if r.statistics]
        middle = median([s.p50_ms for s in statistics])
        widths = [(s.high_ms - s.low_ms) / 2 / s.p50_ms for s in statistics]
        held = sum(s.low_ms <= middle <= s.high_ms for s in statistics) / len(statistics)
        share = agreeing(results)
        medians = [s.p50_ms * 1e3 for s in statistics]
        print(f"| {name} | {len(results)} | {min(medians):.2f} to {max(medians):.2f} ", end="")
        print(f"| {median(widths):.1%} | {held:.0%} | {share:.1%} |")
        agree = share * PERCENT
        lines.append(Line(f"{name}: repeats that agree, % of pairs", agree, LEAST_AGREE, agree >= LEAST_AGREE))
    statistics_of = {n: [asdict(r.statistics) for r in results if r.statistics] for n, results in found.items()}
    return statistics_of, tuple(lines)


def agreeing(results: Sequence[Result]) -> float:
    """The share of pairs of which a comparison shows no difference."""
    samples = [result.samples.process_medians_ns for result in results if result.samples]
    ratios = [process_ratio_interval(a, b, paired=False) for a, b in itertools.combinations(samples, 2)]
    return sum(not ratio.differs_from_one for ratio in ratios) / len(ratios)


def alike(rounds: int, part: str, folder: Path) -> Found:
    """Short benches of an artifact, its copy, and one with 5% more of the same layers, in turns."""
    count = rounds * BENCHES_A_ROUND
    stacks = [stack(folder, LAYERS, SMALL, "a"), stack(folder, LAYERS, SMALL, "copy")]
    stacks.append(stack(folder, SLOWED_LAYERS, SMALL, "slowed"))
    ratios: dict[str, list[Estimate]] = {"its copy": [], "slowed": []}
    for i in range(count):
        results = benched(stacks, seconds=SHORT_S, processes=Plan.processes, seed=i)
        first, *others = (result.samples.process_medians_ns for result in results if result.samples)
        for name, other in zip(ratios, others, strict=True):
            ratios[name].append(process_ratio_interval(other, first, paired=True))
        print(f"bench {i + 1} of {count}", file=sys.stderr)
    print(f"An artifact of {LAYERS} equal layers beside its copy, and beside one of {SLOWED_LAYERS}.\n")
    print("| beside | benches | ratio | median half width | difference shown |\n|---|---:|---:|---:|---:|")
    shown = {name: sum(r.differs_from_one for r in some) / len(some) for name, some in ratios.items()}
    for name, some in ratios.items():
        width = median([(r.high - r.low) / 2 for r in some])
        print(f"| {name} | {len(some)} | {median([r.value for r in some]):.4f} | {width:.1%} | {shown[name]:.0%} |")
    same = (1 - shown["its copy"]) * PERCENT
    detected = sum(r.low > 1 for r in ratios["slowed"]) / count * PERCENT
    lines = (
        Line("A/A: no difference shown, % of benches", same, LEAST_ALIKE, same >= LEAST_ALIKE),
        Line("slowed by 5%: found slower, % of benches", detected, LEAST_FOUND, detected >= LEAST_FOUND),
    )
    return {name: [asdict(ratio) for ratio in some] for name, some in ratios.items()}, lines


def start(rounds: int, part: str, folder: Path) -> Found:
    """The agent's source, start and memory beside the bare runtime's."""
    found = starts(stack_of(folder, 50e3, SMALL, "start"), rounds * STARTS_A_ROUND)
    lines = print_starts(found)
    return {name: [asdict(run) for run in runs] for name, runs in found.items()}, lines


RUNS = {
    "50us": against_native,
    "50ms": against_native,
    "overhead": overhead,
    "repeats": repeats,
    "alike": alike,
    "start": start,
}
TITLES = {
    "50us": "A model of about 50 us",
    "50ms": "A model of about 50 ms",
    "overhead": "What measuring costs",
    "repeats": "The same bench again",
    "alike": "An artifact beside its copy, and beside one that is slower by 5%",
    "start": "The agent beside the bare runtime",
}
