"""The ledger as a picture: where the bytes went, accuracy and latency, a bar for each format and stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results.stats import NO_DIFFERENCE
from exporter.inspection.sizes import GRAPH, OTHER_WEIGHTS, ZEROS, megabytes, part_order
from exporter.ledger.rows import speedup_in
from runtimes.types import Latency, LedgerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, DPI = 8.0, 150
ROW_INCHES, PANEL_INCHES = 0.36, 1.25
"""The height of a bar with its gap, and what a panel takes besides its bars: title, axis, legend."""
HUES = {"linear": "#1f5fa8", "conv": "#c65a11", "embedding": "#1a7f5a"}
OTHER_HUES = {OTHER_WEIGHTS: "#8e6bb0", GRAPH: "#8a8a8a"}
TINTS = {"float32": 0.0, "float16": 0.2, "int8": 0.35, "uint8": 0.35, "int4": 0.55, "uint4": 0.55}
"""How far a colour is mixed with white: fewer bits are paler."""
PALEST = 0.7
INK, FAINT = "#222222", "#d9d9d9"
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
BAR = 0.72
"""Of the room that a bar has."""
ROOM, WIDE_ROOM = 1.25, 1.75
"""How far an axis goes, in lengths of the longest bar: its label, short or long, stands beyond it."""

Place = tuple[float, LedgerRow]


def draw(rows: Sequence[LedgerRow], title: str, path: Path) -> None:
    """Write the picture of a ledger as PNG; the same rows give the same bytes.

    Panels lie one below the other, so that a narrow screen shows them whole; those without any figure are left out.
    """
    panels = [_bytes]
    if any(row.accuracy for row in rows):
        panels.append(_accuracy)
    if any(row.latency for row in rows):
        panels.append(_latency)
    places = _places(rows)
    save([partial(_on_rows, places, panel) for panel in panels], len(places), title, path)


def save(panels: Sequence[Callable[[Axes], None]], bars: int, title: str, path: Path) -> None:
    """Draw panels of `bars` bars each below each other and write them as PNG, whatever the user's own settings are."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    height = len(panels) * (bars * ROW_INCHES + PANEL_INCHES) + 0.6
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08)
        figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
        for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
            panel(axes)
        figure.savefig(path, format="png", metadata={"Software": None})


def _places(rows: Sequence[LedgerRow]) -> list[Place]:
    """Each row and its place on the axis, formats apart."""
    places, at, last = [], -1.0, ""
    for row in sorted(rows, key=lambda row: list(dict.fromkeys(r.format for r in rows)).index(row.format)):
        at += 1.0 if row.format == last else 1.6
        places.append((at, row))
        last = row.format
    return places


def _on_rows(places: Sequence[Place], panel: Callable[[Axes, Sequence[Place]], None], axes: Axes) -> None:
    """A panel with a line for each row, named by its stage, and by its format where that begins."""
    panel(axes, places)
    names = []
    for i, (_, row) in enumerate(places):
        begins = i == 0 or places[i - 1][1].format != row.format
        names.append(f"{row.format}   {row.stage}" if begins else row.stage)
    axes.set_yticks([at for at, _ in places], names)
    axes.set_ylim(places[-1][0] + 0.6, -0.1)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _bytes(axes: Axes, places: Sequence[Place]) -> None:
    largest = max(row.size_bytes for _, row in places)
    unit, scale = ("MB", 1e6) if largest >= 1e5 else ("kB", 1e3)
    parts = sorted({part for _, row in places for part in row.waterfall}, key=part_order)
    begun = dict.fromkeys((at for at, _ in places), 0.0)
    for part in parts:
        widths = [row.waterfall.get(part, 0) / scale for _, row in places]
        face, hatch = colour(part), "/////" if part.endswith(ZEROS) else None
        axes.barh(
            [at for at, _ in places],
            widths,
            BAR,
            list(begun.values()),
            label=part,
            facecolor="white" if hatch else face,
            edgecolor=face,
            hatch=hatch,
            linewidth=0.6,
        )
        begun = {at: begun[at] + width for (at, _), width in zip(places, widths, strict=True)}
    smaller = [(row.sparse_bytes / scale, at) for at, row in places if row.sparse_bytes < row.size_bytes]
    _mark(axes, "gzip", "|", 160, [(row.gzip_bytes / scale, at) for at, row in places])
    _mark(axes, "in the format's sparse encoding", "D", 14, smaller)
    for at, row in places:
        axes.text(row.size_bytes / scale, at, f"  {megabytes(row.size_bytes)}", va="center", color=INK)
    axes.set_xlim(0, largest / scale * ROOM)
    axes.set_title(f"Where the bytes went, {unit}")
    below_the_ticks = {"bbox_to_anchor": (-0.3, 0.0), "borderaxespad": 2.4}
    axes.legend(loc="upper left", ncols=2, frameon=False, fontsize=11, **below_the_ticks)


def _mark(axes: Axes, label: str, marker: str, size: float, places: Sequence[tuple[float, float]]) -> None:
    if places:
        x, y = zip(*places, strict=True)
        axes.scatter(x, y, s=size, c=INK, marker=marker, label=label, zorder=3, linewidths=2)


def colour(part: str) -> str:
    """The colour of a part of the waterfall: its kind's, paler with fewer bits."""
    if part in OTHER_HUES:
        return OTHER_HUES[part]
    kind, dtype = part.removesuffix(ZEROS).split(" ", 1)
    tint = TINTS.get(dtype, PALEST)
    channels = (int(HUES[kind][i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (255 - c) * tint):02x}" for c in channels)


def _accuracy(axes: Axes, places: Sequence[Place]) -> None:
    measured = [(at, row.accuracy) for at, row in places if row.accuracy]
    for at, accuracy in measured:
        low, high = 100 * (accuracy.value - accuracy.low), 100 * (accuracy.high - accuracy.value)
        axes.errorbar(100 * accuracy.value, at, xerr=[[low], [high]], fmt="o", color=HUES["linear"], capsize=4)
        axes.text(100 * accuracy.high, at, f"  {accuracy.value:.1%}", va="center", color=INK)
    lowest, highest = min(a.low for _, a in measured), max(a.high for _, a in measured)
    margin = max(highest - lowest, 0.01)
    axes.set_xlim(100 * (lowest - 0.05 * margin), 100 * (highest + 0.2 * margin))
    name, samples = measured[0][1].metric, measured[0][1].samples
    axes.set_title(f"{name[:1].upper()}{name[1:]}, % of {samples:,} test samples, 95% interval")


def _latency(axes: Axes, places: Sequence[Place]) -> None:
    timed = [(at, row.latency) for at, row in places if row.latency]
    longest = max(latency.median_ms for _, latency in timed)
    axes.barh([at for at, _ in timed], [latency.median_ms for _, latency in timed], BAR, color=HUES["linear"])
    for at, row in places:
        if row.latency:
            said = f"  {row.latency.median_ms:.3g} ms" + ("" if row.index == 0 else f", {_short(row.latency)}")
            axes.text(row.latency.median_ms, at, said, va="center", color=INK)
        else:
            axes.text(0, at, f"  {row.not_timed or 'not measured'}", va="center", color=INK, style="italic")
    axes.set_xlim(0, longest * WIDE_ROOM)
    threads = timed[0][1].threads
    axes.set_title(
        "Latency, median ms" + ("" if threads is None else f", {threads} thread{'s' if threads > 1 else ''}")
    )


def _short(latency: Latency) -> str:
    ratio = speedup_in(latency)
    return f"{ratio.value:.2f}x" if ratio.differs_from_one else NO_DIFFERENCE
