"""What a device tells of a job: every event with its fields, their types in JSON, and units in their names.

This is the contract: tests/benchmarks/results/test_events.py holds everybody who tells or takes events to it, in any
language (the agent, the phone's runner in C, the browser's page in TypeScript, the Android demo in Java), and the list
in docs/results.md, which says what the fields mean. A field with a default may be left out. `read_event` believes no
device: every field has a type, every number a range, every text and list a length.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from benchmarks.job import Json
from benchmarks.results.result import (
    CAUSES,
    FAMILIES,
    Block,
    Condition,
    DeviceFacts,
    Energy,
    Failure,
    Memory,
    OperationTime,
)
from runtimes.errors import BadInput
from runtimes.records import from_json
from runtimes.types import EXECUTION_KINDS


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


# --- what may stand in a field -------------------------------------------------------------------------------------

MOST_NS = 10**16
MOST_BYTES = 2**48
MOST_INFERENCES = 10**12
RANGES: dict[str, tuple[float, float]] = {
    "calls": (0, MOST_INFERENCES),
    "cores": (1, 4096),
    "done": (0, MOST_BYTES),
    "frequencies_khz": (0, 10**9),
    "inferences": (0, MOST_INFERENCES),
    "joules": (0, 1e12),
    "load": (0, 1e6),
    "per_inference": (0, 1e18),
    "process": (0, 10**6),
    "row": (0, MOST_INFERENCES),
    "rows": (1, 10**6),
    "runs": (1, MOST_INFERENCES),
    "shape": (0, MOST_BYTES),
    "temperature_c": (-100, 1000),
    "total": (0, MOST_BYTES),
}
"""By a number's name, the least and the most that can be true; those in `_ns` and in `_bytes` have one in common."""
LENGTHS = {
    "frequencies_khz": 4096,
    "notes": 100,
    "operations": 10_000,
    "outputs": 1_000,
    "shape": 32,
    "software": 100,
    "throttled": 100,
    "times_ns": 1_000,
    "versions": 100,
    "warmup_ns": 10_000_000,
}
"""The most entries of a list or an object, by its name."""
WORDS: dict[str, tuple[str, ...]] = {
    "cause": CAUSES,
    "executed": EXECUTION_KINDS,
    "family": FAMILIES,
    "inputs": ("golden", "random"),
    "of": ("golden", "data"),
    "when": ("before", "during", "after"),
}
"""The texts that a field may hold, where it may not hold any."""
LONGEST_NAME = 300
LONGEST_TEXT = 10_000
TEXTS = {"detail", "note", "notes", "text"}
"""Texts for a reader, which may be longer than names."""


UNREADABLE = "unreadable"
"""The one key of what stands for a line that is no JSON object: why it is none."""


class Malformed(BadInput):
    """What is no event, or one that cannot be true; `case` is the one that it is of, where it can be told."""

    def __init__(self, what: str, *, where: str = "", case: int | None = None) -> None:
        super().__init__(what, where=where)
        self.case = case


@dataclass(frozen=True)
class Told:
    """An event that was read: its name, the number of its case (None of the job's own), its fields."""

    name: str
    case: int | None
    fields: Any


def read_event(event: Any, cases: int) -> Told:
    """An event of a job of so many cases, every field of it within its bounds.

    Raises Malformed.
    """
    told = event if isinstance(event, dict) else {}
    if UNREADABLE in told:
        raise Malformed(f"{told[UNREADABLE]!s:.300}", where="a line")
    name, case = told.get("event"), told.get("case")
    known = case if type(case) is int and 0 <= case < cases else None
    if not isinstance(name, str) or name not in EVENTS:
        raise Malformed(f"{name!r:.60} is no event", where="event", case=known)
    if name in OF_A_CASE and known is None:
        raise Malformed(f"case {case!r:.60} is none of the job's", where=name)
    fields = {key: value for key, value in told.items() if key != "event" and not (key == "case" and name in OF_A_CASE)}
    try:
        return Told(name, known if name in OF_A_CASE else None, _record(EVENTS[name], fields, name))
    except BadInput as error:
        raise Malformed(error.what, where=error.where, case=known if name in OF_A_CASE else None) from error


def _record(kind: Any, fields: Json, where: str) -> Any:
    """Times are read apart: there may be millions of them."""
    times = {key: _times(fields[key], key) for key in ("times_ns", "warmup_ns") if key in fields}
    try:
        record = from_json(kind, {**fields, **{key: [] for key in times}}, where)
        check(record, where)
    except (OverflowError, RecursionError, ValueError) as error:
        raise BadInput(f"a number or a nesting beyond all bounds ({type(error).__name__})", where=where) from error
    return dataclasses.replace(record, **times)


def _times(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(v) is int and 0 <= v <= MOST_NS for v in value):
        raise BadInput("no list of nanoseconds", where=name)
    if len(value) > LENGTHS[name]:
        raise BadInput(f"{len(value):,} entries are too many", where=name)
    return tuple(value)


def check(value: Any, where: str, name: str = "") -> None:
    """Raises BadInput for a number, a text or a length in a record that is beyond its bounds."""
    if dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            check(getattr(value, part.name), f"{where}.{part.name}", part.name)
    elif isinstance(value, (tuple, dict)):
        if len(value) > LENGTHS[name]:
            raise BadInput(f"{len(value):,} entries are too many", where=where)
        for entry in (*value, *value.values()) if isinstance(value, dict) else value:
            check(entry, where, name)
    elif isinstance(value, str):
        _check_text(value, where, name)
    elif value is not None and not isinstance(value, bool):
        least, most = range_of(name)
        if not least <= value <= most:  # NaN, too
            raise BadInput(f"{value:.6g} is not within {least:,} and {most:,}", where=where)


def _check_text(text: str, where: str, name: str) -> None:
    if name in WORDS and text not in WORDS[name]:
        raise BadInput(f"{text!r:.60} is none of {', '.join(WORDS[name])}", where=where)
    longest = LONGEST_TEXT if name in TEXTS else LONGEST_NAME
    if name != "data" and len(text) > longest:
        raise BadInput(f"a text of {len(text):,} characters, {longest:,} at most", where=where)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInput("half a character", where=where)


def range_of(name: str) -> tuple[float, float]:
    """The least and the most that a number of this name may be."""
    if name.endswith("_ns"):
        return 0, MOST_NS
    return (0, MOST_BYTES) if name.endswith("_bytes") else RANGES[name]
