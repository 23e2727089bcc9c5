"""Events of a device, one by one, into results: checked as they come, so that what was told before a failure counts."""

from __future__ import annotations

import base64
import dataclasses
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.job import Job, Json
from benchmarks.results.events import OF_A_CASE
from benchmarks.results.result import (
    CAUSES,
    FAMILIES,
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
from runtimes.compare import FLOAT32, Limits, compare
from runtimes.errors import BadInput
from runtimes.golden import Golden, Tensors
from runtimes.kernels import KernelTruth
from runtimes.records import from_json
from runtimes.signature import ExecutedBy
from runtimes.types import EXECUTION_KINDS, Accuracy, Parity

PLAIN_TYPES = {"float16", "float32", "float64", "bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64))}


@dataclass(frozen=True)
class Proof:
    """What an artifact is compared with, and how far it may be off."""

    golden: Golden
    limits: Limits = FLOAT32


@dataclass
class _Case:
    """What was told of a case so far."""

    loaded: Json = field(default_factory=dict)
    golden: list[Tensors] = field(default_factory=list)
    data: list[tuple[int, Tensors]] = field(default_factory=list)
    warmup_ns: tuple[int, ...] = ()
    stable: bool = True
    blocks: list[Block] = field(default_factory=list)
    memory: Memory | None = None
    energy: Energy | None = None
    profile: tuple[OperationTime, ...] = ()
    instructions: float | None = None
    failure: Failure | None = None


class Recorder:
    """The events of one job on one device."""

    def __init__(
        self,
        target: str,
        job: Job,
        facts: Sequence[ArtifactFacts],
        proofs: Sequence[Proof | None],
        board: str = "",
    ) -> None:
        self._board = board
        self._target, self._job, self._facts, self._proofs = target, job, facts, proofs
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._device: DeviceFacts | None = None
        self._cases = [_Case() for _ in job.cases]
        self._conditions: list[Condition] = []
        self.ended = False

    def add(self, event: Json) -> None:
        """Take an event in.

        Raises BadInput for one that docs/results.md does not allow, which changes nothing.
        """
        name = event.get("event") if isinstance(event, dict) else None
        if name not in TAKEN:
            raise BadInput(f"{name!r:.60} is no event", where="event")
        fields = {key: value for key, value in event.items() if key != "event"}
        case = fields.pop("case", None)
        of_case = name in OF_A_CASE
        if of_case and not (type(case) is int and 0 <= case < len(self._cases)):
            raise BadInput(f"case {case!r:.60} is none of the job's", where=name)
        TAKEN[name](self, self._cases[case] if of_case else None, fields)

    def device(self, case: None, fields: Json) -> None:
        """The event `device`."""
        facts: DeviceFacts = from_json(DeviceFacts, fields.get("facts"), "facts")
        for found, allowed in ((facts.executed, EXECUTION_KINDS), (facts.family, FAMILIES)):
            if found not in allowed:
                raise BadInput(f"{found!r:.60} is none of {', '.join(allowed)}", where="facts")
        self._device = facts

    def condition(self, case: None, fields: Json) -> None:
        """The event `condition`."""
        self._conditions.append(from_json(Condition, fields, "condition"))

    def loaded(self, case: _Case, fields: Json) -> None:
        """The event `loaded`: of the first process, whose load was the cold one."""
        times = ("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns")
        for key in times:
            _whole(fields.get(key), key, optional=True)
        for key in ("runtime", "version", "inputs"):
            if not isinstance(fields.get(key), str):
                raise BadInput(f"no {key}", where="loaded")
        from_json(tuple[str, ...], fields.get("notes", []), "loaded.notes")
        from_json(dict[str, str], fields.get("versions", {}), "loaded.versions")
        case.loaded = case.loaded or fields

    def outputs(self, case: _Case, fields: Json) -> None:
        """The event `outputs`."""
        row, rows = _whole(fields.get("row"), "row"), _whole(fields.get("rows"), "rows")
        if fields.get("of") not in ("golden", "data") or rows < 1 or not isinstance(fields.get("outputs"), dict):
            raise BadInput("of is golden or data, rows is at least 1, outputs are by name", where="outputs")
        arrays = {name: decoded(value, f"outputs.{name:.60}") for name, value in fields["outputs"].items()}
        if fields["of"] == "data":
            case.data.append((row, arrays))
            return
        if row != len(case.golden):
            raise BadInput(f"row {row} comes after {len(case.golden)} others", where="outputs")
        case.golden.append(arrays)

    def warm(self, case: _Case, fields: Json) -> None:
        """The event `warm`: of the last process; stable only if it was in all."""
        case.warmup_ns = _times(fields.get("warmup_ns"), "warmup_ns")
        case.stable = case.stable and fields.get("stable") is True

    def block(self, case: _Case, fields: Json) -> None:
        """The event `block`."""
        times = _times(fields.get("times_ns"), "times_ns")
        process, at_ns, runs = (_whole(fields.get(key), key) for key in ("process", "at_ns", "runs"))
        if not times or runs < len(times):
            raise BadInput(f"{len(times)} times of {runs} runs", where="block")
        case.blocks.append(Block(process, at_ns, runs, times))

    def memory(self, case: _Case, fields: Json) -> None:
        """The event `memory`: of the process that took most."""
        found: Memory = from_json(Memory, fields, "memory")
        if case.memory is None or (found.peak_bytes or 0) > (case.memory.peak_bytes or 0):
            case.memory = found

    def energy(self, case: _Case, fields: Json) -> None:
        """The event `energy`."""
        case.energy = from_json(Energy, fields, "energy")

    def profile(self, case: _Case, fields: Json) -> None:
        """The event `profile`."""
        case.profile = from_json(tuple[OperationTime, ...], fields.get("operations"), "profile")

    def instructions(self, case: _Case, fields: Json) -> None:
        """The event `instructions`."""
        value = fields.get("per_inference")
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise BadInput(f"{value!r:.60} is no number of instructions", where="instructions")
        case.instructions = float(value)

    def failed(self, case: _Case, fields: Json) -> None:
        """The event `failed`."""
        failure: Failure = from_json(Failure, fields, "failed")
        if failure.cause not in CAUSES:
            raise BadInput(f"{failure.cause!r:.60} is none of {', '.join(CAUSES)}", where="failed")
        case.failure = failure

    def progress(self, case: None, fields: Json) -> None:
        """The events `progress` and `notice`, which are for the screen."""

    def end(self, case: None, fields: Json) -> None:
        """The event `end`."""
        self.ended = True

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
            by = ExecutedBy(case.loaded["runtime"], case.loaded["version"], device.executed)
        parity = self._parity(chosen.artifact, case, by)
        samples = _samples(case) if case.loaded else None
        failure = case.failure or (lost if not self.ended else None)
        if failure is None and parity is not None and parity.verdict != "pass":
            failure = Failure("parity", parity.reason)
        settings = settings_of(job, chosen.threads, case.loaded.get("inputs", ""))
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
            versions={**device.software, **case.loaded.get("versions", {})},
            notes=tuple(case.loaded.get("notes", ())),
            failure=failure,
        )

    def _parity(self, artifact: int, case: _Case, by: ExecutedBy | None) -> Parity | None:
        """Of the golden samples; None where there are none, or not all came."""
        proof = self._proofs[artifact]
        if proof is None or by is None or len(case.golden) != len(proof.golden.outputs):
            return None
        return compare(proof.golden.outputs, case.golden, by, proof.limits)


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
    "notice": Recorder.progress,
    "end": Recorder.end,
}
"""event -> what takes it in, with the `_Case` that it is of, or None."""


