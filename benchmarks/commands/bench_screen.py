"""What `bench` prints: progress while it runs, then one table a device, or CSV."""

from __future__ import annotations

import csv
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.console import out, terminal
from benchmarks.results.execution import execution, latency_is_real
from benchmarks.results.result import Result
from benchmarks.results.stats import in_words as ratio_in_words
from benchmarks.results.stats import process_ratio_interval

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.bench import Board, Done
    from benchmarks.job import Json

NO_LATENCY = {
    "emulated": "emulated: no latency",
    "off-device": "off-device: no latency",
}
CSV_FIELDS = (
    *("board", "device", "executed", "file", "format", "size_bytes", "sha256", "threads", "runtime", "version"),
    *("inferences", "min_ms", "p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms", "load_cold_ms"),
    *("load_warm_ms", "first_ms", "peak_bytes", "steady_bytes", "instructions", "joules_per_inference"),
    *("parity", "max_abs_error", "metric", "accuracy", "failure"),
)


class BenchProgress:
    """What runs, on stderr: a bar a board on a terminal, lines otherwise."""

    def __init__(self, boards: Sequence[Board], quiet: bool) -> None:
        self._boards, self._quiet = boards, quiet
        self._lock = threading.Lock()  # boards report from threads of their own

    def __enter__(self) -> BenchProgress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console: Console = terminal()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        shown = not self._quiet and self._console.is_terminal
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not shown)
        self._tasks = {board: self._bars.add_task(board.label, total=None) for board in self._boards}
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def event(self, board: Board, event: Json) -> None:
        """Show what a device tells."""
        task, kind = self._tasks[board], event["event"]
        if kind == "progress":
            self._bars.update(task, completed=event["done"], total=event["total"], description=board.label)
        elif kind == "notice":
            self.say(f"{board.label}: {event['text']}")
        elif kind == "loaded":
            self._bars.update(task, description=f"{board.label}: warming up")

    def done(self, done: Done) -> None:
        """A board is through."""
        self._bars.update(self._tasks[done.board], description=f"{done.board.label}: done", completed=1, total=1)

    def say(self, text: str) -> None:
        """A line."""
        if not self._quiet:
            with self._lock:
                self._console.print(text, markup=False, soft_wrap=True)


def print_results(results: Sequence[Result]) -> None:
    """One table a device: what executed stands above it, what to know of the figures below."""
    console = out()
    for key in dict.fromkeys(_device_key(result) for result in results):
        own = [result for result in results if _device_key(result) == key]
        console.print(_heading(own[0]))
        console.print(_table(own))
        said = [(_file(result), line) for result in own for line in remarks(result)]
        for line in dict.fromkeys(line for _, line in said):
            names = list(dict.fromkeys(name for name, remark in said if remark == line))
            of_all = len(names) == len({_file(result) for result in own})
            console.print(line if of_all else f"{', '.join(names)}: {line}", soft_wrap=True)
        console.print()


def print_csv(results: Sequence[Result]) -> None:
    """One line a result; a latency that is none (emulated, or of wrong outputs) is left empty."""
    writer = csv.DictWriter(sys.stdout, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_row(result) for result in results)


def remarks(result: Result) -> list[str]:
    """What a reader must know before trusting a row."""
    found = list(result.notes)
    if result.failure:
        found.append(f"{result.failure.cause}: {result.failure.detail}")
    if result.samples and result.samples.blocks and not result.samples.stable:
        found.append(f"the warm-up did not settle in {result.settings.warmup_s:g} s; give more --warmup")
    if result.settings.inputs == "random":
        found.append("random inputs, no golden values: parity is not known")
    throttled = {word for look in result.conditions for word in look.throttled or ()}
    if throttled and latency_is_real(result):
        found.append(f"the device was slowed while it ran: {', '.join(sorted(throttled))}")
    return found


def _device_key(result: Result) -> tuple[str, str, str, str]:
    return result.board, result.target, result.device.model, result.device.executed


def _heading(result: Result) -> str:
    device = result.device
    name = result.board or result.target
    emulator = f" in {device.emulator}" if device.emulator else ""
    cores = f", {device.cores} cores" if device.cores else ""
    machine = ", ".join(dict.fromkeys((device.model, device.cpu)))
    return f"{name}: {machine}{cores}, {device.os} ({execution(result)}{emulator})"


