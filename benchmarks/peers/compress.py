"""Our compressed artifacts beside the peers', from the same fp32 files: size, accuracy and latency in one run."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.evaluate import Evaluation, answers, as_reference, evaluate
from benchmarks.measure import NotTimed, Timed, measure, speedup
from benchmarks.peers.processes import Line, ours, peer, print_figures
from benchmarks.results.stats import Estimate, in_words
from benchmarks.tasks import load_task
from benchmarks.tasks.task import Arrays, Task
from runtimes.bundle import GOLDEN, digest
from runtimes.errors import PocketshipError

FP32 = "fp32"
VARIANTS = {
    FP32: (),
    "int8": ("--quantize", "int8"),
    "int4": ("--quantize", "int4"),
    "ternary": ("--quantize", "ternary"),
    "half the FLOPs": ("--recipe", "{pruned}"),
}
"""What we make of each model, fp32 first, and the words that make it."""
PRUNED = "passes: [{prune-structured: {flops: 0.5}}, {distill: {epochs: 10}}]"
FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "coreml": "model.mlpackage"}
EVALUATION_S, REFERENCE_S = 60.0, 600.0
"""For a file; one that needs longer is judged by the samples it did, and its row says how many."""


@dataclass(frozen=True)
class Model:
    """A model of the zoo, its task, and what is to be reached on it."""

    task: str
    is_cnn: bool = False
    most_points_of_ternary: float | None = None


MODELS = {
    "minilm": Model("sentences"),
    "digits": Model("digits", most_points_of_ternary=1.5),
    "italypower": Model("italypower"),
    "rnet": Model("faces", is_cnn=True),
}


@dataclass(frozen=True)
class Peer:
    """What a user would otherwise run on an fp32 file of `format`: a script of `bare`, and its words."""

    name: str
    format: str
    script: str
    words: tuple[str, ...] = ()
    package: str = ""


PEERS = (
    Peer("optimum, dynamic int8", "onnx", "quantize_optimum", package="optimum"),
    Peer("onnxruntime, static int8", "onnx", "quantize_onnxruntime", package="onnxruntime"),
    Peer("Olive, dynamic int8", "onnx", "quantize_olive", package="olive"),
    Peer("ai-edge-quantizer, dynamic int8", "tflite", "quantize_litert", ("dynamic",), "ai_edge_quantizer"),
    Peer("ai-edge-quantizer, static int8", "tflite", "quantize_litert", ("static",), "ai_edge_quantizer"),
    Peer("coremltools.optimize, int8", "coreml", "quantize_coreml", ("int8",), "coremltools"),
    Peer("coremltools.optimize, 4-bit palette", "coreml", "quantize_coreml", ("int4",), "coremltools"),
    Peer("coremltools.optimize, 2-bit palette", "coreml", "quantize_coreml", ("int2",), "coremltools"),
)


@dataclass(frozen=True)
class Entry:
    """One file of the comparison; `failure` says why a peer gave none."""

    who: str
    format: str
    path: Path | None
    failure: str = ""


@dataclass(frozen=True)
class Row:
    """What was found of one entry; latency is None where this machine cannot time the format."""

    entry: Entry
    size_bytes: int
    evaluation: Evaluation
    latency: Timed | None
    speedup: Estimate | None


def compress_peers(rounds: int, models: Sequence[str]) -> dict[str, object]:
    """Run the comparison of compression; prints its tables, returns every figure."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread a runtime\n")
    results: dict[str, object] = {}
    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            rows, failures = compare(name, Path(folder), rounds)
        print(f"## {name}, task {MODELS[name].task}\n")
        print_rows(rows, failures)
        print_figures(figures(MODELS[name], rows))
        results[name] = {
            "rows": [{**asdict(row), "entry": f"{row.entry.who}, {row.entry.format}"} for row in rows],
            "failures": [f"{entry.who}: {entry.failure}" for entry in failures],
        }
    return results


