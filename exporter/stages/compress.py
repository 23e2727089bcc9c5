"""The child's side of a recipe: each pass in order, and after each a snapshot that the targets can lower and prove."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.tasks.task import Task
from exporter.compression.analysis.emulation import emulated, largest_of, quantization_errors
from exporter.compression.analysis.rounding import larger, noise_of, rounding_errors
from exporter.compression.model import Model, PassReport
from exporter.compression.recipe import Recipe, Step, apply
from exporter.lowering.representation import representation
from exporter.lowering.target import TARGETS
from exporter.processes.messages import is_posted
from exporter.sources.inputs import reference
from exporter.stages.snapshot import ORIGINAL, PROGRAM, STOP, Snapshot, TargetNeeds, folder_of
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.tracing.program import DynamicAxis, check_operations, operations, save_program, trace
from exporter.training.context import Context
from runtimes.bundle import GOLDEN
from runtimes.errors import PocketshipError
from runtimes.golden import Golden, Noise, write_golden
from runtimes.types import RecipeStep

DYNAMIC_MARGIN = 2.0
"""Runtimes take the range of a dynamic activation by the tensor or by the row; we emulate the tensor."""
STATIC_MARGIN = 1.5
"""Integer kernels also round their bias and their scales, which we do not emulate."""
ROUNDING_MARGIN = 4.0
"""A runtime's kernels approximate exp, tanh and erf, and add in lower precision than one rounding an operation."""
LABELS = {16: "float16", 8: "int8", 4: "int4", 2: "ternary"}

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Proofs:
    """What every snapshot of one export is traced and proven with; `targets` gives the arithmetic of each."""

    inputs: tuple[Tensors, ...]
    example: Tensors
    dynamic: list[DynamicAxis]
    targets: Mapping[str, str]
    work: Path


def compress(flat: FlatModule, recipe: Recipe, task: Task | None, seed: int, proofs: Proofs, emit: Emit) -> None:
    """Run the passes in order; each snapshot, the original's too, lies in its folder when it is told."""

    def progress(label: str, done: int, total: int) -> None:
        emit({"progress": [label, done, total]})

    def stopped() -> bool:
        return is_posted(proofs.work / STOP)

    started = time.monotonic()
    model = Model(flat)
    context = Context(flat, task, seed, progress, stopped)
    snapshot = take_snapshot(0, model, None, proofs, emit)
    detail = f"{snapshot.operations} operations"
    emit({"stage": "trace", "seconds": time.monotonic() - started, "detail": detail})
    emit({"snapshot": asdict(snapshot)})
    for i, step in enumerate(recipe.steps, 1):
        started = time.monotonic()
        with _named(step, recipe.steps[: i - 1]):
            model, report = apply(step, model, context)
        seconds = time.monotonic() - started
        emit({"stage": report.name, "seconds": seconds, "detail": report.notes[0] if report.notes else "done"})
        snapshot = take_snapshot(i, model, report, proofs, emit) if report.changed else _unchanged(i, snapshot, report)
        emit({"snapshot": asdict(snapshot)})


@contextmanager
def _named(step: Step, before: Sequence[Step]) -> Iterator[None]:
    """Make an error name the pass that it came from, and the passes before it."""
    after = f" after {', '.join(earlier.name for earlier in before)}" if before else ""
    place = f"pass {step.name}{after}"
    try:
        yield
    except PocketshipError as error:
        where = f"{place}: {error.where}" if error.where not in ("", step.name) else place
        raise type(error)(error.what, where=where, remedy=error.remedy) from error
    except MemoryError:  # an outcome of its own
        raise
    except Exception as error:  # a fault of ours, or of a library in the user's data
        raise RuntimeError(f"{place}: {type(error).__name__}: {error}") from error


def _unchanged(index: int, snapshot: Snapshot, report: PassReport) -> Snapshot:
    """The snapshot after a pass that changed nothing: that before it, by another name."""
    same_as = snapshot.index if snapshot.same_as is None else snapshot.same_as
    return replace(snapshot, index=index, name=report.name, step=_step(report), same_as=same_as)


def _step(report: PassReport) -> RecipeStep:
    return RecipeStep(report.name, dict(report.settings), report.notes)


