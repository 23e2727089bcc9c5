"""Fill the ledger: run every stage's artifacts over the task's test split, and time those of one format in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.evaluate import accuracy_of, answers, as_reference, judged, on_the_same
from benchmarks.measure import NotTimed, measure
from benchmarks.tasks import load_task
from benchmarks.tasks.task import Task
from exporter.ledger.rows import latency_of, ledger_row, speed_said
from exporter.stages.progress import Stage
from exporter.stages.run import Run
from exporter.stages.snapshot import DATA, folder_of
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
    data = str(run.work / DATA) if (run.work / DATA).is_dir() else run.options.data
    task = load_task(data) if data else None
    task = task if task and task.can_score else None
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
    """Of the stages of one format, on the samples that all of them had time for; None without a task.

    The later ones are also held beside what the original computes, where it had time for all samples.
    """
    if task is None:
        return [None] * len(proven)
    given = on_the_same(
        [
            answers(
                p.path,
                task,
                seconds=EVALUATION_S,
                progress=partial(run.on_progress, f"{p.artifact.format}: accuracy of {p.snapshot.name}"),
                log_path=run.work / LOG,
                on_start=run.children.add,
            )
            for p in proven
        ]
    )
    is_whole = len(given[0].rows) == len(task.test)
    reference = as_reference(given[0], task) if is_whole else None
    return [
        accuracy_of(judged(p.path.name, task, each, reference if p.snapshot.index else None))
        for p, each in zip(proven, given, strict=True)
    ]


def _in_words(row: LedgerRow) -> str:
    """The last stage of a format in one line."""
    accuracy = f"{row.accuracy.metric} {row.accuracy.value:.1%}, " if row.accuracy else ""
    latency = f"speed {speed_said(row.latency)}" if row.latency else row.not_timed
    return f"{accuracy}{row.size_bytes / 1e6:.2f} MB, {latency}"
