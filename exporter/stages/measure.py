"""Fill the ledger: run every stage's artifacts over the task's test split, and time those of one format in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.evaluate import Evaluation, answers, as_reference, judged
from benchmarks.measure import NotTimed, measure
from benchmarks.results.stats import in_words
from benchmarks.tasks import load_task
from benchmarks.tasks.task import Task
from exporter.ledger.rows import latency_of, ledger_row, speedup_in
from exporter.stages.progress import Stage
from exporter.stages.run import Run
from exporter.stages.snapshot import folder_of
from exporter.stages.targets import Proven
from runtimes.bundle import GOLDEN
from runtimes.types import Accuracy, Latency, LedgerRow

LOG = "measure.log"
THREADS = 1
"""With more, a small model waits for its threads, and a ratio says less."""
EVALUATION_S = 60.0
"""For an artifact; one that needs longer is judged by the samples it did, and says how many."""


def fill_ledger(proven: Sequence[Proven], run: Run) -> tuple[LedgerRow, ...]:
    """One row for each artifact of each stage: format by format, the original first."""
    task = load_task(run.options.data) if run.options.data else None
    rows: list[LedgerRow] = []
    for target in run.options.targets:
        of_target = [p for p in proven if p.artifact.format == target]
        started = time.monotonic()
        latencies = _latencies(of_target, run)
        accuracies = _accuracies(of_target, task, run)
        for p, accuracy, latency in zip(of_target, accuracies, latencies, strict=True):
            after = p.snapshot
            row = ledger_row(
                after.index, after.name, target, after.parameters, after.nonzero, p.path, accuracy, latency
            )
            rows.append(row)
        run.on_stage(Stage("measure", time.monotonic() - started, f"{target}: {_in_words(rows[-1])}"))
    return tuple(rows)


def _latencies(proven: Sequence[Proven], run: Run) -> list[Latency | NotTimed]:
    """Of the stages of one format, in turns."""
    found = measure(
        [p.path for p in proven],
        run.work / folder_of(0) / GOLDEN,
        threads=THREADS,
        on_round=partial(run.on_progress, f"{proven[0].artifact.format}: latency"),
        log_path=run.work / LOG,
        scratch=run.work,
        on_start=run.children.add,
    )
    return [latency_of(found[0], samples) for samples in found]


def _accuracies(proven: Sequence[Proven], task: Task | None, run: Run) -> list[Accuracy | None]:
    """Of the stages of one format, the later ones also beside what the original computes; None without a task."""
    if task is None:
        return [None] * len(proven)
    found: list[Accuracy | None] = []
    reference = None
    for p in proven:
        given = answers(
            p.path,
            task,
            seconds=EVALUATION_S,
            progress=partial(run.on_progress, f"{p.artifact.format}: accuracy of {p.snapshot.name}"),
            log_path=run.work / LOG,
            on_start=run.children.add,
        )
        found.append(_accuracy(judged(p.path.name, task, given, reference)))
        if p.snapshot.index == 0 and len(given.rows) == len(task.test):  # else it had no time for all of them
            reference = as_reference(given, task)
    return found


def _accuracy(found: Evaluation) -> Accuracy:
    return Accuracy(found.metric, found.value, found.low, found.high, found.samples, dict(found.others))


def _in_words(row: LedgerRow) -> str:
    """The last stage of a format in one line."""
    accuracy = f"{row.accuracy.metric} {row.accuracy.value:.1%}, " if row.accuracy else ""
    latency = f"speed {in_words(speedup_in(row.latency))}" if row.latency else row.not_timed
    return f"{accuracy}{row.size_bytes / 1e6:.2f} MB, {latency}"
