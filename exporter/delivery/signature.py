"""The signature of a bundle: manifest.sig beside manifest.json, which covers every file by its hash."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.delivery.files import check_whole
from exporter.delivery.keys import key_id, key_of_bytes, private_key_of, public_key_of
from exporter.delivery.storage import AGAIN, LARGEST_KEY
from runtimes.bundle import MANIFEST, SIGNATURE, read_manifest
from runtimes.errors import BadInput, ParityFailed
from runtimes.files import parse_json
from runtimes.writing import write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST_DOMAIN = b"pocketship manifest 2\0"
OLD_DOMAIN = b"pocketship manifest 1\0"
HIGHEST_SEQUENCE = (1 << 63) - 1


@dataclass(frozen=True)
class Signed:
    """What a manifest.sig says: who signed, the bundle's place in the order of what they signed, the signature.

    The first pocketships wrote neither the public key nor a sequence: both are None in what they signed.
    """

    signer: str
    key: bytes | None
    sequence: int | None
    signature: bytes

    def message(self, manifest: bytes) -> bytes:
        """What was signed."""
        if self.sequence is None:
            return OLD_DOMAIN + manifest
        return MANIFEST_DOMAIN + self.sequence.to_bytes(8, "little") + manifest


def sign_bundle(bundle: Path, key: Path, sequence: int | None = None) -> str:
    """Write manifest.sig beside manifest.json, which covers every file by its hash; the signer's id.

    Of two bundles of one signer that with the higher `sequence` is the newer; by default it is the time, in seconds.

    Raises BadInput where there is no bundle, the key or the number cannot be used, or the file cannot be written;
    ParityFailed for a bundle that is damaged, or holds a file that its manifest does not cover.
    """
    private_key_of(key)
    check_whole(bundle, read_manifest(bundle))
    content, signer = signature_of(bundle, key, sequence)
    write_file(bundle / SIGNATURE, [content])
    return signer


def signature_of(bundle: Path, key: Path, sequence: int | None = None) -> tuple[bytes, str]:
    """The content of a bundle's manifest.sig and the signer's id; see `sign_bundle`."""
    number = int(time.time()) if sequence is None else sequence
    check_sequence(number)
    private = private_key_of(key)
    public = private.public_key()
    unsigned = Signed(key_id(public), public.public_bytes_raw(), number, b"")
    signature = private.sign(unsigned.message((bundle / MANIFEST).read_bytes()))
    fields = {
        "signer": unsigned.signer,
        "public_key": public.public_bytes_raw().hex(),
        "sequence": number,
        "ed25519": base64.b64encode(signature).decode(),
    }
    return (json.dumps(fields) + "\n").encode("ascii"), unsigned.signer


def following(old: Path, key: Path | None, sequence: int | None) -> int | None:
    """The sequence to sign what follows the bundle `old` with, by default the time; None where nothing is signed.

    Raises BadInput for a number that makes no sense, is none that follows, or has no key; where `old` is signed and
    what follows it is not to be, for no app would take that; ParityFailed where its signature cannot be read.
    """
    before = read_signature(old)
    if key is None:
        if sequence is not None:
            raise BadInput("a number is for a signature", where="--sequence", remedy="add --sign KEY")
        if before is not None:
            remedy = "add --sign KEY: apps refuse what is not"
            raise BadInput(f"the old bundle is signed, by key {before.signer}", where=str(old), remedy=remedy)
        return None
    least = 0 if before is None or before.sequence is None else before.sequence + 1
    number = max(int(time.time()), least) if sequence is None else sequence
    check_sequence(number)
    if number < least:
        raise BadInput(f"{number} is older than the old bundle", where="--sequence", remedy=f"give {least} or more")
    return number


def check_sequence(number: int) -> None:
    """Raise BadInput for a number that no signature can hold."""
    if not 0 <= number <= HIGHEST_SEQUENCE:
        raise BadInput(f"{number!r:.40} is no sequence", where="--sequence", remedy=f"give 0 to {HIGHEST_SEQUENCE}")


def check_signing_key(key: Path) -> None:
    """Raise BadInput for a key that nothing can be signed with."""
    private_key_of(key)


def check_signature(bundle: Path, public_key: Path) -> str:
    """The signer's id of a bundle that the owner of this key signed.

    Raises ParityFailed for a bundle that is not signed, or by another key, or was changed since; BadInput for a key
    that is none.
    """
    public = public_key_of(public_key)
    read_manifest(bundle)
    return check_signed_by(bundle, public)


def check_signed_by(bundle: Path, public: Ed25519PublicKey) -> str:
    """See `check_signature`."""
    signed = read_signature(bundle)
    if signed is None:
        raise ParityFailed("the bundle is not signed", where=str(bundle), remedy=AGAIN)
    verify(public, signed.signature, signed.message((bundle / MANIFEST).read_bytes()), str(bundle))
    return key_id(public)


def check_claimed(bundle: Path, public_key: Path | None) -> str | None:
    """The id of who says to have signed a bundle where nobody checked whose key it is: without a `public_key`.

    None where a key was given, and where nobody signed. Raises as `check_signature` and `check_own_signature`: what is
    there for a signature is one, of this manifest.
    """
    if public_key is not None:
        check_signature(bundle, public_key)
        return None
    signed = check_own_signature(bundle)
    return signed.signer if signed else None


def check_own_signature(bundle: Path) -> Signed | None:
    """What a bundle's manifest.sig says, None where there is none: that of the very key that it names.

    Whether that is a key to be trusted it cannot tell; raises ParityFailed where the manifest is another.
    """
    signed = read_signature(bundle)
    if signed is not None and signed.key is not None:
        check_signed_by(bundle, key_of_bytes(signed.key))
    return signed


def read_signature(bundle: Path) -> Signed | None:
    """What a bundle's manifest.sig says, believed by nobody yet; None where there is none.

    Raises ParityFailed where it cannot be read.
    """
    unreadable = ParityFailed("the bundle's signature cannot be read", where=str(bundle), remedy=AGAIN)
    try:
        found = parse_json(_content(bundle / SIGNATURE))
        signature = base64.b64decode(found["ed25519"], validate=True)
        if set(found) == {"signer", "ed25519"}:
            key, sequence, signer = None, None, found["signer"]
        else:
            key, sequence = bytes.fromhex(found["public_key"]), found["sequence"]
            signer = key_id(key_of_bytes(key))
            right = type(sequence) is int and 0 <= sequence <= HIGHEST_SEQUENCE and len(found) == 4
            if not right or found["signer"] != signer:
                raise unreadable
        if not re.fullmatch("[0-9a-f]{16}", signer):
            raise unreadable
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable from error
    return Signed(signer, key, sequence, signature)


def _content(path: Path) -> bytes:
    """A small plain file; raises OSError where it is a link or a pipe, ValueError where it is large."""
    flags = os.O_NONBLOCK | os.O_NOFOLLOW
    with open(path, "rb", opener=lambda place, given: os.open(place, given | flags)) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_KEY:
            raise ValueError("no small plain file")
        return stream.read()


def verify(public: Ed25519PublicKey, signature: bytes, message: bytes, where: str) -> None:
    """Raise ParityFailed where the signature of `message` is not that key's."""
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, message)
    except InvalidSignature as error:
        raise ParityFailed(
            f"the signature is not that of key {key_id(public)}, or the content was changed", where=where, remedy=AGAIN
        ) from error
