"""What the exporter's commands print: progress by stage, and a table of what was written."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.console import command, in_words, out, print_json, shown, terminal
from benchmarks.tables import Cell, Table, print_table, table_of

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.commands.layers import Layer
    from exporter.inspection.report import Report
    from exporter.pipeline import Plan
    from exporter.stages.progress import Stage
    from runtimes.kernels import KernelTruth
    from runtimes.signature import Signature
    from runtimes.types import Artifact, LedgerRow, Manifest, Parity
    from runtimes.verify import Check


class Progress:
    """One line a stage on stderr; on a terminal also the time that runs, and a bar with the time left in a long one."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def __enter__(self) -> Progress:
        if not self._quiet:
            from rich import progress as rich

            self._console = terminal()
            columns = (
                rich.SpinnerColumn(),
                rich.TextColumn("{task.description}", markup=False),
                rich.BarColumn(),
                rich.TimeElapsedColumn(),
            )
            self._bars = rich.Progress(*columns, rich.TimeRemainingColumn(), console=self._console, transient=True)
            self._bar = self._bars.add_task("working", total=None)
            if self._console.is_terminal:
                self._bars.start()
        return self

    def stage(self, stage: Stage) -> None:
        """Print the line of a stage that ended."""
        if not self._quiet:
            self._console.print(f"{stage.name:<8}{stage.seconds:6.1f} s  {stage.detail}", soft_wrap=True)
            self._bars.reset(self._bar, total=None, description="working")

    def progress(self, label: str, done: int, total: int) -> None:
        """Move the bar."""
        if not self._quiet:
            self._bars.update(self._bar, description=shown(label), completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        if not self._quiet and self._console.is_terminal:
            self._bars.stop()


def print_bundle(manifest: Manifest, path: Path) -> None:
    """The artifacts, and what the stages of a recipe cost and brought."""
    names = ("format", "file", "MB", "parity", "cosine", "SNR dB", "computed by")
    print_table(table_of(names, [_row(artifact) for artifact in manifest.artifacts], ("MB", "cosine", "SNR dB")))
    console = out()
    if manifest.ledger:
        console.print()
        print_table(_ledger(manifest.ledger))
    for artifact in manifest.artifacts:
        if artifact.left_float:
            kept = ", ".join(artifact.left_float)
            console.print()
            console.print(f"{artifact.path} keeps in floating point: {kept} (manifest.json says why)", soft_wrap=True)
    print_not_proven({artifact.path: artifact.parity for artifact in manifest.artifacts})
    console.print()
    console.print(f"{path} is ready; check it anywhere with: {command('verify', path)}", soft_wrap=True)
    if manifest.origin.weights == "random":
        terminal().print(
            "WARNING: the weights are random (no --weights given): good for size and latency, useless for accuracy",
            style="bold red",
        )


def print_not_proven(proofs: Mapping[str, Parity]) -> None:
    """A warning for what agrees in these files, and would if it were constant, too; the same of several in one line."""
    files: dict[str, list[str]] = {}
    for path, proof in proofs.items():
        for line in proof.not_proven:
            files.setdefault(line, []).append(path)
    for line, paths in files.items():
        out().print(f"warning: not proven: {line} ({', '.join(paths)})", soft_wrap=True, markup=False)


def print_checks(checks: Sequence[Check], listed: Container[str]) -> None:
    """What `verify` found of each file; `listed` are those of the manifest."""
    from benchmarks.results.words import verdict

    rows = []
    for check in checks:
        proof = check.parity
        rows.append(
            (
                check.path,
                "ok" if check.intact else "CHANGED" if check.path in listed else "UNLISTED",
                "-" if not check.is_artifact else verdict(proof) if proof else "not run",
                in_words(proof.executed_by) if proof else "",
            )
        )
    print_table(table_of(("file", "hash", "parity", "computed by"), rows))


def _ledger(rows: Sequence[LedgerRow]) -> Table:
    from benchmarks.results.words import samples_of
    from exporter.ledger.rows import speed_said

    metric = next((row.accuracy.metric for row in rows if row.accuracy), "accuracy")
    original = {row.format: row.size_bytes for row in rows if row.index == 0}
    names = ("format", "stage", "MB", "smaller", metric, "speed, 1 thread")
    cells: list[tuple[str | Cell, ...]] = []
    for row in rows:
        found = row.accuracy
        interval = f"{found.low:.1%} to {found.high:.1%}, {samples_of(found)}" if found else ""
        cells.append(
            (
                row.format,
                row.stage,
                f"{row.size_bytes / 1e6:.3f}",
                f"{original[row.format] / row.size_bytes:.2f}x" if row.index else "",
                Cell(f"{found.value:.1%}", interval) if found else "not measured",
                (speed_said(row.latency) if row.latency else row.not_timed) if row.index else "",
            )
        )
    return table_of(names, cells, ("MB", "smaller"))


def _row(artifact: Artifact) -> tuple[str, ...]:
    from benchmarks.results.words import verdict

    proof = artifact.parity
    return (
        artifact.format if artifact.precision == "float32" else f"{artifact.format} {artifact.precision}",
        artifact.path,
        f"{artifact.size_bytes / 1e6:.2f}",
        verdict(proof),
        f"{proof.cosine:.7f}",
        "exact" if proof.snr_db is None else f"{proof.snr_db:.0f}",
        in_words(proof.executed_by),
    )


def print_plan(prepared: Plan, targets: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """What a dry run found."""
    if as_json:
        print_json({"targets": targets, **asdict(prepared)})
    elif not quiet:
        console = out()
        print_signature(console, prepared.signature)
        console.print()
        console.print(f"{prepared.name} can be exported to {', '.join(targets)}; dry run, nothing was written")
        console.print("next, write it: the same command without --dry-run")


def print_signature(console: Console, signature: Signature) -> None:
    """One line an input and an output."""
    for role, specs in (("in", signature.inputs), ("out", signature.outputs)):
        for spec in specs:
            console.print(f"{role:<4}{spec.name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]")


def print_layers(layers: Sequence[Layer], widths: tuple[int, ...]) -> None:
    """What each layer alone, in few bits, does to the outputs."""
    scored = [width for width in widths if any(layer.score for layer in layers)]
    figures = [f"SNR dB, {width} bits" for width in widths] + [f"score, {width} bits" for width in scored]
    rows: list[tuple[str, ...]] = []
    for layer in layers:
        snr_db = (f"{layer.snr_db[str(width)]:.1f}" for width in widths)
        scores = (f"{layer.score[str(width)]:.1%}" for width in scored)
        rows.append((_tail(layer.name), layer.kind, f"{layer.parameters:,}", *snr_db, *scores))
    print_table(table_of(("layer", "kind", "parameters", *figures), rows, ("parameters", *figures)))


def _tail(name: str, characters: int = 72) -> str:
    """The end of a long name, where the layer is."""
    return name if len(name) <= characters else "…" + name[-characters:]


def print_report(report: Report, found: KernelTruth | str, tensors: int) -> None:
    """Signature, operations, kernel truth and the largest tensors of an artifact."""
    from exporter.inspection.kernels import in_words

    console = out()
    console.print(f"{report.path}  {report.format}  {report.size_bytes:,} bytes", soft_wrap=True)
    print_signature(console, report.signature)
    counts = ", ".join(f"{name} {count}" for name, count in report.operations.items())
    console.print(f"operations: {counts}", soft_wrap=True)
    for line in in_words(found):
        console.print(line, soft_wrap=True)
    rows = []
    for tensor in report.tensors[:tensors]:
        share = f"{tensor.size_bytes / report.size_bytes:.1%}"
        shape = "x".join(map(str, tensor.shape))
        rows.append((_tail(tensor.name), tensor.dtype, shape, f"{tensor.size_bytes:,}", share))
    print_table(table_of(("tensor", "dtype", "shape", "bytes", "share"), rows, ("bytes", "share")))
    rest = report.tensors[tensors:]
    if rest:
        console.print(f"and {len(rest)} more of {sum(t.size_bytes for t in rest):,} bytes")
    console.print()
