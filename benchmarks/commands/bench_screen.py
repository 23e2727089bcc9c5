"""What `bench` prints: progress while it runs, then one table a device, or CSV."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import console
from benchmarks.console import out, shown, terminal
from benchmarks.results import words
from benchmarks.results.execution import execution, latency_is_real
from benchmarks.results.result import Result
from benchmarks.results.speed import against, busy_in_words, first_like, load_of, speed_in_words
from benchmarks.results.stats import Estimate
from benchmarks.results.stats import in_words as ratio_in_words
from benchmarks.tables import Cell, Table, print_table, table_of
from runtimes.types import Accuracy

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
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        is_drawn = not self._quiet and self._console.is_terminal
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not is_drawn)
        self._tasks = {board: self._bars.add_task(shown(board.label), total=None) for board in self._boards}
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def event(self, board: Board, event: Json) -> None:
        """Show what a device tells."""
        task, kind = self._tasks[board], event["event"]
        if kind == "progress":
            self._bars.update(task, completed=event["done"], total=event["total"], description=shown(board.label))
        elif kind == "notice":
            first, *more = event["text"].split("\n")
            self.say(f"{board.label}: {first}")
            for line in more:
                self.say(f"  {line}")  # so that no line but the first seems to be of another origin
        elif kind == "loaded":
            self._bars.update(task, description=shown(f"{board.label}: warming up"))

    def done(self, done: Done) -> None:
        """A board is through."""
        self._bars.update(self._tasks[done.board], description=shown(f"{done.board.label}: done"), completed=1, total=1)

    def say(self, text: str) -> None:
        """A line."""
        if not self._quiet:
            with self._lock:
                self._console.print(text, soft_wrap=True)


def print_results(results: Sequence[Result], wide: bool = False) -> None:
    """One table a device: what executed stands above it, below it a verdict a file, and what to know of the figures."""
    screen = out()
    for key in dict.fromkeys(_device_key(result) for result in results):
        own = [result for result in results if _device_key(result) == key]
        screen.print(_heading(own[0]), soft_wrap=True)
        print_table(table_of_results(own, wide))
        for result in own:
            screen.print(f"{_named(result, own)}: {judgement(result, first_like(own, result))}", soft_wrap=True)
        said = [(_file(result), line) for result in own for line in remarks(result)]
        for line in dict.fromkeys(line for _, line in said):
            names = list(dict.fromkeys(name for name, remark in said if remark == line))
            of_all = len(names) == len({_file(result) for result in own})
            screen.print(line if of_all else f"{', '.join(names)}: {line}", soft_wrap=True)
        screen.print()


def print_csv(results: Sequence[Result]) -> None:
    """One line a result; a latency that is none (emulated, or of wrong outputs) is left empty."""
    console.print_csv(CSV_FIELDS, map(_csv_row, results))


def remarks(result: Result) -> list[str]:
    """What a reader must know before trusting a row."""
    found = list(result.notes)
    if latency_is_real(result):
        found += filter(None, [busy_in_words(load_of(result.conditions), result.device.cores)])
    if result.samples and result.samples.blocks and not result.samples.stable:
        found.append(f"the warm-up did not settle in {result.settings.warmup_s:g} s; give more --warmup")
    if result.settings.inputs == "random":
        found.append("random inputs, no golden values: parity is not known")
    found += [f"not proven: {line}" for line in (result.parity.not_proven if result.parity else ())]
    throttled = {word for look in result.conditions for word in look.throttled or ()}
    if throttled and latency_is_real(result):
        found.append(f"the device was slowed while it ran: {', '.join(sorted(throttled))}")
    return found


def _named(result: Result, among: Sequence[Result]) -> str:
    """A result's file, and its threads where the file has several."""
    alike = [other for other in among if _file(other) == _file(result)]
    return _file(result) + (f" ({words.threads_of(result.settings.threads)})" if len(alike) > 1 else "")


def _device_key(result: Result) -> tuple[str, str, str, str]:
    return result.board, result.target, result.device.model, result.device.executed


def _heading(result: Result) -> str:
    device = result.device
    name = result.board or result.target
    emulator = f" in {device.emulator}" if device.emulator else ""
    cores = f", {device.cores} cores" if device.cores else ""
    machine = ", ".join(dict.fromkeys((device.model, device.cpu)))
    return f"{name}: {machine}{cores}, {device.os} ({execution(result)}{emulator})"


def table_of_results(results: Sequence[Result], wide: bool = False) -> Table:
    """The table of one device: what decides, or with `wide` all that was measured."""
    rows = [_row(result, first_like(results, result)) for result in results]
    kinds = ["file", "MB", "against the first", "parity", "computed by"]
    if any(latency_is_real(result) for result in results):
        kinds.insert(2, "p50 ms")
    else:
        kinds[2] = "latency"
    if wide:
        kinds[2:2] = ["threads"]
        kinds[-2:-2] = [name for name in WIDE if any(name in row for row in rows)]
    cells = [[row.get(name, Cell("")) for name in kinds] for row in rows]
    return table_of(kinds, cells, [name for name in kinds if name in FIGURES])


