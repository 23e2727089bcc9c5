"""Read a bundle and check it: the manifest's fields, that its paths stay inside, and every file's hash."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

from runtimes import grammar
from runtimes.errors import BadInput, ParityFailed
from runtimes.files import parse_json, read_regular
from runtimes.grammar import MOST_AXES, MOST_ELEMENTS
from runtimes.paths import folded, inside, walk
from runtimes.records import from_json
from runtimes.signature import Signature
from runtimes.types import SCHEMA_VERSION, SUFFIX_OF, Artifact, BundleFile, Manifest

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
LOG = "export.log"
"""What exports of old left in a bundle and listed nowhere: nothing reads or copies it, and no other file may lie so."""
FIRST_STAGE = "original"
TASK_VECTOR = "task vector"
"""The step that an update adds to a recipe; the ledger has no row of it."""
GOLDEN = "golden.npz"
HASH_CHUNK_BYTES = 1 << 20
MOST_STRAYS = 20
"""No more are told: a folder that is no bundle may hold a million."""


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle folder.

    Raises BadInput when the folder is no bundle, the schema version is another, a field is wrong or a path leads out.
    """
    path = Path(bundle) / MANIFEST
    try:
        value = parse_json(read_regular(path))
    except OSError as error:
        raise BadInput(
            f"no bundle here ({error.strerror})", where=str(path), remedy="give a folder that pocketship export wrote"
        ) from error
    except ValueError as error:
        raise BadInput(f"not JSON ({error})", where=str(path), remedy="export the bundle again") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInput(
            f"schema version is {version!r:.60}, this pocketship reads {SCHEMA_VERSION}",
            where=str(path),
            remedy="export the bundle again",
        )
    manifest = from_json(Manifest, value)
    from_json(Optional[float], manifest.settings.get("atol"), "settings.atol")
    grammar.check(manifest, str(path))
    fault = next(_contradictions(manifest, str(path)), "")
    if fault:
        raise BadInput(fault, where=str(path), remedy="do not trust this bundle")
    return manifest


def _contradictions(manifest: Manifest, where: str) -> Iterator[str]:
    """What a manifest says against itself; raises BadInput for a path that leads out."""
    if not manifest.artifacts:
        yield "the manifest has no artifacts"
    paths = [*(artifact.path for artifact in manifest.artifacts), *(file.path for file in manifest.files)]
    for path in (*paths, *(artifact.golden for artifact in manifest.artifacts)):
        inside(path, where)
    yield from _overlaps(paths)
    listed = {file.path for file in manifest.files}
    yield from _faults_of_signature(manifest.signature, "signature")
    for i, artifact in enumerate(manifest.artifacts):
        place = f"artifacts[{i}]"
        if artifact.golden not in listed:
            yield f"{place}.golden: {artifact.golden!r:.60} is not among the files"
        if SUFFIX_OF[artifact.format] != PurePosixPath(artifact.path).suffix:
            yield f"{place}.path: {artifact.path!r:.60} is no {artifact.format} file"
        if (artifact.parity.verdict == "pass") == bool(artifact.parity.reason):
            yield f"{place}.parity.reason: a verdict fails for a reason, and passes without one"
        yield from _faults_of_signature(artifact.signature, f"{place}.signature")
        yield from _differences(manifest.signature, artifact.signature, f"{place}.signature")
        unknown = sorted(set(artifact.noise) - {spec.name for spec in artifact.signature.outputs})
        if unknown:
            yield f"{place}.noise: {unknown[0]!r:.60} is none of its outputs"
    yield from _faults_of_ledger(manifest)


