"""The report as a picture: for each device the Pareto plot and the distributions, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.report import TITLE
from benchmarks.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Style, distribution
from benchmarks.report.pareto import pareto
from benchmarks.report.sections import latest, sections_of
from benchmarks.results import words
from benchmarks.results.result import Result
from runtimes.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#008a63", "#b04f8f", "#8a6d00", "#3f97c9", "#6b5bd2", "#5b6470")
"""Those of the page, by tone."""
INK, QUIET, FAINT = "#1c2430", "#576071", "#e6e9ee"
MARKERS = {"circle": "o", "square": "s", "diamond": "D"}
CELL_INCHES, DPI = (6.4, 5.2), 130
MOST_ROWS = 12
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def png(results: Sequence[Result], title: str = TITLE) -> bytes:
    """The picture, a row for each device and model; the same results give the same bytes.

    Raises BadInput where no device has anything to draw.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(latest(results)[0])
    if not rows:
        raise BadInput(
            "nothing to draw", where="--png", remedy="give results with a latency, or at least two with an accuracy"
        )
    columns = max(len(charts) for _, charts in rows)
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        size = (CELL_INCHES[0] * columns, CELL_INCHES[1] * len(rows) + 0.7)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(_plain(words.short(title, 80)), fontsize=16, fontweight="bold", color=INK)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for (heading, charts), line in zip(rows, grid, strict=True):
            for axes in line[len(charts) :]:
                axes.set_visible(False)
            for chart, axes in zip(charts, line, strict=False):
                _draw(chart, heading, axes)
        kept = io.BytesIO()
        figure.savefig(kept, format="png", metadata={"Software": None})
    return kept.getvalue()


def _rows(results: Sequence[Result]) -> list[tuple[str, list[Chart]]]:
    """Heading and charts of each device and model, at most MOST_ROWS."""
    rows = []
    for section in sections_of(results):
        if section.kind == "off-device":
            continue
        models: dict[str, list[Result]] = {}
        for result in section.results:
            if not result.settings.sustained_s:
                models.setdefault(words.model_of(result.artifact), []).append(result)
        for model, group in models.items():
            of = f"{words.short(model, 24)}: " if model else ""
            charts = [chart for chart in (pareto(group, of), distribution(group, f"{of}latency")) if chart]
            if charts:
                rows.append((words.short(section.heading, 52), charts))
    return rows[:MOST_ROWS]


def _draw(chart: Chart, heading: str, axes: Axes) -> None:
    """The chart's geometry, on matplotlib's axes: y of a drawing grows downwards."""
    axes.set_title(_plain(f"{heading}\n{chart.title}"))
    axes.set_xlim(LEFT, WIDTH - RIGHT)
    axes.set_ylim(HEIGHT - BOTTOM, TOP)
    axes.set_xticks([tick.at for tick in chart.x_ticks], [tick.label for tick in chart.x_ticks])
    axes.set_yticks([tick.at for tick in chart.y_ticks], [tick.label for tick in chart.y_ticks])
    axes.set_xlabel(_plain(chart.x_label), color=QUIET)
    axes.set_ylabel(_plain(chart.y_label), color=QUIET)
    axes.tick_params(length=0, colors=QUIET)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for line in chart.lines:
        points = [tuple(map(float, point.split(","))) for point in line.points.split()]
        dash = (0, tuple(map(float, line.style.dash.split()))) if line.style.dash else "solid"
        colour = COLOURS[line.style.tone]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, label=_label(line.style))
    for mark in chart.marks:
        colour = COLOURS[mark.style.tone]
        for x1, y1, x2, y2 in mark.whiskers:
            axes.plot([x1, x2], [y1, y2], color=colour, alpha=0.45, linewidth=1.2)
        axes.scatter(
            [mark.x],
            [mark.y],
            s=(1.9 * mark.radius) ** 2,
            marker=MARKERS[mark.style.shape],
            facecolor=colour,
            edgecolor=INK if mark.is_best else colour,
            linewidth=1.8 if mark.is_best else 0.5,
            alpha=1.0 if mark.is_best else 0.5,
            label=_label(mark.style),
            zorder=3,
        )
        if mark.label:
            at = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
            axes.text(mark.label_x, mark.label_y, _plain(mark.label), ha=at, color=INK, fontsize=10, zorder=4)
    below = {"bbox_to_anchor": (0.0, -0.13), "borderaxespad": 0.0}
    axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=9, markerscale=0.7, **below)


def _label(style: Style) -> str:
    return _plain(words.short(style.label, 30))


def _plain(text: str) -> str:
    """Text in which matplotlib reads no mathematics, of printable characters only."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).replace("$", r"\$")
