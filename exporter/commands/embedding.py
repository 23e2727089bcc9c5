"""The command `embed`: mounted by exporter/cli.py; imports nothing heavy before it runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import out, print_json
from benchmarks.tables import print_table, table_of
from exporter.commands.common_options import JsonOption, QuietOption, say_unchecked
from runtimes.errors import BadInput

app = typer.Typer()


@app.command("embed", **in_group("Ship it", "pocketship embed digits-bundle --android digits --ios Digits"))
def embed_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    android: Annotated[Path | None, typer.Option(help="Write a Gradle library module (Java) here.")] = None,
    ios: Annotated[Path | None, typer.Option(help="Write a Swift package here.")] = None,
    cpp: Annotated[Path | None, typer.Option(help="Write a CMake project (onnxruntime) here.")] = None,
    web: Annotated[Path | None, typer.Option(help="Write a static page, offline after its first load, here.")] = None,
    python: Annotated[Path | None, typer.Option(help="Write a Python package (numpy and one runtime) here.")] = None,
    name: Annotated[str | None, typer.Option(help="The name of class and files, if not the bundle's.")] = None,
    package: Annotated[str | None, typer.Option(help="The Java package; by default pocketship.NAME.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Refuse a bundle that the owner of this key did not sign.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a library that embed wrote.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a library for an app: the artifact, a typed class, pre- and post-processing, and a self-test."""
    folders = {"android": android, "ios": ios, "cpp": cpp, "web": web, "python": python}
    chosen = {platform: folder for platform, folder in folders.items() if folder is not None}
    if not chosen:
        raise BadInput("no platform given", remedy=f"add one of {', '.join(f'--{p} DIR' for p in folders)}")
    from exporter.delivery.signature import check_claimed
    from exporter.embed.write import embed_all

    say_unchecked(None, check_claimed(bundle, public_key))
    written = embed_all(bundle, chosen, name=name, package=package, force=force)
    if as_json:
        print_json([{**asdict(library), "path": str(library.path)} for library in written])
    elif not quiet:
        names = ("platform", "class", "method", "model", "files", "MB", "folder")
        rows = []
        for w in written:
            size = f"{w.size_bytes / 1e6:.2f}"
            rows.append((w.platform, w.cls, w.method, ", ".join(w.artifacts), str(w.files), size, str(w.path)))
        print_table(table_of(names, rows, ("files", "MB")))
        out().print("next, build it and let it check itself: its README.md says how")
