"""An export on one screen: source -> traced program -> artifacts -> parity -> ledger -> bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.bundle.writer import (
    commit,
    explain_full_disk,
    partial_folder,
    writing_errors,
)
from exporter.compression.recipe import NO_RECIPE, Recipe, recipe_of
from exporter.processes.children import Children
from exporter.stages.finish import finish
from exporter.stages.first_child import prepare_in_child
from exporter.stages.options import (
    ModuleAndInputs,
    Options,
    check_installed,
    check_limits_given,
    check_options,
    default_name,
    options_of,
    parse_targets,
    with_task_of_zoo,
)
from exporter.stages.progress import OnProgress, OnStage, Stage, silent_progress, silent_stage
from exporter.stages.run import Run
from exporter.stages.targets import Targets
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
    `options` are the command line's other words (force=True, data="digits", opset=21, ...). Nothing is written unless
    all pass.

    Raises BadInput, UnsupportedOperation, ParityFailed or LimitNotMet, each with its cause and mend.
    """
    names = parse_targets([targets] if isinstance(targets, str) else targets)
    place = None if output is None else Path(output)
    file = None if recipe is None or isinstance(recipe, Recipe) else Path(recipe)
    steps = recipe if isinstance(recipe, Recipe) else recipe_of(file, prune, low_rank, quantize)
    chosen = options_of(targets=names, output=place, recipe=steps, **options)
    return export_with(source, chosen, on_stage=on_stage, on_progress=on_progress)


def export_with(
    source: str | ModuleAndInputs,
    options: Options,
    *,
    on_stage: OnStage = silent_stage,
    on_progress: OnProgress = silent_progress,
) -> Bundle:
    """See `export`: 1. check all options, 2. to 4. `lower_and_prove`, 5. measure, 6. finish, 7. commit in one step."""
    options = with_task_of_zoo(source, options)
    check_options(options)
    check_installed(options)
    check_limits_given(options)
    output = (options.output or Path(f"{default_name(source)}-bundle")).absolute()
    with Children() as children, partial_folder(output, options.force) as partial, explain_full_disk(output):
        run = Run(options, partial, children, on_stage, on_progress)
        targets = lower_and_prove(source, run)
        ledger = _measured(targets, run) if options.recipe.steps and options.measure else ()
        with writing_errors(output):
            manifest = finish(targets, ledger, run)
            if options.sign is not None:
                from exporter.delivery.signature import sign_bundle

                sign_bundle(run.bundle, options.sign)
        commit(partial, output)
    return Bundle(output, manifest)


def lower_and_prove(source: str | ModuleAndInputs, run: Run) -> Targets:
    """2. Load, trace and compress the source, 3. lower each snapshot to all targets at once, 4. prove each artifact.

    Each target has a child process of its own, which imports its converter while the source is being loaded. An
    operation that any target lacks stops all of them, once every target has said what the original model lacks.
    """
    targets = Targets(run)
    try:
        prepare_in_child(source, targets, run)
        targets.wait()
    except BaseException as error:  # Ctrl-C too
        targets.cancel()
        if isinstance(error, PocketshipError):
            targets.raise_lacking()  # the better reason: it ended the child that prepares
        raise
    return targets


def _measured(targets: Targets, run: Run) -> tuple[LedgerRow, ...]:
    """What each stage of the recipe cost and brought; raises LimitNotMet where that is not what the user asked for."""
    from exporter.ledger.limits import check_limits
    from exporter.stages.measure import fill_ledger

    options = run.options
    ledger = fill_ledger(targets.proven, run)
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
    with tempfile.TemporaryDirectory() as folder, Children() as children:
        run = Run(replace(options, recipe=NO_RECIPE), Path(folder), children, on_stage, dry_run=True)
        run.work.mkdir()
        targets = lower_and_prove(source, run)
    return Plan(targets.source.name, targets.source.origin, targets.snapshots[0].signature)


__all__ = ["BadInput", "Bundle", "Plan", "Stage", "export", "plan"]
