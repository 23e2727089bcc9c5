"""The commands `keygen`, `sign`, `pack` and `unpack`: mounted by exporter/cli.py; nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import out, say_next
from exporter.commands.common_options import (
    AllowOlderOption,
    EncryptOption,
    KeyOption,
    PublicKeyOption,
    QuietOption,
    SequenceOption,
    SignOption,
    say_unchecked,
)

app = typer.Typer()


@app.command(**in_group("Ship it", "pocketship keygen release"))
def keygen(
    name: Annotated[Path, typer.Argument(help="Where to write: NAME.key and NAME.pub, or NAME.aes.")],
    encryption: Annotated[
        bool, typer.Option("--encryption", help="A key to encrypt with, in place of a pair to sign with.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace keys that exist: what they sealed stays sealed.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Make a pair of keys to sign with, or a key to encrypt with; secret ones are readable by you alone."""
    from exporter.delivery.keys import keygen as make

    keys = make(name, encryption=encryption, force=force)
    if not quiet:
        secret, *public = map(str, keys.paths)
        hand_out = f"; hand out {public[0]}" if public else ""
        out().print(
            f"{secret} is secret and has no password: keep it where only you can read it{hand_out}", highlight=False
        )
        out().print(f"key {keys.key_id}", highlight=False)
        if encryption:
            say_next("encrypt a bundle", "pack", "BUNDLE", "-o", "FILE", "--encrypt", secret)
        else:
            say_next("sign a bundle", "sign", "BUNDLE", "--key", secret)


@app.command(**in_group("Ship it", "pocketship sign minilm-bundle --key release.key"))
def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    key: Annotated[Path, typer.Option("--key", help="The .key file to sign with.")],
    sequence: SequenceOption = None,
    quiet: QuietOption = False,
) -> None:
    """Sign a bundle: manifest.sig beside manifest.json, which covers every file by its hash."""
    from exporter.delivery.signature import sign_bundle

    signer = sign_bundle(bundle, key, sequence)
    if not quiet:
        out().print(f"{bundle} is signed by key {signer}", highlight=False)
        say_next("make it one file", "pack", bundle, "-o", f"{bundle}.pocketship")


@app.command(**in_group("Ship it", "pocketship pack minilm-bundle --output minilm.pocketship --sign release.key"))
def pack(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The one file to write.")],
    sign: SignOption = None,
    sequence: SequenceOption = None,
    encrypt: EncryptOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a bundle as one file, signed and encrypted where keys are given."""
    from exporter.delivery.packing import pack as seal

    size = seal(bundle, output, sign=sign, sequence=sequence, encrypt=encrypt, force=force)
    if not quiet:
        how = (
            " and ".join(word for word, key in (("encrypted", encrypt), ("signed", sign)) if key)
            or "neither encrypted nor signed"
        )
        out().print(f"{output}: {size:,} bytes, {how}", highlight=False)
        say_next("open it again", "unpack", output, "-o", "BUNDLE", *(("--key", encrypt) if encrypt else ()))


@app.command(**in_group("Ship it", "pocketship unpack minilm.pocketship --output minilm --public-key release.pub"))
def unpack(
    file: Annotated[Path, typer.Argument(help="What pocketship pack wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    public_key: PublicKeyOption = None,
    key: KeyOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    allow_older: AllowOlderOption = False,
    quiet: QuietOption = False,
) -> None:
    """Open a packed bundle: every file is checked before anything takes a place."""
    from exporter.delivery.packing import unpack as unseal

    done = unseal(file, output, public_key=public_key, key=key, force=force, allow_older=allow_older)
    say_unchecked(done.signer, done.claimed)
    if not quiet:
        signed = f", signed by key {done.signer}" if done.signer else ""
        out().print(f"{output} is ready; every hash is right{signed}", highlight=False)
        say_next("prove it here", "verify", output)