def settings_of(job: Job, threads: int | None, inputs: str = "") -> Settings:
    """What a result keeps of its job."""
    names = {each.name for each in dataclasses.fields(Settings)} - {"threads", "inputs"}
    kept = {name: getattr(job, name) for name in names}
    return Settings(threads=threads, inputs=inputs, **kept)


def decoded(value: Any, where: str) -> np.ndarray:
    """An array as the event `outputs` carries it.

    Raises BadInput for another type, shape or number of bytes.
    """
    if not isinstance(value, dict) or value.get("dtype") not in PLAIN_TYPES or not isinstance(value.get("data"), str):
        raise BadInput("no array", where=where)
    shape: tuple[int, ...] = from_json(tuple[int, ...], value.get("shape"), where)
    try:
        content = base64.b64decode(value["data"], validate=True)
    except ValueError as error:
        raise BadInput(f"its data are not base64 ({error})", where=where) from error
    dtype = np.dtype(value["dtype"]).newbyteorder("<")
    if any(length < 0 for length in shape) or len(content) != math.prod(shape) * dtype.itemsize:
        raise BadInput(f"{len(content)} bytes are no {value['dtype']} of shape {list(shape)}", where=where)
    return np.frombuffer(content, dtype).reshape(shape).astype(np.dtype(value["dtype"]))


def _samples(case: _Case) -> Samples:
    told = case.loaded
    return Samples(
        import_ns=told.get("import_ns"),
        load_cold_ns=told.get("load_cold_ns"),
        load_warm_ns=told.get("load_warm_ns"),
        first_inference_ns=told.get("first_inference_ns"),
        page_cache_dropped=told.get("page_cache_dropped") is True,
        warmup_ns=case.warmup_ns,
        stable=case.stable,
        blocks=tuple(case.blocks),
    )


def _times(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(v) is int and 0 <= v < 2**63 for v in value):
        raise BadInput("no list of nanoseconds", where=where)
    return tuple(value)


def _whole(value: Any, where: str, optional: bool = False) -> int:
    if optional and value is None:
        return 0
    if type(value) is not int or not 0 <= value < 2**63:
        raise BadInput(f"{value!r:.60} is no whole number from 0", where=where)
    return value


def with_kernels(results: Sequence[Result], found: Mapping[str, KernelTruth | None]) -> tuple[Result, ...]:
    """The results with the kernel truth of their artifact, by its hash, where there is one."""
    return tuple(replace(result, kernels=found.get(result.artifact.sha256)) for result in results)
