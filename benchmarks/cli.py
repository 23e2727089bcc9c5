"""The commands that measure: mounted by exporter/cli.py; imports nothing heavy before a command runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtimes.errors import BadInput, ParityFailed, PocketshipError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.evaluate import Answers, Evaluation
    from benchmarks.tasks import Task

app = typer.Typer()

SECONDS = 120.0


@app.command("eval")
def evaluate_command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE|FILE...", help="Bundle folders, or .onnx, .tflite and .mlpackage files."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="A task (pocketship tasks), a folder of train, calibration and test.npz, or FILE.py:FUNCTION."
        ),
    ],
    reference: Annotated[
        Path | None, typer.Option(help="The full-precision artifact: how faithful are the others to it?")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take at most so many test samples.")] = None,
    seconds: Annotated[float, typer.Option(help="Stop each artifact after so long, wherever it is.")] = SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run artifacts themselves over a task's test split: accuracy, with its 95% interval."""
    from dataclasses import asdict

    from benchmarks.evaluate import as_reference, judged
    from benchmarks.tasks import load_task

    named = [found for path in artifacts for found in _artifacts(path)]
    task = load_task(data)
    evaluations: list[Evaluation] = []
    errors: list[PocketshipError] = []
    expected = None
    if reference:
        expected = as_reference(_answers(reference, str(reference), task, limit, seconds, quiet), task, limit)
    for name, path in named:
        try:
            evaluations.append(judged(name, task, _answers(path, name, task, limit, seconds, quiet), expected))
        except PocketshipError as error:
            errors.append(error)
    if as_json:
        print(json.dumps([_finite(asdict(evaluation)) for evaluation in evaluations], indent=2, allow_nan=False))
    elif evaluations and not quiet:
        _print_evaluations(evaluations)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise type(errors[0])("; ".join(map(str, errors)))


@app.command("tasks")
def tasks_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """List the tasks, for --data."""
    from dataclasses import asdict

    from benchmarks.tasks import TASKS

    if as_json:
        print(json.dumps({name: asdict(row) for name, row in TASKS.items()}, indent=2))
        return
    from rich.table import Table

    table = Table("name", "what it is", "made for", box=None, pad_edge=False)
    for name, row in TASKS.items():
        table.add_row(name, row.description, ", ".join(row.models))
    _out().print(table)


def _artifacts(path: Path) -> list[tuple[str, Path]]:
    """The artifacts of a bundle, intact, or the one of a file, with the names that the table gives them."""
    from runtimes.bundle import damage, read_manifest
    from runtimes.session import format_of

    if not path.exists():
        raise BadInput("no such bundle or artifact", where=str(path), remedy="check the path")
    if path.is_file() or path.suffix == ".mlpackage":
        format_of(path)
        return [(str(path), path)]
    found = read_manifest(path).artifacts
    faults = [fault for fault in (damage(path, artifact) for artifact in found) if fault]
    if faults:
        raise ParityFailed("; ".join(faults), where=str(path), remedy="do not ship it, export it again")
    return [(str(path / artifact.path), path / artifact.path) for artifact in found]


def _answers(path: Path, name: str, task: Task, limit: int | None, seconds: float, quiet: bool) -> Answers:
    """Run one artifact, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from benchmarks.evaluate import answers

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        bar = bars.add_task(name, total=None)
        return answers(
            path,
            task,
            limit=limit,
            seconds=seconds,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )


def _finite(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The same with null for figures that are no number, which JSON lacks."""
    others = {name: value if isfinite(value) else None for name, value in evaluation["others"].items()}
    return {**evaluation, "others": others}


def _print_evaluations(evaluations: Sequence[Evaluation]) -> None:
    from rich.table import Table

    figures = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.others))
    names = ("file", "metric", "value", "95% interval", "samples", *figures, "computed by")
    table = Table(*names, box=None, pad_edge=False)
    for evaluation in evaluations:
        by = evaluation.executed_by
        table.add_row(
            evaluation.artifact,
            evaluation.metric,
            f"{evaluation.value:.2%}",
            f"{evaluation.low:.2%} to {evaluation.high:.2%}",
            f"{evaluation.samples} of {evaluation.of_samples}",
            *(f"{evaluation.others[name]:.6g}" if name in evaluation.others else "" for name in figures),
            f"{by.runtime} {by.version} ({by.kind})",
        )
    _out().print(table)
    for evaluation in evaluations:
        if evaluation.samples < evaluation.of_samples:
            _out().print(
                f"{evaluation.artifact}: only {evaluation.samples} of {evaluation.of_samples} samples, drawn at random "
                "(--limit, or the time of --seconds was up)"
            )


def _out() -> Console:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # tables in a pipe or a log keep their lines whole
    return console
