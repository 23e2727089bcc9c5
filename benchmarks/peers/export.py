"""Our export beside the bare converters: seconds and memory of whole commands."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.processes import (
    Line,
    Run,
    interleave,
    memory_peaks,
    minilm_folder,
    ours,
    peer,
    print_figures,
    ratio,
)

OURS, UNGATED = "pocketship, all three", "the same without the gate"
OPTIMUM, LITERT, COREML = "optimum-cli export onnx", "litert_torch.convert", "coremltools.convert"
MODELS = ("minilm", "cnn")
HELP, OPTIMUM_HELP = "pocketship --help", "optimum-cli --help"


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
    runs = interleave(help_commands(), 3 * rounds, watch_memory=False)
    print_runs(runs, {})
    value = ratio(runs, [HELP], [OPTIMUM_HELP])
    print_figures([Line("pocketship --help / optimum-cli --help", value, 1.5, value <= 1.5)])
    results["help"] = [asdict(run) for run in runs]
    return results
