"""One bench: artifacts of any number on targets of any number, all targets at once; each gives one result a case."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agent.machine import facts as facts_of_this_machine
from benchmarks.devices import MALFORMED_REMEDY, Interrupted, Options, Stopped, kind_of, run_of
from benchmarks.job import Case, Job, JobArtifact, Json
from benchmarks.results.elapsed import wall_s
from benchmarks.results.events import Malformed
from benchmarks.results.record import Proof, Recorder, settings_of, with_kernels
from benchmarks.results.result import (
    RESULT_VERSION,
    ArtifactFacts,
    DeviceFacts,
    Failure,
    Result,
)
from benchmarks.tasks.task import Task
from runtimes.bundle import MANIFEST, digest, read_manifest
from runtimes.compare import limits_of
from runtimes.errors import BadInput, NotInstalled, PocketshipError
from runtimes.golden import Tensors, read_golden
from runtimes.kernels import KernelTruth
from runtimes.parity import prove
from runtimes.records import from_json
from runtimes.scratch import scratch_folder
from runtimes.session import RUNTIMES, format_of, lacking
from runtimes.types import Artifact, Manifest
from runtimes.verify import check_bundle

POLL_S = 0.5
STOP_S = 20.0
"""How long the other devices get to clean up after Ctrl-C."""
UNFIT = {
    "ssh": {"coreml": "Core ML packages are benched on the Mac itself: run pocketship bench there"},
    "adb": {"coreml": "Core ML runs on Apple devices"},
    "browser": {"coreml": "no browser runs Core ML"},
}
"""Kind of device -> format -> why it cannot run there."""
RUNNER = "over adb, .tflite needs --runner, the path of LiteRT's own benchmark_model"


@dataclass(frozen=True)
class BenchArtifact:
    """An artifact to bench, its golden values, what it is proven against and its kernel truth, where there are any."""

    path: Path
    facts: ArtifactFacts
    golden: Path | None = None
    proof: Proof | None = None
    kernels: KernelTruth | None = None


@dataclass(frozen=True)
class Plan:
    """How to measure: see `benchmarks.job.Job`. `task` is run for accuracy, `limit` the most of its test samples."""

    threads: tuple[int, ...] = (1,)
    seconds: float = 2.0
    warmup_s: float = 10.0
    precision: float | None = None
    batch: int | None = None
    affinity: tuple[int, ...] | None = None
    sustained_s: float | None = None
    processes: int = 5
    seed: int = 0
    timeout_s: float = 600.0
    task: Task | None = None
    limit: int | None = None
    data_s: float = 120.0


@dataclass(frozen=True, eq=False)
class Board:
    """A target as typed after --on, its name in a fleet, how it is measured and reached; equal to none but itself."""

    target: str
    plan: Plan
    options: Options
    name: str = ""

    @property
    def label(self) -> str:
        """What the screen calls it."""
        return self.name or self.target


@dataclass(frozen=True)
class Done:
    """What became of one board: its results, and what went wrong, if anything did."""

    board: Board
    results: tuple[Result, ...]
    error: PocketshipError | None = None


OnEvent = Callable[[Board, Json], None]


def bench_artifacts(path: Path, targets: Sequence[str] = ()) -> tuple[BenchArtifact, ...]:
    """The artifacts of a bundle, intact, or the one of a file, which is proven if its bundle lies around it.

    Raises BadInput for what is neither, ParityFailed for a bundle whose files are not the manifest's.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput("no such bundle or artifact", where=str(path), remedy="check the path")
    if path.is_file() or path.suffix == ".mlpackage":
        kind = format_of(path)
        if (path.parent / MANIFEST).is_file():
            manifest = read_manifest(path.parent)
            for artifact in manifest.artifacts:
                if artifact.path == path.name:
                    check_bundle(path.parent, manifest, [artifact])
                    return (_of_bundle(path.parent, manifest, artifact, str(path)),)
        size, sha256 = digest(path.resolve())
        return (BenchArtifact(path, ArtifactFacts(path.name, kind, size, sha256)),)
    manifest = read_manifest(path)
    chosen = [artifact for artifact in manifest.artifacts if not targets or artifact.format in targets]
    check_bundle(path, manifest, chosen)
    return tuple(_of_bundle(path, manifest, artifact, artifact.path) for artifact in chosen)


def _of_bundle(bundle: Path, manifest: Manifest, artifact: Artifact, name: str) -> BenchArtifact:
    return BenchArtifact(
        path=bundle / artifact.path,
        facts=ArtifactFacts(
            name=name,
            format=artifact.format,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            bundle=bundle.resolve().name,
            model=manifest.name,
            precision=artifact.precision,
            recipe=tuple(step.name for step in manifest.recipe),
        ),
        golden=bundle / artifact.golden,
        proof=Proof(read_golden(bundle / artifact.golden), limits_of(manifest, artifact)),
    )


