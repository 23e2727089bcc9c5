"""Old results beside new ones: what became slower, larger or less accurate, and what lies inside the noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results.execution import execution, latency_is_real
from benchmarks.results.result import Result
from benchmarks.results.stats import NO_DIFFERENCE, Estimate, in_words, median, process_ratio_interval
from benchmarks.results.words import short, threads_of
from runtimes.errors import BadInput, LimitNotMet

INSTRUCTION_NOISE = 0.01
"""Counts of the same artifact repeat to 0.005%; what the runtime's own threads do between can add some of a percent."""
MEMORY_NOISE = 0.05
"""One figure a run has no interval: the peak of the same artifact moves by pages, arenas and the loader's layout."""
MEMORY_NOISE_BYTES = 2_000_000
BETTER, WORSE, SAME = "better", "worse", NO_DIFFERENCE


@dataclass(frozen=True)
class Figure:
    """One thing that both results tell: `change` is by how much the new one is worse, as a share of the old, signed.

    `verdict` is `BETTER`, `WORSE` or `SAME` (inside the noise); `ratio` is new over old, None where there is none.
    """

    name: str
    old: float
    new: float
    unit: str
    change: float
    verdict: str
    said: str
    ratio: Estimate | None = None


@dataclass(frozen=True)
class Comparison:
    """Two results of the same artifact, device, threads and settings; or one that has no other, and why (`reason`)."""

    device: str
    artifact: str
    threads: int | None
    old: Result | None
    new: Result | None
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def label(self) -> str:
        """What was compared, in words."""
        threads = "" if self.threads is None else f", {threads_of(self.threads)}"
        return f"{self.artifact} on {self.device}{threads}"


def compare(old: Sequence[Result], new: Sequence[Result]) -> tuple[Comparison, ...]:
    """Every result of either side, paired where artifact, threads, hardware and settings are the same.

    An artifact is known by its bundle, format, precision and recipe, or by its name where it is of no bundle. Of
    several alike on one side the last is taken. What has no partner comes with the reason.
    """
    before, after = _last_of_each(old), _last_of_each(new)
    found = [_paired(before[key], result) for key, result in after.items() if key in before]
    lost = [result for key, result in before.items() if key not in after]
    fresh = [result for key, result in after.items() if key not in before]
    found += [_alone(result, fresh, is_old=True) for result in lost]
    found += [_alone(result, lost, is_old=False) for result in fresh]
    return tuple(found)


def check_limit(comparisons: Sequence[Comparison], fail_over: float | None) -> None:
    """Raise LimitNotMet where something is worse beyond the noise and by more than `fail_over` (a share of 1)."""
    if fail_over is None:
        return
    faults = [
        f"{short(comparison.label)}: {figure.name} {figure.said}"
        for comparison in comparisons
        for figure in comparison.figures
        if figure.verdict == WORSE and figure.change > fail_over
    ]
    if faults:
        raise LimitNotMet(
            f"{len(faults)} worse beyond the noise and beyond {100 * fail_over:g}%: {'; '.join(faults)}",
            remedy="mend it, or raise --fail-over",
        )


def check_matched(comparisons: Sequence[Comparison], where: str) -> None:
    """Raise BadInput where nothing could be compared, with the reasons."""
    if not any(comparison.old and comparison.new for comparison in comparisons):
        reasons = (
            "; ".join(f"{short(c.label)}: {short(c.reason)}" for c in comparisons[:4]) or "one of them holds no result"
        )
        raise BadInput(f"nothing to compare ({reasons})", where=where, remedy="bench both on the same device, alike")


