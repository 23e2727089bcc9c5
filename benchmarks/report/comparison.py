"""Old results beside new ones as a table, in sentences, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from benchmarks.results.compare import BETTER, WORSE, Comparison, Figure
from benchmarks.results.words import bytes_of, count_of, milliseconds, short, threads_of
from benchmarks.tables import Cell, Table


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """A row for each pair, a column for each figure that any of them has."""
    pairs = [comparison for comparison in comparisons if comparison.figures]
    names = list(dict.fromkeys(figure.name for pair in pairs for figure in pair.figures))
    rows = []
    for pair in pairs:
        figures = {figure.name: figure for figure in pair.figures}
        cells = [_cell(figures[name]) if name in figures else Cell("") for name in names]
        on = pair.device if pair.threads is None else f"{pair.device}, {threads_of(pair.threads)}"
        rows.append((Cell(short(pair.artifact, 120)), Cell(short(on, 120)), *cells))
    return Table("Old against new: new over old", ("artifact", "on", *names), frozenset(names), tuple(rows))


def remarks(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What was not compared, and why; and what else differs, which may be the cause."""
    apart = [f"not compared: {short(c.label)}: {short(c.reason)}" for c in comparisons if c.reason]
    noted: dict[str, list[str]] = {}
    for comparison in comparisons:
        for note in comparison.notes:
            noted.setdefault(note, []).append(comparison.label)
    pairs = sum(bool(c.old and c.new) for c in comparisons)
    notes = [f"{'all' if len(on) == pairs else short('; '.join(on))}: {short(note)}" for note, on in noted.items()]
    return (*apart, *notes)


def _cell(figure: Figure) -> Cell:
    tone = {WORSE: "bad", BETTER: "good"}.get(figure.verdict, "")
    shown = {
        "ms": milliseconds,
        "bytes": bytes_of,
        "share": lambda value: f"{value:.1%}",
        "": count_of,
    }[figure.unit]
    detail = "" if figure.name == "health" else f"{shown(figure.old)} -> {shown(figure.new)}"
    return Cell(figure.said, detail, tone)


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print the table on stdout, and what was not compared below it."""
    from benchmarks.console import out
    from benchmarks.tables import print_table

    found = comparison_table(comparisons)
    marks = {"bad": "WORSE ", "good": "better "}
    rows = tuple(tuple(replace(cell, text=marks.get(cell.tone, "") + cell.text) for cell in row) for row in found.rows)
    if rows:
        print_table(replace(found, rows=rows))
    for line in remarks(comparisons):
        out().print(line, soft_wrap=True)


def comparisons_to_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The comparisons without the results themselves, which are named by their ids."""
    return [
        {
            "artifact": c.artifact,
            "device": c.device,
            "threads": c.threads,
            "old": c.old.id if c.old else None,
            "new": c.new.id if c.new else None,
            "figures": [asdict(figure) for figure in c.figures],
            "notes": list(c.notes),
            "reason": c.reason,
        }
        for c in comparisons
    ]
