"""Geometry of the report's charts: from results to points in a viewBox; the templates only draw what stands here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.sections import label_in_section, labels_of
from benchmarks.results import words
from benchmarks.results.execution import latency_is_real
from benchmarks.results.result import Result

WIDTH, HEIGHT = 400.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 44.0
TONES = {"float32": 0, "float16": 5, "int8": 1, "int4": 2, "ternary": 3}
SHAPES = {"onnx": "circle", "tflite": "square", "coreml": "diamond"}
DASHES = {"onnx": "", "tflite": "6 3", "coreml": "2 3"}
TONE_COUNT = 8
TICK_ROOM = 46.0
"""Between two ticks of the x axis, so that their words do not touch."""
MOST_POINTS = 240
"""Of a line: more than the pixels that a card has."""


@dataclass(frozen=True)
class Style:
    """How one artifact is drawn in every chart of its group."""

    label: str
    tone: int
    shape: str
    dash: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """One artifact in a scatter plot; whiskers are its intervals in x and y, `label` is empty where no room was."""

    x: float
    y: float
    radius: float
    style: Style
    hover: str
    is_best: bool
    whiskers: tuple[tuple[float, float, float, float], ...] = ()
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True)
class Line:
    """A line through points, as an SVG attribute."""

    points: str
    style: Style
    hover: str


@dataclass(frozen=True)
class Chart:
    """One drawing: axes, marks and lines; `description` says in words what it shows."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    height: float = HEIGHT
    marks: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    legend: tuple[Style, ...] = ()
    caption: str = ""

    @property
    def bottom(self) -> float:
        """Where the x axis lies."""
        return self.height - (BOTTOM if self.x_label else 24.0)


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` in data, `begin` to `end` in the viewBox."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        at = math.log(max(value, self.low / 10)) if self.is_log else value
        return round(self.begin + (self.end - self.begin) * (at - low) / (high - low or 1.0), 2)


def styles_of(results: Sequence[Result]) -> dict[str, Style]:
    """id -> style: colour by precision and form by format where that tells all apart, else a colour each."""
    pairs = [(r.artifact.precision, r.artifact.format) for r in results]
    tells_apart = len(set(pairs)) == len(pairs) and all(p in TONES for p, _ in pairs)
    labels = labels_of(results)
    return {
        result.id: Style(
            label=words.short(label, 60),
            tone=TONES[result.artifact.precision] if tells_apart else i % TONE_COUNT,
            shape=SHAPES.get(result.artifact.format, "circle"),
            dash=DASHES.get(result.artifact.format, "") if tells_apart else ("", "6 3", "2 3")[i // TONE_COUNT % 3],
        )
        for i, (result, label) in enumerate(zip(results, labels, strict=True))
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Decades between, or 1, 2 and 5 of each, or more digits, until there are three; within a decade even steps."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 10), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = sorted({digit * 10.0**decade for decade in decades for digit in digits})
        inside = [tick for tick in ticks if low <= tick <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            return inside if len(inside) <= 6 else inside[:: math.ceil(len(inside) / 5)]
    return even_ticks(low, high, 4)


def x_ticks_of(scale: Scale, said: Callable[[float], str]) -> tuple[Tick, ...]:
    """Ticks of a logarithmic x axis, as many as have room for their words."""
    ticks: list[Tick] = []
    for value in log_ticks(scale.low, scale.high):
        at = scale(value)
        if not ticks or at - ticks[-1].at >= TICK_ROOM:
            ticks.append(Tick(at, trimmed(said(value))))
    return tuple(ticks)


def even_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between, about `wanted` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / wanted or 1.0))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= wanted)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def trimmed(said: str) -> str:
    """`1.00 ms` as `1 ms`, for an axis."""
    number, _, unit = said.partition(" ")
    return f"{float(number):g} {unit}".strip()


def hover(result: Result) -> str:
    """What stands beside the pointer."""
    cells = {
        "": label_in_section(result),
        "size": words.bytes_of(result.artifact.size_bytes),
        "latency": f"{words.latency(result).text} ({words.latency(result).detail})" if latency_is_real(result) else "",
        "accuracy": f"{words.accuracy(result).text} ({words.accuracy(result).detail})" if result.accuracy else "",
    }
    return "\n".join(f"{name} {value}".strip() for name, value in cells.items() if value)


def distribution(results: Sequence[Result], title: str) -> Chart | None:
    """The share of inferences that took no longer than a time, a line for each artifact; None where none was timed."""
    shown = [r for r in results if latency_is_real(r) and r.samples and min(r.samples.times_ns) > 0]
    if not shown:
        return None
    shares = np.linspace(0.0, 1.0, 101)
    curves = {r.id: np.quantile(np.asarray(r.samples.times_ns) / 1e6, shares) for r in shown if r.samples}
    low = min(float(c[0]) for c in curves.values()) / 1.06
    high = max(float(c[99]) for c in curves.values()) * 1.10
    x_scale = Scale(low, high, LEFT, WIDTH - RIGHT, is_log=True)
    y_scale = Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    styles = styles_of(shown)
    lines = []
    for r in shown:
        points = [
            (x_scale(float(ms)), y_scale(float(s))) for ms, s in zip(curves[r.id], shares, strict=True) if ms <= high
        ]
        lines.append(Line(points_of(points), styles[r.id], hover(r)))
    ticks = tuple(
        Tick(y_scale(s), said) for s, said in ((0.0, "0%"), (0.25, "25%"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
    )
    return Chart(
        title=title,
        description="share of inferences within a time, of " + "; ".join(hover(r).replace("\n", ", ") for r in shown),
        x_label="latency (log)",
        y_label="share of inferences",
        x_ticks=x_ticks_of(x_scale, words.milliseconds),
        y_ticks=ticks,
        lines=tuple(lines),
        legend=tuple(styles.values()),
        caption="A steep line is a steady one. What lies beyond the longest p99 is cut off.",
    )


def over_time(result: Result) -> tuple[Chart, ...]:
    """A sustained run: block medians, then temperature and frequency where the device tells them, on one time axis."""
    if not latency_is_real(result) or result.samples is None or not result.settings.sustained_s:
        return ()
    times = [block.at_ns / 60e9 for block in result.samples.blocks]
    medians = [m / 1e6 for m in result.samples.block_medians_ns]
    seen = [c for c in result.conditions if c.when == "during"]
    panels: list[tuple[str, Sequence[float], Sequence[float], str, int]] = [
        ("median of a block", times, medians, "ms", 0)
    ]
    hot = [(c.at_ns / 60e9, c.temperature_c) for c in seen if c.temperature_c is not None]
    fast = [(c.at_ns / 60e9, max(c.frequencies_khz) / 1e6) for c in seen if c.frequencies_khz]
    if len(hot) > 1:
        panels.append(("temperature", [at for at, _ in hot], [celsius for _, celsius in hot], "°C", 1))
    if len(fast) > 1:
        panels.append(("CPU frequency", [at for at, _ in fast], [ghz for _, ghz in fast], "GHz", 2))
    end = max((x for _, xs, _, _, _ in panels for x in xs), default=0.0) or 1.0
    bands = _throttled(result, Scale(0.0, end, LEFT, WIDTH - RIGHT))
    return tuple(_panel(*panel, end, bands, is_last=panel is panels[-1]) for panel in panels)


def _throttled(result: Result, scale: Scale) -> tuple[tuple[float, float], ...]:
    """Spans `(x, width)` in which the device said that it throttled."""
    spans, begun = [], None
    seen = [c for c in result.conditions if c.when == "during"]
    for condition in seen:
        at = scale(condition.at_ns / 60e9)
        if condition.throttled and begun is None:
            begun = at
        elif not condition.throttled and begun is not None:
            spans.append((begun, round(at - begun, 2)))
            begun = None
    if begun is not None:
        spans.append((begun, round(WIDTH - RIGHT - begun, 2)))
    return tuple(spans)


def _panel(
    name: str,
    minutes: Sequence[float],
    values: Sequence[float],
    unit: str,
    tone: int,
    end: float,
    bands: tuple[tuple[float, float], ...],
    *,
    is_last: bool,
) -> Chart:
    height = (150.0 if unit == "ms" else 100.0) + (20.0 if is_last else 0.0)
    margin = (max(values) - min(values) or abs(values[0]) or 1.0) * 0.12
    bottom = height - (BOTTOM if is_last else 24.0)
    x_scale = Scale(0.0, end, LEFT, WIDTH - RIGHT)
    y_scale = Scale(min(values) - margin, max(values) + margin, bottom, TOP)
    every = math.ceil(len(values) / MOST_POINTS)
    points = [(x_scale(m), y_scale(v)) for m, v in zip(minutes[::every], values[::every], strict=True)]
    said = f"{name}: from {values[0]:.3g} to {values[-1]:.3g} {unit}, between {min(values):.3g} and {max(values):.3g}"
    return Chart(
        title=name,
        description=said,
        x_label="minutes" if is_last else "",
        y_label=f"{name}, {unit}",
        x_ticks=tuple(Tick(x_scale(t), f"{t:g}") for t in even_ticks(0.0, end, 6)),
        y_ticks=tuple(Tick(y_scale(t), f"{t:.3g}") for t in even_ticks(y_scale.low, y_scale.high, 4)),
        height=height,
        lines=(Line(points_of(points), Style(name, tone, "circle", ""), said),),
        bands=bands,
    )


def points_of(points: Sequence[tuple[float, float]]) -> str:
    """Points as an SVG attribute."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)
