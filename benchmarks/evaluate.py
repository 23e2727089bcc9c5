"""Accuracy of an artifact: run it in its own runtime over a task's test split, in a child process, and score it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agent.samples import named_for, run_samples
from benchmarks.results.stats import wilson
from benchmarks.tasks.scores import score_outputs
from benchmarks.tasks.task import Arrays, Task
from runtimes import child
from runtimes.errors import BadInput, ParityFailed
from runtimes.parity import MEMORY_FLOOR_BYTES, MEMORY_PER_ARTIFACT_BYTE, TIMEOUT_S, size_bytes
from runtimes.records import from_json
from runtimes.scratch import scratch_folder
from runtimes.session import open_session
from runtimes.signature import ExecutedBy
from runtimes.types import Accuracy

SECONDS = 120.0
SEED = 0
PROGRESS_S = 0.25

Progress = Callable[[int, int], None]
"""(samples done, samples to do)."""


@dataclass(frozen=True)
class Evaluation:
    """How good an artifact is: `value` of `metric` over `samples` of `of_samples` test samples, and its 95% interval.

    `others` holds further figures by name: see `benchmarks.tasks.scores`.
    """

    artifact: str
    task: str
    metric: str
    value: float
    low: float
    high: float
    samples: int
    of_samples: int
    others: Mapping[str, float]
    executed_by: ExecutedBy


@dataclass(frozen=True)
class Answers:
    """What an artifact gave for these rows of the test split, and of the gallery; each output `[len(rows), ...]`."""

    rows: np.ndarray
    outputs: Arrays
    gallery_rows: np.ndarray
    gallery_outputs: Arrays
    executed_by: ExecutedBy


def evaluate(
    artifact: Path,
    task: Task,
    *,
    seconds: float = SECONDS,
    limit: int | None = None,
    reference: Arrays | None = None,
    progress: Progress = lambda done, total: None,
    log_path: Path | None = None,
    on_start: Callable[[subprocess.Popen], None] | None = None,
) -> Evaluation:
    """Run `artifact` over the task and score it: see `answers` for the options, and for what is raised.

    `reference` holds the full-precision model's outputs for the whole test split, by name.

    Raises BadInput where the outputs do not fit the task.
    """
    given = answers(
        artifact, task, seconds=seconds, limit=limit, progress=progress, log_path=log_path, on_start=on_start
    )
    return judged(artifact.name, task, given, reference)


def judged(name: str, task: Task, given: Answers, reference: Arrays | None = None) -> Evaluation:
    """The evaluation of what an artifact gave.

    Raises BadInput where the outputs do not fit the task.
    """
    score = score_outputs(
        task, given.outputs, given.gallery_outputs, reference, rows=given.rows, gallery_rows=given.gallery_rows
    )
    low, high = wilson(float(score.correct.sum()), len(score.correct))
    seen = {"gallery samples": float(len(given.gallery_rows))} if task.gallery else {}
    return Evaluation(
        artifact=name,
        task=task.name,
        metric=score.metric,
        value=float(score.correct.mean()),
        low=low,
        high=high,
        samples=len(given.rows),
        of_samples=len(task.test),
        others={**score.others, **seen},
        executed_by=given.executed_by,
    )


def answers(
    artifact: Path,
    task: Task,
    *,
    seconds: float = SECONDS,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
    log_path: Path | None = None,
    on_start: Callable[[subprocess.Popen], None] | None = None,
) -> Answers:
    """What `artifact` computes, in a child process, for the task's test split and gallery.

    They are taken in an order that is random but always the same, so that what is done after `seconds`, where it stops,
    is a fair part of either; `limit` is the most test samples to take.

    Raises BadInput for options out of range, an artifact that is none or whose inputs are not the task's, and
    ParityFailed where the runtime crashes, hangs or runs out of memory.
    """
    for option, value in (("--seconds", seconds), ("--limit", limit)):
        if value is not None and not value > 0:  # NaN too
            raise BadInput(f"{value:g} is too little", where=option, remedy="give more than 0")
    order = order_of(task, limit)
    with scratch_folder() as folder:
        job: dict[str, Any] = {
            "artifact": str(artifact),
            "task": task.name,
            "inputs": str(folder / "inputs.npz"),
            "outputs": str(folder / "outputs.npz"),
            "seconds": seconds,
            "at_least": 2 if task.gallery else 1,  # one of each
        }
        np.savez(job["inputs"], **inputs_of(task, order))  # type: ignore[arg-type]  # numpy's stub reads ** as its bool
        outcome = child.call(
            "benchmarks.evaluate:evaluate_artifact",
            job,
            timeout_s=seconds + TIMEOUT_S,
            memory_limit_bytes=MEMORY_FLOOR_BYTES + MEMORY_PER_ARTIFACT_BYTE * size_bytes(artifact),
            log_path=log_path,
            on_event=lambda event: progress(*event["progress"]),
            on_start=on_start,
        )
        if isinstance(outcome, child.Refused):
            raise outcome.error
        if not isinstance(outcome, child.Completed):
            fault = f"the runtime {child.describe(outcome)}"
            raise ParityFailed(fault, where=artifact.name, remedy="pocketship verify its bundle, or export it again")
        with np.load(job["outputs"], allow_pickle=False) as arrays:
            outputs = {name: arrays[name] for name in arrays.files}
    return answers_of(task, order, outputs, from_json(ExecutedBy, outcome.value["executed_by"]))


def answers_of(task: Task, order: np.ndarray, outputs: Arrays, executed_by: ExecutedBy) -> Answers:
    """What an artifact gave for the first samples of `order`, as many as `outputs` has rows."""
    tests = len(task.test)
    done = order[: len(next(iter(outputs.values())))]
    of_test, of_gallery = done < tests, done >= tests
    return Answers(
        rows=done[of_test],
        outputs={name: array[of_test] for name, array in outputs.items()},
        gallery_rows=done[of_gallery] - tests,
        gallery_outputs={name: array[of_gallery] for name, array in outputs.items()},
        executed_by=executed_by,
    )


def on_the_same(given: Sequence[Answers]) -> tuple[Answers, ...]:
    """What several artifacts gave for the samples that all of them did; all took them in the same order."""
    tests, galleries = min(len(each.rows) for each in given), min(len(each.gallery_rows) for each in given)
    return tuple(
        replace(
            each,
            rows=each.rows[:tests],
            outputs={name: array[:tests] for name, array in each.outputs.items()},
            gallery_rows=each.gallery_rows[:galleries],
            gallery_outputs={name: array[:galleries] for name, array in each.gallery_outputs.items()},
        )
        for each in given
    )


def accuracy_of(found: Evaluation) -> Accuracy:
    """What a manifest and a result keep of an evaluation."""
    others = dict(found.others)
    return Accuracy(found.metric, found.value, found.low, found.high, found.samples, others, found.of_samples)


def as_reference(given: Answers, task: Task, limit: int | None = None) -> dict[str, np.ndarray]:
    """Outputs for the whole test split, as a reference is given; with a limit, NaN in the rows that it leaves out.

    Raises BadInput where the time was up before the last sample.
    """
    wanted = min(limit or len(task.test), len(task.test))
    if len(given.rows) < wanted:
        raise BadInput(
            f"the reference did {len(given.rows)} of {wanted} samples in its time",
            where="--reference",
            remedy="give more --seconds, or a lower --limit",
        )
    floats = {name: array for name, array in given.outputs.items() if array.dtype.kind == "f"}
    found = {name: np.full((len(task.test), *array.shape[1:]), np.nan) for name, array in floats.items()}
    for name, array in floats.items():
        found[name][given.rows] = array
    return found


def order_of(task: Task, limit: int | None = None) -> np.ndarray:
    """The order that samples are taken in: random but always the same, test and gallery dealt evenly, a test one first.

    The gallery's are numbered on from the last test sample.
    """
    tests, galleries = len(task.test), len(task.gallery) if task.gallery else 0
    generator = np.random.default_rng(SEED)
    chosen = generator.permutation(tests)[:limit]
    place = np.concatenate([np.arange(len(chosen)) / len(chosen), (np.arange(galleries) + 0.5) / max(1, galleries)])
    return np.concatenate([chosen, tests + generator.permutation(galleries)])[np.argsort(place, kind="stable")]


def inputs_of(task: Task, order: np.ndarray) -> dict[str, np.ndarray]:
    """The samples' inputs by name, in that order."""
    galleries = task.gallery.inputs if task.gallery else {}
    both = {name: [array, *([galleries[name]] if galleries else [])] for name, array in task.test.inputs.items()}
    return {name: np.concatenate(arrays)[order] for name, arrays in both.items()}


