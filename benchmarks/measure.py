"""Latency of several artifacts on this machine, for the ledger and the comparisons: the agent, asked for that alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.devices.local import do
from benchmarks.job import Case, Job, JobArtifact, Json
from benchmarks.results.record import Recorder
from benchmarks.results.result import ArtifactFacts, Samples
from benchmarks.results.speed import load_of
from benchmarks.results.stats import Estimate, median, ratio_interval
from runtimes.errors import BadInput, PocketshipError
from runtimes.parity import size_bytes
from runtimes.session import format_of

SECONDS = 2.0
"""How long each artifact is measured, unless another time is given."""
OFF_DEVICE = "not measured here (off-device)"


@dataclass(frozen=True)
class Timed:
    """What was measured of one artifact; `threads` is None where the runtime chooses.

    `load` is the load average of the machine's `cores` meanwhile, None where the system does not tell.
    """

    path: str
    threads: int | None
    samples: Samples
    load: float | None = None
    cores: int | None = None

    @property
    def median_ns(self) -> float:
        """The median of the block medians."""
        return median(self.samples.block_medians_ns)


@dataclass(frozen=True)
class NotTimed:
    """An artifact that this machine cannot honestly time, and why."""

    path: str
    reason: str


def measure(
    paths: Sequence[Path],
    golden: Path,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    seed: int = 0,
    on_round: Callable[[int, int], None] = lambda done, total: None,
    log_path: Path | None = None,
    scratch: Path | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> tuple[Timed | NotTimed, ...]:
    """Time each artifact for about `seconds` on the first inputs of `golden`, in turns; in the order of `paths`.

    A Core ML package off macOS is never timed: its evaluator's speed says nothing of Core ML's.

    Raises PocketshipError, with its name, where an artifact crashes or hangs; BadInput where one cannot be run.
    """
    reasons = [not_timed(path) for path in paths]
    timed = [path for path, reason in zip(paths, reasons, strict=True) if not reason]
    missing = [path for path in timed if not path.exists()]
    if missing:
        raise BadInput("no such artifact", where=str(missing[0]), remedy="check the path")
    names = [f"{i}{path.suffix}" for i, path in enumerate(timed)]
    artifacts = tuple(
        JobArtifact(str(path), format_of(path), name, size_bytes(path), "", golden=golden.name)
        for name, path in zip(names, timed, strict=True)
    )
    cases = tuple(Case(i, None if a.format == "coreml" else threads) for i, a in enumerate(artifacts))
    job = Job("measure", artifacts, cases, seconds=seconds, seed=seed, profile=False)
    facts = [ArtifactFacts(a.name, a.format, a.size_bytes, a.sha256) for a in artifacts]
    recorder = Recorder("local", job, facts, [None] * len(facts))

    def on_event(event: Json) -> None:
        recorder.add(event)
        if event["event"] == "failed":
            kind = BadInput if event["cause"] == "refused" else PocketshipError
            raise kind(f"{event['detail']} while it was timed", where=artifacts[event["case"]].name)
        if event["event"] == "progress":
            on_round(event["done"], event["total"])

    if timed:
        files = {golden.name: golden, **dict(zip(names, timed, strict=True))}
        do(job, files, on_event, exclusive=False, on_start=on_start, scratch=scratch, log_path=log_path)
    found = recorder.results()
    taken = iter(
        Timed(a.name, c.threads, r.samples, load_of(r.conditions), r.device.cores)
        for a, c, r in zip(artifacts, cases, found, strict=False)
        if r.samples
    )
    return tuple(
        NotTimed(str(path), reason) if reason else next(taken) for path, reason in zip(paths, reasons, strict=True)
    )


def not_timed(path: Path) -> str:
    """Why this machine cannot time an artifact; empty where it can."""
    return OFF_DEVICE if format_of(path) == "coreml" and sys.platform != "darwin" else ""


def speedup(baseline: Timed, timed: Timed) -> Estimate:
    """How many times faster than `baseline`, both of one `measure`, with the interval over paired rounds."""
    return ratio_interval(baseline.samples.block_medians_ns, timed.samples.block_medians_ns, paired=True)
