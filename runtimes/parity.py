"""The gate: run an artifact on the golden inputs, in its own runtime, in a child process, and compare."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from runtimes import child
from runtimes.compare import FLOAT32, Limits, compare
from runtimes.errors import NotInstalled, ParityFailed
from runtimes.golden import read_golden
from runtimes.records import from_json
from runtimes.session import format_of, open_session
from runtimes.signature import Signature
from runtimes.types import Parity

TIMEOUT_S = 600.0
MEMORY_FLOOR_BYTES = 4 * 2**30
MEMORY_PER_ARTIFACT_BYTE = 12
"""A runtime may hold the file, its packed weights and activations; the floor is what coremltools needs to import."""


def prove(
    artifact: Path,
    golden: Path,
    limits: Limits = FLOAT32,
    *,
    timeout_s: float = TIMEOUT_S,
    memory_limit_bytes: Optional[int] = None,
    log_path: Optional[Path] = None,
    scratch: Optional[Path] = None,
    on_start: Optional[Callable[[Any], None]] = None,
) -> Tuple[Signature, Parity]:
    """Run `artifact` over the samples of `golden` in a child process; its signature as the runtime has it, and parity.

    Raises ParityFailed where the runtime refuses the artifact, crashes, hangs or runs out of memory; a comparison that
    fails is a `Parity` whose verdict is "fail". NotInstalled where this machine lacks the runtime, BadInput for golden
    values that cannot be read.
    """
    read_golden(golden)
    limit = memory_limit_bytes or MEMORY_FLOOR_BYTES + MEMORY_PER_ARTIFACT_BYTE * size_bytes(artifact)
    outcome = child.call(
        "runtimes.parity:run_and_compare",
        {"artifact": str(artifact), "golden": str(golden), "limits": asdict(limits)},
        timeout_s=timeout_s,
        memory_limit_bytes=limit,
        log_path=log_path,
        scratch=scratch,
        on_start=on_start,
    )
    if isinstance(outcome, child.Completed):
        return from_json(Signature, outcome.value["signature"]), from_json(Parity, outcome.value["parity"])
    if isinstance(outcome, child.Refused) and isinstance(outcome.error, NotInstalled):
        raise outcome.error
    fault = outcome.error.what if isinstance(outcome, child.Refused) else f"the runtime {child.describe(outcome)}"
    raise ParityFailed(fault, where=artifact.name, remedy="the artifact is refused")


def run_and_compare(job: Dict[str, Any], emit: Callable[[Dict[str, Any]], None]) -> Dict[str, Any]:
    """The child's side of `prove`."""
    golden = read_golden(Path(job["golden"]))
    artifact = Path(job["artifact"])
    session = open_session(artifact)
    actual = [session.run(inputs) for inputs in golden.inputs]
    measured = golden.noise.get(format_of(artifact))
    parity = compare(golden.outputs, actual, session.executed_by, Limits(**job["limits"]), measured)
    return {"signature": asdict(session.signature), "parity": asdict(parity)}


def size_bytes(artifact: Path) -> int:
    """Bytes of a file, or of all files of a package folder."""
    if artifact.is_file():
        return artifact.stat().st_size
    return sum(p.stat().st_size for p in artifact.rglob("*") if p.is_file())
