"""The report's tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.console import out
from benchmarks.report.sections import sections_of, summary
from benchmarks.results.result import Result
from benchmarks.results.words import Table


def print_table(table: Table) -> None:
    """A table on stdout, what is in small print below the figure it belongs to."""
    from rich.table import Table as Screen

    screen = Screen(box=None, pad_edge=False)
    for name in table.columns:
        screen.add_column(name, justify="right" if name in table.figures else "left")
    for row in table.rows:
        screen.add_row(*(f"{cell.text}\n{cell.detail}" if cell.detail else cell.text for cell in row))
    out().print(screen)


def print_summaries(results: Sequence[Result]) -> None:
    """One table a device, below what executed there."""
    for section in sections_of(results):
        out().print(f"{section.heading} ({section.kind})")
        print_table(summary(section))
        out().print()
