"""The command `bench`: mounted by exporter/cli.py; imports nothing heavy before it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import (
    AcceptNewHostKey,
    Formats,
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
from benchmarks.commands.report import check_writable
from benchmarks.commands.words import parse_formats, parse_numbers, parse_seconds, parse_share, positive
from benchmarks.console import print_json, say_next
from benchmarks.devices import MALFORMED_REMEDY
from runtimes.errors import BadInput, ParityFailed, PocketshipError

if TYPE_CHECKING:
    from benchmarks.bench import BenchArtifact, Board, Done, Plan
    from benchmarks.devices import Options
    from benchmarks.results.result import Result
    from benchmarks.tasks.task import Task
    from runtimes.kernels import KernelTruth

    KernelsOf = Callable[[Path], KernelTruth | str]
    """What exporter/cli.py hands over as the context's object: it can read how weights are stored."""

app = typer.Typer()
WRONG = {"parity", "crashed", "timed-out", "out-of-memory"}
"""Causes of failure that are the artifact's own."""


@app.command("bench", **in_group("Measure it", "pocketship bench digits-bundle --on ssh://pi@board -o results.json"))
def bench_command(
    context: typer.Context,
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE|FILE...", help="Bundle folders, or .onnx, .tflite and .mlpackage files."),
    ],
    on: Annotated[
        list[str],
        typer.Option("--on", help="local, ssh://user@host[:port], adb, adb://SERIAL or browser; repeat it."),
    ] = [],  # noqa: B006
    fleet: Annotated[Path | None, typer.Option(help="A boards.yaml: measure on all its boards at once.")] = None,
    target: Formats = "all",
    threads: Threads = "1",
    seconds: Seconds = 2.0,
    precision: Annotated[
        str | None, typer.Option(help="Measure until the 95% interval of the median is within this, as 1%.")
    ] = None,
    warmup: Warmup = 10.0,
    batch: Annotated[int | None, typer.Option(help="So many samples at once, where the first axis is free.")] = None,
    data: Annotated[str | None, typer.Option(help="A task, as for eval: accuracy on the device.")] = None,
    limit: Limit = None,
    sustained: Annotated[
        str | None, typer.Option(help="Run each artifact alone and without a pause for so long, as 10m.")
    ] = None,
    affinity: Annotated[str | None, typer.Option(help="Run on these processors only, as 0,1.")] = None,
    processes: Processes = 5,
    seed: Annotated[int, typer.Option(help="Of the turns' order and of random inputs.")] = 0,
    timeout: Annotated[float, typer.Option(help="An artifact that gives no answer for so many seconds hangs.")] = 600.0,
    against: Annotated[Path | None, typer.Option(help="Compare with the results of this file.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the results to this .json file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report of them to this .html file.")] = None,
    history: History = None,
    wide: Annotated[bool, typer.Option("--wide", help="Print every figure: tails, load, memory, accuracy.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the figures as CSV on stdout.")] = False,
    accept_new_host_key: AcceptNewHostKey = False,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    wheels: Wheels = None,
    clean: Annotated[bool, typer.Option("--clean", help="ssh, adb: remove all that was put there.")] = False,
    runner: Annotated[Path | None, typer.Option(help="adb: LiteRT's benchmark_model binary, for .tflite.")] = None,
    bind: Annotated[str, typer.Option(help="browser: the address to serve on, as 0.0.0.0 for phones.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="browser: the port to serve on; 0: any.")] = 0,
    wait: Annotated[float, typer.Option(help="browser: how many seconds to wait for one.")] = 300.0,
    headless: Annotated[
        bool | None, typer.Option("--headless/--open", help="browser: start Chromium here, or wait for a browser.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Measure artifacts where they run: latency, load time, memory, parity and accuracy, all in their own runtime."""
    from benchmarks.bench import Board, Plan, bench_artifacts
    from benchmarks.devices import Options, kind_of

    if as_json and as_csv:
        raise BadInput("give one of them", where="--json, --csv")
    if fleet and on:
        raise BadInput("give one of them", where="--on, --fleet")
    plan = Plan(
        threads=parse_numbers(threads, "--threads", 1),
        seconds=positive(seconds, "--seconds"),
        warmup_s=positive(warmup, "--warmup"),
        precision=None if precision is None else parse_share(precision),
        batch=batch if batch is None else int(positive(batch, "--batch")),
        affinity=None if affinity is None else parse_numbers(affinity, "--affinity", 0),
        sustained_s=None if sustained is None else parse_seconds(sustained),
        processes=int(positive(processes, "--processes")),
        seed=seed,
        timeout_s=positive(timeout, "--timeout"),
        task=_task(data, limit, artifacts[0]),
        limit=limit,
    )
    options = Options(
        accept_new_host_key=accept_new_host_key,
        identity=identity,
        known_hosts=known_hosts,
        wheels=wheels,
        clean=clean,
        runner=runner,
        bind=bind,
        port=port,
        wait_s=positive(wait, "--wait"),
        headless=bind in ("127.0.0.1", "localhost", "::1") if headless is None else headless,
    )
    for word in on:
        kind_of(word)
    if seed < 0:
        raise BadInput(f"{seed} is too little", where="--seed", remedy="give 0 or more")
    if quiet and headless is False:
        raise BadInput("it would not show the address to open", where="--open, --quiet", remedy="leave one of them out")
    boards = _fleet(fleet, plan, options) if fleet else [Board(word, plan, options) for word in on or ["local"]]
    formats = parse_formats(target)
    chosen = [found for path in artifacts for found in bench_artifacts(path, formats)]
    if not chosen:
        raise BadInput(f"no artifact is {target}", where="--target", remedy="give a format that the bundle has")
    older = _read(against) if against else ()
    if against and not older:
        raise BadInput("it holds no result", where=str(against), remedy="give a file that bench --output wrote")
    for file in (output, report):
        check_writable(file)  # before the first run, not after the last
    done = _run(_with_kernels(chosen, context.obj), boards, history, output, quiet)
    results = [result for part in done for result in part.results]
    _show(results, wide, as_json, as_csv, quiet)
    if report:
        from benchmarks.report import write_html

        write_html(results, report)
    if older and not (quiet or as_json or as_csv):
        from benchmarks.report.comparison import print_comparisons
        from benchmarks.results.compare import compare

        print_comparisons(compare(older, results))
    raise_failures(done)
    if not (quiet or as_json or as_csv):
        if report is None and output is not None:
            say_next("draw it", "report", output)
        elif output is None:
            say_next("keep the results of a run to compare with", "bench", *artifacts, "-o", "results.json")


def raise_failures(done: tuple[Done, ...]) -> None:
    """Raise what went wrong, on whatever board, as one error of one line: the gravest kind of it.

    Raises ParityFailed (3) where an artifact computes wrongly or breaks its runtime, BadInput (2) or the device's own
    error otherwise.
    """
    errors = [part.error for part in done if part.error]
    failures = [
        (result, result.failure)
        for part in done
        for result in part.results
        if result.failure and not (part.error and result.failure.cause not in WRONG)
    ]
    lines = list(
        dict.fromkeys(f"{_name(result)} on {result.board or result.target}: {f.detail}" for result, f in failures)
    )
    if any(failure.cause in WRONG for _, failure in failures):
        raise ParityFailed("; ".join([*lines, *map(str, errors)]), remedy="do not ship it")
    if len(errors) == 1 and not lines:
        raise errors[0]
    if errors or lines:
        kind = type(errors[0]) if errors and type(errors[0]).__init__ is PocketshipError.__init__ else BadInput
        told_lies = any(failure.cause == "malformed" for _, failure in failures)
        raise kind("; ".join([*lines, *map(str, errors)]), remedy=MALFORMED_REMEDY if told_lies else "")


def _name(result: Result) -> str:
    threads = result.settings.threads
    return result.artifact.name + (f" ({threads} threads)" if threads and threads > 1 else "")


def _task(data: str | None, limit: int | None, first: Path) -> Task | None:
    from benchmarks.tasks import load_task

    if limit is not None:
        if data is None:
            raise BadInput("there are no samples to limit", where="--limit", remedy="give --data")
        positive(limit, "--limit")
    return load_task(data, first) if data else None


def _fleet(path: Path, plan: Plan, options: Options) -> list[Board]:
    from benchmarks.fleet import read_fleet

    return list(read_fleet(path, plan, options))


def _with_kernels(chosen: list[BenchArtifact], kernels_of: KernelsOf | None) -> list[BenchArtifact]:
    """The artifacts with their kernel truth; where the weights are known to be float there is nothing to find."""
    if kernels_of is None:
        return chosen
    found = [None if a.facts.precision in ("float32", "float16") else kernels_of(a.path) for a in chosen]
    return [
        a if truth is None or isinstance(truth, str) else replace(a, kernels=truth)
        for a, truth in zip(chosen, found, strict=True)
    ]


def _read(path: Path) -> tuple[Result, ...]:
    from benchmarks.results.result import read_results

    return read_results(path)


def _run(
    chosen: list[BenchArtifact], boards: list[Board], history: str | None, output: Path | None, quiet: bool
) -> tuple[Done, ...]:
    """Bench, with progress on stderr; what a board gave is kept as soon as it is there."""
    from benchmarks.bench import bench
    from benchmarks.commands.bench_screen import BenchProgress
    from benchmarks.results.result import write_results

    url, why_none = history_of(history)
    kept: list[Result] = []
    with BenchProgress(boards, quiet) as progress:
        if why_none:
            progress.say(why_none)

        def keep(done: Done) -> None:
            kept.extend(done.results)
            if output:
                write_results(kept, output)
            if url is not None:
                from benchmarks.results.history import append_or_say

                fault = append_or_say(done.results, url)
                if fault:
                    progress.say(fault)
            progress.done(done)

        return bench(chosen, boards, on_event=progress.event, on_done=keep)


def _show(results: list[Result], wide: bool, as_json: bool, as_csv: bool, quiet: bool) -> None:
    from benchmarks.commands.bench_screen import print_csv, print_results
    from benchmarks.results.result import results_to_json

    if as_json:
        print_json(results_to_json(results))
    elif as_csv:
        print_csv(results)
    elif not quiet:
        print_results(results, wide)
