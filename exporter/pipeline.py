"""The whole road on one screen: source -> traced program -> artifacts -> parity -> bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.bundle.writer import (
    NEW_BUNDLE,
    WORK,
    commit,
    explain_full_disk,
    partial_folder,
    writing_errors,
)
from exporter.compression.recipe import NO_RECIPE, Recipe, recipe_of
from exporter.processes.children import Children
from exporter.stages.finish import finish
from exporter.stages.first_child import prepare
from exporter.stages.options import (
    ModuleAndInputs,
    Options,
    check_installed,
    check_limits_given,
    check_options,
    default_name,
    parse_targets,
    with_own_data,
)
from exporter.stages.progress import OnProgress, OnStage, Stage, silent_progress, silent_stage
from exporter.stages.targets import Road
from runtimes.errors import BadInput, PocketshipError
from runtimes.signature import Signature
from runtimes.types import LedgerRow, Manifest, Origin


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest


def export(
    source: str | ModuleAndInputs,
    targets: str | Sequence[str] = "all",
    output: str | Path | None = None,
    *,
    recipe: str | Path | Recipe | None = None,
    prune: str | None = None,
    low_rank: str | None = None,
    quantize: str | None = None,
    on_stage: OnStage = silent_stage,
    on_progress: OnProgress = silent_progress,
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
    on_stage: OnStage = silent_stage,
    on_progress: OnProgress = silent_progress,
) -> Bundle:
    """See `export`."""
    options = with_own_data(source, options)
    check_options(options)
    check_installed(options)
    check_limits_given(options)
    output = (options.output or Path(f"{default_name(source)}-bundle")).absolute()
    with Children() as children, partial_folder(output, options.force) as partial, explain_full_disk(output):
        road = travel(source, options, partial, children, on_stage, on_progress, dry_run=False)
        wanted = options.recipe.steps and options.measure
        ledger = _measured(road, options, partial / WORK, children, on_stage, on_progress) if wanted else ()
        with writing_errors(output):
            manifest = finish(road, options, ledger, partial)
            if options.sign is not None:
                from exporter.delivery.sealing import sign_bundle

                sign_bundle(partial / NEW_BUNDLE, options.sign)
        commit(partial, output)
    return Bundle(output, manifest)


def _measured(
    road: Road, options: Options, work: Path, children: Children, on_stage: OnStage, on_progress: OnProgress
) -> tuple[LedgerRow, ...]:
    """What each stage of the recipe cost and brought; raises LimitNotMet where that is not what the user asked for."""
    from exporter.ledger.rows import check_limits
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


def plan(source: str | ModuleAndInputs, options: Options, *, on_stage: OnStage = silent_stage) -> Plan:
    """Load, trace and check every target for operations that it lacks, and write nothing: `--dry-run`."""
    check_options(options)
    check_installed(options)
    unchanged = replace(options, recipe=NO_RECIPE)
    with tempfile.TemporaryDirectory() as folder, Children() as children:
        (Path(folder) / WORK).mkdir()
        road = travel(source, unchanged, Path(folder), children, on_stage, silent_progress, dry_run=True)
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


__all__ = ["BadInput", "Bundle", "Plan", "Stage", "export", "plan"]
