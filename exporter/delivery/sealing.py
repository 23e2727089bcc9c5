"""Sealed files: bundles and updates, signed (Ed25519) and encrypted (AES-256-GCM), with the library `cryptography`.

docs/sealing.md has the format. Encrypt, then sign: what is not signed by the right key is never decrypted, and the
header commits to the key. Both ways go chunk by chunk, and nothing is larger in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from exporter.delivery.keys import KEY_BYTES, key_id, key_of_bytes, private_key_of, secret_key_of
from exporter.delivery.signature import verify
from exporter.delivery.storage import AGAIN, LARGEST, Readable, pieces
from runtimes.errors import BadInput, ParityFailed
from runtimes.files import parse_json
from runtimes.records import from_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from exporter.delivery.trust import Trusted

MAGIC = b"pocketship seal 2\n"
ANY_VERSION = b"pocketship seal "
FILE_DOMAIN = b"pocketship seal 2\0"
COMMITMENT_DOMAIN = b"pocketship seal 2 commitment\0"
CHUNK = 1 << 16
TAG = 16
SIGNATURE_BYTES = 64
LONGEST_HEADER = 1 << 12


@dataclass(frozen=True)
class Header:
    """What a sealed file says of itself, under its signature and every chunk's tag.

    `kind` is "bundle" or "update", `size` the bytes of the content. `salt` and `commitment` (32 bytes, hexadecimal) are
    "" where it is not `encrypted`; `signer`, the public key (32 bytes), where it is not signed.
    """

    kind: str
    size: int
    encrypted: bool
    salt: str
    commitment: str
    signer: str

    def makes_sense(self) -> bool:
        """Whether every field is one that `seal` writes."""
        secret = "[0-9a-f]{64}" if self.encrypted else ""
        fits = re.fullmatch(secret, self.salt) and re.fullmatch(secret, self.commitment)
        return bool(fits and re.fullmatch("(?:[0-9a-f]{64})?", self.signer)) and 0 <= self.size <= LARGEST

    @property
    def body_bytes(self) -> int:
        """The bytes between header and signature."""
        return self.size + (TAG * _chunks(self.size) if self.encrypted else 0)


def is_sealed(stream: IO[bytes]) -> bool:
    """Whether a file begins as a sealed one, of whatever version."""
    stream.seek(0)
    return stream.read(len(ANY_VERSION)) == ANY_VERSION


def seal(
    content: IO[bytes], size: int, *, kind: str, sign: Path | None = None, encrypt: Path | None = None
) -> Iterator[bytes]:
    """The sealed form of a content of `size` bytes, a piece at a time: header, chunks, signature.

    Raises BadInput, before the first piece, for a key that cannot be used and a content that is too large.
    """
    if size > LARGEST:
        raise BadInput(f"the content has {size} bytes", remedy=f"{LARGEST} can be sealed")
    private = private_key_of(sign) if sign else None
    secret = secret_key_of(encrypt) if encrypt else None
    salt = os.urandom(KEY_BYTES) if secret else b""
    header = Header(
        kind,
        size,
        secret is not None,
        salt.hex(),
        _derived(secret, salt, COMMITMENT_DOMAIN).hex() if secret else "",
        private.public_key().public_bytes_raw().hex() if private else "",
    )
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    head = MAGIC + len(text).to_bytes(4, "little") + text

    body = _encrypted(content, size, _derived(secret, salt, FILE_DOMAIN), head) if secret else pieces(content, size)
    return _signed(itertools.chain([head], body), private)


def _signed(written: Iterable[bytes], private: Ed25519PrivateKey | None) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in written:
        digest.update(piece)
        yield piece
    if private:
        yield private.sign(FILE_DOMAIN + digest.digest())


def unseal(
    sealed: IO[bytes],
    into: IO[bytes],
    *,
    kind: str,
    trusted: Trusted | None = None,
    key: Path | None = None,
    where: str = "",
) -> str | None:
    """Write what was sealed into another stream, which is nothing before this has ended; the id of who signed it.

    A signature has to be that of the key which the file names, and with `trusted` that key; a file with a `key` has to
    be encrypted, with that one. Raises ParityFailed where it is not so, and where the content was changed; BadInput
    for a file that is no sealed one of this kind, and for a key that is missing or none.
    """
    header, head = _read_header(sealed, kind, where)
    if trusted and not header.signer:
        raise trusted.unsigned(where)
    if key and not header.encrypted:
        raise ParityFailed("the file is not encrypted, and a key was given", where=where, remedy=AGAIN)
    if header.encrypted and key is None:
        raise BadInput("the file is encrypted", where=where, remedy="give --key FILE")
    secret = secret_key_of(key) if key else None
    signer, signed = None, b""
    if header.signer:
        public = trusted.key if trusted else key_of_bytes(bytes.fromhex(header.signer))
        body = _Hashed(sealed, head)
        for _ in pieces(body, header.body_bytes):
            pass
        signed = body.digest.digest()
        verify(public, sealed.read(SIGNATURE_BYTES), FILE_DOMAIN + signed, where)
        signer = key_id(public)
    salt = bytes.fromhex(header.salt)
    if secret and not hmac.compare_digest(_derived(secret, salt, COMMITMENT_DOMAIN).hex(), header.commitment):
        raise _wrong(where)
    body = _Hashed(sealed, head)
    key_of_file = _derived(secret, salt, FILE_DOMAIN) if secret else b""
    plain = _decrypted(body, key_of_file, head, header.size, where) if secret else pieces(body, header.size)
    for piece in plain:
        into.write(piece)
    if signed and body.digest.digest() != signed:
        raise ParityFailed("the file changed while it was read", where=where, remedy=AGAIN)
    return signer


class _Hashed:
    """What follows a header, from its beginning on, with the SHA-256 of all that was read."""

    def __init__(self, sealed: IO[bytes], head: bytes) -> None:
        sealed.seek(len(head))
        self._sealed, self.digest = sealed, hashlib.sha256(head)

    def read(self, size: int, /) -> bytes:
        piece = self._sealed.read(size)
        self.digest.update(piece)
        return piece


def _wrong(where: str) -> ParityFailed:
    return ParityFailed("the key is another one, or the file was changed or cut off", where=where, remedy=AGAIN)


def _read_header(sealed: IO[bytes], kind: str, where: str) -> tuple[Header, bytes]:
    """The header and its bytes; nothing of the size that it says is allocated, and the file has exactly that size."""
    size = sealed.seek(0, os.SEEK_END)
    sealed.seek(0)
    magic = sealed.read(len(MAGIC))
    if magic != MAGIC:
        if magic.startswith(ANY_VERSION):
            raise BadInput("the file is sealed in another version than 2", where=where, remedy="pack it again")
        raise BadInput("this is no sealed file", where=where, remedy="give one that pocketship pack or delta wrote")
    damaged = ParityFailed("the file's header is damaged", where=where, remedy=AGAIN)
    length = sealed.read(4)
    text = sealed.read(min(LONGEST_HEADER + 1, int.from_bytes(length, "little")))
    if len(text) > LONGEST_HEADER or len(length) != 4 or len(text) != int.from_bytes(length, "little"):
        raise damaged
    try:
        header: Header = from_json(Header, parse_json(text))
    except (ValueError, BadInput) as error:
        raise damaged from error
    if not header.makes_sense():
        raise damaged
    if header.kind != kind:
        raise BadInput(f"the file holds a {header.kind!r:.20}, not a {kind}", where=where, remedy="give another")
    head = magic + length + text
    if size != len(head) + header.body_bytes + (SIGNATURE_BYTES if header.signer else 0):
        raise ParityFailed("the file is cut off or was changed", where=where, remedy=AGAIN)
    return header, head


# --- encryption: STREAM (Hoang, Reyhanitabar, Rogaway, Vizar, 2015) over AES-256-GCM ---------------------------------


def _derived(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256 of the user's key and the file's salt: a key for one file, so that no nonce is ever used twice, and
    what commits to it. AES-GCM alone does not: one text can be made that opens with two keys."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt, purpose).derive(secret)


def _chunks(size: int) -> int:
    return max(1, -(-size // CHUNK))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _encrypted(content: IO[bytes], size: int, key: bytes, head: bytes) -> Iterator[bytes]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, count = AESGCM(key), _chunks(size)
    for i in range(count):
        yield cipher.encrypt(_nonce(i, i == count - 1), content.read(min(CHUNK, size - i * CHUNK)), head)


def _decrypted(sealed: Readable, key: bytes, head: bytes, size: int, where: str) -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, count = AESGCM(key), _chunks(size)
    for i in range(count):
        chunk = sealed.read(min(CHUNK, size - i * CHUNK) + TAG)
        try:
            piece = cipher.decrypt(_nonce(i, i == count - 1), chunk, head)
        except InvalidTag as error:
            raise _wrong(where) from error
        yield piece
