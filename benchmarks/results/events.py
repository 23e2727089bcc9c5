"""What a device tells of a job: every event with its fields, their types in JSON, and units in their names.

This is the contract: tests/benchmarks/results/test_events.py holds everybody who tells or takes events to it, in any
language (the agent, the phone's runner in C, the browser's page in TypeScript, the Android demo in Java), and the list
in docs/results.md, which says what the fields mean. A field with a default may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.results.result import Block, Condition, DeviceFacts, Energy, Failure, Memory, OperationTime


@dataclass(frozen=True)
class Device:
    """What runs the job; the first event."""

    facts: DeviceFacts


@dataclass(frozen=True)
class Loaded:
    """A model is loaded: its runtime, and how long that took; `inputs` is golden or random."""

    runtime: str
    version: str
    inputs: str
    import_ns: int | None
    load_cold_ns: int | None
    load_warm_ns: int | None
    first_inference_ns: int | None
    page_cache_dropped: bool
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Array:
    """`data` is base64 of the array's little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: str


@dataclass(frozen=True)
class Outputs:
    """What a model computed of `rows` samples from number `row` on; `of` is golden or data."""

    of: str
    row: int
    rows: int
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Warm:
    """The times of the warm-up, and whether they settled."""

    warmup_ns: tuple[int, ...]
    stable: bool


@dataclass(frozen=True)
class Profile:
    """The runtime's own profile, by kind of operation."""

    operations: tuple[OperationTime, ...]


@dataclass(frozen=True)
class Instructions:
    """Instructions that an emulated processor executes for an inference."""

    per_inference: float


@dataclass(frozen=True)
class Progress:
    """How far it is; `what` is "push" while files travel, whose bytes are counted."""

    done: float
    total: float
    what: str = ""


@dataclass(frozen=True)
class Notice:
    """A line for the user."""

    text: str


@dataclass(frozen=True)
class End:
    """Nothing more will come."""


OF_THE_JOB = {"device": Device, "condition": Condition, "progress": Progress, "notice": Notice, "end": End}
OF_A_CASE = {
    "loaded": Loaded,
    "outputs": Outputs,
    "warm": Warm,
    "block": Block,
    "memory": Memory,
    "energy": Energy,
    "profile": Profile,
    "instructions": Instructions,
    "failed": Failure,
}
"""These have `case`, too: a number of the job's cases."""

EVENTS = {**OF_THE_JOB, **OF_A_CASE}
