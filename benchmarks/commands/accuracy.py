"""The commands that measure: mounted by exporter/cli.py; imports nothing heavy before a command runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import Limit
from benchmarks.console import in_words, out, print_json, terminal
from runtimes.errors import BadInput, ParityFailed, PocketshipError

if TYPE_CHECKING:
    from benchmarks.evaluate import Answers, Evaluation
    from benchmarks.tasks.task import Task

app = typer.Typer()


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
    limit: Limit = None,
    seconds: Annotated[
        float | None, typer.Option(help="Stop each artifact after so long, wherever it is; by default 120.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run artifacts themselves over a task's test split: accuracy, with its 95% interval."""
    from benchmarks.evaluate import SECONDS, as_reference, judged
    from benchmarks.tasks import load_task

    named = [found for path in artifacts for found in _artifacts(path)]
    task = load_task(data)
    evaluations: list[Evaluation] = []
    errors: list[PocketshipError] = []
    budget = SECONDS if seconds is None else seconds
    expected = None
    if reference:
        expected = as_reference(_answers(reference, str(reference), task, limit, budget, quiet), task, limit)
    for name, path in named:
        try:
            evaluations.append(judged(name, task, _answers(path, name, task, limit, budget, quiet), expected))
        except PocketshipError as error:
            errors.append(error)
    if as_json:
        print_json(evaluations)
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
    from benchmarks.tasks import TASKS

    if as_json:
        print_json(TASKS)
        return
    from rich.table import Table

    table = Table("name", "what it is", "made for", box=None, pad_edge=False)
    for name, row in TASKS.items():
        table.add_row(name, row.description, ", ".join(row.models))
    out().print(table)


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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from benchmarks.evaluate import answers

    console = terminal()
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


def _print_evaluations(evaluations: Sequence[Evaluation]) -> None:
    from rich.table import Table

    figures = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.others))
    names = ("file", "metric", "value", "95% interval", "samples", *figures, "computed by")
    table = Table(*names, box=None, pad_edge=False)
    for evaluation in evaluations:
        table.add_row(
            evaluation.artifact,
            evaluation.metric,
            f"{evaluation.value:.2%}",
            f"{evaluation.low:.2%} to {evaluation.high:.2%}",
            f"{evaluation.samples} of {evaluation.of_samples}",
            *(f"{evaluation.others[name]:.6g}" if name in evaluation.others else "" for name in figures),
            in_words(evaluation.executed_by),
        )
    out().print(table)
    for evaluation in evaluations:
        if evaluation.samples < evaluation.of_samples:
            out().print(
                f"{evaluation.artifact}: only {evaluation.samples} of {evaluation.of_samples} samples, drawn at random "
                "(--limit, or the time of --seconds was up)"
            )
