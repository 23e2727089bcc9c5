"""The command `init`: mounted by exporter/cli.py; imports nothing heavy before it runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import out, say_next
from exporter.commands.common_options import QuietOption
from runtimes.errors import BadInput
from runtimes.writing import write_file

app = typer.Typer()
START = Path(__file__).with_name("own_model.py")


@app.command("init", **in_group("Make a bundle", "pocketship init detector.py"))
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a commented factory and task to fill in, which work as they stand."""
    if file.suffix != ".py":
        raise BadInput("the name does not end in .py", where=str(file), remedy=f"write it as {file.name or 'model'}.py")
    if file.exists() and not force:
        raise BadInput("the file exists", where=str(file), remedy="choose another name, or add --force")
    word = shlex.quote(str(file))
    text = START.read_text(encoding="utf-8").replace("THIS_FILE", word)
    write_file(file, [text.encode()])
    if not quiet:
        out().print(
            f"{file} is ready: fill in model() and task(), which work as they stand", markup=False, soft_wrap=True
        )
        say_next("export it", "export", f"{file}:model")
