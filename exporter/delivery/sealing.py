"""Signatures (Ed25519) and encryption (AES-256-GCM) of bundles and updates, with the library `cryptography` alone.

docs/sealing.md has the format. Encrypt, then sign: what is not signed by the right key is never decrypted, and what is
not decrypted whole is never written.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from exporter.bundle.writer import NEW_BUNDLE, commit, partial_folder, writing_errors
from runtimes.bundle import MANIFEST, inside, read_manifest
from runtimes.errors import BadInput, NotInstalled, ParityFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC = b"pocketship seal 1\n"
SIGNATURE = "manifest.sig"
MANIFEST_DOMAIN = b"pocketship manifest 1\0"
FILE_DOMAIN = b"pocketship seal 1\0"
CHUNK = 1 << 16
TAG = 16
SIGNATURE_BYTES = 64
LONGEST_HEADER = 1 << 12
LARGEST = 1 << 32
KEY_BYTES = 32
AGAIN = "get the file again, from where it is published"


@dataclass(frozen=True)
class Keys:
    """The files that `keygen` wrote: the second is the one to hand out, where there are two."""

    paths: tuple[Path, ...]
    key_id: str


def keygen(name: Path, *, encryption: bool = False, force: bool = False) -> Keys:
    """Write NAME.key and NAME.pub to sign with, or NAME.aes to encrypt with; secret files are for their owner alone.

    Raises BadInput where one of them exists (without `force`), or cannot be written.
    """
    _cryptography()
    secret, public = name.with_name(f"{name.name}.{'aes' if encryption else 'key'}"), name.with_name(f"{name.name}.pub")
    paths = (secret,) if encryption else (secret, public)
    for path in paths:
        if path.exists() and not force:
            raise BadInput("the key exists", where=str(path), remedy="give another name, or --force to lose it")
    if encryption:
        key = os.urandom(KEY_BYTES)
        _write_secret(secret, base64.b64encode(key) + b"\n")
        return Keys(paths, hashlib.sha256(key).hexdigest()[:16])
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    _write_secret(secret, pem)
    try:
        public.write_bytes(private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise _unwritable(public, error) from error
    return Keys(paths, key_id(private.public_key()))


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign_bundle(bundle: Path, key: Path) -> str:
    """Write manifest.sig beside manifest.json, which covers every file by its hash; the signer's id.

    Raises BadInput where there is no bundle, or the key cannot be used.
    """
    read_manifest(bundle)
    private = _private(key)
    signer = key_id(private.public_key())
    signature = private.sign(MANIFEST_DOMAIN + (bundle / MANIFEST).read_bytes())
    text = json.dumps({"signer": signer, "ed25519": base64.b64encode(signature).decode()}) + "\n"
    try:
        (bundle / SIGNATURE).write_text(text, encoding="ascii")
    except OSError as error:
        raise _unwritable(bundle / SIGNATURE, error) from error
    return signer


def check_signing_key(key: Path) -> None:
    """Raise BadInput for a key that nothing can be signed with."""
    _private(key)


def check_signature(bundle: Path, public_key: Path) -> str:
    """The signer's id of a bundle that the owner of this key signed.

    Raises ParityFailed for a bundle that is not signed, or by another key, or was changed since; BadInput for a key
    that is none.
    """
    public = _public(public_key)
    read_manifest(bundle)
    try:
        found = json.loads((bundle / SIGNATURE).read_text(encoding="ascii"))
        signature = base64.b64decode(found["ed25519"], validate=True)
    except FileNotFoundError as error:
        raise ParityFailed("the bundle is not signed", where=str(bundle), remedy=AGAIN) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParityFailed("the bundle's signature cannot be read", where=str(bundle), remedy=AGAIN) from error
    _verify(public, signature, MANIFEST_DOMAIN + (bundle / MANIFEST).read_bytes(), str(bundle))
    return key_id(public)


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
    _replace(output, sealed)
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
    sealed = _read(path)
    content, signer = unseal(sealed, kind="bundle", public_key=public_key, key=key, where=str(path))
    claimed = str(_split(sealed, "bundle", str(path))[0]["signer"])
    output = output.absolute()
    with partial_folder(output, force) as partial, writing_errors(output):
        new = partial / NEW_BUNDLE
        _extract(content, new, str(path))
        read_manifest(new)
        commit(partial, output)
    return signer, claimed


def seal_file(path: Path, output: Path, *, kind: str, sign: Path | None, encrypt: Path | None) -> None:
    """Seal the content of a file into another, or into itself."""
    _replace(output, seal(_read(path), kind=kind, sign=sign, encrypt=encrypt))


def unseal_file(path: Path, output: Path, *, kind: str, public_key: Path | None, key: Path | None) -> str | None:
    """Open a sealed file into another; see `unseal`."""
    content, signer = unseal(_read(path), kind=kind, public_key=public_key, key=key, where=str(path))
    _replace(output, content)
    return signer


def seal(content: bytes, *, kind: str, sign: Path | None = None, encrypt: Path | None = None) -> bytes:
    """The sealed form of `content`: header, chunks, signature."""
    private = _private(sign) if sign else None
    salt = os.urandom(KEY_BYTES) if encrypt else b""
    header = {
        "kind": kind,
        "size": len(content),
        "salt": salt.hex(),
        "signer": key_id(private.public_key()) if private else "",
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    head = MAGIC + len(text).to_bytes(4, "little") + text
    body = _encrypted(content, _file_key(_secret(encrypt), salt), head) if encrypt else content
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
        public = _public(public_key)
        _verify(public, signature, FILE_DOMAIN + hashlib.sha256(head + body).digest(), where)
        signer = key_id(public)
    if not header["salt"]:
        if len(body) != header["size"]:
            raise ParityFailed("the file is cut off or was changed", where=where, remedy=AGAIN)
        return body, signer
    if key is None:
        raise BadInput("the file is encrypted", where=where, remedy="give --key FILE")
    return _decrypted(body, _file_key(_secret(key), bytes.fromhex(header["salt"])), head, header["size"], where), signer


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


# --- keys ------------------------------------------------------------------------------------------------------------


def _cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise NotInstalled("cryptography is not installed", remedy="pip install 'pocketship[delivery]'") from error


def _private(path: Path) -> Ed25519PrivateKey:
    _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    remedy = "give the .key file of pocketship keygen"
    try:
        found = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # what the library says may hold parts of the key
        raise BadInput("this is no private key to sign with", where=str(path), remedy=remedy) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise BadInput("the key is of another kind than Ed25519", where=str(path), remedy=remedy)
    _check_private(path)
    return found


def _public(path: Path) -> Ed25519PublicKey:
    _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    remedy = "give the .pub file of pocketship keygen"
    try:
        found = load_pem_public_key(_read(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput("this is no public key", where=str(path), remedy=remedy) from error
    if not isinstance(found, Ed25519PublicKey):
        raise BadInput("the key is of another kind than Ed25519", where=str(path), remedy=remedy)
    return found


def _secret(path: Path | None) -> bytes:
    assert path is not None
    _cryptography()
    try:
        key = base64.b64decode(_read(path).strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        remedy = "give the .aes file of pocketship keygen --encryption"
        raise BadInput("this is no key to encrypt with", where=str(path), remedy=remedy)
    _check_private(path)
    return key


def _check_private(path: Path) -> None:
    """Raise BadInput, as ssh does, where others than the owner may read a secret key."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput("others may read this secret key", where=str(path), remedy=f"chmod 600 {path.name}")


def _verify(public: Ed25519PublicKey, signature: bytes, message: bytes, where: str) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, message)
    except InvalidSignature as error:
        raise ParityFailed(
            f"the signature is not that of key {key_id(public)}, or the content was changed", where=where, remedy=AGAIN
        ) from error


# --- files -----------------------------------------------------------------------------------------------------------


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


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput("the file is too large", where=str(path), remedy="give another")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path), remedy="check the path") from error


def _write_secret(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"cannot be written ({error.strerror})", where=str(path), remedy="give another place")
