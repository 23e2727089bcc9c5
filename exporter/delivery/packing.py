"""A bundle as one file: `pocketship pack` and `unpack`. What comes out is checked whole before it takes any place."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from exporter.bundle.writer import NEW_BUNDLE, WORK, commit, partial_folder, writing_errors
from exporter.delivery.files import check_whole, names_of, said_of
from exporter.delivery.keys import key_id, private_key_of, secret_key_of
from exporter.delivery.sealing import seal, unseal
from exporter.delivery.signature import Signed, check_own_signature, check_sequence, signature_of
from exporter.delivery.storage import AGAIN, Readable, opened, pieces
from exporter.delivery.trust import check_new, check_replacement, trusted_key
from runtimes.bundle import SIGNATURE, read_manifest
from runtimes.errors import BadInput
from runtimes.paths import inside
from runtimes.writing import unwritable, write_file

BLOCK = 512
END = bytes(2 * BLOCK)
MOST_FILES = 10_000


@dataclass(frozen=True)
class Unpacked:
    """Who signed a file: `signer` where that was checked, `claimed` whoever it names; None for nobody."""

    signer: str | None
    claimed: str | None


def pack(
    bundle: Path,
    output: Path,
    *,
    sign: Path | None = None,
    sequence: int | None = None,
    encrypt: Path | None = None,
    force: bool = False,
) -> int:
    """Write a bundle as one file, encrypted where a key is given; its size in bytes.

    The key `sign` signs the file and the bundle in it, with that `sequence` (see `sign_bundle`); a bundle that it
    has signed before keeps its number where none is given.

    Raises BadInput where there is no bundle, a key cannot be used, or the file exists (without `force`); ParityFailed
    for a bundle that is damaged, or holds a file that its manifest does not cover.
    """
    manifest = read_manifest(bundle)
    if output.exists() and not force:
        raise BadInput("the file exists", where=str(output), remedy="add --force to replace it")
    if sequence is not None:
        check_sequence(sequence)
        if sign is None:
            raise BadInput("a number is for a signature", where="--sequence", remedy="add --sign KEY")
    if encrypt is not None:
        secret_key_of(encrypt)  # refused before all the work, too
    check_whole(bundle, manifest)
    own = check_own_signature(bundle)
    signature = _signature(bundle, own, sign, sequence) if sign else None
    names = [name for name in names_of(bundle, manifest) if signature is None or name != SIGNATURE]
    if len(names) >= MOST_FILES:
        raise BadInput(f"{len(names)} files are too many", where=str(bundle), remedy=f"{MOST_FILES} can be packed")
    with _scratch(output) as archive:
        for name in names:
            _add_file(archive, bundle, name)
        if signature is not None:
            _add(archive, SIGNATURE, [signature], len(signature), bundle)
        archive.write(END)
        size = archive.tell()
        archive.seek(0)
        return write_file(output, seal(archive, size, kind="bundle", sign=sign, encrypt=encrypt))


def _signature(bundle: Path, own: Signed | None, sign: Path, sequence: int | None) -> bytes:
    """The manifest.sig that is to be packed: the bundle's own where this key made it and no other number is given."""
    public = private_key_of(sign).public_key()
    if own and own.key == public.public_bytes_raw() and sequence in (None, own.sequence):
        return (bundle / SIGNATURE).read_bytes()
    return signature_of(bundle, sign, sequence)[0]


@contextlib.contextmanager
def _scratch(output: Path) -> Iterator[IO[bytes]]:
    """A file without a name beside `output`, gone at the end, even at a kill.

    Raises BadInput where it cannot be written.
    """
    try:
        with tempfile.TemporaryFile(dir=output.absolute().parent) as stream:
            yield stream
    except OSError as error:
        raise unwritable(output, error) from error