def evaluate_artifact(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `answers`: how many samples of `job["inputs"]` it did, their outputs in `job["outputs"]`."""
    with np.load(job["inputs"], allow_pickle=False) as arrays:
        samples = {name: arrays[name] for name in arrays.files}
    session = open_session(Path(job["artifact"]))
    names = [spec.name for spec in session.signature.inputs]
    found: list[dict[str, np.ndarray]] = []
    told = time.monotonic()
    try:
        samples = named_for(samples, names)
        for start, outputs in run_samples(session, samples, seconds=job["seconds"], at_least=job["at_least"]):
            found.append(outputs)
            if time.monotonic() - told > PROGRESS_S:
                emit({"progress": [start, len(next(iter(samples.values())))]})
                told = time.monotonic()
    except BadInput as error:
        where = f"{Path(job['artifact']).name} on {job['task']}"
        remedy = error.remedy or "give the task that belongs to the model"
        raise BadInput(error.what, where=f"{where}: {error.where}" if error.where else where, remedy=remedy) from error
    together = joined(found)
    np.savez(job["outputs"], **together)  # type: ignore[arg-type]  # numpy's stub reads ** as its bool
    return {"done": len(next(iter(together.values()))), "executed_by": asdict(session.executed_by)}


def joined(parts: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Outputs by name over all parts, each with one sample a row."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