def compare(name: str, folder: Path, rounds: int) -> tuple[list[Row], list[Entry]]:
    """All rows of one model, fp32 first in each format; and the entries that gave no file, or one that does not run."""
    task = load_task(MODELS[name].task)
    (folder / "pruned.yaml").write_text(PRUNED, encoding="utf-8")
    entries = [entry for variant in VARIANTS for entry in our_entries(name, variant, folder)]
    if not entries[0].path:
        sys.exit(f"{name}: {entries[0].failure}")
    calibration = folder / "calibration.npz"
    np.savez(calibration, **task.calibration.inputs)  # type: ignore[arg-type]
    entries += [peer_entry(one, folder / FP32 / FILES[one.format], calibration, folder) for one in PEERS]
    print(f"{name}: what fp32 computes", file=sys.stderr)
    reference = as_reference(answers(entries[0].path, task, seconds=REFERENCE_S), task)
    rows, failures = [], [entry for entry in entries if entry.failure]
    for format_name in FILES:
        evaluated = []
        for entry in (entry for entry in entries if entry.path and entry.format == format_name):
            found = evaluation(entry, task, reference)
            if isinstance(found, Evaluation):
                evaluated.append((entry, found))
            else:
                failures.append(found)
        rows += timed(evaluated, folder / FP32 / GOLDEN, rounds)
    return rows, failures


def evaluation(entry: Entry, task: Task, reference: Arrays) -> Evaluation | Entry:
    """How good an entry's file is; the entry with its failure where it does not run. That of fp32 always must."""
    assert entry.path is not None
    print(f"evaluating {entry.who}, {entry.format}", file=sys.stderr)
    try:
        return evaluate(entry.path, task, seconds=EVALUATION_S, reference=reference)
    except PocketshipError as error:
        if entry.who == FP32:
            raise
        return replace(entry, path=None, failure=str(error))


def our_entries(name: str, variant: str, folder: Path) -> list[Entry]:
    """The artifacts of one export of ours."""
    words = [word.format(pruned=folder / "pruned.yaml") for word in VARIANTS[variant]]
    print(f"{name}: pocketship export, {variant}", file=sys.stderr)
    command = ours(["export", name, "-o", folder / variant, "--quiet", "--no-measure", *words])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    who = FP32 if variant == FP32 else f"pocketship {variant}"
    if done.returncode != 0:
        return [Entry(who, format_name, None, done.stderr.strip()[-300:]) for format_name in FILES]
    return [Entry(who, format_name, folder / variant / file) for format_name, file in FILES.items()]


def peer_entry(one: Peer, source: Path, calibration: Path, folder: Path) -> Entry:
    """The file that a peer makes of ours."""
    if importlib.util.find_spec(one.package) is None:
        return Entry(one.name, one.format, None, f"{one.package} is not installed")
    output = folder / f"peer-{PEERS.index(one)}" / FILES[one.format]
    output.parent.mkdir()
    print(f"{one.name}", file=sys.stderr)
    command = peer(one.script, [source, calibration, output, *one.words])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not output.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return Entry(one.name, one.format, None, (lines or ["no file"])[-1][:300])
    return Entry(one.name, one.format, output)


def timed(evaluated: Sequence[tuple[Entry, Evaluation]], golden: Path, rounds: int) -> list[Row]:
    """The rows of one format, whose files are timed in turns; the first is the baseline."""
    paths = [entry.path for entry, _ in evaluated if entry.path]
    latencies = measure(paths, golden, threads=1, seconds=float(rounds))
    baseline, rows = latencies[0], []
    for (entry, found), path, latency in zip(evaluated, paths, latencies, strict=True):
        samples = None if isinstance(latency, NotTimed) else latency
        ratio = None
        if samples and isinstance(baseline, Timed) and samples is not baseline:
            ratio = speedup(baseline, samples)
        rows.append(Row(entry, digest(path)[0], found, samples, ratio))
    return rows


