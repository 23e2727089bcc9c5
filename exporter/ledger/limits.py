"""The limits that a user sets to what compression may cost, and must bring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.results.stats import in_words
from exporter.ledger.rows import speedup_in
from runtimes.errors import BadInput, LimitNotMet
from runtimes.types import Artifact, LedgerRow

IsMet = Callable[[LedgerRow, LedgerRow], bool]
InWords = Callable[[LedgerRow, LedgerRow], str]
"""(the original's row, a stage's row) -> whether a limit is met, and how it is not."""


def check_judgeable(
    timed: Sequence[str], has_task: bool, max_drop: float | None, max_size_bytes: int | None, min_speedup: float | None
) -> None:
    """Raise BadInput, before any work, for a limit that nothing could be judged by.

    `timed` are the formats that this machine can time. A format that it cannot, beside one that it can, is left out of
    --min-speedup, and `not_judged` names it.
    """
    if max_drop is not None and not has_task:
        raise BadInput("no task to measure a drop with", where="--max-drop", remedy="give --data")
    if max_size_bytes is not None and max_size_bytes < 1:
        raise BadInput(f"{max_size_bytes} bytes hold no model", where="--max-size", remedy="give it as 3MB")
    if min_speedup is None:
        return
    if not 0.0 < min_speedup < math.inf:
        raise BadInput(f"{min_speedup} is no speed-up", where="--min-speedup", remedy="give a factor like 1.5")
    if not timed:
        raise BadInput(
            "this machine can time none of the targets", where="--min-speedup", remedy="add onnx or tflite to --target"
        )


def check_limits(
    rows: Sequence[LedgerRow], max_drop: float | None, max_size_bytes: int | None, min_speedup: float | None
) -> None:
    """Raise LimitNotMet where the final artifact of a format misses a limit: all of them, each with its stage.

    `max_drop` is a share of 1, against stage 0 of the same format; `min_speedup` is met by a median ratio of at least
    that, whose interval lies above 1: a speed-up inside the noise is none. Blamed is the stage after which the limit
    was never met again. Raises BadInput for `max_drop` where a row has no accuracy.
    """
    limits: list[tuple[IsMet, InWords]] = []
    if max_drop is not None:
        limits.append((partial(_kept, max_drop), partial(_drop_in_words, max_drop)))
    if max_size_bytes is not None:
        limits.append((partial(_fits, max_size_bytes), partial(_size_in_words, max_size_bytes)))
    if min_speedup is not None:
        limits.append((partial(_is_faster, min_speedup), partial(_speed_in_words, min_speedup)))
    faults = [
        fault
        for target in dict.fromkeys(row.format for row in rows)
        for is_met, says in limits
        for fault in _broken([row for row in rows if row.format == target], is_met, says)
    ]
    if faults:
        raise LimitNotMet("; ".join(faults), remedy="nothing was written; change the recipe or the limit")


def check_sizes(artifacts: Sequence[Artifact], max_size_bytes: int | None) -> None:
    """Raise LimitNotMet for artifacts above a size, all of them: what can be judged where nothing was measured."""
    if max_size_bytes is None:
        return
    faults = [
        f"{artifact.format}: {_more_than(artifact.size_bytes, max_size_bytes)}"
        for artifact in artifacts
        if artifact.size_bytes > max_size_bytes
    ]
    if faults:
        raise LimitNotMet("; ".join(faults), remedy="nothing was written; add --quantize int8, or change the limit")


def not_judged(rows: Sequence[LedgerRow], min_speedup: float | None) -> tuple[str, ...]:
    """A sentence for each format that --min-speedup leaves out, since it was not timed."""
    if min_speedup is None:
        return ()
    reasons = {row.format: row.not_timed for row in rows if row.latency is None}
    return tuple(f"--min-speedup was not judged for {target}: {reason}" for target, reason in reasons.items())


def _broken(rows: Sequence[LedgerRow], is_met: IsMet, says: InWords) -> list[str]:
    """What is wrong with the last stage of a format, and which stage broke it; nothing where it meets the limit."""
    stages = sorted(rows, key=lambda row: row.index)
    original, last = stages[0], stages[-1]
    met = [is_met(original, row) for row in stages]
    if met[-1]:
        return []
    fault = f"{last.format} after {last.stage}: {says(original, last)}"
    if True not in met:
        return [f"{fault} (no stage meets it)"]
    breaker = stages[len(met) - met[::-1].index(True)]
    return [fault if breaker is last else f"{fault} ({breaker.stage} broke it: {says(original, breaker)})"]


def _drop(original: LedgerRow, row: LedgerRow) -> float:
    """How far the metric fell, as a share of 1; rounded, so that 0.93 - 0.92 is no more than 0.01."""
    if original.accuracy is None or row.accuracy is None:
        raise BadInput(f"{row.format} has no accuracy", where="--max-drop", remedy="give --data")
    return round(original.accuracy.value - row.accuracy.value, 9)


def _kept(max_drop: float, original: LedgerRow, row: LedgerRow) -> bool:
    return _drop(original, row) <= max_drop


def _drop_in_words(max_drop: float, original: LedgerRow, row: LedgerRow) -> str:
    assert original.accuracy and row.accuracy
    drop = _drop(original, row)
    return (
        f"{row.accuracy.metric} {row.accuracy.value:.1%} is {100 * drop:.2f} points below the original's "
        f"{original.accuracy.value:.1%}, {100 * (drop - max_drop):.2f} more than --max-drop allows"
    )


def _fits(max_size_bytes: int, original: LedgerRow, row: LedgerRow) -> bool:
    return row.size_bytes <= max_size_bytes


def _size_in_words(max_size_bytes: int, original: LedgerRow, row: LedgerRow) -> str:
    return _more_than(row.size_bytes, max_size_bytes)


def _more_than(size_bytes: int, max_size_bytes: int) -> str:
    return f"{size_bytes:,} bytes are {size_bytes - max_size_bytes:,} more than --max-size allows"


def _is_faster(min_speedup: float, original: LedgerRow, row: LedgerRow) -> bool:
    latency = row.latency
    return latency is None or (latency.speedup_low > 1.0 and latency.speedup >= min_speedup)


def _speed_in_words(min_speedup: float, original: LedgerRow, row: LedgerRow) -> str:
    assert row.latency
    ratio = speedup_in(row.latency)
    if not ratio.differs_from_one:
        return f"{in_words(ratio)} from the original's latency, --min-speedup asks for {min_speedup:g}x"
    return f"{in_words(ratio)} as fast as the original, {min_speedup - ratio.value:.2f} short of --min-speedup"
