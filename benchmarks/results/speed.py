"""How many times as fast as another result, where the two can be compared; and whether the machine was busy."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results.execution import latency_is_real
from benchmarks.results.result import Condition, Result
from benchmarks.results.stats import Estimate, in_words, median, process_ratio_interval


def first_like(results: Sequence[Result], result: Result) -> Result:
    """The first of `results`, one of which is `result`, that a ratio to it says something of.

    That is of the same model, or a file of which nothing is known, measured in the same way.
    """
    return next(other for other in results if _how(other) == _how(result))


def _how(result: Result) -> tuple[object, ...]:
    asked = result.settings
    return result.artifact.model, asked.threads, asked.batch, asked.affinity, asked.sustained_s


def against(first: Result, result: Result) -> Estimate | None:
    """How many times as fast as `first`; paired by round where one run measured both in turns. None of no latency."""
    if result is first or not (latency_is_real(first) and latency_is_real(result)):
        return None
    assert first.samples and result.samples
    above, below = first.samples.process_medians_ns, result.samples.process_medians_ns
    is_one_run = (first.target, first.board, first.started_at) == (result.target, result.board, result.started_at)
    alike = list(map(len, above)) == list(map(len, below))
    paired = is_one_run and alike and not result.settings.sustained_s
    return process_ratio_interval(above, below, paired=paired)


def speed_in_words(ratio: Estimate, than: str) -> str:
    """`0.62x (0.60 to 0.64): slower than the original here`, and no figure where no difference is shown."""
    if not ratio.differs_from_one:
        return in_words(ratio)
    return f"{in_words(ratio)}: {'faster' if ratio.value > 1.0 else 'slower'} than {than}"


def load_of(conditions: Sequence[Condition]) -> float | None:
    """The load average while it was measured: the median of the looks at the machine. None where it does not tell."""
    loads = [condition.load for condition in conditions if condition.load is not None]
    return median(loads) if loads else None


def busy_in_words(load: float | None, cores: int | None) -> str:
    """What a machine with more to do than it has cores means for a latency; empty where it was not so busy."""
    if load is None or cores is None or load <= cores:
        return ""
    return f"the machine was busy (load {load:.1f} on {cores} cores), measure again when it is idle"