def _table(results: Sequence[Result]) -> Any:
    from rich.table import Table

    timed = any(latency_is_real(result) for result in results)
    counted = any(result.instructions for result in results)
    scored = any(result.accuracy for result in results)
    sustained = any(result.statistics and result.statistics.slowdown for result in results)
    names = ["file", "MB", "threads"]
    names += (
        ["p50 ms", "95% interval", "p90", "p99", "against the first", "load ms", "first ms"] if timed else ["latency"]
    )
    names += ["minute 1 ms", "last minute ms", "slower"] if sustained else []
    names += ["instructions"] if counted else []
    low_bit = any(result.kernels for result in results)
    names += ["low-bit"] if low_bit else []
    names += ["peak MB", "max error", "parity"] + (["accuracy"] if scored else []) + ["computed by"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        right = name in ("MB", "threads", "p50 ms", "p90", "p99", "load ms", "first ms", "instructions", "peak MB")
        table.add_column(name, justify="right" if right else "left")
    for result in results:
        first = next(r for r in results if _is_comparable(r, result))
        cells = [_file(result), f"{result.artifact.size_bytes / 1e6:.2f}", str(result.settings.threads or "auto")]
        cells += _latency(result, first) if timed else [_why_none(result)]
        cells += _sustained(result) if sustained else []
        cells += [f"{result.instructions:,.0f}" if result.instructions else ""] if counted else []
        cells += [f"{result.kernels.low_bit_share:.0%}" if result.kernels else ""] if low_bit else []
        peak = result.memory.peak_bytes if result.memory else None
        parity = result.parity
        cells += [f"{peak / 1e6:.1f}" if peak else "", f"{parity.max_abs_error:.1e}" if parity else ""]
        cells.append(parity.verdict if parity else "not known")
        if scored:
            found = result.accuracy
            cells.append(f"{found.value:.1%} ({100 * found.low:.1f} to {100 * found.high:.1f})" if found else "")
        by = result.executed_by
        table.add_row(*cells, f"{by.runtime} {by.version}" if by else "nothing")
    return table


def _is_comparable(result: Result, other: Result) -> bool:
    """Whether a ratio of the two says something: the same model, or files of which nothing is known."""
    return result.artifact.model == other.artifact.model and result.settings.threads == other.settings.threads


def _file(result: Result) -> str:
    name = result.artifact.name
    shown = f"{result.artifact.bundle}/{name}" if result.artifact.bundle and "/" not in name else name
    return shown if shown.isprintable() else repr(shown)


def _why_none(result: Result) -> str:
    if result.failure:
        return result.failure.cause
    return NO_LATENCY.get(execution(result), "none")


def _latency(result: Result, first: Result) -> list[str]:
    if not latency_is_real(result):
        return [_why_none(result), "", "", "", "", "", ""]
    assert result.statistics and result.samples
    found, samples = result.statistics, result.samples
    ratio = ""
    if result is not first and latency_is_real(first):
        ratio = against_the_first(first, result)
    return [
        f"{found.p50_ms:.3g}",
        f"{found.low_ms:.3g} to {found.high_ms:.3g}",
        f"{found.p90_ms:.3g}",
        f"{found.p99_ms:.3g}",
        ratio,
        "" if samples.load_cold_ns is None else f"{samples.load_cold_ns / 1e6:.3g}",
        "" if samples.first_inference_ns is None else f"{samples.first_inference_ns / 1e6:.3g}",
    ]


def against_the_first(first: Result, result: Result) -> str:
    """How many times as fast as the first row of the table, both measured in turns: paired by round."""
    assert first.samples and result.samples
    above, below = first.samples.process_medians_ns, result.samples.process_medians_ns
    in_turns = not result.settings.sustained_s and list(map(len, above)) == list(map(len, below))
    return ratio_in_words(process_ratio_interval(above, below, paired=in_turns))


def _sustained(result: Result) -> list[str]:
    found = result.statistics
    if not latency_is_real(result) or not found or found.slowdown is None:
        return ["", "", ""]
    from benchmarks.results.stats import Estimate

    assert found.minute_1_ms and found.last_minute_ms and found.slowdown_low and found.slowdown_high
    ratio = Estimate(found.slowdown, found.slowdown_low, found.slowdown_high)
    return [f"{found.minute_1_ms:.4g}", f"{found.last_minute_ms:.4g}", ratio_in_words(ratio)]


def _csv_row(result: Result) -> dict[str, Any]:
    real = latency_is_real(result)
    found, samples = (result.statistics, result.samples) if real else (None, None)
    memory, parity, accuracy, energy = result.memory, result.parity, result.accuracy, result.energy

    def ms(value_ns: int | None) -> float | str:
        return "" if value_ns is None else value_ns / 1e6

    joules = energy.joules if energy and real else None
    return {
        "board": result.board or result.target,
        "device": result.device.model,
        "executed": execution(result),
        "file": _file(result),
        "format": result.artifact.format,
        "size_bytes": result.artifact.size_bytes,
        "sha256": result.artifact.sha256,
        "threads": result.settings.threads or "",
        "runtime": result.executed_by.runtime if result.executed_by else "",
        "version": result.executed_by.version if result.executed_by else "",
        "inferences": found.inferences if found else "",
        "min_ms": found.min_ms if found else "",
        "p50_ms": found.p50_ms if found else "",
        "p50_low_ms": found.low_ms if found else "",
        "p50_high_ms": found.high_ms if found else "",
        "p90_ms": found.p90_ms if found else "",
        "p99_ms": found.p99_ms if found else "",
        "load_cold_ms": ms(samples.load_cold_ns) if samples else "",
        "load_warm_ms": ms(samples.load_warm_ns) if samples else "",
        "first_ms": ms(samples.first_inference_ns) if samples else "",
        "peak_bytes": memory.peak_bytes if memory and memory.peak_bytes else "",
        "steady_bytes": memory.steady_bytes if memory and memory.steady_bytes else "",
        "instructions": result.instructions or "",
        "joules_per_inference": joules / energy.inferences if energy and joules and energy.inferences else "",
        "parity": parity.verdict if parity else "",
        "max_abs_error": parity.max_abs_error if parity else "",
        "metric": accuracy.metric if accuracy else "",
        "accuracy": accuracy.value if accuracy else "",
        "failure": result.failure.cause if result.failure else "",
    }
