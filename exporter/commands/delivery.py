"""The commands `delta` and `apply`: mounted by exporter/cli.py; imports nothing heavy before they run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import out, print_json, say_next
from benchmarks.tables import print_table, table_of
from exporter.commands.common_options import (
    AllowOlderOption,
    EncryptOption,
    JsonOption,
    KeyOption,
    PublicKeyOption,
    QuietOption,
    SequenceOption,
    SignOption,
    say_unchecked,
)

if TYPE_CHECKING:
    from exporter.delivery.delta import Delta

app = typer.Typer()


@app.command("delta", **in_group("Ship it", "pocketship delta old-bundle new-bundle --output update"))
def delta_command(
    old: Annotated[Path, typer.Argument(help="The bundle that apps have.")],
    new: Annotated[Path, typer.Argument(help="The bundle that they are to have.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The update to write.")],
    density: Annotated[str, typer.Option(help="The share of each tensor's elements that a fine-tune keeps.")] = "10%",
    data: Annotated[
        str | None, typer.Option(help="A task, as for export: tunes the task vector, and scores what is delivered.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="A binary patch of each file, whatever the change is.")
    ] = False,
    max_drop: Annotated[str | None, typer.Option(help="Refuse a larger loss of the task's metric, as 1%.")] = None,
    sign: SignOption = None,
    sequence: SequenceOption = None,
    encrypt: EncryptOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an update that exists.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a small update that turns one bundle into another: a task vector for a fine-tune, else a binary patch."""
    from benchmarks.commands.words import parse_percent
    from benchmarks.tasks import load_task
    from exporter.delivery.delta import delta

    found = delta(
        old,
        new,
        output,
        density=parse_percent(density),
        task=load_task(data, new) if data else None,
        exact=exact,
        max_drop=None if max_drop is None else parse_percent(max_drop),
        sign=sign,
        sequence=sequence,
        encrypt=encrypt,
        force=force,
        say=(lambda line: None) if quiet or as_json else (lambda line: out().print(line, highlight=False)),
    )
    if as_json:
        print_json({**asdict(found), "path": str(found.path)})
    elif not quiet:
        _print_delta(found)
        say_next("turn the old bundle into the new one", "apply", found.path, old)


def _print_delta(found: Delta) -> None:
    names = ("file", "as", "update", "plain", "gzip", "binary diff")
    rows = []
    for file in found.files:
        sizes = (file.update_bytes, file.size_bytes, file.gzip_bytes, file.diff_bytes)
        rows.append((file.path, file.kind, *(f"{size:,}" for size in sizes)))
    totals = [
        sum(sizes) for sizes in zip(*((f.size_bytes, f.gzip_bytes, f.diff_bytes) for f in found.files), strict=True)
    ]
    size = found.path.stat().st_size
    rows.append(("all", "", f"{size:,}", *(f"{total:,}" for total in totals)))
    print_table(table_of(names, rows, names[2:]))
    out().print(
        f"{found.path} is 1/{totals[0] / size:.1f} of a plain download, 1/{totals[2] / size:.1f} of a binary diff"
    )
    for name, scores in found.accuracies.items():
        lost = scores["delivered"].value - scores["new"].value
        metric = scores["new"].metric
        out().print(f"{name}: {metric} {scores['delivered'].value:.1%}, {lost:+.1%} against the new bundle's own")


@app.command("apply", **in_group("Ship it", "pocketship apply update old-bundle"))
def apply_command(
    update: Annotated[Path, typer.Argument(help="What pocketship delta wrote.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle to be updated.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the new bundle here; by default in the old one's place."),
    ] = None,
    public_key: PublicKeyOption = None,
    key: KeyOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists at --output.")] = False,
    allow_older: AllowOlderOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn a bundle into the next one: checked before and after, in one rename, or not at all."""
    from exporter.delivery.apply import apply

    done = apply(update, bundle, output, public_key=public_key, key=key, force=force, allow_older=allow_older)
    say_unchecked(done.signer, done.claimed)
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
    elif not quiet:
        signed = f", signed by key {done.signer}" if done.signer else ""
        out().print(
            f"{done.path} is {done.name} with update {done.update} ({done.update_bytes:,} bytes); "
            f"every hash is right{signed}"
        )
        say_next("prove it here", "verify", done.path)