WIDE = (
    *("p90", "p99", "load ms", "first ms", "minute 1 ms", "last minute ms", "slower", "instructions", "low-bit"),
    *("peak MB", "cosine", "accuracy"),
)
FIGURES = {"MB", "threads", "p50 ms", "p90", "p99", "load ms", "first ms", "instructions", "low-bit", "peak MB"}


def _row(result: Result, first: Result) -> dict[str, Cell]:
    """All cells that a result has, by column."""
    by, parity, memory, threads = result.executed_by, result.parity, result.memory, result.settings.threads
    found = {
        "file": Cell(_file(result), f"{threads} threads" if threads and threads > 1 else ""),
        "MB": Cell(f"{result.artifact.size_bytes / 1e6:.2f}"),
        "threads": Cell(str(threads or "auto")),
        "parity": Cell(words.verdict(parity) if parity else "not known"),
        "computed by": Cell(f"{by.runtime} {by.version}" if by else "nothing"),
        **_latency(result, first),
        **_sustained(result),
    }
    if result.instructions:
        found["instructions"] = Cell(f"{result.instructions:,.0f}")
    if result.kernels:
        found["low-bit"] = Cell(f"{result.kernels.low_bit_share:.0%}")
    if memory and memory.peak_bytes:
        found["peak MB"] = Cell(f"{memory.peak_bytes / 1e6:.1f}")
    if parity:
        found["cosine"] = Cell(f"{parity.cosine:.7f}")
    if result.accuracy:
        found["accuracy"] = Cell(_accuracy(result.accuracy))
    return found


def _accuracy(found: Accuracy) -> str:
    share = f"{found.value:.1%} ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"{share}, {words.samples_of(found)}"


def _file(result: Result) -> str:
    name = result.artifact.name
    return f"{result.artifact.bundle}/{name}" if result.artifact.bundle and "/" not in name else name


def _why_none(result: Result) -> str:
    if result.failure:
        return result.failure.cause
    return NO_LATENCY.get(execution(result), "none")


def _latency(result: Result, first: Result) -> dict[str, Cell]:
    if not latency_is_real(result):
        return {"p50 ms": Cell(_why_none(result)), "latency": Cell(_why_none(result))}
    assert result.statistics and result.samples
    found, samples = result.statistics, result.samples
    cells = {
        "p50 ms": Cell(f"{found.p50_ms:.3g}", f"{found.low_ms:.3g} to {found.high_ms:.3g}"),
        "p90": Cell(f"{found.p90_ms:.3g}"),
        "p99": Cell(f"{found.p99_ms:.3g}"),
    }
    ratio = against(first, result)
    if ratio:
        cells["against the first"] = Cell(ratio_in_words(ratio))
    for name, spent_ns in (("load ms", samples.load_cold_ns), ("first ms", samples.first_inference_ns)):
        if spent_ns is not None:
            cells[name] = Cell(f"{spent_ns / 1e6:.3g}")
    return cells


def _sustained(result: Result) -> dict[str, Cell]:
    found = result.statistics
    if not latency_is_real(result) or not found or found.slowdown is None:
        return {}
    assert found.minute_1_ms and found.last_minute_ms and found.slowdown_low and found.slowdown_high
    ratio = Estimate(found.slowdown, found.slowdown_low, found.slowdown_high)
    return {
        "minute 1 ms": Cell(f"{found.minute_1_ms:.4g}"),
        "last minute ms": Cell(f"{found.last_minute_ms:.4g}"),
        "slower": Cell(ratio_in_words(ratio)),
    }


def judgement(result: Result, first: Result) -> str:
    """A result in one line: whether it is right, and what it gains or loses against the first of its model."""
    if result.failure:
        return f"{result.failure.cause}: {result.failure.detail}"
    said = [{"pass": "right", "fail": "WRONG"}[result.parity.verdict] if result.parity else "parity is not known"]
    if result is not first:
        smaller = first.artifact.size_bytes / result.artifact.size_bytes
        said += [f"{smaller:.2f}x smaller"] if smaller >= 1.005 else []
        said += [f"{1 / smaller:.2f}x larger"] if smaller <= 0.995 else []
    ratio = against(first, result)
    said += [speed_in_words(ratio, _file(first))] if ratio else []
    said += [words.slowdown(result)] if words.slowdown(result) else []
    if result.accuracy:
        said.append(f"{result.accuracy.metric} {_accuracy(result.accuracy)}")
    return ", ".join(said)


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
