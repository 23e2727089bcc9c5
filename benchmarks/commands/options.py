"""Options that several commands share: how to measure, how boards are reached over ssh, where the history is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
