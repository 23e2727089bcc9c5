"""Check a whole bundle again on this machine: hashes first, then the parity of what is intact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from runtimes.bundle import GOLDEN, damage
from runtimes.compare import limits_of
from runtimes.errors import NotInstalled, PocketshipError
from runtimes.parity import prove
from runtimes.types import Manifest, Parity


@dataclass(frozen=True)
class Check:
    """One file of a bundle: `fault` is empty where its bytes are the manifest's and, if an artifact, it computes right.

    `not_run` says why an intact artifact could not be run on this machine.
    """

    path: str
    is_artifact: bool
    intact: bool
    parity: Optional[Parity]
    fault: str
    not_run: str = ""


def verify(bundle: Path, manifest: Manifest) -> Tuple[Check, ...]:
    """Check every file of `manifest`; an artifact is run only when it and the golden values are intact."""
    checks = []
    for entry in manifest.files:
        fault = damage(bundle, entry)
        checks.append(Check(entry.path, False, not fault, None, fault))
    intact_files = {c.path for c in checks} - {c.path for c in checks if not c.intact}
    known = {check.path for check in checks}
    for name in sorted({GOLDEN, *(artifact.golden for artifact in manifest.artifacts)} - known):
        checks.append(Check(name, False, False, None, f"{name}: not in the manifest"))
    for artifact in manifest.artifacts:
        fault, parity = damage(bundle, artifact), None
        intact, not_run = not fault, ""
        if intact and artifact.golden in intact_files:
            try:
                limits = limits_of(manifest, artifact)
                parity = prove(bundle / artifact.path, bundle / artifact.golden, limits)[1]
                fault = f"{artifact.path}: {parity.reason}" if parity.verdict != "pass" else ""
            except NotInstalled as error:
                not_run = f"{error.what}; {error.remedy}"
            except PocketshipError as error:
                fault = str(error)
        checks.append(Check(artifact.path, True, intact, parity, fault, not_run))
    return tuple(checks)
