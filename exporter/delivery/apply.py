"""Turn a bundle into the next one with an update: `pocketship apply`. The old one stays until the new one is whole."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from exporter.bundle.writer import NEW_BUNDLE, WORK, commit, partial_folder, writing_errors
from exporter.delivery import task_vector, update_file
from exporter.delivery.files import check_whole, files_of, manifest_hash, said_of, update_of
from exporter.delivery.keys import key_id
from exporter.delivery.patch import decompressed
from exporter.delivery.sealing import is_sealed, unseal
from exporter.delivery.storage import opened
from exporter.delivery.trust import Trusted, check_new, check_replacement, trusted_key
from exporter.delivery.update_file import Header, Part, Update
from runtimes.bundle import MANIFEST, read_manifest
from runtimes.errors import BadInput
from runtimes.types import Manifest


@dataclass(frozen=True)
class Applied:
    """What became of a bundle; `signer` signed the update, where that was checked, `claimed` is whom it names."""

    path: Path
    name: str
    update: int
    files: tuple[tuple[str, str, int], ...]
    update_bytes: int
    result: str
    signer: str | None = None
    claimed: str | None = None


def apply(
    update: Path,
    bundle: Path,
    output: Path | None = None,
    *,
    public_key: Path | None = None,
    key: Path | None = None,
    force: bool = False,
    allow_older: bool = False,
) -> Applied:
    """Replace `bundle` by the one that `update` makes of it, or write that into the folder `output`.

    Nothing is changed unless every byte of the result has the hash that the update says, and then in one rename. An
    update of a signed bundle, and what it makes, are signed by the same key, or by the one that the user gives.

    Raises BadInput for an update that is damaged, is for another bundle or older than it, was applied already, or would
    make too much; ParityFailed where a file of the bundle is not the manifest's, or a signature is not right.
    """
    place = (output or bundle).absolute()
    manifest = read_manifest(bundle)
    with (
        opened(update) as file,
        partial_folder(place, force or output is None) as partial,
        writing_errors(place),
    ):
        trusted = trusted_key(public_key, bundle, place)
        with _plain(update, file, partial / WORK / "update", trusted, key) as (plain, signer):
            opened_update = update_file.read(plain, str(update))
            header = opened_update.header
            _check_base(opened_update, bundle, manifest, str(update))
            new = partial / NEW_BUNDLE
            for part in header.parts:
                path = new / part.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_made(part, opened_update, bundle))
        with said_of(update, new):
            _check_result(header, new)
            claimed = check_new(new, trusted, signer)
        check_replacement(bundle, new, same_name=False, allow_older=allow_older)
        if place != bundle.absolute() and place.exists():
            check_replacement(place, new, allow_older=allow_older)
        commit(partial, place)
    files = tuple((part.path, part.kind, part.length + part.vector_length) for part in header.parts)
    checked = key_id(trusted.key) if trusted else None
    return Applied(place, header.name, header.update, files, opened_update.size_bytes, header.result, checked, claimed)


@contextlib.contextmanager
def _plain(
    update: Path, file: IO[bytes], scratch: Path, trusted: Trusted | None, key: Path | None
) -> Iterator[tuple[IO[bytes], str | None]]:
    """The update out of its seal, where it has one or a key says that it must, and the id of who signed it."""
    sealed = is_sealed(file)
    if trusted and not trusted.is_users and not sealed:
        raise trusted.unsigned(str(update))
    if not (trusted or key or sealed):
        yield file, None
        return
    with open(scratch, "w+b") as plain:
        yield plain, unseal(file, plain, kind="update", trusted=trusted, key=key, where=str(update))


def _check_base(update: Update, bundle: Path, manifest: Manifest, where: str) -> None:
    """Raise BadInput or ParityFailed where the bundle is not the one, or not whole, that the update is for."""
    header, found = update.header, manifest_hash(bundle)
    if found == header.result:
        raise BadInput("this update was applied already", where=str(bundle), remedy="there is nothing to do")
    if header.update <= update_of(manifest):
        raise BadInput(
            f"the update is number {header.update}, the bundle has had {update_of(manifest)}",
            where=str(bundle),
            remedy="get a newer one",
        )
    if found != header.base:
        raise BadInput(
            f"the update is for another bundle (its base is {header.base[:12]}, this one is {found[:12]})",
            where=str(bundle),
            remedy="make one with pocketship delta from this bundle",
        )
    if header.base_update != update_of(manifest):
        raise BadInput("the number of the update makes no sense", where=where, remedy=update_file.AGAIN)
    check_whole(bundle, manifest)
    names = (MANIFEST, *files_of(bundle, manifest))
    for part in header.parts:
        if part.source and part.source not in names:
            what = f"the update makes {part.path!r:.60} of {part.source!r:.60}, which the bundle has not"
            raise BadInput(what, where=where, remedy=update_file.AGAIN)
    sizes = (path.stat().st_size for path in (bundle / name for name in names))
    update_file.check_growth(header, sum(sizes), update.size_bytes, where=where)


def _made(part: Part, update: Update, bundle: Path) -> bytes:
    """A file of the new bundle; raises BadInput where it is not the one that was meant."""
    made = old = (bundle / part.source).read_bytes() if part.source else b""
    if part.kind != "same":
        made = decompressed(update.piece(part.offset, part.length), old, part.size)
    if part.kind == "vector":
        frame = update.piece(part.vector_offset, part.vector_length)
        made = task_vector.apply(made, decompressed(frame, b"", _declared(frame, part.size)))
    if len(made) != part.size or hashlib.sha256(made).hexdigest() != part.sha256:
        raise BadInput(f"the update makes another {part.path!r:.60} than it says", remedy=update_file.AGAIN)
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
    check_whole(folder, manifest, delivered=True)
    if manifest.name != header.name or update_of(manifest) != header.update:
        raise BadInput("the update's header and its manifest differ", remedy=update_file.AGAIN)
