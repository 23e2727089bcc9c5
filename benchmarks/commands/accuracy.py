"""The commands that measure: mounted by exporter/cli.py; imports nothing heavy before a command runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import Limit, in_group
from benchmarks.console import in_words, out, print_json, say_next, shown, terminal
from benchmarks.tables import print_table, table_of
from runtimes.errors import BadInput, PocketshipError

if TYPE_CHECKING:
    from benchmarks.evaluate import Answers, Evaluation
    from benchmarks.tasks.task import Task

app = typer.Typer()


@app.command("eval", **in_group("Measure it", "pocketship eval digits-bundle --data digits"))
def evaluate_command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE|FILE...", help="Bundle folders, or .onnx, .tflite and .mlpackage files."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="A task (pocketship tasks), a folder of arrays, pictures or sounds, a .csv of texts, FILE.py:FUNCTION."
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
    task = load_task(data, artifacts[0])
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
    if not (as_json or quiet):
        say_next("time it", "bench", *artifacts, "--data", data)


@app.command("tasks", **in_group("Measure it", "pocketship tasks"))
def tasks_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """List the tasks, for --data."""
    from benchmarks.tasks import TASKS

    if as_json:
        print_json(TASKS)
        return
    rows = [(name, row.description, ", ".join(row.models)) for name, row in TASKS.items()]
    print_table(table_of(("name", "what it is", "made for"), rows))
    say_next("score a bundle on one", "eval", "BUNDLE", "--data", next(iter(TASKS)))


def _artifacts(path: Path) -> list[tuple[str, Path]]:
    """The artifacts of a bundle, intact, or the one of a file, with the names that the table gives them."""
    from runtimes.bundle import read_manifest
    from runtimes.session import format_of
    from runtimes.verify import check_bundle

    if not path.exists():
        raise BadInput("no such bundle or artifact", where=str(path), remedy="check the path")
    if path.is_file() or path.suffix == ".mlpackage":
        format_of(path)
        return [(str(path), path)]
    manifest = read_manifest(path)
    check_bundle(path, manifest, manifest.artifacts)
    return [(str(path / artifact.path), path / artifact.path) for artifact in manifest.artifacts]


def _answers(path: Path, name: str, task: Task, limit: int | None, seconds: float, quiet: bool) -> Answers:
    """Run one artifact, with a bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from benchmarks.evaluate import answers

    console = terminal()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        bar = bars.add_task(shown(name), total=None)
        return answers(
            path,
            task,
            limit=limit,
            seconds=seconds,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )


def _print_evaluations(evaluations: Sequence[Evaluation]) -> None:
    figures = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.others))
    names = ("file", "metric", "value", "95% interval", "samples", *figures, "computed by")
    rows = [
        (
            evaluation.artifact,
            evaluation.metric,
            f"{evaluation.value:.2%}",
            f"{evaluation.low:.2%} to {evaluation.high:.2%}",
            f"{evaluation.samples} of {evaluation.of_samples}",
            *(f"{evaluation.others[name]:.6g}" if name in evaluation.others else "" for name in figures),
            in_words(evaluation.executed_by),
        )
        for evaluation in evaluations
    ]
    print_table(table_of(names, rows, ("value", *figures)))
    for evaluation in evaluations:
        if evaluation.samples < evaluation.of_samples:
            out().print(
                f"{evaluation.artifact}: only {evaluation.samples} of {evaluation.of_samples} samples, drawn at random "
                "(--limit, or the time of --seconds was up)",
                soft_wrap=True,
            )
