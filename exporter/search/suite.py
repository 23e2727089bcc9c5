"""The suite: models x recipes x formats, each exported once and measured on one device; nothing is done twice."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.bench import UNFIT, BenchArtifact, Board, Done, OnEvent, bench, bench_artifacts
from benchmarks.devices import kind_of
from benchmarks.report import write_html
from benchmarks.results.execution import execution
from benchmarks.results.record import with_kernels
from benchmarks.results.result import Result, read_results, write_results
from benchmarks.tasks import load_task
from exporter import pipeline
from exporter.bundle.writer import writing_errors
from exporter.compression.recipe import QUANTIZE
from exporter.families import ZOO
from exporter.inspection.kernels import kernels_of
from runtimes.bundle import check_files, read_manifest
from runtimes.errors import BadInput, ParityFailed, PocketshipError
from runtimes.kernels import KernelTruth

ORIGINAL = "float32"
RECIPES = (ORIGINAL, *QUANTIZE)
USUAL_RECIPES = (ORIGINAL, "int8", "int4", "ternary")
BUNDLES, RESULTS, REPORT, LOCK = "bundles", "results.json", "report.html", ".suite.lock"
MOST_LINES = 6
LASTING = ("crashed", "timed-out", "out-of-memory", "parity")
"""Failures that are the artifact's own: trying again gives the same."""


