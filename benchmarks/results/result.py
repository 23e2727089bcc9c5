"""What a bench finds: one `Result` for each artifact, device and number of threads; docs/results.md documents it.

Samples are raw, as the device sent them; `Statistics` is derived from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.console import plain
from benchmarks.results.stats import median, process_median_interval, quantile, ratio_interval
from runtimes.errors import BadInput
from runtimes.files import parse_json, read_regular
from runtimes.kernels import KernelTruth
from runtimes.records import from_json
from runtimes.signature import ExecutedBy
from runtimes.types import EXECUTION_KINDS, Accuracy, Parity
from runtimes.writing import write_file

RESULT_VERSION = 1
MOST_BYTES = 1 << 26
"""Of a file of results: an hour of the thousand inferences a second that are kept has 25 MB."""
WRITTEN = "give a file that bench --output wrote"
FAMILIES = ("desktop", "raspberry-pi", "phone", "board")


@dataclass(frozen=True)
class DeviceFacts:
    """The machine that executed. `executed` is one of `EXECUTION_KINDS`, `family` one of `FAMILIES`.

    For an emulated machine, `model` and `cpu` are what the emulator shows and `emulator` names it; for a browser
    `family` is the machine that it runs on, as its user agent says.
    """

    model: str
    family: str
    cpu: str
    architecture: str
    cores: int | None
    memory_bytes: int | None
    os: str
    executed: str
    emulator: str = ""
    software: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactFacts:
    """The file that ran: `name` as the user gave it; the bundle's folder, model and precision where it is of one."""

    name: str
    format: str
    size_bytes: int
    sha256: str
    bundle: str = ""
    model: str = ""
    precision: str = ""
    recipe: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What was asked of the device. `inputs` is "golden", "random", or "" where nothing ran."""

    threads: int | None
    seconds: float
    warmup_s: float
    batch: int | None
    affinity: tuple[int, ...] | None
    sustained_s: float | None
    precision: float | None
    processes: int
    seed: int
    inputs: str = ""


@dataclass(frozen=True)
class Block:
    """Inferences that followed each other in one process: their times, and when the first began on the device's clock.

    `runs` counts all that were computed in the block: in sustained mode only the first of a second are kept.
    """

    process: int
    at_ns: int
    runs: int
    times_ns: tuple[int, ...]


@dataclass(frozen=True)
class Samples:
    """What was measured, raw; None is what the device could not tell.

    `import_ns` is the runtime's library, `load_cold_ns` the first load with the file out of the page cache where
    `page_cache_dropped`, `load_warm_ns` the next one. `stable` says whether the warm-up settled in its time.
    """

    import_ns: int | None
    load_cold_ns: int | None
    load_warm_ns: int | None
    first_inference_ns: int | None
    page_cache_dropped: bool
    warmup_ns: tuple[int, ...]
    stable: bool
    blocks: tuple[Block, ...]

    @property
    def times_ns(self) -> tuple[int, ...]:
        """Every inference that was kept."""
        return tuple(time for block in self.blocks for time in block.times_ns)

    @cached_property
    def block_medians_ns(self) -> tuple[float, ...]:
        """One figure a block: inferences that follow each other are alike, blocks less so."""
        return tuple(median(block.times_ns) for block in self.blocks)

    @property
    def process_medians_ns(self) -> tuple[tuple[float, ...], ...]:
        """The block medians by process; 1 ns where a coarse clock saw none pass."""
        found: dict[int, list[float]] = {}
        for block in self.blocks:
            found.setdefault(block.process, []).append(max(1.0, median(block.times_ns)))
        return tuple(map(tuple, found.values()))


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process that ran the artifact: before it was loaded, after the runs, and at its peak."""

    baseline_bytes: int | None
    steady_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Condition:
    """One look at the machine, `when` "before", "during" or "after": what it does not tell is None or empty."""

    at_ns: int
    when: str
    frequencies_khz: tuple[int, ...] = ()
    governor: str | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None
    load: float | None = None


@dataclass(frozen=True)
class Energy:
    """What the board's counter says of `inferences` inferences; `joules` is None where it is unknown, `note` says why.

    The counter is that of the whole board or processor, whatever else ran on it included.
    """

    joules: float | None
    inferences: int
    source: str
    note: str = ""


@dataclass(frozen=True)
class OperationTime:
    """One kind of operation in the runtime's own profile, over `runs` inferences."""

    operation: str
    calls: int
    total_ns: int
    runs: int


@dataclass(frozen=True)
class Failure:
    """Why a result is not whole: `cause` is one of `CAUSES`, `detail` one line."""

    cause: str
    detail: str


CAUSES = (
    *("refused", "crashed", "timed-out", "out-of-memory", "parity", "link-lost", "agent-killed", "disk-full"),
    *("malformed", "interrupted"),
)


@dataclass(frozen=True)
class Statistics:
    """Of one artifact's samples, in milliseconds. `low_ms` to `high_ms` is the 95% interval of the median.

    It says where the median of another run lies: see `benchmarks.results.stats.process_median_interval`.
    """

    inferences: int
    blocks: int
    min_ms: float
    p50_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float
    minute_1_ms: float | None = None
    last_minute_ms: float | None = None
    slowdown: float | None = None
    slowdown_low: float | None = None
    slowdown_high: float | None = None


