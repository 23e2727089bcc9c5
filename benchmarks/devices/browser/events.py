"""What a browser may post: the events of docs/results.md that a page can tell, each field with its type and range."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from benchmarks.console import shown
from benchmarks.results.events import LENGTHS, MOST_BYTES, MOST_INFERENCES, MOST_NS

MOST_EVENTS = 10_000
MOST_WARMUP_TIMES = 1_000_000
ITEM_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bool": 1} | {
    f"{kind}{bits}": bits // 8 for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
"""The dtypes of outputs."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that a terminal would obey")
    return text


Text = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Word = Annotated[str, StringConstraints(max_length=200), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0, le=MOST_INFERENCES)]
Bytes = Annotated[int, Field(ge=0, le=MOST_BYTES)]
Ns = Annotated[int, Field(ge=0, le=MOST_NS)]
Time = Annotated[int, Field(ge=1, le=MOST_NS)]


class _Posted(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Facts(_Posted):
    """See `benchmarks.results.result.DeviceFacts`; a page that calls itself anything but a browser is refused."""

    model: Word
    family: Literal["desktop", "phone"]
    cpu: Word
    architecture: Word
    cores: Annotated[int, Field(ge=1, le=4096)] | None
    memory_bytes: Bytes | None
    os: Word
    executed: Literal["browser"]
    emulator: Literal[""]
    software: Annotated[dict[Word, Word], Field(max_length=20)]


class Device(_Posted):
    """What runs the page."""

    event: Literal["device"]
    facts: Facts


class Loaded(_Posted):
    """A model is loaded."""

    event: Literal["loaded"]
    case: Count
    runtime: Word
    version: Word
    inputs: Literal["golden", "random"]
    import_ns: Ns
    load_cold_ns: Ns
    load_warm_ns: Ns
    first_inference_ns: Ns
    page_cache_dropped: Literal[False]
    notes: Annotated[list[Text], Field(max_length=20)]


class Array(_Posted):
    """One output, little-endian."""

    dtype: Word
    shape: Annotated[list[Count], Field(max_length=16)]
    data: str

    def size_bytes(self) -> int:
        """Bytes of the array; ValueError for a type that is none of an output's."""
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"outputs of type {self.dtype!r}")
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class Outputs(_Posted):
    """What a model computed."""

    event: Literal["outputs"]
    case: Count
    of: Literal["golden", "data"]
    row: Count
    rows: Annotated[int, Field(ge=1, le=1_000_000)]
    outputs: Annotated[dict[Word, Array], Field(min_length=1, max_length=1_000)]


class Warm(_Posted):
    """The warm-up's times."""

    event: Literal["warm"]
    case: Count
    warmup_ns: Annotated[list[Time], Field(max_length=MOST_WARMUP_TIMES)]
    stable: bool


class Block(_Posted):
    """Times of inferences that followed each other."""

    event: Literal["block"]
    case: Count
    process: Count
    at_ns: Ns
    runs: Annotated[int, Field(ge=1, le=MOST_INFERENCES)]
    times_ns: Annotated[list[Time], Field(min_length=1, max_length=LENGTHS["times_ns"])]


class Memory(_Posted):
    """Memory of the page's worker."""

    event: Literal["memory"]
    case: Count
    baseline_bytes: Bytes | None
    steady_bytes: Bytes | None
    peak_bytes: Bytes | None


class Energy(_Posted):
    """A browser knows of none."""

    event: Literal["energy"]
    case: Count
    joules: None
    inferences: Count
    source: Literal[""]
    note: Text


class Failed(_Posted):
    """A case is over."""

    event: Literal["failed"]
    case: Count
    cause: Literal["refused", "crashed", "timed-out", "out-of-memory"]
    detail: Text


class Progress(_Posted):
    """How far the turns are."""

    event: Literal["progress"]
    done: Count
    total: Count


class End(_Posted):
    """Nothing more will come."""

    event: Literal["end"]


Event = Device | Loaded | Outputs | Warm | Block | Memory | Energy | Failed | Progress | End


class Batch(_Posted):
    """The body of a post: `number` counts the posts of a session from 0 on."""

    number: Count
    events: Annotated[list[Annotated[Event, Field(discriminator="event")]], Field(max_length=MOST_EVENTS)]


class Leave(_Posted):
    """Why a page gives up."""

    reason: Text


_BATCH = TypeAdapter(Batch)
_LEAVE = TypeAdapter(Leave)


def batch_of(body: bytes) -> Batch:
    """The events of a post. Raises ValueError, in one line, for anything else."""
    found: Batch = _validated(_BATCH, body)
    return found


def leave_of(body: bytes) -> Leave:
    """The reason of a page that leaves. Raises ValueError, in one line, for anything else."""
    found: Leave = _validated(_LEAVE, body)
    return found


def _validated(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(shown(f"{place}: {first['msg']}" if place else first["msg"])[:300]) from error