def _overlaps(paths: Sequence[str]) -> Iterator[str]:
    """Paths that a file system may take for one another, or for what lies in every bundle."""
    seen = {each: each for each in (MANIFEST, SIGNATURE)}
    for path in sorted(paths, key=len):
        parts = folded(path).split("/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        above = next((seen[prefix] for prefix in prefixes if prefix in seen), None)
        if above is not None:
            yield f"path {path!r:.60} is the same as, or lies in, {above!r:.60}"
        seen[prefixes[-1]] = path


def _faults_of_signature(signature: Signature, place: str) -> Iterator[str]:
    for role, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            yield f"{place}.{role}: a name occurs twice"
        for i, spec in enumerate(specs):
            elements = 1
            for axis in spec.shape:
                elements *= axis if isinstance(axis, int) else 1
            if len(spec.shape) > MOST_AXES or elements > MOST_ELEMENTS:
                yield f"{place}.{role}[{i}].shape: more than {MOST_AXES} axes, or than {MOST_ELEMENTS} elements"
    if not signature.outputs:
        yield f"{place}.outputs: there is none"


def _differences(model: Signature, artifact: Signature, place: str) -> Iterator[str]:
    """Where an artifact's signature is not what a format makes of the model's: wide numbers narrowed, axes fixed."""
    for role in ("inputs", "outputs"):
        wanted, found = getattr(model, role), getattr(artifact, role)
        if [spec.name for spec in wanted] != [spec.name for spec in found]:
            yield f"{place}.{role}: not the names of the model's {role}, in order"
            continue
        for i, (ours, theirs) in enumerate(zip(wanted, found)):
            if not _narrows(ours.dtype, theirs.dtype):
                yield f"{place}.{role}[{i}].dtype: {theirs.dtype} where the model has {ours.dtype}"
            fits = len(ours.shape) == len(theirs.shape) and all(
                a == b or (isinstance(a, str) and isinstance(b, int)) for a, b in zip(ours.shape, theirs.shape)
            )
            if not fits:
                yield f"{place}.{role}[{i}].shape: {list(theirs.shape)} where the model has {list(ours.shape)}"


def _narrows(model: str, artifact: str) -> bool:
    kind = model.rstrip("0123456789")
    return kind == artifact.rstrip("0123456789") and int(artifact[len(kind) :] or 0) <= int(model[len(kind) :] or 0)


def _faults_of_ledger(manifest: Manifest) -> Iterator[str]:
    """Rows whose parts do not add up, whose stage is none of the recipe's, or which are not the artifact's."""
    stages = (FIRST_STAGE, *(step.name for step in manifest.recipe))
    last = {row.format: row for row in manifest.ledger}
    for i, row in enumerate(manifest.ledger):
        place = f"ledger[{i}]"
        if row.index >= len(stages) or row.stage != stages[row.index]:
            yield f"{place}.stage: the recipe has no stage {row.index} {row.stage!r:.60}"
        if sum(row.waterfall.values()) != row.size_bytes:
            yield f"{place}.waterfall: its parts do not add up to size_bytes"
        if row.nonzero > row.parameters:
            yield f"{place}.nonzero: more than there are parameters"
        if row.sparse_bytes > row.size_bytes or row.gzip_bytes > row.size_bytes + row.size_bytes // 64 + 1024:
            yield f"{place}: sparse_bytes and gzip_bytes are not above size_bytes"
        if row.accuracy and not row.accuracy.low <= row.accuracy.value <= row.accuracy.high:
            yield f"{place}.accuracy: the value lies outside of its interval"
        if row.latency and not row.latency.speedup_low <= row.latency.speedup <= row.latency.speedup_high:
            yield f"{place}.latency: the speed-up lies outside of its interval"
    if manifest.ledger and set(last) != {artifact.format for artifact in manifest.artifacts}:
        yield "ledger: its formats are not those of the artifacts"
    for name in last:
        found = [row.index for row in manifest.ledger if row.format == name]
        lacking = [stage for stage in stages[len(found) :] if stage != TASK_VECTOR]
        if found != list(range(len(found))) or lacking:
            yield f"ledger: its {name} rows are not one of each stage, in order"
    for i, artifact in enumerate(manifest.artifacts):
        if artifact.format in last and last[artifact.format].size_bytes != artifact.size_bytes:
            yield f"artifacts[{i}].size_bytes: the ledger's last {artifact.format} file has another size"


def digest(path: Path) -> Tuple[int, str]:
    """Size in bytes and SHA-256 of a file; of a package folder, over each file's relative path, size and bytes, sorted.

    Raises BadInput when it is missing, and for a symbolic link, which could lead out of the bundle.
    """
    is_package = path.is_dir() and not path.is_symlink()
    files = sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir()) if is_package else [path]
    total, sha = 0, hashlib.sha256()
    for file in files:
        if file.is_symlink() or not file.is_file():
            raise BadInput("missing, or not a regular file", where=str(file), remedy="export the bundle again")
        size = file.stat().st_size
        if is_package:
            sha.update(os.fsencode(f"{file.relative_to(path).as_posix()}\0{size}\0"))
        with open(file, "rb") as stream:
            for chunk in iter(lambda: stream.read(HASH_CHUNK_BYTES), b""):
                sha.update(chunk)
        total += size
    return total, sha.hexdigest()


