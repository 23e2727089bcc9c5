"""The inputs that an artifact is proven on, and what PyTorch itself computes for them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from benchmarks.agent.samples import named_for
from benchmarks.tasks.scores import WITHOUT_CLASS
from benchmarks.tasks.task import Task
from exporter.sources.drawn import Fault, Ranges, Say, drawn, index_ranges, randomized
from exporter.sources.source import Source
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.tracing.program import DynamicAxis
from exporter.tracing.user_code import line_of
from runtimes.errors import BadInput

REAL_SAMPLES = 4
"""Where the inputs are real."""


def with_shapes(example: Tensors, shapes: Mapping[str, tuple[int, ...]], dynamic: list[DynamicAxis]) -> Tensors:
    """The example with the user's shapes.

    Raises BadInput for an input or an axis that the model does not have.
    """
    for name in (*shapes, *(axis.input for axis in dynamic)):
        if name not in example:
            raise BadInput(f"the model has no input {name!r}", remedy=f"its inputs are {', '.join(example)}")
    for axis in dynamic:
        rank = example[axis.input].ndim
        if not 0 <= axis.axis < rank:
            raise BadInput(
                f"input {axis.input!r} has no axis {axis.axis}", where="--dynamic", remedy=f"it has {rank}, from 0"
            )
    return {n: reshaped(v, shapes[n], n) if n in shapes else v for n, v in example.items()}


def with_free_axes(example: Tensors, dynamic: list[DynamicAxis]) -> Tensors:
    """The example with at least 2 along each dynamic axis, since torch.export takes 1 for a constant."""
    shapes = {name: list(value.shape) for name, value in example.items()}
    for axis in dynamic:
        shapes[axis.input][axis.axis] = max(2, shapes[axis.input][axis.axis])
    return {n: v if list(v.shape) == shapes[n] else reshaped(v, tuple(shapes[n]), n) for n, v in example.items()}


def golden_inputs(
    flat: FlatModule,
    source: Source,
    task: Task | None,
    example: Tensors,
    given: Tensors,
    dynamic: list[DynamicAxis],
    say: Say,
) -> tuple[Tensors, ...]:
    """Sets of inputs: the source's real ones, else the task's, else the example and others that are drawn.

    Where real ones hold integers or booleans, one more set has those drawn: real texts use few tokens of a vocabulary,
    and hardly a mask. With dynamic axes, one more set in which they have another length: 1 where the user's, those of
    `given`, have it. `say` is told what had to be left out.
    """

    def real(like: Tensors, count: int) -> tuple[Tensors, ...]:
        if source.samples:
            return source.samples({n: tuple(v.shape) for n, v in like.items()})[:count]
        return task_samples(task, like, count) if task else (like,)

    def fault(sample: Tensors) -> str:
        try:
            reference(flat, sample)
        except BadInput as error:
            return error.what
        return ""

    reference(flat, example)  # a fault of the model's own is said first
    ranges = index_ranges(flat, example)
    if source.samples or task:
        samples = real(example, REAL_SAMPLES)
        samples += _with_drawn_integers(samples[0], ranges, fault, say)
    else:
        samples = drawn(example, ranges, fault, say)
    if not dynamic:
        return samples
    shapes = {name: list(value.shape) for name, value in example.items()}
    for axis in dynamic:
        given_length, length = given[axis.input].shape[axis.axis], shapes[axis.input][axis.axis]
        shapes[axis.input][axis.axis] = 1 if given_length == 1 else length // 2 if length >= 4 else length + 1
    other = {name: reshaped(value, tuple(shapes[name]), name) for name, value in example.items()}
    return (*samples, *real(other, 1))


def _with_drawn_integers(sample: Tensors, ranges: Ranges, fault: Fault, say: Say) -> tuple[Tensors, ...]:
    """The sample with other integers and masks; nothing where it has none, or the model cannot take them."""
    if all(value.is_floating_point() for value in sample.values()):
        return ()
    others = randomized(sample, 1, ranges)
    found = {name: value if value.is_floating_point() else others[name] for name, value in sample.items()}
    reason = fault(found)
    if reason:
        say(f"golden inputs with drawn integers are left out: {reason}")
    return () if reason else (found,)


def reference(flat: FlatModule, sample: Tensors) -> Tensors:
    """PyTorch's own outputs.

    Raises BadInput when forward() raises, with the user's line, or computes NaN.
    """
    try:
        with torch.no_grad():
            outputs = flat.compute(dict(sample))
    except BadInput:
        raise
    except Exception as error:  # whatever the user's forward() raises
        shapes = ", ".join(f"{name}={list(value.shape)}" for name, value in sample.items())
        raise BadInput(
            f"forward() raised {type(error).__name__} on inputs {shapes}: {str(error)[:200]}",
            where=line_of(error)[0],
            remedy="give inputs, --input-shape and --dynamic that the model takes",
        ) from error
    for name, value in outputs.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BadInput(
                f"PyTorch's own output {name!r} holds NaN or infinity", remedy="mend the model or its inputs"
            )
    return {name: value.detach() for name, value in outputs.items()}


def task_samples(task: Task, like: Tensors, count: int) -> tuple[Tensors, ...]:
    """Sets of inputs in the shapes of `like` from the first rows of the task's calibration split.

    Raises BadInput where the rows have other shapes or the split is too small.
    """
    arrays = named_for(task.calibration.inputs, tuple(like))
    rows = len(task.calibration)
    batches = {name: value.shape[0] for name, value in like.items()}
    if max(batches.values()) * count > rows:
        raise BadInput(
            f"the calibration split has {rows} samples, the check needs {max(batches.values()) * count}",
            where=task.name,
            remedy="give more, or a smaller batch",
        )
    for name, value in like.items():
        if arrays[name].shape[1:] != tuple(value.shape[1:]):
            own = list(arrays[name].shape[1:])
            wanted = ",".join(map(str, (value.shape[0], *own)))
            raise BadInput(
                f"input {name!r} of the task has shape {own} a sample, the model takes {list(value.shape[1:])}",
                where=task.name,
                remedy=f"give samples of shape {list(value.shape[1:])}, or --input-shape {name}={wanted}",
            )

    def rows_of(name: str, i: int) -> torch.Tensor:
        batch = batches[name]
        return torch.from_numpy(arrays[name][i * batch : (i + 1) * batch].copy()).to(like[name].dtype)

    return tuple({name: rows_of(name, i) for name in like} for i in range(count))


def check_task(flat: FlatModule, task: Task, example: Tensors) -> str:
    """What to warn the user of: classes of the model that the task has no labels for; empty where it fits whole.

    Raises BadInput where the task's samples are not what the model takes, or its labels not what the model gives.
    """
    (sample,) = task_samples(task, example, 1)
    if not task.can_score:
        return ""
    outputs = {name: value.numpy() for name, value in reference(flat, sample).items()}
    rows = task.calibration.rows(slice(0, len(next(iter(sample.values())))))
    found = task.score(outputs, rows, *((outputs, rows) if task.gallery else ()))
    surplus = int(found.others.get(WITHOUT_CLASS, 0))
    if not surplus:
        return ""
    return (
        f"warning: the task has {len(task.classes)} classes and the model {len(task.classes) + surplus}; label i is "
        "taken for the model's output i, and any of the others counts as wrong"
    )


def reshaped(value: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """A tensor of `shape` with the kind of values of `value`.

    Raises BadInput for a shape of another rank, with an empty axis, or of more than 1 GiB.
    """
    if len(shape) != value.ndim:
        raise BadInput(
            f"input {name!r} has {value.ndim} axes, not {len(shape)}",
            where="--input-shape",
            remedy=f"give {value.ndim} lengths, as in {name}={','.join(map(str, value.shape))}",
        )
    if any(length < 1 for length in shape) or math.prod(shape) * value.element_size() > 2**30:
        raise BadInput(
            f"input {name!r} cannot have shape {list(shape)}", where="--input-shape", remedy="use sane lengths"
        )
    flat = value.reshape(-1)
    return flat.repeat(-(-math.prod(shape) // max(1, flat.numel())))[: math.prod(shape)].reshape(shape)