@dataclass(frozen=True)
class Result:
    """One artifact on one device at one number of threads; `target` is what the user typed after --on.

    `board` is its name in a fleet.
    """

    schema_version: int
    id: str
    started_at: str
    target: str
    device: DeviceFacts
    executed_by: ExecutedBy | None
    artifact: ArtifactFacts
    settings: Settings
    board: str = ""
    samples: Samples | None = None
    statistics: Statistics | None = None
    memory: Memory | None = None
    conditions: tuple[Condition, ...] = ()
    energy: Energy | None = None
    profile: tuple[OperationTime, ...] = ()
    instructions: float | None = None
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    kernels: KernelTruth | None = None
    versions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


MINUTE_NS = 60_000_000_000


def statistics_of(samples: Samples, sustained_s: float | None = None) -> Statistics | None:
    """The figures of an artifact's samples, None of none; in sustained mode also the first minute beside the last.

    `slowdown` is the ratio of the last minute's median to the first's, with its interval.
    """
    times = samples.times_ns
    if not times:
        return None
    middle = process_median_interval(samples.process_medians_ns)
    found = Statistics(
        inferences=sum(block.runs for block in samples.blocks),
        blocks=len(samples.blocks),
        min_ms=min(times) / 1e6,
        p50_ms=middle.value / 1e6,
        low_ms=middle.low / 1e6,
        high_ms=middle.high / 1e6,
        p90_ms=quantile(times, 0.90) / 1e6,
        p99_ms=quantile(times, 0.99) / 1e6,
        per_second=1e9 / middle.value,
    )
    if not sustained_s:
        return found
    start = samples.blocks[0].at_ns
    end = samples.blocks[-1].at_ns
    span = min(MINUTE_NS, max(1, (end - start) // 2))
    first = [median(b.times_ns) for b in samples.blocks if b.at_ns - start < span]
    last = [median(b.times_ns) for b in samples.blocks if end - b.at_ns < span]
    ratio = ratio_interval(last, first, paired=False)
    return replace(
        found,
        minute_1_ms=median(first) / 1e6,
        last_minute_ms=median(last) / 1e6,
        slowdown=ratio.value,
        slowdown_low=ratio.low,
        slowdown_high=ratio.high,
    )


def read_results(path: Path) -> tuple[Result, ...]:
    """The results of a file that `write_results` wrote.

    Raises BadInput for a file that is missing, is no JSON, is of another version, or has a field that is wrong.
    """
    try:
        value = parse_json(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path), remedy="check the path") from error
    except ValueError as error:
        raise BadInput(
            f"not JSON ({error})", where=str(path), remedy="give a file that bench --output wrote"
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        raise BadInput("no file of results", where=str(path), remedy=WRITTEN)
    return tuple(result_from_json(entry, f"{path}: results[{i}]") for i, entry in enumerate(value["results"]))


def result_from_json(value: Any, where: str) -> Result:
    """A result of what JSON gave.

    Raises BadInput for another version, a field that is missing, unknown or of another type, and a word that is none.
    """
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != RESULT_VERSION:
        raise BadInput(
            f"result version is {version!r:.60}, this pocketship reads {RESULT_VERSION}",
            where=where,
            remedy="bench again",
        )
    try:
        result: Result = from_json(Result, {**value, "parity": _with_infinity(value.get("parity"))})
    except BadInput as error:
        raise BadInput(error.what, where=f"{where}.{error.where}", remedy="bench again") from error
    for found, allowed in (
        (result.device.executed, EXECUTION_KINDS),
        (result.device.family, FAMILIES),
        (result.failure.cause if result.failure else CAUSES[0], CAUSES),
    ):
        if found not in allowed:
            raise BadInput(f"{found!r:.60} is none of {', '.join(allowed)}", where=where, remedy="bench again")
    samples = result.samples
    if samples and not all(b.times_ns and len(b.times_ns) <= b.runs and min(b.times_ns) >= 0 for b in samples.blocks):
        raise BadInput("a block's times are none", where=f"{where}.samples", remedy="bench again")
    derived = statistics_of(samples, result.settings.sustained_s) if samples else None
    return replace(result, statistics=derived)  # samples are what was measured: nothing else is believed


def _with_infinity(parity: Any) -> Any:
    """A parity from JSON, which has no infinity and no NaN: errors that were written as null were of no finite size."""
    if not isinstance(parity, dict):
        return parity
    worst = {"max_abs_error": math.inf, "max_rel_error": math.inf, "cosine": 0.0, "sensitivity": 0.0}
    return {**parity, **{name: value for name, value in worst.items() if name in parity and parity[name] is None}}


def results_to_json(results: Sequence[Result]) -> dict[str, Any]:
    """What a file of results holds."""
    return {"schema_version": RESULT_VERSION, "results": [asdict(result) for result in results]}


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write a file of results, in one rename.

    Raises BadInput where it cannot be written.
    """
    write_file(path, [(json.dumps(plain(results_to_json(results))) + "\n").encode()])


def result_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file of results."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Result).json_schema(ref_template="#/$defs/{model}")
    definitions = schema.pop("$defs")
    for record in (schema, *definitions.values()):
        record["additionalProperties"] = False  # as runtimes.records.from_json refuses them
    for name in ("max_abs_error", "max_rel_error", "cosine", "sensitivity"):  # infinity and NaN are null in JSON
        definitions["Parity"]["properties"][name]["type"] = ["number", "null"]
    results = {"type": "array", "items": {"$ref": "#/$defs/Result"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"pocketship bench results, version {RESULT_VERSION}",
        "type": "object",
        "properties": {"schema_version": {"const": RESULT_VERSION}, "results": results},
        "required": ["schema_version", "results"],
        "additionalProperties": False,
        "$defs": {**definitions, "Result": schema},
    }
