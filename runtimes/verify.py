"""Check a whole bundle again on this machine: what lies there, its hashes, what the files say, and their parity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

from runtimes import evidence
from runtimes.bundle import check_files, damage, strays
from runtimes.compare import limits_of
from runtimes.errors import NotInstalled, ParityFailed, PocketshipError
from runtimes.golden import read_golden
from runtimes.parity import prove
from runtimes.processing.preprocessor import PREPROCESSOR, Text, check_signature, read_preprocessor
from runtimes.types import Artifact, Manifest, Parity


@dataclass(frozen=True)
class Check:
    """One file of a bundle: `fault` is empty where its bytes are the manifest's and, if an artifact, it computes right.

    `not_run` says why an intact artifact could not be run on this machine. What no manifest lists is a file, too.
    """

    path: str
    is_artifact: bool
    intact: bool
    parity: Optional[Parity]
    fault: str
    not_run: str = ""


def verify(bundle: Path, manifest: Manifest, formats: Sequence[str] = ()) -> Tuple[Check, ...]:
    """Check every file of `manifest` and what else lies there; of the artifacts those of `formats`, of none: all.

    An artifact is run only when it and the golden values are intact and say what the manifest says of them.
    """
    artifacts = [artifact for artifact in manifest.artifacts if not formats or artifact.format in formats]
    checks = []
    for entry in manifest.files:
        fault = damage(bundle, entry)
        intact = not fault
        if intact and entry.path == PREPROCESSOR:
            fault = preprocessor_fault(bundle, manifest)
        checks.append(Check(entry.path, False, intact, None, fault))
    intact_files = {check.path for check in checks if check.intact}
    checks += [_check(bundle, manifest, artifact, artifact.golden in intact_files) for artifact in artifacts]
    missing = {check.path for check in checks if not check.intact}
    checks += [Check(s.path, False, False, None, s.fault) for s in strays(bundle, manifest) if s.path not in missing]
    return tuple(checks)


def _check(bundle: Path, manifest: Manifest, artifact: Artifact, has_golden: bool) -> Check:
    fault, parity = damage(bundle, artifact), None
    intact, not_run = not fault, ""
    if intact and has_golden:
        try:
            fault = next(contradictions(bundle, manifest, artifact), "")
            if not fault:
                limits = limits_of(manifest, artifact)
                found, parity = prove(bundle / artifact.path, bundle / artifact.golden, limits)
                fault = next(evidence.of_runtime(manifest, artifact, found), "")
                fault = fault or (parity.reason if parity.verdict != "pass" else "")
            fault = f"{artifact.path}: {fault}" if fault else ""
        except NotInstalled as error:
            not_run = f"{error.what}; {error.remedy}"
        except PocketshipError as error:
            fault = str(error)
    return Check(artifact.path, True, intact, parity, fault, not_run)


def contradictions(bundle: Path, manifest: Manifest, artifact: Artifact) -> Iterator[str]:
    """Where an intact artifact and its golden values are not what the manifest says, as far as is seen without running.

    Raises ParityFailed for a file, and BadInput for golden values, that cannot be read.
    """
    if artifact.parity.verdict != "pass":
        yield "it was never proven"
    yield from evidence.of_facts(manifest, artifact, evidence.facts_of(bundle / artifact.path))
    yield from evidence.of_golden(manifest, artifact, read_golden(bundle / artifact.golden))


def check_bundle(bundle: Path, manifest: Manifest, artifacts: Sequence[Artifact]) -> None:
    """Check all of a bundle that can be without running, of `artifacts` what they say as well: for whoever uses them.

    Raises ParityFailed where a file is not the manifest's, is not listed or no regular one, or an artifact is not what
    the manifest says.
    """
    check_files(bundle, manifest)
    for artifact in artifacts:
        fault = next(contradictions(bundle, manifest, artifact), "")
        if fault:
            raise ParityFailed(f"{artifact.path}: {fault}", where=str(bundle), remedy="do not ship it, export it again")


def preprocessor_fault(bundle: Path, manifest: Manifest) -> str:
    """What is wrong with a bundle's preprocessor.json, empty where nothing is."""
    path = bundle / PREPROCESSOR
    try:
        found = read_preprocessor(path)
        check_signature(found, manifest.signature, str(path))
    except PocketshipError as error:
        return f"{PREPROCESSOR}: {error.what}"
    tokenizers = {entry.tokenizer for entry in found.inputs if isinstance(entry, Text)}
    lacking = sorted(tokenizers - {file.path for file in manifest.files})
    return f"{PREPROCESSOR}: {lacking[0]} is not in the manifest" if lacking else ""
