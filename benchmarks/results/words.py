"""Figures as they are read: times, sizes, intervals, and what stands in the place of a figure that may not be shown."""

from __future__ import annotations

import math

from benchmarks.console import shown
from benchmarks.results.execution import execution, latency_is_real
from benchmarks.results.result import ArtifactFacts, Result
from benchmarks.results.speed import against
from benchmarks.results.stats import in_words
from benchmarks.tables import Cell
from runtimes.types import Accuracy, Parity

LONGEST_NAME = 300
"""Characters of a name that are shown; what lies between its ends is left out."""
PARITY_FAILED = "PARITY FAILED"
NOT_HARDWARE = "no latency, emulation is not hardware"
NOT_MEASURED = "not measured"


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """A name as one line of printable letters; of a very long one its beginning and its end.

    What is not printable (terminal escapes, bytes of no encoding, turns of the writing's direction) becomes a mark.
    """
    line = shown(" ".join(name.split()))
    half = (longest - 1) // 2
    return line if len(line) <= longest else f"{line[:half]}…{line[-half:]}"


def milliseconds(value_ms: float) -> str:
    """A time with three digits, in microseconds, milliseconds or seconds."""
    if not math.isfinite(value_ms):
        return "unknown"
    for unit, scale in (("µs", 1e3), ("ms", 1.0)):
        if value_ms * scale < 999.5:
            return f"{_three_digits(value_ms * scale)} {unit}"
    return f"{_three_digits(value_ms / 1e3)} s"


def _three_digits(value: float) -> str:
    digits = 3 - len(str(int(value))) if value >= 1 else 2 if value >= 0.1 else 3
    return f"{value:.{max(0, digits)}f}"


def bytes_of(size: float | None) -> str:
    """A size in decimal units."""
    if size is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= 0.9995 * scale:
            return f"{_three_digits(size / scale)} {unit}"
    return f"{size:.0f} B"


def count_of(value: float | None) -> str:
    """A large count: 9.40 M."""
    if value is None:
        return "unknown"
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * scale:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{value:.0f}"


def threads_of(threads: int | None) -> str:
    """A number of threads, in words."""
    return "threads as the runtime chooses" if threads is None else f"{threads} thread{'s' if threads != 1 else ''}"


def latency(result: Result) -> Cell:
    """The median with its 95% interval, or why there is none."""
    if parity_failed(result):
        return Cell(PARITY_FAILED, "no latency of a wrong result", "bad")
    kind = execution(result)
    if kind == "emulated":
        return Cell("none", NOT_HARDWARE, "weak")
    if kind == "off-device":
        return Cell("none", "parity only", "weak")
    found = result.statistics
    if found is None or not latency_is_real(result):
        return Cell(result.failure.cause if result.failure else NOT_MEASURED, "", "bad" if result.failure else "weak")
    return Cell(milliseconds(found.p50_ms), f"{milliseconds(found.low_ms)} to {milliseconds(found.high_ms)}")


def tail(result: Result, share: int) -> Cell:
    """p90 or p99, where the latency is shown."""
    found = result.statistics
    if found is None or not latency_is_real(result):
        return Cell("")
    return Cell(milliseconds(found.p90_ms if share == 90 else found.p99_ms))


def speedup(first: Result, result: Result) -> Cell:
    """How many times as fast as the first of its model, which a slower one is told by its colour, too."""
    ratio = against(first, result)
    if ratio is None:
        return Cell("the first" if result is first and latency_is_real(result) else "", "", "weak")
    tone = "" if not ratio.differs_from_one else "good" if ratio.value > 1.0 else "bad"
    return Cell(in_words(ratio), "slower" if tone == "bad" else "", tone)


def parity_failed(result: Result) -> bool:
    """Whether its outputs are wrong."""
    is_wrong = result.parity is not None and result.parity.verdict != "pass"
    return is_wrong or (result.failure is not None and result.failure.cause == "parity")


