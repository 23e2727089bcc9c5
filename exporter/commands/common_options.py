"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.console import complain

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]

TaskOption = Annotated[str | None, typer.Option(help="The task of a Hugging Face model, if not its own.")]
WeightsOption = Annotated[str | None, typer.Option(help="A safetensors file for timm:NAME or FILE.py:FACTORY.")]
TrustRemoteCodeOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let a Hugging Face model run its own code.")
]

SignOption = Annotated[Path | None, typer.Option("--sign", help="Sign it with this key (pocketship keygen).")]
EncryptOption = Annotated[Path | None, typer.Option("--encrypt", help="Encrypt it with this key.")]
PublicKeyOption = Annotated[
    Path | None, typer.Option("--public-key", help="Refuse what the owner of this key did not sign.")
]
SequenceOption = Annotated[
    int | None,
    typer.Option(help="The number to sign it with, higher than any before; by default the time, in seconds."),
]
AllowOlderOption = Annotated[
    bool, typer.Option("--allow-older", help="Let an older bundle take the place of a newer one.")
]
KeyOption = Annotated[Path | None, typer.Option("--key", help="The key it is encrypted with.")]

StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with 3 where a column or channel agrees but nothing proves it.")
]


def say_unchecked(signer: str | None, claimed: str | None) -> None:
    """Say on stderr that a file names a signer whom nobody checked."""
    if signer is None and claimed:
        complain(f"it says that key {claimed} signed it, which was not checked: give --public-key")
