"""The files of a bundle that an update covers, and the bundle's identity."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runtimes.bundle import MANIFEST, damage
from runtimes.errors import BadInput, ParityFailed
from runtimes.types import Artifact, BundleFile, Manifest

UPDATE = "update"
"""The setting of a manifest that counts its updates, so that an old one is never applied again."""


def manifest_hash(bundle: Path) -> str:
    """The identity of a bundle: the SHA-256 of its manifest.json."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def update_of(manifest: Manifest) -> int:
    """How many updates a bundle has had.

    Raises BadInput where the manifest has a count that is none.
    """
    count = manifest.settings.get(UPDATE, 0)
    if type(count) is not int or count < 0:
        raise BadInput(f"settings.{UPDATE} is {count!r:.40}", where=MANIFEST, remedy="export the bundle again")
    return count


def intact_files(bundle: Path, manifest: Manifest) -> None:
    """Raise ParityFailed where a file of the bundle is not the manifest's."""
    entries: tuple[Artifact | BundleFile, ...] = (*manifest.files, *manifest.artifacts)
    for entry in entries:
        fault = damage(bundle, entry)
        if fault:
            raise ParityFailed(fault, where=str(bundle), remedy="get the whole bundle again")


def files_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Every file that the manifest covers, those of package folders one by one."""
    names = [file.path for file in manifest.files]
    for artifact in manifest.artifacts:
        path = bundle / artifact.path
        inner = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        names += [p.relative_to(bundle).as_posix() for p in inner]
    return tuple(names)


def names_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Every file that an update makes: the manifest, its signature where there is one, and what the manifest covers."""
    from exporter.delivery.signature import SIGNATURE

    signature = (SIGNATURE,) if (bundle / SIGNATURE).is_file() else ()
    return (MANIFEST, *signature, *files_of(bundle, manifest))
