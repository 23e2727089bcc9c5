"""What a device is asked to do: a job in JSON, the same for every kind of device, and the files that it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JOB_VERSION = 1

Json = dict[str, Any]


@dataclass(frozen=True)
class JobArtifact:
    """One artifact: `file`, `golden` and `data` are keys of the job's files, made of hash and suffix.

    `file` is a file, or for Core ML a package folder. `golden` is a golden.npz, `data` an .npz of `[samples, ...]`
    arrays by input name: either is None where there is none.
    """

    name: str
    format: str
    file: str
    size_bytes: int
    sha256: str
    golden: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class Case:
    """One thing to measure: an artifact (its number in the job) at a number of threads, None where it cannot be set."""

    artifact: int
    threads: int | None


@dataclass(frozen=True)
class Job:
    """One bench on one device. Every case is measured for `seconds` at least, in `processes` processes in a row.

    `precision` is the wanted half width of the median's 95% interval over the median; `warmup_s` the longest warm-up;
    `data_s` how long an artifact may take over its `data`; `sustained_s` instead of turns lets each case run alone for
    so long; a device that gives no answer within `timeout_s` hangs.
    """

    id: str
    artifacts: tuple[JobArtifact, ...]
    cases: tuple[Case, ...]
    seconds: float = 2.0
    warmup_s: float = 10.0
    precision: float | None = None
    batch: int | None = None
    affinity: tuple[int, ...] | None = None
    sustained_s: float | None = None
    data_s: float = 120.0
    timeout_s: float = 600.0
    profile: bool = True
    processes: int = 1
    seed: int = 0
    schema_version: int = JOB_VERSION
