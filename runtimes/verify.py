"""Check a whole bundle again on this machine: hashes first, then the parity of what is intact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from runtimes.bundle import GOLDEN, damage
from runtimes.errors import PocketshipError
from runtimes.parity import prove
from runtimes.types import Manifest, Parity


@dataclass(frozen=True)
class Check:
    """One file of a bundle; `fault` is empty where its bytes are the manifest's, and an artifact is right."""

    path: str
    is_artifact: bool
    intact: bool
    parity: Optional[Parity]
    fault: str


def verify(bundle: Path, manifest: Manifest) -> Tuple[Check, ...]:
    """Check every file of `manifest`; an artifact is run only when it and the golden values are intact."""
    checks = []
    golden_fault = ""
    for entry in manifest.files:
        fault = damage(bundle, entry)
        if entry.path == GOLDEN:
            golden_fault = fault
        checks.append(Check(entry.path, False, not fault, None, fault))
    for artifact in manifest.artifacts:
        fault, parity = damage(bundle, artifact), None
        intact = not fault
        if intact and not golden_fault:
            try:
                atol = manifest.settings.get("atol")
                parity = prove(
                    bundle / artifact.path,
                    bundle / GOLDEN,
                    precision=artifact.precision,
                    atol=None if atol is None else float(atol),
                )[1]
                fault = f"{artifact.path}: {parity.reason}" if parity.verdict != "pass" else ""
            except PocketshipError as error:
                fault = str(error)
        checks.append(Check(artifact.path, True, intact, parity, fault))
    return tuple(checks)
