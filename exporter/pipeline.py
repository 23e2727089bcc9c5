"""An export on one screen: source -> traced program -> artifacts -> parity -> ledger -> bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.tasks.task import Task
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
from exporter.stages.keywords import (
    bytes_in,
    check_kinds,
    check_pair,
    dynamic_in,
    shapes_in,
    share_of,
    targets_in,
    wrong,
)
from exporter.stages.options import (
    ModuleAndInputs,
    Options,
    check_installed,
    check_limits_given,
    check_options,
    check_source,
    default_name,
    options_of,
    with_task_of_zoo,
)
from exporter.stages.progress import OnProgress, OnStage, Stage, silent_progress, silent_stage
from exporter.stages.run import Run
from exporter.stages.targets import Targets
from runtimes.errors import BadInput, PocketshipError
from runtimes.scratch import scratch_folder
from runtimes.signature import Signature
from runtimes.types import LedgerRow, Manifest, Origin

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    Array: TypeAlias = np.ndarray | torch.Tensor | Sequence[Any]
    Inputs: TypeAlias = Array | Mapping[str, Array]
    Data: TypeAlias = str | Path | Task | Inputs | tuple[Inputs, Array] | Mapping[str, Any] | DataLoader[Any]


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
    data: Data | None = None,
    max_drop: str | float | None = None,
    max_size: str | int | None = None,
    min_speedup: float | None = None,
    measure: bool = True,
    seed: int = 0,
    input_shape: Mapping[str, Sequence[int]] | Sequence[str] | str = (),
    dynamic: Mapping[str, int | Sequence[int]] | Sequence[str] | str = (),
    opset: int | None = None,
    min_ios: int | None = None,
    coreml_precision: str = "float32",
    atol: float | None = None,
    task: str | None = None,
    weights: str | Path | None = None,
    preprocessor: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    image: str | Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    sign: str | Path | None = None,
    trust_remote_code: bool = False,
    strict: bool = False,
    force: bool = False,
    on_stage: OnStage = silent_stage,
    on_progress: OnProgress = silent_progress,
) -> Bundle:
    """Export a model to every target and write a bundle of the artifacts that were proven equal to it.

    `source` is what `pocketship export` takes, or a pair `(module, example_inputs)`, of which a copy is exported;
    `targets` are names or "all"; `recipe` is a YAML file or a `Recipe`, in place of the words `prune`, `low_rank` and
    `quantize`; `data` is what --data takes, or what `exporter.sources.data` makes a task of. The other keywords are the
    command line's, as its words ("3MB", "1%", "image=1,3,96,96") or as numbers and mappings (docs/python.md). Nothing
    is written unless all pass.

    Raises BadInput, UnsupportedOperation, ParityFailed or LimitNotMet, each with its cause and mend.
    """
    paths = {"output": output, "preprocessor": preprocessor, "tokenizer": tokenizer, "sign": sign}
    words: dict[str, Any] = {
        "task": task,
        "coreml_precision": coreml_precision,
        "opset": opset,
        "min_ios": min_ios,
        "atol": atol,
    }
    words |= {"seed": seed, "measure": measure, "min_speedup": min_speedup, "strict": strict, "force": force}
    words |= {"trust_remote_code": trust_remote_code, "weights": weights}
    check_kinds(**paths, **words, labels=labels, image=image, prune=prune, low_rank=low_rank, quantize=quantize)
    check_pair(source)
    chosen = options_of(
        **words | {"weights": None if weights is None else str(weights)},
        **{name: None if path is None else Path(path) for name, path in paths.items()},
        targets=targets_in("targets", targets),
        labels=Path(labels) if isinstance(labels, str) else labels,
        image=image,
        recipe=_recipe(recipe, prune, low_rank, quantize),
        data=_data(data, seed),
        max_drop=share_of("max_drop", max_drop),
        max_size_bytes=bytes_in("max_size", max_size),
        input_shapes=shapes_in("input_shape", input_shape),
        dynamic=dynamic_in("dynamic", dynamic),
    )
    return export_with(source, chosen, on_stage=on_stage, on_progress=on_progress)


def _recipe(
    recipe: str | Path | Recipe | None, prune: str | None, low_rank: str | None, quantize: str | None
) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, (str, Path, type(None))):
        raise wrong("recipe", recipe, "a YAML file or a Recipe")
    return recipe_of(None if recipe is None else Path(recipe), prune, low_rank, quantize)


def _data(data: Data | None, seed: int) -> str | Task | None:
    """The word that names a task, or the task of what the caller holds."""
    if data is None or isinstance(data, (str, Path)):
        return None if data is None else str(data)
    from exporter.sources.data import task_of_data

    return task_of_data(data, seed)


def export_with(
    source: str | ModuleAndInputs,
    options: Options,
    *,
    on_stage: OnStage = silent_stage,
    on_progress: OnProgress = silent_progress,
) -> Bundle:
    """See `export`: 1. check all options, 2. to 4. `lower_and_prove`, 5. measure, 6. finish, 7. commit in one step."""
    options = with_task_of_zoo(source, options)
    check_source(source)
    check_options(options)
    check_installed(options)
    check_limits_given(options)
    output = (options.output or Path(f"{default_name(source)}-bundle")).absolute()
    with Children() as children, partial_folder(output, options.force) as partial, explain_full_disk(output, partial):
        run = Run(options, partial, children, on_stage, on_progress)
        targets = lower_and_prove(source, run)
        ledger = _measured(targets, run)
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
    """What each stage of a recipe cost and brought, where that is measured.

    Raises LimitNotMet where it, or the size of an artifact, is not what the user asked for.
    """
    from exporter.ledger.limits import check_limits, check_sizes

    options = run.options
    if not (options.recipe.steps and options.measure):
        final = [p.artifact for p in targets.proven if p.snapshot is targets.snapshots[-1]]
        check_sizes(final, options.max_size_bytes)
        return ()
    from exporter.stages.measure import fill_ledger

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
    check_source(source)
    check_options(options)
    check_installed(options)
    with scratch_folder() as folder, Children() as children:
        run = Run(replace(options, recipe=NO_RECIPE), folder, children, on_stage, dry_run=True)
        run.work.mkdir()
        targets = lower_and_prove(source, run)
    return Plan(targets.source.name, targets.source.origin, targets.snapshots[0].signature)


__all__ = ["BadInput", "Bundle", "Plan", "Stage", "export", "plan"]
