"""The ledger for people: report.md with tables by format, and report.png beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results.words import samples_of
from exporter.inspection.sizes import explain, megabytes, part_order
from exporter.ledger.plot import draw
from exporter.ledger.rows import speed_said
from runtimes.types import Accuracy, Latency, LedgerRow, Manifest, RecipeStep

MARKDOWN, PICTURE = "report.md", "report.png"
NOT_MEASURED = "not measured"


def write_report(manifest: Manifest, folder: Path, notes: Sequence[str] = ()) -> None:
    """Write report.md and report.png of a manifest's ledger into `folder`; `notes` are sentences for the end.

    The same manifest gives the same bytes.
    """
    (folder / MARKDOWN).write_text(markdown(manifest, notes), encoding="utf-8")
    draw(manifest.ledger, manifest.name, folder / PICTURE)


def markdown(manifest: Manifest, notes: Sequence[str] = ()) -> str:
    """The report's text."""
    rows = manifest.ledger
    lines = [f"# {manifest.name}: what compression cost and brought", ""]
    lines += [f"{i}. {_step(step)}" for i, step in enumerate(manifest.recipe, 1)]
    lines += ["", f"![size, accuracy and latency by stage]({PICTURE})"]
    for target in dict.fromkeys(row.format for row in rows):
        lines += ["", f"## {target}", "", *_of_format([row for row in rows if row.format == target])]
    lines += ["", "## How to read it", "", *(f"- {line}" for line in (*_legend(rows), *notes))]
    return "\n".join(lines) + "\n"


def _step(step: RecipeStep) -> str:
    chosen = ", ".join(f"{name} {_setting(value)}" for name, value in step.settings.items())
    remarks = "".join(f"\n   - {note}" for note in step.notes)
    return f"**{step.name}**" + (f" ({chosen})" if chosen else "") + remarks


def _setting(value: Any) -> str:
    """A setting as one would write it in a recipe."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_setting, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_setting(child)}" for key, child in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_format(rows: Sequence[LedgerRow]) -> list[str]:
    """The tables of one format: what each stage is worth, and where its bytes went."""
    original = rows[0]
    lines = [
        "| stage | parameters | not zero | file | gzip | sparse | accuracy | latency | speed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = (
            row.stage,
            f"{row.parameters:,}",
            f"{row.nonzero / row.parameters:.1%}",
            _size(row.size_bytes, original.size_bytes),
            megabytes(row.gzip_bytes),
            megabytes(row.sparse_bytes),
            _accuracy(row.accuracy),
            _latency(row),
            "" if row is original else _speed(row.latency),
        )
        lines.append(f"| {' | '.join(cells)} |")
    parts = sorted({part for row in rows for part in row.waterfall}, key=part_order)
    lines += ["", "| where the bytes went | " + " | ".join(row.stage for row in rows) + " |"]
    lines.append("|---|" + "---:|" * len(rows))
    for part in parts:
        lines.append(f"| {part} | " + " | ".join(_part(row.waterfall.get(part, 0)) for row in rows) + " |")
    said = [(row.stage, explain(row.waterfall, row.gzip_bytes, row.sparse_bytes)) for row in rows]
    sentences = [f"- after {stage}: {sentence}." for stage, sentence in said if sentence]
    return [*lines, *([""] if sentences else []), *sentences]


def _size(size_bytes: int, original_bytes: int) -> str:
    ratio = original_bytes / size_bytes
    return megabytes(size_bytes) + (f" ({ratio:.2f}x smaller)" if ratio >= 1.005 else "")


def _part(size_bytes: int) -> str:
    return megabytes(size_bytes) if size_bytes else ""


def _accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return NOT_MEASURED
    cut = accuracy.of_samples not in (None, accuracy.samples)
    said = f"{accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%})"
    return f"{said}, {samples_of(accuracy)}" if cut else said


def _latency(row: LedgerRow) -> str:
    return f"{row.latency.median_ms:.3g} ms" if row.latency else row.not_timed or NOT_MEASURED


def _speed(latency: Latency | None) -> str:
    return speed_said(latency) if latency else ""


def _legend(rows: Sequence[LedgerRow]) -> list[str]:
    """What the columns mean; only what these rows hold."""
    lines = [
        "file: the artifact itself. gzip: after zlib, level 9. sparse: what the file would take with every weight in "
        "the format's own sparse encoding where that is smaller, indices counted.",
        "where the bytes went: weights by kind of layer and as stored, bytes of zeros apart.",
    ]
    measured = next((row.accuracy for row in rows if row.accuracy), None)
    if measured:
        lines.append(
            f"accuracy: {measured.metric} of the artifact itself in its runtime, on {measured.samples:,} test samples, "
            "with its 95% interval (Wilson)."
        )
    timed = next((row.latency for row in rows if row.latency), None)
    if timed:
        threads = "" if timed.threads is None else f", {timed.threads} thread{'s' if timed.threads > 1 else ''}"
        lines.append(
            f"latency: median on the machine that exported{threads}; speed: against the original, both measured in "
            "turns, with the 95% interval of the ratio. An interval that contains 1 shows no difference."
        )
    return lines
