"""Options that several commands share: how to measure, how boards are reached over ssh, where the history is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

Formats = Annotated[
    str,
    typer.Option("--target", "-t", help="Of a bundle, only these: onnx, tflite, coreml; separate by commas."),
]
Threads = Annotated[str, typer.Option(help="Numbers of threads, as 1,2,4.")]
Seconds = Annotated[float, typer.Option(help="How long each artifact is measured, at least.")]
Warmup = Annotated[float, typer.Option(help="The longest warm-up in seconds; it ends once it is stable.")]
Processes = Annotated[int, typer.Option(help="Start anew so many times: processes differ, too.")]
Limit = Annotated[int | None, typer.Option(help="Take at most so many test samples.")]
History = Annotated[
    str | None, typer.Option(help="SQLAlchemy URL of the history, or none; by default a local SQLite file.")
]
AcceptNewHostKey = Annotated[
    bool, typer.Option("--accept-new-host-key", help="ssh: take in the key of a host that is not known yet.")
]
Identity = Annotated[Path | None, typer.Option(help="ssh: the file of a private key.")]
KnownHosts = Annotated[Path | None, typer.Option(help="ssh: the file of known host keys.")]
Wheels = Annotated[Path | None, typer.Option(help="ssh: a folder of wheels for the board.")]


def in_group(group: str, example: str) -> dict[str, Any]:
    """What `app.command` is told of a command: under which heading the help lists it, and an example of its use."""
    return {"rich_help_panel": group, "epilog": f"Example: {example}"}


def history_of(word: str | None) -> tuple[str | None, str]:
    """The URL of what was typed after --history, None for none; and why there is none, where nobody declined it.

    The user's own history is kept where SQLAlchemy is installed. Raises BadInput for what is no URL.
    """
    if word == "none":
        return None, ""
    if word is None and importlib.util.find_spec("sqlalchemy") is None:
        return None, "the history is not kept: sqlalchemy is not installed; pip install 'pocketship[bench]'"
    from benchmarks.results.history import url_of

    return url_of(word), ""
