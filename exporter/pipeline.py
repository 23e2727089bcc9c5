"""The whole road on one screen: source -> traced program -> artifacts -> parity -> bundle."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle.readme import bundle_readme
from exporter.bundle.versions import tool_versions
from exporter.bundle.writer import (
    NEW_BUNDLE,
    WORK,
    commit,
    explain_full_disk,
    partial_folder,
    write_manifest,
    writing_errors,
)
from exporter.compression.recipe import NO_RECIPE, Recipe, recipe_of, to_json
from exporter.families import ZOO
from exporter.lowering import TARGETS
from exporter.processes.children import Children, value_of
from exporter.stages.options import Options, check_installed, check_options, parse_targets
from exporter.stages.snapshot import Snapshot
from exporter.stages.targets import (
    TRAINING_TIMEOUT_S,
    OnProgress,
    OnStage,
    Road,
    SourceFacts,
    Stage,
    export_settings,
)
from runtimes import child
from runtimes.bundle import GOLDEN, digest
from runtimes.errors import BadInput, PocketshipError
from runtimes.records import from_json
from runtimes.signature import Signature
from runtimes.types import SCHEMA_VERSION, BundleFile, LedgerRow, Manifest, Origin

if TYPE_CHECKING:
    import torch

PREPARE_TIMEOUT_S = 3600.0
LOG = "export.log"
STOP = "stop"

ModuleAndInputs = tuple["torch.nn.Module", Any]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest


def _silent_stage(stage: Stage) -> None:
    pass


def _silent_progress(label: str, done: int, total: int) -> None:
    pass


def export(
    source: str | ModuleAndInputs,
    targets: str | Sequence[str] = "all",
    output: str | Path | None = None,
    *,
    recipe: str | Path | Recipe | None = None,
    prune: str | None = None,
    low_rank: str | None = None,
    quantize: str | None = None,
    on_stage: OnStage = _silent_stage,
    on_progress: OnProgress = _silent_progress,
    **options: Any,
) -> Bundle:
    """Export a model to every target and write a bundle of the artifacts that were proven equal to it.

    `source` is what `pocketship export` takes, or a pair `(module, example_inputs)`; `targets` are names or "all";
    `recipe` is a YAML file or a `Recipe`, in place of the command line's words `prune`, `low_rank` and `quantize`;
    `options` are the other fields of `Options` (force=True, data="digits", ...). Nothing is written unless all pass.

    Raises BadInput, UnsupportedOperation, ParityFailed or LimitNotMet, each with its cause and mend.
    """
    chosen = parse_targets([targets] if isinstance(targets, str) else targets)
    place = None if output is None else Path(output)
    file = None if recipe is None or isinstance(recipe, Recipe) else Path(recipe)
    steps = recipe if isinstance(recipe, Recipe) else recipe_of(file, prune, low_rank, quantize)
    asked = Options(targets=chosen, output=place, recipe=steps, **options)
    return export_with(source, asked, on_stage=on_stage, on_progress=on_progress)


def export_with(
    source: str | ModuleAndInputs,
    options: Options,
    *,
    on_stage: OnStage = _silent_stage,
    on_progress: OnProgress = _silent_progress,
) -> Bundle:
    """See `export`."""
    options = with_own_data(source, options)
    check_options(options)
    check_installed(options)
    _check_limits(options)
    output = (options.output or Path(f"{default_name(source)}-bundle")).absolute()
    with Children() as children, partial_folder(output, options.force) as partial, explain_full_disk(output):
        road = travel(source, options, partial, children, on_stage, on_progress, dry_run=False)
        wanted = options.recipe.steps and options.measure
        ledger = _measured(road, options, partial / WORK, children, on_stage, on_progress) if wanted else ()
        with writing_errors(output):
            manifest = _finish(road, options, ledger, partial)
            if options.sign is not None:
                from exporter.delivery.signature import sign_bundle

                sign_bundle(partial / NEW_BUNDLE, options.sign)
        commit(partial, output)
    return Bundle(output, manifest)


def _check_limits(options: Options) -> None:
    """Raise BadInput for a limit that nothing could be judged by."""
    limits = (options.max_drop, options.max_size_bytes, options.min_speedup)
    if all(limit is None for limit in limits):
        return
    if not options.recipe.steps:
        raise BadInput("a limit is for a recipe", remedy="add --quantize, --prune, --low-rank or --recipe")
    if not options.measure:
        raise BadInput("a limit needs measuring", where="--no-measure", remedy="leave one of them out")
    from benchmarks.measure import not_timed
    from exporter.ledger.limits import check_judgeable

    timed = [target for target in options.targets if not not_timed(Path(TARGETS[target].file_name))]
    check_judgeable(timed, options.data is not None, *limits)


def _measured(
    road: Road, options: Options, work: Path, children: Children, on_stage: OnStage, on_progress: OnProgress
) -> tuple[LedgerRow, ...]:
    """What each stage of the recipe cost and brought; raises LimitNotMet where that is not what the user asked for."""
    from exporter.ledger.limits import check_limits
    from exporter.stages.measure import fill_ledger

    ledger = fill_ledger(road.proven, options, work, children, on_stage, on_progress)
    check_limits(ledger, options.max_drop, options.max_size_bytes, options.min_speedup)
    return ledger


@dataclass(frozen=True)
class Plan:
    """What a dry run found."""

    name: str
    origin: Origin
    signature: Signature


def plan(source: str | ModuleAndInputs, options: Options, *, on_stage: OnStage = _silent_stage) -> Plan:
    """Load, trace and check every target for operations that it lacks, and write nothing: `--dry-run`."""
    check_options(options)
    check_installed(options)
    unchanged = replace(options, recipe=NO_RECIPE)
    with tempfile.TemporaryDirectory() as folder, Children() as children:
        (Path(folder) / WORK).mkdir()
        road = travel(source, unchanged, Path(folder), children, on_stage, _silent_progress, dry_run=True)
    return Plan(road.source.name, road.source.origin, road.snapshots[0].signature)


def travel(
    source: str | ModuleAndInputs,
    options: Options,
    partial: Path,
    children: Children,
    on_stage: OnStage,
    on_progress: OnProgress,
    *,
    dry_run: bool,
) -> Road:
    """Prepare the source, run the recipe, lower each snapshot to all targets at once, prove each artifact.

    Each target has a child process of its own, which imports its converter while the source is being prepared. An
    operation that any target lacks stops all of them, once every target has said what the original model lacks.
    """
    road = Road(options, partial, children, on_stage, dry_run)
    try:
        prepare(source, options, road, partial / WORK, children, on_stage, on_progress)
        road.finish()
    except BaseException as error:  # Ctrl-C too
        road.abandon()
        if isinstance(error, PocketshipError):
            road.raise_lacking()  # the better reason: it ended the child that prepares
        raise
    return road


def prepare(
    source: str | ModuleAndInputs,
    options: Options,
    road: Road,
    work: Path,
    children: Children,
    on_stage: OnStage,
    on_progress: OnProgress,
) -> None:
    """Load, trace and compress the source in a child (in this process when it is a module); snapshots go to `road`."""
    job = {
        "source": source if isinstance(source, str) else type(source[0]).__name__,
        "options": {"task": options.task, "weights": options.weights, "trust_remote_code": options.trust_remote_code},
        "preprocessor": str(options.preprocessor.absolute()) if options.preprocessor else None,
        "work": str(work),
        "targets": list(options.targets),
        "input_shapes": {name: list(shape) for name, shape in options.input_shapes.items()},
        "dynamic": [list(axis) for axis in options.dynamic],
        "recipe": to_json(options.recipe),
        "data": options.data,
        "seed": options.seed,
    }
    with _first_interrupt_ends_training(work / STOP) as training:

        def tell(event: dict[str, Any]) -> None:
            if "progress" in event:
                label, done, total = event["progress"]
                training.running = done < total
                on_progress(label, done, total)
            elif "snapshot" in event:
                road.offer(from_json(Snapshot, event["snapshot"]))
            elif "source" in event:
                road.source = from_json(SourceFacts, event["source"])
            else:
                training.running = False
                on_stage(Stage(event["stage"], event["seconds"], event["detail"]))

        if isinstance(source, str):
            outcome = child.call(
                "exporter.stages.prepare:prepare",
                job,
                timeout_s=TRAINING_TIMEOUT_S if options.recipe.steps else PREPARE_TIMEOUT_S,
                log_path=work / LOG,
                scratch=work,
                on_event=tell,
                on_start=children.add,
            )
            value_of(outcome, f"{source}: loading and tracing")
        else:
            from exporter.stages.prepare import prepare_module

            prepare_module(*source, job, lambda event: tell(json.loads(json.dumps(event))))  # as a child's would come


def with_own_data(source: str | ModuleAndInputs, options: Options) -> Options:
    """With the task that a model of the zoo is made for, where a recipe may need one and the user names none."""
    known = isinstance(source, str) and source in ZOO and options.recipe.steps and options.data is None
    return replace(options, data=ZOO[str(source)].data) if known else options


class _Training:
    """Whether a pass is training just now."""

    running = False


@contextmanager
def _first_interrupt_ends_training(stop: Path) -> Iterator[_Training]:
    """While a pass trains, the first Ctrl-C writes the file that makes it keep the best so far; the next one aborts."""
    training = _Training()
    if threading.current_thread() is not threading.main_thread():
        yield training
        return

    def interrupt(number: int, frame: object) -> None:
        if not training.running or stop.exists():
            raise KeyboardInterrupt
        stop.touch()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield training
    finally:
        signal.signal(signal.SIGINT, before)


def _finish(road: Road, options: Options, ledger: tuple[LedgerRow, ...], partial: Path) -> Manifest:
    """Put golden values, tokenizer, report, README, log and manifest beside the artifacts."""
    work, new = partial / WORK, partial / NEW_BUNDLE
    final = road.snapshots[-1]
    artifacts = tuple(proven.artifact for proven in road.proven if proven.snapshot is final)
    for name in sorted({GOLDEN, *(artifact.golden for artifact in artifacts)}):
        (work / final.folder / name).rename(new / name)
    for file in sorted((work / "files").iterdir()):
        file.rename(new / file.name)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=road.source.name,
        origin=road.source.origin,
        signature=final.signature,
        artifacts=artifacts,
        files=(),
        tool_versions=tool_versions(),
        settings=export_settings(options, final),
        recipe=tuple(snapshot.step for snapshot in road.snapshots if snapshot.step),
        ledger=ledger,
    )
    if ledger:
        from exporter.ledger.limits import not_judged
        from exporter.ledger.report import write_report

        write_report(manifest, new, not_judged(ledger, options.min_speedup))
    (new / "README.md").write_text(bundle_readme(manifest), encoding="utf-8")
    artifact_names = {artifact.path for artifact in artifacts}
    names = sorted(p.name for p in new.iterdir() if p.name not in artifact_names)
    manifest = replace(manifest, files=tuple(BundleFile(name, *digest(new / name)) for name in names))
    with open(new / LOG, "wb") as log:
        for part in (LOG, *(f"{a.format}.log" for a in artifacts)):
            if (work / part).exists():
                log.write(f"===== {part}\n".encode())
                with open(work / part, "rb") as stream:
                    shutil.copyfileobj(stream, log)
    write_manifest(manifest, new)
    return manifest


def default_name(source: str | ModuleAndInputs) -> str:
    """A folder name for a source as the user typed it."""
    if not isinstance(source, str):
        return type(source[0]).__name__.lower()
    last = source.rstrip("/").split("/")[-1].split(":")[-1]
    return last.removesuffix(".pt2") or "model"


__all__ = ["BadInput", "Bundle", "Plan", "Stage", "export", "plan"]