@dataclass(frozen=True)
class Suite:
    """What to measure, on what, and where to keep it; `history` is the URL of one, None for none."""

    board: Board
    output: Path
    models: tuple[str, ...]
    recipes: tuple[str, ...]
    targets: tuple[str, ...]
    accuracy: bool = True
    history: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something of the matrix that gave no result, and why."""

    model: str
    recipe: str
    error: PocketshipError


@dataclass(frozen=True)
class Outcome:
    """All results in the folder's file, those of this suite, and what gave none."""

    results: tuple[Result, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Hooks:
    """Who is told what happens, and what the two long steps are: a line, a device's event, export, bench."""

    say: Callable[[str], None] = lambda line: None
    on_event: OnEvent = lambda board, event: None
    export: Callable[..., pipeline.Bundle] = pipeline.export
    bench: Callable[..., tuple[Done, ...]] = bench
    kernels: Callable[[Path], KernelTruth | str] = kernels_of


def chosen(words: str, known: Sequence[str], usual: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of a list separated by commas; `all` means the usual ones.

    Raises BadInput for a name that is not known.
    """
    names = [name.strip() for name in words.split(",")]
    for name in names:
        if name != "all" and name not in known:
            raise BadInput(f"no {name!r:.40}", where=where, remedy=f"give all, or some of {', '.join(known)}")
    return tuple(usual) if "all" in names else tuple(dict.fromkeys(names))


def run_suite(suite: Suite, hooks: Hooks = Hooks()) -> Outcome:
    """Export and measure what is missing; results.json is written after every bundle, report.html at the end.

    Raises BadInput where the folder cannot be written, another suite writes it, its results cannot be read, or the
    device can run none of the formats; failures of one artifact are results or problems, and the suite goes on.
    """
    unfit = UNFIT.get(kind_of(suite.board.target), {})
    if all(target in unfit for target in suite.targets):
        raise BadInput("; ".join(sorted(set(unfit.values()))), where="--targets", remedy="give onnx or tflite")
    with _locked(suite.output):
        file = suite.output / RESULTS
        kept = list(read_results(file)) if file.exists() else []
        problems: list[Problem] = []
        for model in suite.models:
            for recipe in suite.recipes:
                try:
                    _one(suite, model, recipe, kept, hooks)
                except PocketshipError as error:
                    problems.append(Problem(model, recipe, error))
                    hooks.say(f"{model} {recipe}: {error}")
        if kept:
            write_html(kept, suite.output / REPORT, f"pocketship suite on {suite.board.label}")
        return Outcome(tuple(kept), tuple(problems))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder, made where it is missing, for one suite alone."""
    with writing_errors(folder):
        (folder / BUNDLES).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(
                "another suite is writing this folder",
                where=str(folder),
                remedy="wait for it, or give another --output",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _one(suite: Suite, model: str, recipe: str, kept: list[Result], hooks: Hooks) -> None:
    """One bundle: export it unless it is there, measure what has no result yet; `kept` grows with what comes.

    Raises the error of the export, or of a device that could not be reached or was lost; what it told is kept before.
    """
    bundle = suite.output / BUNDLES / f"{model}-{recipe}"
    _exported(suite, bundle, model, recipe, hooks)
    plan = replace(suite.board.plan, task=load_task(ZOO[model].data) if suite.accuracy else None)
    board = replace(suite.board, plan=plan)
    unfit = UNFIT.get(kind_of(board.target), {})
    artifacts = [a for a in bench_artifacts(bundle, suite.targets) if a.facts.format not in unfit]
    missing = {a.facts.sha256: threads for a in artifacts if (threads := _missing(a, board, kept))}
    todo = [a for a in artifacts if a.facts.sha256 in missing]
    if not todo:
        hooks.say(f"{model} {recipe}: measured before")
        return
    wanted = tuple(t for t in plan.threads if any(t in threads or None in threads for threads in missing.values()))
    found = {a.facts.sha256: hooks.kernels(a.path) for a in todo}
    truths = {sha256: truth for sha256, truth in found.items() if isinstance(truth, KernelTruth)}

    def keep(done: Done) -> None:  # also when the user interrupts
        results = with_kernels(done.results, truths)
        _take_in(kept, results)
        write_results(kept, suite.output / RESULTS)
        _remember(results, suite.history, hooks.say)

    (done,) = hooks.bench(todo, [replace(board, plan=replace(plan, threads=wanted))], hooks.on_event, keep)
    failed = sum(result.failure is not None for result in done.results)
    said = f", {failed} of them failed" if failed else ""
    counted = f"{len(done.results)} result{'' if len(done.results) == 1 else 's'}"
    hooks.say(f"{model} {recipe}: {counted} on {board.label}{said}")
    if done.error:
        raise done.error


def _exported(suite: Suite, bundle: Path, model: str, recipe: str, hooks: Hooks) -> None:
    if _is_whole(bundle, suite.targets):
        hooks.say(f"{model} {recipe}: exported before")
        return
    began = time.monotonic()
    quantize = None if recipe == ORIGINAL else recipe
    targets = tuple(dict.fromkeys((*suite.targets, *_formats_of(bundle))))
    hooks.export(model, targets, bundle, quantize=quantize, measure=False, force=True)
    hooks.say(f"{model} {recipe}: exported in {time.monotonic() - began:.1f} s")


def _formats_of(bundle: Path) -> tuple[str, ...]:
    """The formats of a bundle that is there: an export for one more must not lose them."""
    try:
        return tuple(artifact.format for artifact in read_manifest(bundle).artifacts)
    except BadInput:
        return ()


def _is_whole(bundle: Path, targets: Sequence[str]) -> bool:
    """Whether a bundle has all these formats, and every file the bytes of its manifest."""
    try:
        manifest = read_manifest(bundle)
        check_files(bundle, manifest)
    except (BadInput, ParityFailed):  # none, half of one, damaged, or of another version: exported anew
        return False
    return {artifact.format for artifact in manifest.artifacts} >= set(targets)


def _missing(artifact: BenchArtifact, board: Board, kept: Sequence[Result]) -> tuple[int | None, ...]:
    """The numbers of threads that have no result of this very file, device and settings yet."""
    wanted = (None,) if artifact.facts.format == "coreml" else board.plan.threads
    done = {r.settings.threads for r in kept if _answers(r, artifact, board)}
    return tuple(threads for threads in wanted if threads not in done)


def _answers(result: Result, artifact: BenchArtifact, board: Board) -> bool:
    """Whether a result is what measuring this artifact would give, so that it need not be done again."""
    plan, settings = board.plan, result.settings
    is_same = (
        result.artifact.sha256 == artifact.facts.sha256
        and result.artifact.bundle == artifact.facts.bundle  # two recipes may give the same file: a row each
        and result.target == board.target
        and settings.seconds == plan.seconds
        and settings.warmup_s == plan.warmup_s
        and settings.batch == plan.batch
        and settings.affinity == plan.affinity
        and settings.sustained_s == plan.sustained_s
        and settings.precision == plan.precision
        and settings.processes == (1 if plan.sustained_s else plan.processes)
        and settings.seed == plan.seed
    )
    if not is_same:
        return False
    if result.failure:
        return result.failure.cause in LASTING
    return plan.task is None or result.accuracy is not None or execution(result) == "off-device"


def _take_in(kept: list[Result], results: Sequence[Result]) -> None:
    """Add results; those that they repeat, such as one that a cut link left half, make room."""

    def key(result: Result) -> tuple[object, ...]:
        artifact = result.artifact
        return artifact.bundle, artifact.sha256, result.target, replace(result.settings, inputs="")

    fresh = {key(result) for result in results}
    kept[:] = [result for result in kept if key(result) not in fresh] + list(results)


def _remember(results: Sequence[Result], url: str | None, say: Callable[[str], None]) -> None:
    if url is None:
        return
    from benchmarks.results.history import append_or_say

    fault = append_or_say(results, url)
    if fault:
        say(fault)


def raise_problems(outcome: Outcome) -> None:
    """Raise, in one line, what of the matrix is not whole.

    Raises ParityFailed where an artifact is wrong or breaks its runtime, BadInput otherwise.
    """
    failed = [(result, result.failure) for result in outcome.results if result.failure]
    lines = [f"{p.model} {p.recipe}: {p.error}" for p in outcome.problems]
    lines += [f"{r.artifact.bundle}/{r.artifact.name}: {f.cause}: {f.detail}" for r, f in failed]
    if not lines:
        return
    is_its_own = any(f.cause in LASTING for _, f in failed) or any(
        isinstance(problem.error, ParityFailed) for problem in outcome.problems
    )
    shown = "; ".join(lines[:MOST_LINES])
    rest = f"; and {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES else ""
    raise (ParityFailed if is_its_own else BadInput)(
        shown + rest, remedy="all else is measured; run the same suite again to try what may work then"
    )