def take_snapshot(index: int, model: Model, report: PassReport | None, proofs: Proofs, emit: Emit) -> Snapshot:
    """Trace the model and keep program, golden values and low-bit weights in the snapshot's folder."""
    folder = proofs.work / folder_of(index)
    folder.mkdir()
    outputs = tuple(reference(model.flat, sample) for sample in proofs.inputs)
    program = trace(model.flat, proofs.example, proofs.dynamic)
    check_operations(program)
    save_program(replace(program, low_bit=model.low_bit), folder / PROGRAM)
    targets = _needs(model, proofs, outputs, folder, emit)
    parameters = list({id(p): p for p in model.flat.module.parameters()}.values())
    return Snapshot(
        index=index,
        name=report.name if report else ORIGINAL,
        signature=program.signature,
        operations=operations(program),
        precision=LABELS[min(w.bits for w in model.low_bit.values())] if model.low_bit else "float32",
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(torch.count_nonzero(p)) for p in parameters),
        targets=targets,
        step=_step(report) if report else None,
    )


def _needs(
    model: Model, proofs: Proofs, outputs: tuple[Tensors, ...], folder: Path, emit: Emit
) -> dict[str, TargetNeeds]:
    """What each target's artifact is proven with; writes the golden values, and the noise of each format beside them.

    Raises BadInput where a target refuses one of the weights.
    """
    arithmetic = sorted(set(proofs.targets.values()))
    rounding = {compute: _rounding(model, compute, proofs.inputs, outputs, emit) for compute in arithmetic}
    found: dict[str, TargetNeeds] = {}
    noises: dict[str, Noise] = {}
    for target, compute in proofs.targets.items():
        needs, quantized, golden = needs_of(target, model, proofs.inputs)
        rounded = rounding[compute]
        noise = larger(rounded, quantized) if quantized and rounded else quantized or rounded
        found[target] = needs
        if golden is None:
            noises[target] = noise
        else:
            _write(proofs.inputs, golden, folder / needs.golden, {target: noise})
    _write(proofs.inputs, outputs, folder / GOLDEN, noises)
    return found


def _rounding(
    model: Model, compute: str, inputs: tuple[Tensors, ...], outputs: tuple[Tensors, ...], emit: Emit
) -> Noise:
    """What rounding changes in each part; nothing, and a warning, where that cannot be measured in this model."""
    try:
        errors = rounding_errors(model.flat, compute, inputs, outputs)
    except MemoryError:  # an outcome of its own
        raise
    except Exception as error:  # as a forward() that checks its inputs, or that no mode of torch may watch
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        whole = f"what rounding changes in this model cannot be measured in {compute} ({cause:.200})"
        said = f"warning: {whole}: each output is judged as a whole, not by its columns and channels"
        emit({"stage": "trace", "seconds": 0.0, "detail": said})
        return {}
    return noise_of(errors, outputs, ROUNDING_MARGIN)


def _write(inputs: tuple[Tensors, ...], outputs: tuple[Tensors, ...], path: Path, noise: Mapping[str, Noise]) -> None:
    arrays = [tuple({k: v.numpy() for k, v in sample.items()} for sample in samples) for samples in (inputs, outputs)]
    write_golden(Golden(arrays[0], arrays[1], noise), path)


def needs_of(
    target: str, model: Model, inputs: tuple[Tensors, ...]
) -> tuple[TargetNeeds, Noise | None, tuple[Tensors, ...] | None]:
    """What a target's artifact of this model is compared with, and how far it may be off, whole and part by part.

    Where a layer's activations have calibrated ranges, it is compared with the model with them emulated, whose outputs
    come last, and the allowed error is what the rounding itself changes, with a margin; where the runtime finds the
    ranges, with the model without.

    Raises BadInput where the target refuses one of the weights.
    """
    if not model.low_bit:
        return TargetNeeds(), None, None
    chosen = {name: representation(target, weight) for name, weight in model.low_bit.items()}
    effective = {n: replace(w, activations=chosen[n].activations) for n, w in model.low_bit.items()}
    kinds = {weight.activations for weight in effective.values()}
    needs = TargetNeeds(version=max(map(TARGETS[target].settings.version_of, chosen.values())))
    if kinds == {"float"}:
        return needs, None, None
    errors = quantization_errors(model.flat, effective, inputs)
    margin = STATIC_MARGIN if "static" in kinds else DYNAMIC_MARGIN
    needs = replace(needs, noise={name: margin * error for name, error in largest_of(errors).items()})
    if "static" not in kinds:
        return needs, noise_of(errors, _outputs(model, inputs), margin), None
    with emulated(model.flat, effective):
        rounded = _outputs(model, inputs)
    return replace(needs, golden=f"golden-{target}.npz"), noise_of(errors, rounded, margin), rounded


def _outputs(model: Model, inputs: tuple[Tensors, ...]) -> tuple[Tensors, ...]:
    return tuple(reference(model.flat, sample) for sample in inputs)
