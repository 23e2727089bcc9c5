"""The report's tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.console import out
from benchmarks.report.sections import sections_of, summary
from benchmarks.results.result import Result
from benchmarks.tables import print_table


def print_summaries(results: Sequence[Result]) -> None:
    """One table a device, below what executed there."""
    for section in sections_of(results):
        out().print(f"{section.heading} ({section.kind})", soft_wrap=True)
        print_table(summary(section))
        out().print()