def print_rows(rows: Sequence[Row], failures: Sequence[Entry]) -> None:
    """A Markdown table a format, and what could not be compared."""
    for format_name in FILES:
        own = [row for row in rows if row.entry.format == format_name]
        if not own:
            continue
        print(f"| {format_name} | MB | smaller | {own[0].evaluation.metric} | 95% interval | median ms | speed-up |")
        print("|---|---:|---:|---:|---|---:|---|")
        for row in own:
            found = row.evaluation
            latency = f"{row.latency.median_ns / 1e6:.3f}" if row.latency else "not measured here"
            smaller = own[0].size_bytes / row.size_bytes
            print(
                f"| {row.entry.who} | {row.size_bytes / 1e6:.3f} | {smaller:.2f} | {found.value:.4f} "
                f"| {found.low:.3f} to {found.high:.3f}, n={found.samples} | {latency} "
                f"| {in_words(row.speedup) if row.speedup else ''} |"
            )
        others = sorted({name for row in own for name in row.evaluation.others})
        for name in others:
            values = ", ".join(f"{row.entry.who} {row.evaluation.others.get(name, math.nan):.4f}" for row in own)
            print(f"\n{name}: {values}")
        print()
    for entry in failures:
        print(f"No file of {entry.who} ({entry.format}): {entry.failure}\n")


def figures(model: Model, rows: Sequence[Row]) -> tuple[Line, ...]:
    """The figures to reach on one model."""
    lines = []
    for format_name in FILES:
        own = {row.entry.who: row for row in rows if row.entry.format == format_name}
        if FP32 not in own:
            continue
        fp32 = own[FP32]
        int8, ternary = own.get("pocketship int8"), own.get("pocketship ternary")
        if int8:
            lines.append(_least(f"{format_name}: int8 smaller", fp32.size_bytes / int8.size_bytes, 3.8))
            if comparable(fp32, int8):
                lines.append(_most(f"{format_name}: int8 points lost", points_lost(fp32, int8), 0.5))
            if int8.speedup:
                wanted = 1.0 if model.is_cnn else 2.0
                lines.append(_least(f"{format_name}: int8 speed-up", int8.speedup.value, wanted))
        if ternary:
            lines.append(_least(f"{format_name}: ternary smaller", fp32.size_bytes / ternary.size_bytes, 10.0))
            limit = model.most_points_of_ternary
            if limit is not None and comparable(fp32, ternary):
                lines.append(_most(f"{format_name}: ternary points lost", points_lost(fp32, ternary), limit))
        pruned = own.get("pocketship half the FLOPs")
        if pruned and pruned.speedup:
            lines.append(_least(f"{format_name}: half the FLOPs, speed-up", pruned.speedup.value, 1.6))
        lines += against_peers(format_name, list(own.values()))
    return tuple(lines)


def comparable(one: Row, other: Row) -> bool:
    """Whether both were scored on the same samples: a slow file does not do all of them."""
    return one.evaluation.samples == other.evaluation.samples


def points_lost(original: Row, compressed: Row) -> float:
    """In points of the task's metric."""
    return 100 * (original.evaluation.value - compressed.evaluation.value)


def against_peers(format_name: str, rows: Sequence[Row]) -> list[Line]:
    """Our best artifact beside the best peer's among those within half a point of fp32: size, and time where it is."""
    fp32 = next(row for row in rows if row.entry.who == FP32)
    exact = [r for r in rows if r is not fp32 and comparable(fp32, r) and points_lost(fp32, r) <= 0.5]
    us = [row for row in exact if row.entry.who.startswith("pocketship")]
    them = [row for row in exact if not row.entry.who.startswith("pocketship")]
    if not us or not them:
        return []
    sizes = min(r.size_bytes for r in us) / min(r.size_bytes for r in them)
    lines = [_most(f"{format_name}: our smallest / the peers', within half a point of fp32", sizes, 1.0)]
    if us[0].latency:
        fastest = min(r.latency.median_ns for r in us if r.latency) / min(
            r.latency.median_ns for r in them if r.latency
        )
        lines.append(_most(f"{format_name}: our fastest / the peers', within half a point of fp32", fastest, 1.0))
    return lines


def _least(figure: str, value: float, limit: float) -> Line:
    return Line(figure, value, limit, value >= limit)


def _most(figure: str, value: float, limit: float) -> Line:
    return Line(figure, value, limit, value <= limit)