def parse_limit(text: str) -> float:
    """`5%` as 0.05.

    Raises BadInput for anything but a percentage of 0 or more.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d*)?|\.\d+)\s*%", text.strip())
    if not match:
        raise BadInput(f"{text!r:.40} is no percentage", where="--fail-over", remedy="give it as 5%")
    return float(match[1]) / 100.0


def _artifact_key(result: Result) -> tuple[object, ...]:
    artifact = result.artifact
    named = (artifact.bundle, artifact.precision, artifact.recipe) if artifact.bundle else (artifact.name,)
    return (*named, artifact.format, result.settings.threads)


def _hardware(result: Result) -> tuple[object, ...]:
    device = result.device
    return execution(result), device.model, device.cpu, device.architecture


def _settings(result: Result) -> dict[str, object]:
    """What changes the time of an inference; how long and how often was measured does not."""
    asked = result.settings
    return {
        "batch": asked.batch,
        "affinity": asked.affinity,
        "sustained": asked.sustained_s,
        "inputs": asked.inputs or None,
    }


def _last_of_each(results: Sequence[Result]) -> dict[tuple[object, ...], Result]:
    ordered = sorted(results, key=lambda result: result.started_at)
    return {(_artifact_key(r), _hardware(r), tuple(_settings(r).values())): r for r in ordered}


def _device_name(result: Result) -> str:
    kind = execution(result)
    return result.device.model if kind == "physical" else f"{result.device.model} ({kind})"


def _artifact_name(result: Result) -> str:
    artifact = result.artifact
    precision = "" if artifact.precision in artifact.bundle else artifact.precision
    words = (artifact.bundle, artifact.format, precision) if artifact.bundle else (artifact.name,)
    return " ".join(word for word in words if word)


def _alone(result: Result, others: Sequence[Result], *, is_old: bool) -> Comparison:
    side, other = ("old", "new") if is_old else ("new", "old")
    same = [r for r in others if _artifact_key(r) == _artifact_key(result)]
    alike = [r for r in same if _hardware(r) == _hardware(result)]
    if alike:
        mine, theirs = _settings(result), _settings(alike[-1])
        differing = ", ".join(f"{k} {mine[k]} here, {theirs[k]} there" for k in mine if mine[k] != theirs[k])
        reason = f"other settings ({differing})"
    elif same:
        reason = (
            f"other hardware: the {other} result is of {_device_name(same[-1])}, {same[-1].device.cpu or 'CPU unknown'}"
        )
    else:
        reason = f"only in the {side} results"
    return Comparison(
        device=_device_name(result),
        artifact=_artifact_name(result),
        threads=result.settings.threads,
        old=result if is_old else None,
        new=None if is_old else result,
        reason=reason,
    )


def _paired(old: Result, new: Result) -> Comparison:
    made: list[Figure | None] = [
        _health(old, new),
        _latency(old, new),
        _size(old, new),
        _memory(old, new),
        _instructions(old, new),
        _accuracy(old, new),
    ]
    return Comparison(
        device=_device_name(new),
        artifact=_artifact_name(new),
        threads=new.settings.threads,
        old=old,
        new=new,
        figures=tuple(figure for figure in made if figure),
        notes=tuple(_notes(old, new)),
    )


def _notes(old: Result, new: Result) -> list[str]:
    """What differs without making the results another thing: it may be the cause."""
    notes = ["the same file"] if old.artifact.sha256 == new.artifact.sha256 else []
    for name in sorted({*old.versions, *new.versions}):
        before, after = old.versions.get(name, "none"), new.versions.get(name, "none")
        if before != after:
            notes.append(f"{name} {before} -> {after}")
    governors = [{c.governor for c in r.conditions if c.governor} for r in (old, new)]
    if all(governors) and governors[0] != governors[1]:
        notes.append(" -> ".join("governor " + "/".join(sorted(g)) for g in governors))
    throttled = [name for name, r in (("old", old), ("new", new)) if any(c.throttled for c in r.conditions)]
    notes += [f"the {name} run was throttled" for name in throttled]
    if _is_timed(old) and _is_timed(new) and 1 in (_processes(old), _processes(new)):
        notes.append("one process on a side: how processes differ is not in its interval (bench --processes 5 tells)")
    return notes


def _health(old: Result, new: Result) -> Figure | None:
    """Whether it still works: a crash or a parity that fails now is worse, whatever the clock says."""
    before, after = _fault(old), _fault(new)
    if not before and not after:
        return None
    verdict = SAME if before and after else WORSE if after else BETTER
    said = f"{before or 'worked'} -> {after or 'works'}"
    change = {SAME: 0.0, WORSE: float("inf"), BETTER: float("-inf")}[verdict]
    return Figure("health", float(not before), float(not after), "", change, verdict, said)


def _fault(result: Result) -> str:
    if result.parity and result.parity.verdict != "pass":
        return "PARITY FAILED"
    return result.failure.cause if result.failure else ""


def _is_timed(result: Result) -> bool:
    return bool(latency_is_real(result) and result.samples and all(m > 0 for m in result.samples.block_medians_ns))


def _processes(result: Result) -> int:
    return len({block.process for block in result.samples.blocks}) if result.samples else 0


def _latency(old: Result, new: Result) -> Figure | None:
    if not (_is_timed(old) and _is_timed(new) and old.samples and new.samples):
        return None
    ratio = process_ratio_interval(new.samples.process_medians_ns, old.samples.process_medians_ns, paired=False)
    verdict = SAME if not ratio.differs_from_one else WORSE if ratio.value > 1 else BETTER
    before, after = (median(r.samples.block_medians_ns) / 1e6 for r in (old, new) if r.samples)
    return Figure("latency", before, after, "ms", ratio.value - 1, verdict, in_words(ratio), ratio)


def _exact(name: str, old: float, new: float, unit: str, noise: Callable[[float, float], bool]) -> Figure | None:
    """A figure without an interval, the less the better; `noise(old, new)` says whether it is too near to call."""
    if old <= 0:
        return None
    ratio = new / old
    verdict = SAME if noise(old, new) else WORSE if new > old else BETTER
    said = "the same" if new == old else f"{ratio:.3f}x" if verdict != SAME else f"{NO_DIFFERENCE} ({ratio:.3f}x)"
    return Figure(name, old, new, unit, ratio - 1, verdict, said, Estimate(ratio, ratio, ratio))


def _size(old: Result, new: Result) -> Figure | None:
    return _exact("size", old.artifact.size_bytes, new.artifact.size_bytes, "bytes", lambda a, b: a == b)


def _memory(old: Result, new: Result) -> Figure | None:
    peaks = [r.memory.peak_bytes if r.memory else None for r in (old, new)]
    if peaks[0] is None or peaks[1] is None:
        return None
    return _exact(
        "peak memory",
        peaks[0],
        peaks[1],
        "bytes",
        lambda a, b: abs(b - a) <= max(MEMORY_NOISE * a, MEMORY_NOISE_BYTES),
    )


def _instructions(old: Result, new: Result) -> Figure | None:
    if old.instructions is None or new.instructions is None:
        return None
    return _exact(
        "instructions", old.instructions, new.instructions, "", lambda a, b: abs(b - a) <= INSTRUCTION_NOISE * a
    )


def _accuracy(old: Result, new: Result) -> Figure | None:
    """Shares with Wilson's intervals: where they overlap no difference is shown; `change` is in points of 1."""
    before, after = old.accuracy, new.accuracy
    if before is None or after is None or before.metric != after.metric:
        return None
    apart = after.high < before.low or before.high < after.low
    verdict = SAME if not apart else WORSE if after.value < before.value else BETTER
    points = 100 * (after.value - before.value)
    said = (
        f"{points:+.2f} points" if apart else "the same" if points == 0 else f"{NO_DIFFERENCE} ({points:+.2f} points)"
    )
    return Figure(before.metric, before.value, after.value, "share", before.value - after.value, verdict, said)
