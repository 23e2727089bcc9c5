"""Sealed files: bundles and updates, signed (Ed25519) and encrypted (AES-256-GCM), with the library `cryptography`.

docs/sealing.md has the format. Encrypt, then sign: what is not signed by the right key is never decrypted, and what is
not decrypted whole is never written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.bundle.writer import NEW_BUNDLE, commit, partial_folder, writing_errors
from exporter.delivery.keys import KEY_BYTES, key_id, private_key_of, public_key_of, secret_key_of
from exporter.delivery.signature import verify
from exporter.delivery.storage import AGAIN, LARGEST, read_file, write_file
from runtimes.bundle import inside, read_manifest
from runtimes.errors import BadInput, ParityFailed

MAGIC = b"pocketship seal 1\n"
FILE_DOMAIN = b"pocketship seal 1\0"
CHUNK = 1 << 16
TAG = 16
SIGNATURE_BYTES = 64
LONGEST_HEADER = 1 << 12


def is_sealed(path: Path) -> bool:
    """Whether a file begins as a sealed one."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def pack(
    bundle: Path, output: Path, *, sign: Path | None = None, encrypt: Path | None = None, force: bool = False
) -> int:
    """Write a bundle as one file, signed and encrypted where keys are given; its size in bytes.

    Raises BadInput where there is no bundle, a key cannot be used, or the file exists (without `force`).
    """
    read_manifest(bundle)
    if output.exists() and not force:
        raise BadInput("the file exists", where=str(output), remedy="add --force to replace it")
    sealed = seal(_archived(bundle), kind="bundle", sign=sign, encrypt=encrypt)
    write_file(output, sealed)
    return len(sealed)


def _archived(bundle: Path) -> bytes:
    """The bundle's files as an archive, the same bytes for the same files.

    Raises BadInput for a file that cannot be read, is a link, or whose path is too long.
    """
    stream = io.BytesIO()
    try:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for path in sorted(p for p in bundle.rglob("*") if p.is_symlink() or not p.is_dir()):
                if path.is_symlink() or not path.is_file():
                    raise BadInput("this is no plain file", where=str(path), remedy="export the bundle again")
                entry = tarfile.TarInfo(path.relative_to(bundle).as_posix())
                entry.size, entry.mode = path.stat().st_size, 0o644
                with open(path, "rb") as content:
                    archive.addfile(entry, content)
    except OSError as error:
        raise BadInput(f"a file cannot be read ({error})", where=str(bundle), remedy="check the bundle") from error
    except ValueError as error:
        raise BadInput(f"a path is too long ({error})", where=str(bundle), remedy="give shorter names") from error
    return stream.getvalue()


def unpack(
    path: Path, output: Path, *, public_key: Path | None = None, key: Path | None = None, force: bool = False
) -> tuple[str | None, str]:
    """Write the bundle in a file of `pack` into the folder `output`.

    The signer's id, None where it was not checked, and the id that the file claims, "" for nobody.

    Raises BadInput and ParityFailed as `unseal`, and BadInput for an archive that leads out of the folder.
    """
    sealed = read_file(path)
    content, signer = unseal(sealed, kind="bundle", public_key=public_key, key=key, where=str(path))
    claimed = str(_split(sealed, "bundle", str(path))[0]["signer"])
    output = output.absolute()
    with partial_folder(output, force) as partial, writing_errors(output):
        new = partial / NEW_BUNDLE
        _extract(content, new, str(path))
        read_manifest(new)
        commit(partial, output)
    return signer, claimed


def unseal_file(path: Path, output: Path, *, kind: str, public_key: Path | None, key: Path | None) -> str | None:
    """Open a sealed file into another; see `unseal`."""
    content, signer = unseal(read_file(path), kind=kind, public_key=public_key, key=key, where=str(path))
    write_file(output, content)
    return signer


