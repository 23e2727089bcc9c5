"""The files of a bundle that are delivered, and the bundle's identity."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from runtimes.bundle import LOG, MANIFEST, SIGNATURE, damage, strays
from runtimes.errors import BadInput, ParityFailed, PocketshipError
from runtimes.evidence import UPDATE
from runtimes.types import Artifact, BundleFile, Manifest


@contextlib.contextmanager
def said_of(file: Path, folder: Path) -> Iterator[None]:
    """Let errors name the file that a bundle came in, and not the folder that it is put together in."""
    try:
        yield
    except PocketshipError as error:
        where = error.where.replace(str(folder), str(file))
        raise type(error)(error.what, where=where, remedy=error.remedy) from error


def manifest_hash(bundle: Path) -> str:
    """The identity of a bundle: the SHA-256 of its manifest.json."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def update_of(manifest: Manifest) -> int:
    """How many updates a bundle has had.

    Raises BadInput where the manifest has a count that is none.
    """
    count = manifest.settings.get(UPDATE, 0)
    if type(count) is not int or not 0 <= count < 1 << 63:
        raise BadInput(f"settings.{UPDATE} is {count!r:.40}", where=MANIFEST, remedy="export the bundle again")
    return count


def check_whole(bundle: Path, manifest: Manifest, *, delivered: bool = False) -> None:
    """Raise ParityFailed where a file of the bundle is not the manifest's, is no plain file or is not in the manifest.

    What was `delivered` has no log of its export either.
    """
    entries: tuple[Artifact | BundleFile, ...] = (*manifest.files, *manifest.artifacts)
    log = f"{LOG!r}: not in the manifest" if delivered and (bundle / LOG).exists() else ""
    faults = (*(damage(bundle, entry) for entry in entries), *(stray.fault for stray in strays(bundle, manifest)), log)
    fault = next(filter(None, faults), "")
    if fault:
        raise ParityFailed(fault, where=str(bundle), remedy="get the whole bundle again")


def files_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Every file that the manifest covers, those of package folders one by one."""
    names = [file.path for file in manifest.files]
    for artifact in manifest.artifacts:
        path = bundle / artifact.path
        inner = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        names += [p.relative_to(bundle).as_posix() for p in inner]
    return tuple(dict.fromkeys(names))


def names_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Every file that is delivered: the manifest, its signature where there is one, and what the manifest covers."""
    signature = (SIGNATURE,) if (bundle / SIGNATURE).is_file() else ()
    return (MANIFEST, *signature, *files_of(bundle, manifest))
