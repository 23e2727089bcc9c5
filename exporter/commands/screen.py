"""What the exporter's commands print: progress by stage, and a table of what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.console import in_words, out, print_json, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from exporter.commands.layers import Layer
    from exporter.inspection.report import Report
    from exporter.pipeline import Plan
    from exporter.stages.progress import Stage
    from runtimes.kernels import KernelTruth
    from runtimes.signature import Signature
    from runtimes.types import Artifact, LedgerRow, Manifest


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
                rich.TextColumn("{task.description}"),
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
            self._console.print(f"{stage.name:<8}{stage.seconds:6.1f} s  {stage.detail}", markup=False, soft_wrap=True)
            self._bars.reset(self._bar, total=None, description="working")

    def progress(self, label: str, done: int, total: int) -> None:
        """Move the bar."""
        if not self._quiet:
            self._bars.update(self._bar, description=label, completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        if not self._quiet and self._console.is_terminal:
            self._bars.stop()


def print_bundle(manifest: Manifest, path: Path) -> None:
    """The artifacts, and what the stages of a recipe cost and brought."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("format", "file", "MB", "max abs error", "max rel error", "cosine", "SNR dB", "computed by"):
        table.add_column(
            name, justify="right" if name in ("MB", "max abs error", "max rel error", "cosine", "SNR dB") else "left"
        )
    for artifact in manifest.artifacts:
        table.add_row(*_row(artifact))
    console = out()
    console.print(table)
    if manifest.ledger:
        console.print()
        console.print(_ledger(manifest.ledger))
    for artifact in manifest.artifacts:
        if artifact.left_float:
            names = ", ".join(artifact.left_float)
            console.print(
                f"\n{artifact.path} keeps in floating point: {names} (manifest.json says why)", soft_wrap=True
            )
    console.print(f"\n{path} is ready; check it anywhere with: pocketship verify {path}")
    if manifest.origin.weights == "random":
        terminal().print(
            "WARNING: the weights are random (no --weights given): good for size and latency, useless for accuracy",
            style="bold red",
        )


def _ledger(rows: Sequence[LedgerRow]) -> Table:
    from rich.table import Table

    from benchmarks.results.stats import in_words as ratio_in_words
    from exporter.ledger.rows import speedup_in

    metric = next((row.accuracy.metric for row in rows if row.accuracy), "accuracy")
    table = Table(box=None, pad_edge=False)
    for name in ("format", "stage", "MB", "smaller", metric, "95% interval", "speed, 1 thread"):
        table.add_column(name, justify="right" if name in ("MB", "smaller", metric) else "left")
    original = {row.format: row.size_bytes for row in rows if row.index == 0}
    for row in rows:
        found = row.accuracy
        table.add_row(
            row.format,
            row.stage,
            f"{row.size_bytes / 1e6:.3f}",
            f"{original[row.format] / row.size_bytes:.2f}x" if row.index else "",
            f"{found.value:.1%}" if found else "not measured",
            f"{found.low:.1%} to {found.high:.1%}, n={found.samples}" if found else "",
            (ratio_in_words(speedup_in(row.latency)) if row.latency else row.not_timed) if row.index else "",
        )
    return table


def _row(artifact: Artifact) -> tuple[str, ...]:
    proof = artifact.parity
    return (
        artifact.format if artifact.precision == "float32" else f"{artifact.format} {artifact.precision}",
        artifact.path,
        f"{artifact.size_bytes / 1e6:.2f}",
        f"{proof.max_abs_error:.1e}",
        f"{proof.max_rel_error:.1e}",
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
        console.print(f"\n{prepared.name} can be exported to {', '.join(targets)}; dry run, nothing was written")


def print_signature(console: Console, signature: Signature) -> None:
    """One line an input and an output."""
    for role, specs in (("in", signature.inputs), ("out", signature.outputs)):
        for spec in specs:
            console.print(f"{role:<4}{spec.name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]")


def print_layers(layers: Sequence[Layer], widths: tuple[int, ...]) -> None:
    """What each layer alone, in few bits, does to the outputs."""
    from rich.table import Table

    scored = [width for width in widths if any(layer.score for layer in layers)]
    figures = [f"SNR dB, {width} bits" for width in widths] + [f"score, {width} bits" for width in scored]
    table = Table("layer", "kind", box=None, pad_edge=False)
    for name in ("parameters", *figures):
        table.add_column(name, justify="right")
    for layer in layers:
        snr_db = (f"{layer.snr_db[str(width)]:.1f}" for width in widths)
        scores = (f"{layer.score[str(width)]:.1%}" for width in scored)
        table.add_row(_tail(layer.name), layer.kind, f"{layer.parameters:,}", *snr_db, *scores)
    out().print(table)


def _tail(name: str, characters: int = 72) -> str:
    """The end of a long name, where the layer is."""
    return name if len(name) <= characters else "…" + name[-characters:]


def print_report(report: Report, found: KernelTruth | str, tensors: int) -> None:
    """Signature, operations, kernel truth and the largest tensors of an artifact."""
    from rich.table import Table

    from exporter.inspection.kernels import in_words

    console = out()
    console.print(f"{report.path}  {report.format}  {report.size_bytes:,} bytes")
    print_signature(console, report.signature)
    counts = ", ".join(f"{name} {count}" for name, count in report.operations.items())
    console.print(f"operations: {counts}", soft_wrap=True)
    for line in in_words(found):
        console.print(line, soft_wrap=True)
    table = Table("tensor", "dtype", "shape", "bytes", "share", box=None, pad_edge=False)
    for tensor in report.tensors[:tensors]:
        share = f"{tensor.size_bytes / report.size_bytes:.1%}"
        table.add_row(
            _tail(tensor.name), tensor.dtype, "x".join(map(str, tensor.shape)), f"{tensor.size_bytes:,}", share
        )
    console.print(table)
    rest = report.tensors[tensors:]
    if rest:
        console.print(f"and {len(rest)} more of {sum(t.size_bytes for t in rest):,} bytes")
    console.print()
