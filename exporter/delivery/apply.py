"""Turn a bundle into the next one with an update: `pocketship apply`. The old one stays until the new one is whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle.writer import NEW_BUNDLE, commit, partial_folder, writing_errors
from exporter.delivery import task_vector, update_file
from exporter.delivery.files import intact_files, manifest_hash, names_of, update_of
from exporter.delivery.patch import decompressed
from exporter.delivery.update_file import Header, Part
from runtimes.bundle import MANIFEST, read_manifest
from runtimes.errors import BadInput
from runtimes.types import Manifest

MOST_UPDATE_BYTES = 1 << 32


@dataclass(frozen=True)
class Applied:
    """What became of a bundle."""

    path: Path
    name: str
    update: int
    files: tuple[tuple[str, str, int], ...]
    update_bytes: int
    result: str


def apply(update: Path, bundle: Path, output: Path | None = None, *, force: bool = False) -> Applied:
    """Replace `bundle` by the one that `update` makes of it, or write that into the folder `output`.

    Nothing is changed unless every byte of the result has the hash that the update says, and then in one rename.

    Raises BadInput for an update that is damaged, is for another bundle or older than it, or was applied already;
    ParityFailed where a file of the bundle is not the manifest's.
    """
    content = _content(update)
    header, data = update_file.read(content, str(update))
    manifest = read_manifest(bundle)
    _check_base(header, bundle, manifest)
    intact_files(bundle, manifest)
    place = (output or bundle).absolute()
    with partial_folder(place, force or output is None) as partial, writing_errors(place):
        new = partial / NEW_BUNDLE
        for part in header.parts:
            made = _made(part, data, bundle)
            path = new / part.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made)
        _check_result(header, new)
        commit(partial, place)
    files = tuple((part.path, part.kind, part.length + part.vector_length) for part in header.parts)
    return Applied(place, header.name, header.update, files, len(content), header.result)


def _content(update: Path) -> bytes:
    try:
        if update.stat().st_size > MOST_UPDATE_BYTES:
            raise BadInput("the file is too large for an update", where=str(update), remedy=update_file.AGAIN)
        return update.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(update), remedy="check the path") from error


def _check_base(header: Header, bundle: Path, manifest: Manifest) -> None:
    found = manifest_hash(bundle)
    if found == header.base:
        return
    if found == header.result:
        raise BadInput("this update was applied already", where=str(bundle), remedy="there is nothing to do")
    if header.update <= update_of(manifest):
        raise BadInput(
            f"the update is number {header.update}, the bundle has had {update_of(manifest)}",
            where=str(bundle),
            remedy="get a newer one",
        )
    raise BadInput(
        f"the update is for another bundle (its base is {header.base[:12]}, this one is {found[:12]})",
        where=str(bundle),
        remedy="make one with pocketship delta from this bundle",
    )


def _made(part: Part, data: bytes, bundle: Path) -> bytes:
    """A file of the new bundle; raises BadInput where it is not the one that was meant."""
    path = bundle / part.source
    old = path.read_bytes() if part.source and path.is_file() and not path.is_symlink() else b""
    made = old
    if part.kind != "same":
        made = decompressed(data[part.offset : part.offset + part.length], old, part.size)
    if part.kind == "vector":
        frame = data[part.vector_offset : part.vector_offset + part.vector_length]
        made = task_vector.apply(made, decompressed(frame, b"", _declared(frame, part.size)))
    if len(made) != part.size or hashlib.sha256(made).hexdigest() != part.sha256:
        raise BadInput(f"the update makes another {part.path} than it says", remedy=update_file.AGAIN)
    return made


def _declared(frame: bytes, largest: int) -> int:
    """The size that a frame says it has: a task vector is smaller than what it changes."""
    import zstandard

    try:
        size = int(zstandard.frame_content_size(frame))
    except zstandard.ZstdError as error:
        raise BadInput(f"a part of the update is no zstd ({error})", remedy=update_file.AGAIN) from error
    if not 0 <= size <= 2 * largest + 4096:
        raise BadInput("a task vector is larger than its file", remedy=update_file.AGAIN)
    return size


def _check_result(header: Header, folder: Path) -> None:
    """Raise BadInput where the new folder is not the bundle whose manifest it holds."""
    if not (folder / MANIFEST).is_file() or manifest_hash(folder) != header.result:
        raise BadInput("the update has another manifest than it says", remedy=update_file.AGAIN)
    manifest = read_manifest(folder)
    intact_files(folder, manifest)
    unknown = {part.path for part in header.parts} - set(names_of(folder, manifest))
    if unknown:
        raise BadInput(
            f"the update makes {min(unknown)!r:.60}, which its manifest does not name", remedy=update_file.AGAIN
        )
    if manifest.name != header.name or update_of(manifest) != header.update:
        raise BadInput("the update's header and its manifest differ", remedy=update_file.AGAIN)
