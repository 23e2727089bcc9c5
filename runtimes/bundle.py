"""Read a bundle and check it: the manifest's fields, that its paths stay inside, and every file's hash."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Optional, Tuple, Union

from runtimes.errors import BadInput
from runtimes.records import from_json
from runtimes.types import (
    COMPUTE_TYPES,
    EXECUTION_KINDS,
    FORMATS,
    PRECISIONS,
    SCHEMA_VERSION,
    Artifact,
    BundleFile,
    Manifest,
)

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
HASH_CHUNK_BYTES = 1 << 20


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle folder.

    Raises BadInput when the folder is no bundle, the schema version is another, a field is wrong or a path leads out.
    """
    path = Path(bundle) / MANIFEST
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise BadInput(
            f"no bundle here ({error.strerror})", where=str(path), remedy="give a folder that pocketship export wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON ({error})", where=str(path), remedy="export the bundle again") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInput(
            f"schema version is {version!r}, this pocketship reads {SCHEMA_VERSION}",
            where=str(path),
            remedy="export the bundle again",
        )
    manifest = from_json(Manifest, value)
    for name in (*(e.path for e in (*manifest.artifacts, *manifest.files)), *(a.golden for a in manifest.artifacts)):
        inside(name, str(path))
    for artifact in manifest.artifacts:
        for found, allowed in (
            (artifact.format, FORMATS),
            (artifact.precision, PRECISIONS),
            (artifact.compute, COMPUTE_TYPES),
            (artifact.parity.executed_by.kind, EXECUTION_KINDS),
        ):
            if found not in allowed:
                raise BadInput(f"{found!r} is none of {', '.join(allowed)}", where=str(path))
    from_json(Optional[float], manifest.settings.get("atol"), "settings.atol")
    return manifest


def _no_number(token: str) -> None:
    raise ValueError(f"{token} is no JSON")


def inside(name: str, where: str) -> None:
    """Raise BadInput for a relative path that leads out of its folder, or is written in any but the plain way."""
    plain = PurePosixPath(name)
    if (
        not plain.parts
        or str(plain) != name
        or name.startswith("/")
        or "\\" in name
        or ":" in name
        or ".." in plain.parts
    ):
        raise BadInput(f"path {name!r} leads out of the bundle", where=where, remedy="do not trust this bundle")


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