def unpack(
    path: Path,
    output: Path,
    *,
    public_key: Path | None = None,
    key: Path | None = None,
    force: bool = False,
    allow_older: bool = False,
) -> Unpacked:
    """Write the bundle in a file of `pack` into the folder `output`, with `force` in the place of the one there.

    Every file has the manifest's hash, and the signature is right, before anything takes a place. A signed bundle gives
    way only to one by the same signer, of the same name and, without `allow_older`, no older (docs/sealing.md).

    Raises BadInput and ParityFailed as `unseal`, `trusted_key`, `check_whole`, `check_new` and `check_replacement`, and
    BadInput for an archive that holds anything but plain files within the folder.
    """
    output = output.absolute()
    with opened(path) as sealed, partial_folder(output, force) as partial, writing_errors(output):
        trusted = trusted_key(public_key, output)
        new = partial / NEW_BUNDLE
        with open(partial / WORK / "archive", "w+b") as archive:
            signer = unseal(sealed, archive, kind="bundle", trusted=trusted, key=key, where=str(path))
            size = archive.tell()
            archive.seek(0)
            extract(archive, size, new, str(path))
        with said_of(path, new):
            check_whole(new, read_manifest(new), delivered=True)
            claimed = check_new(new, trusted, signer)
        if output.exists():
            check_replacement(output, new, allow_older=allow_older)
        commit(partial, output)
    return Unpacked(key_id(trusted.key) if trusted else None, claimed)


# --- the archive: USTAR (POSIX.1-1988) of plain files alone ----------------------------------------------------------


def _header(name: str, size: int) -> bytes:
    """The one header that a file may have. Raises ValueError for a path that is too long, or no UTF-8."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def _add_file(archive: IO[bytes], bundle: Path, name: str) -> None:
    with opened(bundle / name) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        _add(archive, name, pieces(stream, size), size, bundle)


def _add(archive: IO[bytes], name: str, content: Iterator[bytes] | list[bytes], size: int, bundle: Path) -> None:
    try:
        archive.write(_header(name, size))
    except ValueError as error:
        raise BadInput(f"a path is too long ({error})", where=str(bundle), remedy="give shorter names") from error
    for piece in content:
        archive.write(piece)
    archive.write(bytes(-size % BLOCK))


def extract(archive: Readable, size: int, folder: Path, where: str) -> None:
    """The plain files of an archive of `size` bytes, each within the folder.

    A header is the very one that `pack` writes for that name and size: none of another kind (a link, a device, sparse,
    one that names the next) is read any further. Raises BadInput for anything else.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    at = 0
    while True:
        block = archive.read(BLOCK)
        at += len(block)
        if block == END[:BLOCK]:
            break
        name, length = _entry(block, where)
        above = [str(parent) for parent in PurePosixPath(name).parents[:-1]]
        doubled = name in seen or name in folders or not seen.isdisjoint(above)
        folders.update(above)
        if doubled or len(seen) == MOST_FILES or len(folders) > MOST_FILES:
            what = f"{name!r:.60} is there twice" if doubled else f"it holds more than {MOST_FILES} files or folders"
            raise BadInput(what, where=where, remedy="do not trust this file")
        if length + -length % BLOCK + BLOCK > size - at:
            raise BadInput(f"{name!r:.60} is longer than the archive", where=where, remedy="do not trust this file")
        seen.add(name)
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "xb") as stream:
            for piece in pieces(archive, length):
                stream.write(piece)
        at += length + len(archive.read(-length % BLOCK))
    if archive.read(BLOCK + 1) != END[BLOCK:]:
        raise BadInput("the archive does not end where it says", where=where, remedy=AGAIN)


def _entry(block: bytes, where: str) -> tuple[str, int]:
    """The name and the size of a file; raises BadInput for a header that `pack` would not write."""
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        written = _header(entry.name, entry.size)
    except (tarfile.HeaderError, ValueError) as error:
        raise BadInput(f"the archive cannot be read ({error})", where=where, remedy=AGAIN) from error
    inside(entry.name, where)
    if block != written:
        raise BadInput(f"{entry.name!r:.60} is no plain file", where=where, remedy="do not trust this file")
    return entry.name, entry.size
