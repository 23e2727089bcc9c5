"""The Pareto plot: size, latency and accuracy of the artifacts of one model on one device."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Mark,
    Scale,
    Tick,
    even_ticks,
    hover,
    log_ticks,
    styles_of,
    trimmed,
    x_ticks_of,
)
from benchmarks.results import words
from benchmarks.results.execution import latency_is_real
from benchmarks.results.result import Result

GLYPH = 6.3
"""Width of a letter of a label, in units of the viewBox."""


def pareto(results: Sequence[Result], of: str = "") -> Chart | None:
    """Size, latency and accuracy of artifacts of one model on one device, those that nothing beats ringed.

    Latency is the x axis where it may be shown, size where it may not; accuracy is the y axis, and the area of a mark
    is its size; without accuracy the y axis is size. None where there are less than two artifacts to compare.
    """
    sound = [r for r in results if not words.parity_failed(r)]
    timed = [r for r in sound if latency_is_real(r)]
    scored = [r for r in (timed or sound) if r.accuracy]
    shown = scored if len(scored) > 1 else timed
    if len(shown) < 2:
        return None
    by_latency, by_accuracy = bool(timed), len(scored) > 1
    costs = [_costs(r, by_latency, by_accuracy) for r in shown]
    best = [not any(_beats(other, mine) for other in costs) for mine in costs]
    x_scale, x_ticks = _x_axis(shown, by_latency)
    y_scale, y_ticks = _y_axis(shown, by_accuracy)
    styles, largest = styles_of(shown), max(r.artifact.size_bytes for r in shown)
    marks = [
        Mark(
            x=x_scale(r.statistics.p50_ms if by_latency and r.statistics else r.artifact.size_bytes),
            y=y_scale(r.accuracy.value if by_accuracy and r.accuracy else r.artifact.size_bytes),
            radius=round(3.5 + 7.5 * math.sqrt(r.artifact.size_bytes / largest), 2) if by_accuracy else 6.0,
            style=styles[r.id],
            hover=hover(r),
            is_best=is_best,
            whiskers=_whiskers(r, x_scale, y_scale, by_latency, by_accuracy),
        )
        for r, is_best in zip(shown, best, strict=True)
    ]
    named = [styles[r.id].label for r, is_best in zip(shown, best, strict=True) if is_best]
    axes = ("median latency" if by_latency else "size", "accuracy" if by_accuracy else "size")
    area = " Area is size." if by_accuracy and by_latency else ""
    three = [w for w, on in (("faster", by_latency), ("smaller", True), ("more accurate", by_accuracy)) if on]
    joined = ", ".join(three[:-1]) + f" and {three[-1]}" if len(three) > 1 else three[0]
    return Chart(
        title=f"{of}size, {'speed, ' if by_latency else ''}{'accuracy' if by_accuracy else ''}".rstrip(", "),
        description=f"{axes[1]} over {axes[0]} of {len(shown)} artifacts; on the Pareto frontier: {'; '.join(named)}",
        x_label=f"{axes[0]} (log)",
        y_label=shown[0].accuracy.metric if by_accuracy and shown[0].accuracy else axes[1],
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        marks=tuple(_with_labels(marks)),
        legend=tuple(styles.values()),
        caption=f"Ringed: the Pareto frontier, nothing else is {joined} at once.{area} Whiskers: 95% intervals.",
    )


def _costs(result: Result, by_latency: bool, by_accuracy: bool) -> tuple[float, ...]:
    """What is to be small: latency, size, and what the accuracy lacks."""
    latency = [result.statistics.p50_ms] if by_latency and result.statistics else []
    lacking = [-result.accuracy.value] if by_accuracy and result.accuracy else []
    return (*latency, float(result.artifact.size_bytes), *lacking)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _x_axis(shown: Sequence[Result], by_latency: bool) -> tuple[Scale, tuple[Tick, ...]]:
    values = [r.statistics.p50_ms if by_latency and r.statistics else float(r.artifact.size_bytes) for r in shown]
    scale = Scale(min(values) / 1.25, max(values) * 1.35, LEFT, WIDTH - RIGHT, is_log=True)
    said = words.milliseconds if by_latency else words.bytes_of
    return scale, x_ticks_of(scale, said)


def _y_axis(shown: Sequence[Result], by_accuracy: bool) -> tuple[Scale, tuple[Tick, ...]]:
    if not by_accuracy:
        sizes = [r.artifact.size_bytes for r in shown]
        scale = Scale(min(sizes) / 1.3, max(sizes) * 1.3, HEIGHT - BOTTOM, TOP, is_log=True)
        return scale, tuple(Tick(scale(t), trimmed(words.bytes_of(t))) for t in log_ticks(scale.low, scale.high))
    found = [r.accuracy for r in shown if r.accuracy]
    low, high = min(a.low for a in found), max(a.high for a in found)
    margin = max(0.08 * (high - low), 0.002)
    scale = Scale(low - margin, min(1.0, high) + margin, HEIGHT - BOTTOM, TOP)
    digits = 0 if scale.high - scale.low > 0.05 else 1
    return scale, tuple(Tick(scale(t), f"{t:.{digits}%}") for t in even_ticks(scale.low, min(1.0, scale.high)))


def _whiskers(
    result: Result, x_scale: Scale, y_scale: Scale, by_latency: bool, by_accuracy: bool
) -> tuple[tuple[float, float, float, float], ...]:
    """Lines (x1, y1, x2, y2) of the intervals in x and in y."""
    stats, accuracy = result.statistics, result.accuracy
    x = x_scale(stats.p50_ms if by_latency and stats else result.artifact.size_bytes)
    y = y_scale(accuracy.value if by_accuracy and accuracy else result.artifact.size_bytes)
    across = [(x_scale(stats.low_ms), y, x_scale(stats.high_ms), y)] if by_latency and stats else []
    along = [(x, y_scale(accuracy.low), x, y_scale(accuracy.high))] if by_accuracy and accuracy else []
    return (*across, *along)


def _with_labels(marks: Sequence[Mark]) -> list[Mark]:
    """A label beside each mark of the frontier, where one fits without touching another mark's label or the edge."""
    taken = [(m.x - m.radius, m.y - m.radius, m.x + m.radius, m.y + m.radius) for m in marks]
    found = []
    for mark in marks:
        placed = mark
        text = words.short(mark.style.label, 26)
        width, gap = GLYPH * len(text), mark.radius + 5
        places = (
            (mark.x + gap, mark.y + 4, "start", mark.x + gap),
            (mark.x - gap, mark.y + 4, "end", mark.x - gap - width),
            (mark.x, mark.y - gap, "middle", mark.x - width / 2),
            (mark.x, mark.y + gap + 9, "middle", mark.x - width / 2),
        )
        for x, y, anchor, begin in places if mark.is_best else ():
            box = (begin, y - 10, begin + width, y + 3)
            inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > 2 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                fields = {"label": text, "label_x": round(x, 2), "label_y": round(y, 2), "anchor": anchor}
                placed = Mark(**{**mark.__dict__, **fields})
                break
        found.append(placed)
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
