"""Bars of parts: resident memory, and how an artifact's weights reach its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.report.sections import label_in_section, labels_of, place
from benchmarks.results import words
from benchmarks.results.result import Result


@dataclass(frozen=True)
class Bar:
    """A bar of parts: `(css class, percent of the whole width, what it says)`."""

    label: str
    parts: tuple[tuple[str, float, str], ...]
    said: str


def memory_bars(results: Sequence[Result]) -> tuple[Bar, ...]:
    """Resident memory: what the process had before, what it keeps, and its peak."""
    shown = [(r, r.memory) for r in results if r.memory and r.memory.peak_bytes]
    largest = max((m.peak_bytes or 0 for _, m in shown), default=0) or 1
    bars = []
    labels = labels_of([r for r, _ in shown])
    for label, (_, m) in zip(labels, shown, strict=True):
        peak = m.peak_bytes or 0
        steps = [
            ("base", m.baseline_bytes, "before loading"),
            ("steady", m.steady_bytes, "steady"),
            ("peak", peak, "peak"),
        ]
        parts, reached = [], 0
        for name, value, said in steps:
            if value is not None and value > reached:
                share = round(100 * (min(value, largest) - reached) / largest, 3)
                parts.append((name, share, f"{said}: {words.bytes_of(value)}"))
                reached = value
        base = f", model {words.bytes_of(peak - m.baseline_bytes)}" if m.baseline_bytes else ""
        bars.append(Bar(label, tuple(parts), f"{words.bytes_of(peak)}{base}"))
    return tuple(bars)


def kernel_bars(results: Sequence[Result]) -> tuple[Bar, ...]:
    """Kernel truth of each artifact: how its weights reach the kernels."""
    bars: dict[str, Bar] = {}
    for result in sorted(results, key=place):
        truth = result.kernels
        if truth is None or result.artifact.sha256 in bars:
            continue
        shares = (
            ("low-bit", truth.low_bit_share, "read as codes"),
            ("dequantized", truth.dequantized_share, "made floating point first"),
            ("float", truth.float_share, "floating point"),
        )
        parts = tuple((n, round(100 * max(0.0, min(1.0, s)), 3), f"{said}: {s:.1%}") for n, s, said in shares if s > 0)
        time = (
            "" if truth.time_share is None else f"; operators that read codes take {truth.time_share:.0%} of the time"
        )
        said = ", ".join(f"{s:.0%} {said}" for _, s, said in shares if s > 0) + time
        label = label_in_section(replace(result, settings=replace(result.settings, threads=None)))
        bars[result.artifact.sha256] = Bar(
            label, parts, said + (f" ({words.short(truth.note, 160)})" if truth.note else "")
        )
    return tuple(bars.values())