def unfit_on(board: Board) -> dict[str, str]:
    """Format -> why a board cannot run it.

    Raises BadInput for a target that is none.
    """
    kind = kind_of(board.target)
    if kind == "local":
        return {name: reason for name in RUNTIMES if (reason := lacking(name))}
    needs_runner = {"tflite": RUNNER} if kind == "adb" and board.options.runner is None else {}
    return {**UNFIT[kind], **needs_runner}


def bench(
    artifacts: Sequence[BenchArtifact],
    boards: Sequence[Board],
    on_event: OnEvent = lambda board, event: None,
    on_done: Callable[[Done], None] = lambda done: None,
) -> tuple[Done, ...]:
    """Measure `artifacts` on all `boards` at once; `on_done` gets each board's part as soon as it is there.

    What a device told before it was lost, or before Ctrl-C, is in its results. Raises BadInput for a target that is
    none, or that can run none of the artifacts, before anything runs; NotInstalled where that is for want of runtimes.
    """
    for board in boards:
        unfit = unfit_on(board)
        if all(a.facts.format in unfit for a in artifacts):
            reasons = "; ".join(sorted({unfit[a.facts.format] for a in artifacts}))
            if kind_of(board.target) == "local":
                raise NotInstalled(reasons, where=board.label)
            raise BadInput(reasons, where=board.label, remedy="give an .onnx or .tflite file")
    stop = threading.Event()
    if len(boards) == 1:
        return (_bench_on(boards[0], artifacts, on_event, on_done, stop),)
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()  # in C: Ctrl-C leaves no lock of it taken
    found: dict[int, Done] = {}
    faults: list[Exception] = []

    def work(i: int) -> None:
        try:
            found[i] = _bench_on(boards[i], artifacts, on_event, on_done, stop)
        except Stopped:
            pass
        except Exception as error:  # a fault of our own: the main thread's to raise
            faults.append(error)
        finally:
            finished.put(i)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(boards))]
    left = 0
    try:  # from before the first of them starts: what a board was given is taken away again, whenever Ctrl-C comes
        for thread in threads:
            left += 1
            thread.start()
        while left:
            with contextlib.suppress(queue.Empty):  # and look: a signal may have been another thread's to take
                finished.get(timeout=POLL_S)
                left -= 1
    except KeyboardInterrupt:
        stop.set()
        deadline = time.monotonic() + STOP_S
        with contextlib.suppress(queue.Empty):
            for _ in range(left):
                finished.get(timeout=max(0.0, deadline - time.monotonic()))
        raise
    if faults:
        raise faults[0]
    return tuple(found[i] for i in range(len(boards)))


def _bench_on(
    board: Board,
    artifacts: Sequence[BenchArtifact],
    on_event: OnEvent,
    on_done: Callable[[Done], None],
    stop: threading.Event,
) -> Done:
    """One board's part; Ctrl-C in it still hands over what was measured."""
    kind, unfit = kind_of(board.target), unfit_on(board)
    for artifact in artifacts:
        reason = unfit.get(artifact.facts.format)
        if reason:
            on_event(board, {"event": "notice", "text": f"{artifact.facts.name} is left out: {reason}"})
    here = [a for a in artifacts if a.facts.format not in unfit]
    off_device = [a for a in here if kind == "local" and a.facts.format == "coreml" and sys.platform != "darwin"]
    timed = [a for a in here if a not in off_device]
    with scratch_folder() as folder:
        job, files, order = job_of(timed, board.plan, folder)
        facts, proofs = [a.facts for a in timed], [a.proof for a in timed]
        recorder = Recorder(board.target, job, facts, proofs, board.name, clock=wall_s, data_rows=len(order))

        def check() -> None:
            if stop.is_set():
                raise Stopped

        def take(event: Json) -> None:
            check()
            try:
                heard = recorder.hear(event)
            except Malformed as error:
                raise _malformed(f"it told {error}", board) from error
            if heard:
                on_event(board, event)

        lost: Failure | None = None
        error: PocketshipError | None = None
        try:
            if timed:
                run_of(board.target)(board.target, job, files, replace(board.options, check=check), take)
        except (KeyboardInterrupt, Stopped):
            failure = Failure("interrupted", "stopped by the user")
            on_done(Done(board, _results(recorder, job, board.plan, order, failure)))
            raise
        except Interrupted as interrupted:
            lost, error = Failure(interrupted.cause, interrupted.what), interrupted
        except PocketshipError as refusal:
            lost, error = Failure("refused", refusal.what), refusal
        if error is None and recorder.faults:
            error = _malformed(recorder.faults, board)
        results = _results(recorder, job, board.plan, order, lost)
    truths = {a.facts.sha256: a.kernels for a in here}
    done = Done(board, with_kernels((*results, *(_off_device(board, a, job) for a in off_device)), truths), error)
    on_done(done)
    return done