def damage(bundle: Path, entry: Union[Artifact, BundleFile]) -> str:
    """What is wrong with the file of a manifest's entry, in one line; empty where it has the manifest's bytes."""
    try:
        if any((bundle / folder).is_symlink() for folder in tuple(PurePosixPath(entry.path).parents)[:-1]):
            return f"{entry.path}: behind a symbolic link"
        size, sha256 = digest(bundle / entry.path)
    except BadInput as error:
        return f"{entry.path}: {error.what}"
    except OSError as error:
        return f"{entry.path}: cannot be read ({error.strerror})"
    if size != entry.size_bytes:
        return f"{entry.path}: has {size} bytes, the manifest says {entry.size_bytes}"
    if sha256 != entry.sha256:
        return f"{entry.path}: its bytes are not those of the manifest (sha256 {sha256[:12]})"
    return ""


@dataclass(frozen=True)
class Stray:
    """What lies in a bundle against its manifest, and what it is, in one line."""

    path: str
    fault: str


def strays(bundle: Path, manifest: Manifest) -> Tuple[Stray, ...]:
    """What lies in a bundle against its manifest: links, folders without a file, paths alike, and what nobody lists.

    The files in a package folder are covered by its own hash. MOST_STRAYS of them at most.
    """
    known = {MANIFEST, SIGNATURE, LOG, *(file.path for file in manifest.files)}
    artifacts = {artifact.path for artifact in manifest.artifacts}
    folders = {str(above) for path in (*known, *artifacts) for above in PurePosixPath(path).parents}
    found: List[Stray] = []
    alike: Dict[str, str] = {}
    try:
        for path, kind in walk(bundle):
            if len(found) == MOST_STRAYS:
                break
            other = alike.setdefault(folded(path), path)
            if other != path:
                found.append(Stray(path, f"{path!r:.80}: a file system may take it for {other!r:.80}"))
            covered = path in artifacts or any(str(above) in artifacts for above in PurePosixPath(path).parents)
            if kind not in ("file", "folder") and not (covered and kind == "empty folder"):
                found.append(Stray(path, f"{path!r:.80}: a bundle holds no {kind}"))
            elif not covered and path not in (known if kind == "file" else folders):
                found.append(Stray(path, f"{path!r:.80}: not in the manifest"))
    except OSError as error:
        found.append(Stray("", f"the folder cannot be read ({error.strerror})"))
    return tuple(found)


def check_files(bundle: Path, manifest: Manifest) -> None:
    """Raise ParityFailed for a bundle that is not whole.

    A file is not the manifest's, the manifest does not list it, it is no regular file, or an artifact was never proven.
    """
    entries: Tuple[Union[Artifact, BundleFile], ...] = (*manifest.files, *manifest.artifacts)
    faults = [fault for fault in (damage(bundle, entry) for entry in entries) if fault]
    faults += [stray.fault for stray in strays(bundle, manifest) if stray.path not in {e.path for e in entries}]
    faults += [f"{a.path} was never proven" for a in manifest.artifacts if a.parity.verdict != "pass"]
    if faults:
        raise ParityFailed("; ".join(faults), where=str(bundle), remedy="do not ship it, export it again")
