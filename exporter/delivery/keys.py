"""Keys to sign with (Ed25519) and to encrypt with (AES-256): their files, written for the owner alone."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.delivery.storage import read_key
from runtimes.errors import BadInput, NotInstalled
from runtimes.writing import unwritable, write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """The files that `keygen` wrote: the second is the one to hand out, where there are two."""

    paths: tuple[Path, ...]
    key_id: str


def keygen(name: Path, *, encryption: bool = False, force: bool = False) -> Keys:
    """Write NAME.key and NAME.pub to sign with, or NAME.aes to encrypt with; secret files are for their owner alone.

    Raises BadInput where one of them exists (without `force`), or cannot be written.
    """
    need_cryptography()
    with _alone(name):
        return _keygen(name, encryption, force)


@contextlib.contextmanager
def _alone(name: Path) -> Iterator[None]:
    """One at a time in a folder: else of two that make the same pair each may write one half of it."""
    try:
        folder = os.open(name.parent, os.O_RDONLY)
    except OSError as error:
        raise unwritable(name, error) from error
    try:
        with contextlib.suppress(OSError):  # of file systems without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _keygen(name: Path, encryption: bool, force: bool) -> Keys:
    secret, public = name.with_name(f"{name.name}.{'aes' if encryption else 'key'}"), name.with_name(f"{name.name}.pub")
    paths = (secret,) if encryption else (secret, public)
    for path in paths:
        if path.exists() and not force:
            raise BadInput("the key exists", where=str(path), remedy="give another name, or --force to lose it")
    if encryption:
        key = os.urandom(KEY_BYTES)
        write_file(secret, [base64.b64encode(key) + b"\n"], secret=True)
        return Keys(paths, hashlib.sha256(key).hexdigest()[:16])
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    write_file(secret, [pem], secret=True)
    write_file(public, [private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)])
    return Keys(paths, key_id(private.public_key()))


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def key_of_bytes(raw: bytes) -> Ed25519PublicKey:
    """The public key of its 32 bytes.

    Raises ValueError for bytes that are none, NotInstalled without the library.
    """
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw)


def need_cryptography() -> None:
    """Raise NotInstalled without the library."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise NotInstalled("cryptography is not installed", remedy="pip install 'pocketship[delivery]'") from error


def private_key_of(path: Path) -> Ed25519PrivateKey:
    """The key to sign with of a .key file.

    Raises BadInput for one that is none, or that others may read.
    """
    need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    remedy = "give the .key file of pocketship keygen"
    try:
        found = load_pem_private_key(read_key(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # what the library says may hold parts of the key
        raise BadInput("this is no private key to sign with", where=str(path), remedy=remedy) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise BadInput("the key is of another kind than Ed25519", where=str(path), remedy=remedy)
    _check_private(path)
    return found


def public_key_of(path: Path) -> Ed25519PublicKey:
    """The key to check signatures with of a .pub file.

    Raises BadInput for one that is none.
    """
    need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    remedy = "give the .pub file of pocketship keygen"
    try:
        found = load_pem_public_key(read_key(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput("this is no public key", where=str(path), remedy=remedy) from error
    if not isinstance(found, Ed25519PublicKey):
        raise BadInput("the key is of another kind than Ed25519", where=str(path), remedy=remedy)
    return found


def secret_key_of(path: Path | None) -> bytes:
    """The 32 bytes to encrypt with of an .aes file.

    Raises BadInput for one that is none, or that others may read.
    """
    assert path is not None
    need_cryptography()
    try:
        key = base64.b64decode(read_key(path).strip(), validate=True)
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