def seal(content: bytes, *, kind: str, sign: Path | None = None, encrypt: Path | None = None) -> bytes:
    """The sealed form of `content`: header, chunks, signature."""
    private = private_key_of(sign) if sign else None
    salt = os.urandom(KEY_BYTES) if encrypt else b""
    header = {
        "kind": kind,
        "size": len(content),
        "salt": salt.hex(),
        "signer": key_id(private.public_key()) if private else "",
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    head = MAGIC + len(text).to_bytes(4, "little") + text
    body = _encrypted(content, _file_key(secret_key_of(encrypt), salt), head) if encrypt else content
    signature = private.sign(FILE_DOMAIN + hashlib.sha256(head + body).digest()) if private else b""
    return head + body + signature


def unseal(
    sealed: bytes, *, kind: str, public_key: Path | None = None, key: Path | None = None, where: str = ""
) -> tuple[bytes, str | None]:
    """What was sealed, and the signer's id (None where nobody signed, or no key was given to check it by).

    With `public_key` the signature must be that key's. Raises ParityFailed where it is not, and where the content was
    changed; BadInput for a file that is no sealed one of this kind, and for a key that is missing or none.
    """
    header, head, body = _split(sealed, kind, where)
    signed = bool(header["signer"])
    signature = body[len(body) - SIGNATURE_BYTES :] if signed else b""
    body = body[: len(body) - len(signature)]
    signer = None
    if public_key is not None:
        if not signed:
            raise ParityFailed("the file is not signed", where=where, remedy=AGAIN)
        public = public_key_of(public_key)
        verify(public, signature, FILE_DOMAIN + hashlib.sha256(head + body).digest(), where)
        signer = key_id(public)
    if not header["salt"]:
        if len(body) != header["size"]:
            raise ParityFailed("the file is cut off or was changed", where=where, remedy=AGAIN)
        return body, signer
    if key is None:
        raise BadInput("the file is encrypted", where=where, remedy="give --key FILE")
    file_key = _file_key(secret_key_of(key), bytes.fromhex(header["salt"]))
    return _decrypted(body, file_key, head, header["size"], where), signer


def _split(sealed: bytes, kind: str | None, where: str) -> tuple[dict[str, Any], bytes, bytes]:
    start = len(MAGIC) + 4
    if not sealed.startswith(MAGIC) or len(sealed) < start:
        raise BadInput("this is no sealed file", where=where, remedy="give one that pocketship pack or delta wrote")
    length = int.from_bytes(sealed[len(MAGIC) : start], "little")
    damaged = ParityFailed("the file's header is damaged", where=where, remedy=AGAIN)
    if length > min(LONGEST_HEADER, len(sealed) - start):
        raise damaged
    try:
        header = json.loads(sealed[start : start + length])
        right = (
            set(header) == {"kind", "size", "salt", "signer"}
            and type(header["size"]) is int
            and 0 <= header["size"] <= LARGEST
            and len(bytes.fromhex(header["salt"])) in (0, KEY_BYTES)
            and re.fullmatch("(?:[0-9a-f]{16})?", header["signer"]) is not None
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged from error
    if not right:
        raise damaged
    if kind is not None and header["kind"] != kind:
        raise BadInput(f"the file holds a {header['kind']!r:.20}, not a {kind}", where=where, remedy="give another")
    return header, sealed[: start + length], sealed[start + length :]


# --- encryption: STREAM (Hoang, Reyhanitabar, Rogaway, Vizar, 2015) over AES-256-GCM ---------------------------------


def _file_key(key: bytes, salt: bytes) -> bytes:
    """A key for one file: HKDF-SHA256 of the user's key and the file's salt, so that no nonce is ever used twice."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt, FILE_DOMAIN).derive(key)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _encrypted(content: bytes, key: bytes, head: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, count = AESGCM(key), max(1, -(-len(content) // CHUNK))
    chunks = (content[i * CHUNK : (i + 1) * CHUNK] for i in range(count))
    return b"".join(cipher.encrypt(_nonce(i, i == count - 1), chunk, head) for i, chunk in enumerate(chunks))


def _decrypted(body: bytes, key: bytes, head: bytes, size: int, where: str) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, count = AESGCM(key), max(1, -(-size // CHUNK))
    step = CHUNK + TAG
    wrong = ParityFailed("the key is another one, or the file was changed or cut off", where=where, remedy=AGAIN)
    if len(body) != size + count * TAG:
        raise wrong
    try:
        chunks = (body[i * step : (i + 1) * step] for i in range(count))
        return b"".join(cipher.decrypt(_nonce(i, i == count - 1), chunk, head) for i, chunk in enumerate(chunks))
    except InvalidTag as error:
        raise wrong from error


def _extract(content: bytes, folder: Path, where: str) -> None:
    """The regular files of an archive, each within the folder; raises BadInput for anything else."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            seen: set[str] = set()
            for entry in archive:
                inside(entry.name, where)
                above = {str(parent) for parent in PurePosixPath(entry.name).parents}
                doubled = entry.name in seen or above & seen or any(name.startswith(f"{entry.name}/") for name in seen)
                if not entry.isreg() or doubled or entry.size > len(content):
                    raise BadInput(f"{entry.name!r:.60} is no plain file", where=where, remedy="do not trust this file")
                seen.add(entry.name)
                stream = archive.extractfile(entry)
                assert stream is not None
                place = folder / entry.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(stream.read())
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BadInput(f"the archive cannot be read ({error})", where=where, remedy=AGAIN) from error
