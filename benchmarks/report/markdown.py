"""The report as Markdown: the same tables as the page, for a README or a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.report import TITLE
from benchmarks.report.page import counts, dates, settings_said
from benchmarks.report.sections import (
    KINDS,
    commands,
    conditions,
    failures,
    latest,
    remarks,
    sections_of,
    summary,
)
from benchmarks.results import words
from benchmarks.results.result import Result
from benchmarks.tables import Cell, Table

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def markdown(results: Sequence[Result], title: str = TITLE) -> str:
    """The text; names are escaped, so that nothing in them is Markdown or HTML."""
    shown, older = latest(results)
    lead = ", ".join(part for part in (counts(shown), dates(shown)) if part) + "."
    left_out = f"{older} older results of the same measurements are left out." if older else ""
    lines = [f"# {escaped(words.short(title))}", "", " ".join(p for p in (lead, settings_said(shown), left_out) if p)]
    found = failures(shown)
    if found.rows:
        lines += ["", "## Failures", "", *table(found)]
    for section in sections_of(shown):
        lines += ["", f"## {escaped(section.heading)}", "", f"*{section.kind}*: {KINDS[section.kind]}.", ""]
        lines += [f"- {name}: {escaped(value)}" for name, value in section.facts]
        lines += ["", *table(summary(section))]
        said = [f"- **{escaped(label)}**: {escaped(sentence)}" for label, sentence in remarks(section)]
        lines += ["", *said] if said else []
        seen = conditions(section)
        lines += ["", *table(seen)] if seen.rows else []
    if shown:
        lines += ["", "## To measure the same again", ""]
        lines += [f"    {command}" for command in commands(shown)]
    return "\n".join(lines) + "\n"


def table(found: Table) -> list[str]:
    """The lines of a table."""
    rules = ["---:" if name in found.figures else "---" for name in found.columns]
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in found.rows]
    return ["| " + " | ".join(found.columns) + " |", "|" + "|".join(rules) + "|", *rows]


def _cell(cell: Cell) -> str:
    text = f"**{escaped(cell.text)}**" if cell.tone == "bad" and cell.text else escaped(cell.text)
    return f"{text} ({escaped(cell.detail)})" if cell.detail else text


def escaped(text: str) -> str:
    """Text of one line in which nothing is markup."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