def _malformed(what: str, board: Board) -> Interrupted:
    return Interrupted("malformed", what, where=board.label, remedy=MALFORMED_REMEDY)


def job_of(artifacts: Sequence[BenchArtifact], plan: Plan, folder: Path) -> tuple[Job, dict[str, Path], np.ndarray]:
    """The job for these artifacts, the files it names, the order of the task's samples; `folder` takes new files."""
    files: dict[str, Path] = {}
    order, data = np.zeros(0, np.int64), None
    if plan.task:
        from benchmarks.evaluate import inputs_of, order_of

        order = order_of(plan.task, plan.limit)
        np.savez(folder / "data.npz", **inputs_of(plan.task, order))  # type: ignore[arg-type]
        data = _named(folder / "data.npz", files)
    listed = []
    for artifact in artifacts:
        name = f"{artifact.facts.sha256}{artifact.path.suffix}"
        files[name] = artifact.path
        golden = _named(artifact.golden, files) if artifact.golden else None
        facts = artifact.facts
        listed.append(JobArtifact(facts.name, facts.format, name, facts.size_bytes, facts.sha256, golden, data))
    cases = [
        Case(i, threads)
        for i, artifact in enumerate(listed)
        for threads in ((None,) if artifact.format == "coreml" else plan.threads)
    ]
    job = Job(
        id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}",
        artifacts=tuple(listed),
        cases=tuple(cases),
        seconds=plan.seconds,
        warmup_s=plan.warmup_s,
        precision=plan.precision,
        batch=plan.batch,
        affinity=plan.affinity,
        sustained_s=plan.sustained_s,
        data_s=plan.data_s,
        processes=1 if plan.sustained_s else plan.processes,
        seed=plan.seed,
        timeout_s=plan.timeout_s + (plan.sustained_s or 0.0) + (plan.data_s if plan.task else 0.0),
    )
    return job, files, order


def _named(path: Path, files: dict[str, Path]) -> str:
    """A name that is the file's hash, under which it goes to devices."""
    name = f"{hashlib.sha256(path.read_bytes()).hexdigest()}{path.suffix}"
    files[name] = path
    return name


def _results(recorder: Recorder, job: Job, plan: Plan, order: np.ndarray, lost: Failure | None) -> tuple[Result, ...]:
    results = recorder.results(lost)
    if plan.task is None:
        return results
    return tuple(_scored(result, plan.task, recorder.answers(i), order) for i, result in enumerate(results))


def _scored(result: Result, task: Task, parts: Sequence[tuple[int, Tensors]], order: np.ndarray) -> Result:
    """The result with the accuracy of the outputs that a device gave for a task's samples, where it gave any."""
    from benchmarks.evaluate import accuracy_of, answers_of, joined, judged

    if not parts or result.executed_by is None:
        return result
    answers = answers_of(task, order, joined([outputs for _, outputs in parts]), result.executed_by)
    try:
        found = judged(result.artifact.name, task, answers)
    except PocketshipError as error:  # they do not fit the task: what was measured is kept
        return replace(result, failure=result.failure or Failure("refused", str(error)))
    return replace(result, accuracy=accuracy_of(found))


def _off_device(board: Board, artifact: BenchArtifact, job: Job) -> Result:
    """A Core ML package off macOS: graph and weights are proven by the evaluator, and nothing is timed."""
    facts: dict[str, Any] = {**facts_of_this_machine(), "executed": "off-device"}
    parity, by, failure = None, None, None
    if artifact.golden and artifact.proof:
        try:
            parity = prove(artifact.path, artifact.golden, artifact.proof.limits)[1]
            by = parity.executed_by
            failure = None if parity.verdict == "pass" else Failure("parity", parity.reason)
        except PocketshipError as error:
            failure = Failure("refused", str(error))
    return Result(
        schema_version=RESULT_VERSION,
        id=str(uuid.uuid4()),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        target=board.target,
        board=board.name,
        device=from_json(DeviceFacts, facts),
        executed_by=by,
        artifact=artifact.facts,
        settings=settings_of(job, threads=None),
        parity=parity,
        notes=("Core ML runs on Apple devices only: its latency is not measured here (off-device)",),
        failure=failure,
    )
