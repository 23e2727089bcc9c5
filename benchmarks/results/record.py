"""Events of a device, one by one, into results: checked as they come, so that what was told before a failure counts."""

from __future__ import annotations

import base64
import dataclasses
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.agent.loop import LEAST_ROUNDS
from benchmarks.job import Job, JobArtifact, Json
from benchmarks.results.elapsed import Elapsed
from benchmarks.results.events import (
    Array,
    Device,
    End,
    Instructions,
    Loaded,
    Malformed,
    Notice,
    Outputs,
    Profile,
    Progress,
    Told,
    Warm,
    read_event,
)
from benchmarks.results.result import (
    RESULT_VERSION,
    ArtifactFacts,
    Block,
    Condition,
    DeviceFacts,
    Energy,
    Failure,
    Memory,
    OperationTime,
    Result,
    Samples,
    Settings,
    statistics_of,
)
from benchmarks.results.stats import median
from runtimes.compare import FLOAT32, Limits, compare
from runtimes.errors import BadInput
from runtimes.golden import Golden, Tensors
from runtimes.kernels import KernelTruth
from runtimes.signature import ExecutedBy
from runtimes.types import Accuracy, Parity

PLAIN_TYPES = {"float16", "float32", "float64", "bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64))}
LARGEST = 1e140
MOST_FAULTS = 100
MOST_NOTICES = 1_000
MOST_EVENTS = 10_000_000


@dataclass(frozen=True)
class Proof:
    """What an artifact is compared with, and how far it may be off."""

    golden: Golden
    limits: Limits = FLOAT32


@dataclass
class _Case:
    """What was told of a case so far."""

    artifact: JobArtifact
    proof: Proof | None
    loaded: Loaded | None = None
    processes: int = 0
    golden: list[Tensors] = field(default_factory=list)
    data: list[tuple[int, Tensors]] = field(default_factory=list)
    data_rows: int = 0
    warmup_ns: tuple[int, ...] = ()
    stable: bool = True
    blocks: list[Block] = field(default_factory=list)
    memory: Memory | None = None
    energy: Energy | None = None
    profile: tuple[OperationTime, ...] = ()
    instructions: float | None = None
    failure: Failure | None = None


class Recorder:
    """The events of one job on one device; it believes what can be true.

    With a `clock` the device's times are held against those that have passed here since it was made. `data_rows` is how
    many samples the job's data have.
    """

    def __init__(
        self,
        target: str,
        job: Job,
        facts: Sequence[ArtifactFacts],
        proofs: Sequence[Proof | None],
        board: str = "",
        *,
        clock: Callable[[], float] | None = None,
        data_rows: int | None = None,
    ) -> None:
        self._board = board
        self._target, self._job, self._facts = target, job, facts
        self._elapsed, self._data_rows = Elapsed(clock), data_rows
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._device: DeviceFacts | None = None
        self._cases = [_Case(job.artifacts[case.artifact], proofs[case.artifact]) for case in job.cases]
        self._conditions: list[Condition] = []
        self._faults: list[str] = []
        self._events = self._notices = 0
        self.ended = False

    @property
    def faults(self) -> str:
        """What was told that is no event, or of no case, in words; empty where all was well."""
        if not self._faults:
            return ""
        count = len(self._faults)
        return f"it told {self._faults[0]}" + (f", and {count - 1} more that are no events" if count > 1 else "")

    def hear(self, event: Json) -> bool:
        """Take an event in, and say whether it was: one that is malformed costs its case, which failed with it, and
        nothing else; one that is of no case is kept among the `faults`.

        Raises Malformed where nothing can be made of a device: it does not say what it is, or tells too much.
        """
        try:
            self.add(event)
        except Malformed as error:
            failure = None if error.case is None else self._cases[error.case].failure
            if error.case is not None and failure is None:
                self._cases[error.case].failure = Failure("malformed", f"it told {error}")
            elif failure is None or failure.cause != "malformed":
                self._faults.append(str(error))
            is_unknown = self._device is None and isinstance(event, dict) and event.get("event") == "device"
            if is_unknown or len(self._faults) > MOST_FAULTS or self._events > MOST_EVENTS:
                raise
            return False
        return True

    def add(self, event: Json) -> None:
        """Take an event in.

        Raises Malformed for one that docs/results.md does not allow, or that cannot be true: it changes nothing.
        """
        self._events += 1
        told = read_event(event, len(self._cases))
        try:
            self._check_order(told)
            TAKEN[told.name](self, None if told.case is None else self._cases[told.case], told.fields)
        except BadInput as error:
            raise Malformed(error.what, where=error.where or told.name, case=told.case) from error

    def _check_order(self, told: Told) -> None:
        """`device` comes first and once, `end` last; a case is loaded before it tells more, and over once it failed."""
        if self._events > MOST_EVENTS:
            raise BadInput(f"more than {MOST_EVENTS:,} events")
        if self.ended and told.name != "notice":  # the link itself tells of a drop while it is closed, too
            raise BadInput("it comes after the end")
        if told.name == "device" and self._device is not None:
            raise BadInput("it comes a second time")
        if told.name not in ("device", "progress", "notice") and self._device is None:
            raise BadInput("it comes before the device said what it is")
        if told.case is None:
            return
        case = self._cases[told.case]
        if case.failure is not None:
            raise BadInput(f"case {told.case} has failed")
        if case.loaded is None and told.name not in ("loaded", "failed"):
            raise BadInput(f"case {told.case} is not loaded")

    def device(self, case: None, told: Device) -> None:
        """The event `device`."""
        self._device = told.facts

    def condition(self, case: None, told: Condition) -> None:
        """The event `condition`."""
        self._elapsed.check(told.at_ns)
        self._conditions.append(told)

    def loaded(self, case: _Case, told: Loaded) -> None:
        """The event `loaded`: of the first process, whose load was the cold one."""
        if case.processes == self._job.processes:
            raise BadInput(f"it comes more often than the {self._job.processes} processes asked for")
        if told.inputs == "golden" and case.artifact.golden is None:
            raise BadInput("golden inputs, of which there are none")
        times = (told.import_ns, told.load_cold_ns, told.load_warm_ns, told.first_inference_ns)
        spent_ns = sum(time_ns or 0 for time_ns in times)
        self._elapsed.check(spent_ns, spent_ns)
        case.processes += 1
        case.loaded = case.loaded or told

    def outputs(self, case: _Case, told: Outputs) -> None:
        """The event `outputs`."""
        arrays = {name: decoded(value, f"outputs.{name:.60}") for name, value in told.outputs.items()}
        if told.of == "data":
            self._check_data(case, told, arrays)
            case.data.append((told.row, arrays))
            case.data_rows += told.rows
            return
        if case.artifact.golden is None or told.rows != 1:
            raise BadInput(f"{told.rows} golden samples, where one an event was asked for")
        if told.row != len(case.golden) or (case.proof and told.row >= len(case.proof.golden.outputs)):
            raise BadInput(f"row {told.row} comes after {len(case.golden)} others")
        case.golden.append(arrays)

    def _check_data(self, case: _Case, told: Outputs, arrays: Tensors) -> None:
        """Samples of the data follow each other, a row a sample, all of the same outputs.

        Raises BadInput.
        """
        most = math.inf if self._data_rows is None else self._data_rows
        if case.artifact.data is None:
            raise BadInput("data, of which there are none")
        if told.row != case.data_rows or told.row + told.rows > most:
            raise BadInput(f"row {told.row} comes after {case.data_rows} others")
        if not arrays or any(array.shape[:1] != (told.rows,) for array in arrays.values()):
            raise BadInput(f"outputs that have not a row for each of {told.rows} samples")
        if case.data and _kinds(arrays) != _kinds(case.data[0][1]):
            raise BadInput("other outputs than of the first samples")

    def warm(self, case: _Case, told: Warm) -> None:
        """The event `warm`: of the last process; stable only if it was in all."""
        spent_ns = sum(told.warmup_ns)
        self._elapsed.check(spent_ns, spent_ns)
        case.warmup_ns = told.warmup_ns
        case.stable = case.stable and told.stable

    def block(self, case: _Case, told: Block) -> None:
        """The event `block`."""
        if not told.times_ns or told.runs < len(told.times_ns):
            raise BadInput(f"{len(told.times_ns)} times of {told.runs} runs")
        if told.process >= max(self._job.processes, LEAST_ROUNDS):
            raise BadInput(f"process {told.process} of {self._job.processes}")
        last = case.blocks[-1] if case.blocks else told
        if (told.process, told.at_ns) < (last.process, last.at_ns) or told.at_ns < last.at_ns:
            raise BadInput("it is from before the last one")
        if median(told.times_ns) == 0:
            raise BadInput("a median of 0 ns: the device's clock does not move")
        spent_ns = sum(told.times_ns)
        self._elapsed.check(max(told.at_ns + spent_ns, told.runs * min(told.times_ns) / 2), spent_ns)
        case.blocks.append(told)

    def memory(self, case: _Case, told: Memory) -> None:
        """The event `memory`: of the process that took most."""
        if case.memory is None or (told.peak_bytes or 0) > (case.memory.peak_bytes or 0):
            case.memory = told

    def energy(self, case: _Case, told: Energy) -> None:
        """The event `energy`."""
        case.energy = told

    def profile(self, case: _Case, told: Profile) -> None:
        """The event `profile`."""
        for operation in told.operations:
            self._elapsed.check(operation.total_ns)
        case.profile = told.operations

    def instructions(self, case: _Case, told: Instructions) -> None:
        """The event `instructions`."""
        case.instructions = told.per_inference

    def failed(self, case: _Case, told: Failure) -> None:
        """The event `failed`."""
        case.failure = told

    def progress(self, case: None, told: Progress) -> None:
        """The event `progress`, which is for the screen."""

    def notice(self, case: None, told: Notice) -> None:
        """The event `notice`, which is for the screen."""
        if self._notices == MOST_NOTICES:
            raise BadInput(f"more than {MOST_NOTICES:,} of them")
        self._notices += 1

    def end(self, case: None, told: End) -> None:
        """The event `end`. A case that ran on golden inputs and does not tell what came of them all hides something."""
        self.ended = True
        for each in self._cases:
            wanted = len(each.proof.golden.outputs) if each.proof else 0
            ran = each.failure is None and each.loaded is not None and each.loaded.inputs == "golden"
            if ran and len(each.golden) < wanted:
                each.failure = Failure("malformed", f"it told {len(each.golden)} of {wanted} golden outputs")

    def answers(self, case: int) -> list[tuple[int, Tensors]]:
        """(first row, outputs) of a task's samples, as far as they came."""
        return self._cases[case].data

    def results(
        self, lost: Failure | None = None, accuracies: Mapping[int, Accuracy] | None = None
    ) -> tuple[Result, ...]:
        """One result a case, with what was told so far; `lost` is why no more came, for those that were not done."""
        if self._device is None:
            return ()
        return tuple(
            self._result(i, case, self._device, lost, (accuracies or {}).get(i)) for i, case in enumerate(self._cases)
        )

    def _result(
        self, i: int, case: _Case, device: DeviceFacts, lost: Failure | None, accuracy: Accuracy | None
    ) -> Result:
        chosen, job = self._job.cases[i], self._job
        by = None
        if case.loaded:
            by = ExecutedBy(case.loaded.runtime, case.loaded.version, device.executed)
        parity = _parity(case, by)
        samples = _samples(case, case.loaded) if case.loaded else None
        failure = case.failure or (lost if not self.ended else None)
        if failure is None and parity is not None and parity.verdict != "pass":
            failure = Failure("parity", parity.reason)
        settings = settings_of(job, chosen.threads, case.loaded.inputs if case.loaded else "")
        return Result(
            schema_version=RESULT_VERSION,
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{job.id}/{self._target}/{i}")),
            started_at=self._started_at,
            target=self._target,
            device=device,
            executed_by=by,
            artifact=self._facts[chosen.artifact],
            settings=settings,
            board=self._board,
            samples=samples,
            statistics=statistics_of(samples, job.sustained_s) if samples else None,
            memory=case.memory,
            conditions=tuple(self._conditions),
            energy=case.energy,
            profile=case.profile,
            instructions=case.instructions,
            parity=parity,
            accuracy=accuracy,
            versions={**device.software, **(case.loaded.versions if case.loaded else {})},
            notes=(*(case.loaded.notes if case.loaded else ()), *filter(None, [self.faults])),
            failure=failure,
        )


TAKEN: dict[str, Any] = {
    "device": Recorder.device,
    "condition": Recorder.condition,
    "loaded": Recorder.loaded,
    "outputs": Recorder.outputs,
    "warm": Recorder.warm,
    "block": Recorder.block,
    "memory": Recorder.memory,
    "energy": Recorder.energy,
    "profile": Recorder.profile,
    "instructions": Recorder.instructions,
    "failed": Recorder.failed,
    "progress": Recorder.progress,
    "notice": Recorder.notice,
    "end": Recorder.end,
}
"""event -> what takes it in, with the `_Case` that it is of, or None."""


def settings_of(job: Job, threads: int | None, inputs: str = "") -> Settings:
    """What a result keeps of its job."""
    names = {each.name for each in dataclasses.fields(Settings)} - {"threads", "inputs"}
    kept = {name: getattr(job, name) for name in names}
    return Settings(threads=threads, inputs=inputs, **kept)


def decoded(told: Array, where: str) -> np.ndarray:
    """An array as the event `outputs` carries it.

    Raises BadInput for another type or number of bytes, and for numbers whose squares no comparison could add up.
    """
    if told.dtype not in PLAIN_TYPES:
        raise BadInput(f"{told.dtype!r:.60} is no type of an output", where=where)
    try:
        content = base64.b64decode(told.data, validate=True)
    except ValueError as error:
        raise BadInput(f"its data are not base64 ({error})", where=where) from error
    dtype = np.dtype(told.dtype).newbyteorder("<")
    if len(content) != math.prod(told.shape) * dtype.itemsize:
        raise BadInput(f"{len(content)} bytes are no {told.dtype} of shape {list(told.shape)}", where=where)
    array = np.frombuffer(content, dtype).reshape(told.shape).astype(np.dtype(told.dtype))
    if dtype.itemsize == 8 and np.any(np.isfinite(array) & (np.abs(array) > LARGEST)):
        raise BadInput(f"it holds numbers beyond {LARGEST:g}", where=where)
    return array


def _parity(case: _Case, by: ExecutedBy | None) -> Parity | None:
    """Of the golden samples; None where there are none, or not all came."""
    if case.proof is None or by is None or len(case.golden) != len(case.proof.golden.outputs):
        return None
    measured = case.proof.golden.noise.get(case.artifact.format)
    return compare(case.proof.golden.outputs, case.golden, by, case.proof.limits, measured)


def _samples(case: _Case, told: Loaded) -> Samples:
    return Samples(
        import_ns=told.import_ns,
        load_cold_ns=told.load_cold_ns,
        load_warm_ns=told.load_warm_ns,
        first_inference_ns=told.first_inference_ns,
        page_cache_dropped=told.page_cache_dropped,
        warmup_ns=case.warmup_ns,
        stable=case.stable,
        blocks=tuple(case.blocks),
    )


def _kinds(arrays: Tensors) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By name the type and the shape of a sample."""
    return {name: (array.dtype.name, array.shape[1:]) for name, array in arrays.items()}


def with_kernels(results: Sequence[Result], found: Mapping[str, KernelTruth | None]) -> tuple[Result, ...]:
    """The results with the kernel truth of their artifact, by its hash, where there is one."""
    return tuple(replace(result, kernels=found.get(result.artifact.sha256)) for result in results)
