"""What may take the place of a bundle: nothing that its signer did not sign, and nothing older unless the user says so.

The first bundle in a place is trusted as it comes (or by --public-key); the key in its manifest.sig is what every later
one there has to be signed by. An incoming file cannot change that: it is read before anything of the file is used.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.delivery.files import update_of
from exporter.delivery.keys import key_id, key_of_bytes, public_key_of
from exporter.delivery.signature import Signed, check_own_signature, check_signed_by, read_signature
from exporter.delivery.storage import AGAIN
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput, ParityFailed
from runtimes.types import Manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True)
class Trusted:
    """The key that a file has to be signed by: the user's, or that of the bundle whose place is taken."""

    key: Ed25519PublicKey
    is_users: bool

    def unsigned(self, where: str) -> ParityFailed:
        """What to raise for a file that is not signed."""
        if self.is_users:
            return ParityFailed("the file is not signed", where=where, remedy=AGAIN)
        what = f"the file is not signed, and the bundle whose place it would take is, by key {key_id(self.key)}"
        return ParityFailed(what, where=where, remedy="get a signed one, or remove that bundle first")


def trusted_key(public_key: Path | None, *places: Path) -> Trusted | None:
    """The user's key, else that of the signed bundles in these places, None where none is.

    Raises BadInput for a key that is none; ParityFailed where a bundle's signature cannot be read, or does not hold
    its key, as the first pocketships wrote it, and where two keys signed them.
    """
    if public_key is not None:
        return Trusted(public_key_of(public_key), True)
    keys: dict[bytes, Path] = {}
    for place in places:
        try:
            signed = read_signature(place)
        except ParityFailed as error:
            what, remedy = "the signature of the bundle there cannot be read", "give --public-key, or remove it first"
            raise ParityFailed(what, where=str(place), remedy=remedy) from error
        if signed is not None and signed.key is None:
            what = f"the bundle there is signed by key {signed.signer}, which it does not hold"
            raise ParityFailed(what, where=str(place), remedy="give that --public-key, or remove the bundle first")
        if signed is not None and signed.key is not None:
            keys[signed.key] = place
    if len(keys) > 1:
        first, second = keys.values()
        what = f"the bundle there and {first} are signed by two keys"
        raise ParityFailed(what, where=str(second), remedy="say by --public-key whom you trust")
    return Trusted(key_of_bytes(next(iter(keys))), False) if keys else None


def check_new(new: Path, trusted: Trusted | None, signer: str | None) -> str | None:
    """The id of who signed a bundle, by its manifest.sig, that came in a file which `signer` signed; None for nobody.

    Raises ParityFailed where that is not the trusted key, not the file's signer, or does not fit its manifest.
    """
    signed = check_own_signature(new)
    if trusted is not None:
        check_signed_by(new, trusted.key)
    if signer is not None and (signed is None or signed.signer != signer):
        raise ParityFailed(f"the bundle in it is not signed by key {signer}", where=str(new), remedy=AGAIN)
    return signed.signer if signed else None


def check_replacement(old: Path, new: Path, *, same_name: bool = True, allow_older: bool = False) -> None:
    """Raise BadInput where the bundle `new` must not take the place of `old`: it is older, or another model's.

    A sequence, which signatures hold, decides where the old one has any; else the number of updates they have had. A
    signed bundle keeps its name, for its signer may have signed other models, too.
    """
    (before, was), after, now = _known(old), read_manifest(new), read_signature(new)
    if was is not None and same_name and before is not None and before.name != after.name:
        raise BadInput(
            f"the signed bundle of {before.name!r:.60} would become one of {after.name!r:.60}",
            where=str(old),
            remedy="give another place, or remove it first",
        )
    if was is not None and was.sequence is not None:
        numbers = was.sequence, now.sequence if now and now.sequence is not None else -1
    else:
        numbers = update_of(before) if before else 0, update_of(after)
    if numbers[1] < numbers[0] and not allow_older:
        what = f"number {numbers[1]}" if numbers[1] >= 0 else "one without a number"
        raise BadInput(
            f"the bundle there is number {numbers[0]}, it would become {what}, an older one",
            where=str(old),
            remedy="add --allow-older, if that is meant",
        )


def _known(bundle: Path) -> tuple[Manifest | None, Signed | None]:
    """The manifest of a bundle and its signature, None where they are damaged: what is whole may take its place."""
    manifest = signed = None
    with contextlib.suppress(BadInput):
        found = read_manifest(bundle)
        update_of(found)
        manifest = found
    with contextlib.suppress(ParityFailed):
        signed = read_signature(bundle)
    return manifest, signed
