"""The signature of a bundle: manifest.sig beside manifest.json, which covers every file by its hash."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.delivery.keys import key_id, private_key_of, public_key_of
from exporter.delivery.storage import AGAIN, unwritable
from runtimes.bundle import MANIFEST, read_manifest
from runtimes.errors import ParityFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "manifest.sig"
MANIFEST_DOMAIN = b"pocketship manifest 1\0"


def sign_bundle(bundle: Path, key: Path) -> str:
    """Write manifest.sig beside manifest.json, which covers every file by its hash; the signer's id.

    Raises BadInput where there is no bundle, or the key cannot be used.
    """
    read_manifest(bundle)
    private = private_key_of(key)
    signer = key_id(private.public_key())
    signature = private.sign(MANIFEST_DOMAIN + (bundle / MANIFEST).read_bytes())
    text = json.dumps({"signer": signer, "ed25519": base64.b64encode(signature).decode()}) + "\n"
    try:
        (bundle / SIGNATURE).write_text(text, encoding="ascii")
    except OSError as error:
        raise unwritable(bundle / SIGNATURE, error) from error
    return signer


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
    try:
        found = json.loads((bundle / SIGNATURE).read_text(encoding="ascii"))
        signature = base64.b64decode(found["ed25519"], validate=True)
    except FileNotFoundError as error:
        raise ParityFailed("the bundle is not signed", where=str(bundle), remedy=AGAIN) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParityFailed("the bundle's signature cannot be read", where=str(bundle), remedy=AGAIN) from error
    verify(public, signature, MANIFEST_DOMAIN + (bundle / MANIFEST).read_bytes(), str(bundle))
    return key_id(public)


def verify(public: Ed25519PublicKey, signature: bytes, message: bytes, where: str) -> None:
    """Raise ParityFailed where the signature of `message` is not that key's."""
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, message)
    except InvalidSignature as error:
        raise ParityFailed(
            f"the signature is not that of key {key_id(public)}, or the content was changed", where=where, remedy=AGAIN
        ) from error
