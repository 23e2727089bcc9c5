"""The ledger: what each stage of a recipe cost and brought, by format."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import NotTimed, Timed, speedup
from benchmarks.results.speed import busy_in_words, speed_in_words
from benchmarks.results.stats import Estimate, in_words
from exporter.inspection.sizes import sizes_of
from runtimes.types import Accuracy, Latency, LedgerRow


def ledger_row(
    index: int,
    stage: str,
    target: str,
    parameters: int,
    nonzero: int,
    path: Path,
    accuracy: Accuracy | None = None,
    latency: Latency | NotTimed | None = None,
) -> LedgerRow:
    """The row of the artifact at `path`, its sizes read from the file."""
    sizes = sizes_of(path)
    return LedgerRow(
        index=index,
        stage=stage,
        format=target,
        parameters=parameters,
        nonzero=nonzero,
        size_bytes=sizes.size_bytes,
        gzip_bytes=sizes.gzip_bytes,
        sparse_bytes=sizes.sparse_bytes,
        waterfall=sizes.waterfall,
        accuracy=accuracy,
        latency=latency if isinstance(latency, Latency) else None,
        not_timed=latency.reason if isinstance(latency, NotTimed) else "",
    )


def latency_of(baseline: Timed | NotTimed, samples: Timed | NotTimed) -> Latency | NotTimed:
    """The latency of an artifact beside that of the original, both of one `measure`."""
    if isinstance(samples, NotTimed):
        return samples
    if isinstance(baseline, NotTimed):
        return baseline
    ratio = speedup(baseline, samples)
    return Latency(
        median_ms=samples.median_ns / 1e6,
        baseline_median_ms=baseline.median_ns / 1e6,
        speedup=ratio.value,
        speedup_low=ratio.low,
        speedup_high=ratio.high,
        threads=samples.threads,
        load=samples.load,
        cores=samples.cores,
    )


def speed_said(latency: Latency) -> str:
    """The speed-up in words: a slower one and a machine that was busy are said so."""
    ratio = speedup_in(latency)
    said = speed_in_words(ratio, "the original here") if ratio.value < 1.0 else in_words(ratio)
    return "; ".join(filter(None, (said, busy_in_words(latency.load, latency.cores))))


def speedup_in(latency: Latency) -> Estimate:
    """The speed-up with its interval."""
    return Estimate(latency.speedup, latency.speedup_low, latency.speedup_high)
