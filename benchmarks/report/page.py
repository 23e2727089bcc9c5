"""The report as one HTML page that needs nothing else: styles and drawings inline, no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.bars import Bar, kernel_bars, memory_bars
from benchmarks.report.charts import Chart, distribution, over_time
from benchmarks.report.pareto import pareto
from benchmarks.report.sections import (
    KINDS,
    Section,
    commands,
    conditions,
    failures,
    heading_of,
    label_in_section,
    latest,
    profile,
    remarks,
    sections_of,
    summary,
    versions,
)
from benchmarks.results import words
from benchmarks.results.execution import execution
from benchmarks.results.result import Result

TEMPLATES = Path(__file__).parent / "templates"
TITLE = "pocketship bench report"


def html(results: Sequence[Result], title: str = TITLE) -> str:
    """The page of any results; the same results give the same page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    shown, older = latest(results)
    sections = sections_of(shown)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template("report.html.j2").render(
        title=words.short(title),
        dates=dates(shown),
        counts=counts(shown),
        older=older,
        kinds=KINDS,
        sections=[_view(section) for section in sections],
        failures=failures(shown),
        kernels=kernel_bars(shown),
        commands=commands(shown),
        versions=versions(shown),
        settings_said=settings_said(shown),
    )
    return page


def dates(results: Sequence[Result]) -> str:
    """The first and the last day of the results."""
    days = sorted({result.started_at[:10] for result in results})
    return "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def counts(results: Sequence[Result]) -> str:
    """How much there is, in words."""
    files = len({result.artifact.sha256 for result in results})
    places = len({heading_of(result) for result in results})
    counted = ((len(results), "result"), (files, "artifact"), (places, "device"))
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in counted)


def settings_said(results: Sequence[Result]) -> str:
    """What the inputs and weights were, where they were not those of real data."""
    random = sum(result.settings.inputs == "random" for result in results)
    return f"{random} of {len(results)} results were measured with random inputs." if random else ""


def _view(section: Section) -> dict[str, Any]:
    """What the template draws of one device."""
    bundles: dict[str, list[Result]] = {}
    for result in section.results:
        bundles.setdefault(words.model_of(result.artifact), []).append(result)
    short_runs = {name: [r for r in group if not r.settings.sustained_s] for name, group in bundles.items()}
    charts: list[Chart | None] = []
    if section.kind != "off-device":
        for name, group in short_runs.items():
            of = f"{words.short(name, 60)}: " if name else ""
            charts += [pareto(group, of), distribution(group, f"{of}latency distribution")]
    sustained = [(r, over_time(r)) for r in section.results]
    profiled = [r for r in section.results if r.profile and execution(r) != "off-device"]
    return {
        "section": section,
        "summary": summary(section),
        "remarks": remarks(section),
        "charts": [chart for chart in charts if chart],
        "sustained": [(label_in_section(r), words.slowdown(r), panels) for r, panels in sustained if panels],
        "memory": _memory(section),
        "profiles": [profile(r) for r in profiled],
        "conditions": conditions(section),
    }


def _memory(section: Section) -> tuple[Bar, ...]:
    return () if section.kind == "off-device" else memory_bars(section.results)
