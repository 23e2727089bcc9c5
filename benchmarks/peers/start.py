"""What the agent costs beside the bare runtime: bytes of its zip, time to the first inference, memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.devices.local import do
from benchmarks.devices.ssh.agent_zip import build
from benchmarks.job import Case, Job, JobArtifact, Json
from benchmarks.peers.processes import BARE, Line
from benchmarks.peers.stacks import Stack
from benchmarks.results.stats import Estimate, median, median_interval
from runtimes.errors import PocketshipError

MOST_ZIP_BYTES, MOST_TIMES_SLOWER, MOST_BYTES_MORE = 28 * 1024, 1.3, 5_000_000


@dataclass(frozen=True)
class Start:
    """One process: from its start to its first inference, and its peak of resident memory.

    For the agent that is its worker's peak; `waiting_bytes` is what the agent takes that waits for it (its share).
    """

    first_ns: int
    peak_bytes: int
    waiting_bytes: int = 0


def bare(stack: Stack) -> Start:
    """The runtime alone, in a script of a few lines."""
    started_ns = time.perf_counter_ns()
    words = [sys.executable, str(BARE / "ort_first.py"), str(stack.path), str(stack.golden)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.readline()
    first_ns = time.perf_counter_ns() - started_ns
    rest, _ = process.communicate()
    if said != "computed\n":
        sys.exit(f"{words[1]} failed with exit code {process.returncode}")
    return Start(first_ns, int(rest) * 1024)


def agent(stack: Stack) -> Start:
    """The agent with the shortest of jobs; what it does after the first inference is taken off.

    Raises PocketshipError where the agent fails.
    """
    import psutil

    artifact = JobArtifact("stack", "onnx", "stack.onnx", 0, "", golden="stack.npz")
    job = Job("start", (artifact,), (Case(0, 1),), seconds=0.01, warmup_s=0.01, profile=False)
    processes: list[subprocess.Popen[bytes]] = []
    found: dict[str, int] = {}

    def on_event(event: Json) -> None:
        if event["event"] == "loaded":
            found["first_ns"] = time.perf_counter_ns() - started_ns - event["load_warm_ns"]
            found["waiting_bytes"] = psutil.Process(processes[0].pid).memory_full_info().pss
        elif event["event"] == "memory":
            found["peak_bytes"] = event["peak_bytes"]
        elif event["event"] == "failed":
            raise PocketshipError(f"the agent's worker failed ({event['detail']})", remedy="run it again")

    started_ns = time.perf_counter_ns()
    files = {"stack.onnx": stack.path, "stack.npz": stack.golden}
    do(job, files, on_event, exclusive=False, on_start=processes.append)
    return Start(**found)


def starts(stack: Stack, rounds: int) -> dict[str, list[Start]]:
    """Both once a round, in turns whose order is shuffled; a first round, which finds the files' pages, is dropped."""
    shuffle = random.Random(0).shuffle
    ways: list[tuple[str, Callable[[Stack], Start]]] = [("agent", agent), ("bare", bare)]
    found: dict[str, list[Start]] = {name: [] for name, _ in ways}
    for _ in range(rounds + 1):
        shuffle(ways)
        for name, start in ways:
            found[name].append(start(stack))
    return {name: runs[1:] for name, runs in found.items()}


def slower(found: dict[str, list[Start]]) -> Estimate:
    """How many times as long the agent takes to its first inference: the median over rounds."""
    pairs = zip(found["agent"], found["bare"], strict=True)
    return median_interval([ours.first_ns / theirs.first_ns for ours, theirs in pairs])


def print_starts(found: dict[str, list[Start]]) -> tuple[Line, ...]:
    """A table of both, and the figures to reach."""
    print("| process | first inference after ms | peak MB |\n|---|---:|---:|")
    for name, runs in found.items():
        first_ms, peak_mb = median([r.first_ns / 1e6 for r in runs]), median([r.peak_bytes / 1e6 for r in runs])
        print(f"| {name} | {first_ms:.1f} | {peak_mb:.1f} |")
    waiting_mb = median([run.waiting_bytes / 1e6 for run in found["agent"]])
    ratio = slower(found)
    print(
        f"\nThe agent starts {ratio.value:.2f}x as long ({ratio.low:.2f} to {ratio.high:.2f}, 95%). Its peak is that of"
    )
    print(f"the worker, which computes; the process that waits for it takes {waiting_mb:.1f} MB more (its share).")
    more = median([run.peak_bytes for run in found["agent"]]) - median([run.peak_bytes for run in found["bare"]])
    zip_bytes = len(build(["onnx"]))
    return (
        Line("agent for one runtime: zip, KiB", zip_bytes / 1024, MOST_ZIP_BYTES / 1024, zip_bytes < MOST_ZIP_BYTES),
        Line(
            "agent: start to first inference / the bare runtime's",
            ratio.value,
            MOST_TIMES_SLOWER,
            ratio.value < MOST_TIMES_SLOWER,
        ),
        Line("agent: peak MB beyond the bare runtime's", more / 1e6, MOST_BYTES_MORE / 1e6, more < MOST_BYTES_MORE),
    )
