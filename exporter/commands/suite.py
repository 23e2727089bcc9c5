"""The command `suite`: mounted by exporter/cli.py; imports nothing heavy before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import (
    AcceptNewHostKey,
    History,
    Identity,
    KnownHosts,
    Limit,
    Processes,
    Seconds,
    Threads,
    Warmup,
    Wheels,
    history_of,
    in_group,
)
from benchmarks.console import out, print_json, say_next
from exporter.commands.common_options import QuietOption
from exporter.families import ZOO

if TYPE_CHECKING:
    from exporter.search.suite import Outcome

app = typer.Typer()


@app.command("suite", **in_group("Measure it", "pocketship suite --models digits,rnet --recipes float32,int8 -o suite"))
def suite_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for bundles, results and report.")],
    on: Annotated[str, typer.Option("--on", help="local, ssh://user@host[:port], adb, adb://SERIAL or browser.")] = (
        "local"
    ),
    models: Annotated[str, typer.Option(help="Models of the zoo, separated by commas, or all.")] = "all",
    recipes: Annotated[
        str, typer.Option(help="float32 and words of --quantize, or all: float32,int8,int4,ternary.")
    ] = "all",
    targets: Annotated[str, typer.Option("--targets", "--target", "-t", help="onnx, tflite, coreml or all.")] = (
        "onnx,tflite"
    ),
    threads: Threads = "1",
    seconds: Seconds = 2.0,
    warmup: Warmup = 10.0,
    processes: Processes = 5,
    accuracy: Annotated[
        bool, typer.Option("--accuracy/--no-accuracy", help="Score each model on its own task, on the device.")
    ] = True,
    limit: Limit = None,
    history: History = None,
    accept_new_host_key: AcceptNewHostKey = False,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    wheels: Wheels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Export and measure models x recipes x formats on one device; started again, it does what is missing."""
    from benchmarks.bench import Board, Plan
    from benchmarks.commands.bench_screen import BenchProgress
    from benchmarks.commands.words import parse_numbers, positive
    from benchmarks.devices import Options, kind_of, reach
    from exporter.search import suite as matrix
    from exporter.stages.options import parse_targets

    kind_of(on)
    url, why_none = history_of(history)
    plan = Plan(
        threads=parse_numbers(threads, "--threads", 1),
        seconds=positive(seconds, "--seconds"),
        warmup_s=positive(warmup, "--warmup"),
        processes=int(positive(processes, "--processes")),
        limit=None if limit is None else int(positive(limit, "--limit")),
    )
    options = Options(
        accept_new_host_key=accept_new_host_key, identity=identity, known_hosts=known_hosts, wheels=wheels
    )
    board = Board(on, plan, options)
    chosen = matrix.Suite(
        board=board,
        output=output,
        models=matrix.chosen(models, tuple(ZOO), tuple(ZOO), "--models"),
        recipes=matrix.chosen(recipes, matrix.RECIPES, matrix.USUAL_RECIPES, "--recipes"),
        targets=parse_targets([targets]),
        accuracy=accuracy,
        history=url,
    )
    reach(on, options)
    with BenchProgress([board], quiet) as progress:
        if why_none:
            progress.say(why_none)

        def event(_: Board, told: dict[str, object]) -> None:
            progress.event(board, told)  # the board that the bar knows, whatever threads it was asked for

        outcome = matrix.run_suite(chosen, matrix.Hooks(say=progress.say, on_event=event))
    _show(outcome, output, as_json, quiet)
    matrix.raise_problems(outcome)
    if not (as_json or quiet):
        say_next("see what another run of it changes", "compare", output / matrix.RESULTS, "NEW/results.json")


def _show(outcome: Outcome, output: Path, as_json: bool, quiet: bool) -> None:
    from benchmarks.report.screen import print_summaries
    from benchmarks.results.result import results_to_json

    if as_json:
        print_json(results_to_json(outcome.results))
    elif outcome.results and not quiet:
        print_summaries(outcome.results)
        out().print(f"{output / 'report.html'} has it all as one page", soft_wrap=True)
