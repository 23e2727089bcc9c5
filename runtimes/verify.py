"""Check a whole bundle again on this machine: hashes first, then the parity of what is intact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from runtimes.bundle import GOLDEN, damage
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
    golden = [check for check in checks if check.path == GOLDEN]
    if not golden:
        golden = [Check(GOLDEN, False, False, None, f"{GOLDEN}: not in the manifest")]
        checks += golden
    can_run = all(check.intact for check in golden)
    for artifact in manifest.artifacts:
        fault, parity = damage(bundle, artifact), None
        intact, not_run = not fault, ""
        if intact and can_run:
            try:
                atol = manifest.settings.get("atol")
                parity = prove(
                    bundle / artifact.path,
                    bundle / GOLDEN,
                    precision=artifact.precision,
                    atol=None if atol is None else float(atol),
                )[1]
                fault = f"{artifact.path}: {parity.reason}" if parity.verdict != "pass" else ""
            except NotInstalled as error:
                not_run = f"{error.what}; {error.remedy}"
            except PocketshipError as error:
                fault = str(error)
        checks.append(Check(artifact.path, True, intact, parity, fault, not_run))
    return tuple(checks)
