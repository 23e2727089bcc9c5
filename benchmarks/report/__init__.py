"""The report of any set of results: one HTML page, Markdown tables, a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.results.result import Result
from runtimes.writing import write_file

TITLE = "pocketship bench report"


def write_html(results: Sequence[Result], path: Path, title: str = TITLE) -> None:
    """Write the page; raises BadInput where the file cannot be written."""
    from benchmarks.report.page import html

    write_file(path, [html(results, title).encode("utf-8", "replace")])


def write_markdown(results: Sequence[Result], path: Path, title: str = TITLE) -> None:
    """Write the tables; raises BadInput where the file cannot be written."""
    from benchmarks.report.markdown import markdown

    write_file(path, [markdown(results, title).encode("utf-8", "replace")])


def write_png(results: Sequence[Result], path: Path, title: str = TITLE) -> None:
    """Write the picture; raises BadInput where the file cannot be written, or nothing in the results can be drawn."""
    from benchmarks.report.picture import png

    write_file(path, [png(results, title)])
