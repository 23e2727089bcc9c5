"""The commands `keygen`, `sign`, `pack` and `unpack`: mounted by exporter/cli.py; nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.console import out
from exporter.commands.common_options import EncryptOption, KeyOption, PublicKeyOption, QuietOption, SignOption

app = typer.Typer()


@app.command()
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


@app.command()
def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    key: Annotated[Path, typer.Option("--key", help="The .key file to sign with.")],
    quiet: QuietOption = False,
) -> None:
    """Sign a bundle: manifest.sig beside manifest.json, which covers every file by its hash."""
    from exporter.delivery.signature import sign_bundle

    signer = sign_bundle(bundle, key)
    if not quiet:
        out().print(f"{bundle} is signed by key {signer}", highlight=False)


@app.command()
def pack(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The one file to write.")],
    sign: SignOption = None,
    encrypt: EncryptOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a bundle as one file, signed and encrypted where keys are given."""
    from exporter.delivery.sealing import pack as seal

    size = seal(bundle, output, sign=sign, encrypt=encrypt, force=force)
    if not quiet:
        how = (
            " and ".join(word for word, key in (("encrypted", encrypt), ("signed", sign)) if key)
            or "neither encrypted nor signed"
        )
        out().print(f"{output}: {size:,} bytes, {how}", highlight=False)


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(help="What pocketship pack wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle folder to write.")],
    public_key: PublicKeyOption = None,
    key: KeyOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Open a packed bundle: verified whole before any of it is written."""
    from exporter.delivery.sealing import unpack as unseal

    signer, claimed = unseal(file, output, public_key=public_key, key=key, force=force)
    if signer is None and claimed:
        unchecked = f"it says that key {claimed} signed it, which was not checked: give --public-key"
        typer.echo(f"pocketship: {unchecked}", err=True)
    if not quiet:
        out().print(f"{output} is ready" + (f", signed by key {signer}" if signer else ""), highlight=False)