def verdict(found: Parity) -> str:
    """The verdict beside the error that comes nearest to its tolerance: `pass: 1.4e-01 of 2.0e-01 allowed`."""
    return f"{found.verdict}: {error_of_allowed(found)}"


def error_of_allowed(found: Parity) -> str:
    """`1.4e-01 of 2.0e-01 allowed`, of the output nearest to its tolerance; where none is known the largest error."""
    if found.nearest_error is None:
        return f"{found.max_abs_error:.1e}"
    return f"{found.nearest_error:.1e} of {found.tolerance:.1e} allowed"


def parity(result: Result) -> Cell:
    """The verdict, and how far the outputs lie from PyTorch's."""
    if parity_failed(result):
        said = result.parity.reason if result.parity else result.failure.detail if result.failure else ""
        return Cell(PARITY_FAILED, short(said), "bad")
    if result.parity is None:
        return Cell("not checked", "no golden values" if result.settings.inputs == "random" else "", "weak")
    by = result.parity.executed_by
    return Cell("pass", f"{error_of_allowed(result.parity)}, {short(by.runtime, 60)} {short(by.version, 40)}", "good")


def accuracy(result: Result) -> Cell:
    """The task's figure with its 95% interval."""
    found = result.accuracy
    if found is None:
        return Cell(NOT_MEASURED, "", "weak")
    return Cell(f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}, {samples_of(found)}")


def samples_of(found: Accuracy) -> str:
    """`n=812`, or `n=812 of 1,797: cut short` where a limit, or the time, left samples out."""
    if found.of_samples is None or found.of_samples == found.samples:
        return f"n={found.samples:,}"
    return f"n={found.samples:,} of {found.of_samples:,}: cut short"


def memory(result: Result) -> Cell:
    """The peak of the process, and what it holds afterwards."""
    found = result.memory
    if found is None or found.peak_bytes is None:
        return Cell("unknown", "", "weak")
    return Cell(
        bytes_of(found.peak_bytes), "" if found.steady_bytes is None else f"{bytes_of(found.steady_bytes)} steady"
    )


def model_of(artifact: ArtifactFacts) -> str:
    """The model that an artifact is of, as its bundle says; its bundle's name where it says nothing."""
    return artifact.model or artifact.bundle


def file_of(result: Result) -> str:
    """The file as one would name it to bench it again: in its bundle, where it is of one."""
    name, bundle = result.artifact.name, result.artifact.bundle
    return f"{bundle}/{name}" if bundle and "/" not in name else name


def artifact_label(result: Result) -> str:
    """What an artifact is called within its bundle: `int8 tflite` and its recipe's other passes, or its name."""
    artifact = result.artifact
    if not artifact.bundle:
        return short(artifact.name, 80)
    usual = {"quantize", "ternary"}
    extra = [name for name in artifact.recipe if name not in usual]
    return short(" ".join([artifact.precision, artifact.format, *extra]).strip(), 80)


def slowdown(result: Result) -> str:
    """Minute 1 against the last minute of a sustained run; empty where it was none or may not be shown."""
    found = result.statistics
    if not latency_is_real(result) or found is None or found.slowdown is None or found.minute_1_ms is None:
        return ""
    from benchmarks.results.stats import NO_DIFFERENCE

    low, high = found.slowdown_low or math.nan, found.slowdown_high or math.nan
    ends = f"minute 1 {milliseconds(found.minute_1_ms)}, last minute {milliseconds(found.last_minute_ms or math.nan)}"
    if low <= 1.0 <= high:
        return f"{ends}: {NO_DIFFERENCE} ({low:.2f} to {high:.2f})"
    return f"{ends}: {found.slowdown:.2f}x the time ({low:.2f} to {high:.2f})"


def energy(result: Result) -> str:
    """Energy an inference, or why it is unknown; empty where nobody asked."""
    found = result.energy
    if found is None or not latency_is_real(result):
        return ""
    if found.joules is None or not found.inferences:
        return f"unknown ({short(found.note or 'no counter', 120)})"
    return f"{1e3 * found.joules / found.inferences:.3g} mJ an inference, whole board ({short(found.source, 60)})"
