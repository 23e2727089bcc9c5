"""The first child of an export: load the source, compute golden values with PyTorch, trace once, keep the program."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from exporter.lowering import user_line
from exporter.sources import Source, SourceOptions, arguments, load, randomized, reshaped, weights_facts
from exporter.trace import LIBRARIES, DynamicAxis, FlatModule, Program, Tensors, save_program, trace
from runtimes.errors import BadInput, UnsupportedOperation
from runtimes.golden import Golden, write_golden
from runtimes.types import Origin

SAMPLES = 3
NAMESPACES = ("aten", "prims", "prim", "quantized_decomposed")
"""Where torch's own operations are, which converters know."""
Emit = Callable[[dict[str, Any]], None]


def prepare(job: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """The child's side: from the user's words to program.pt2, golden.npz and the source's files in `job["work"]`."""
    started = time.monotonic()
    source = load(job["source"], SourceOptions(**job["options"]))
    return prepare_source(source, job, emit, started)


def prepare_module(module: torch.nn.Module, example: Any, job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """The same for a module that the caller holds; `example` as a factory would return it."""
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"{type(module).__name__} is no torch.nn.Module", remedy="give (module, example_inputs)")
    args, kwargs = arguments(example)
    source = Source(
        name=type(module).__name__.lower(),
        kind="module",
        module=module,
        args=args,
        kwargs=kwargs,
        weights="as given",
        task=job["options"]["task"],
        **weights_facts(module),
    )
    return prepare_source(source, job, emit, time.monotonic())


def prepare_source(source: Source, job: Mapping[str, Any], emit: Emit, started: float) -> dict[str, Any]:
    """Check the module, compute golden values, trace; what the rest of the export must know, JSON-ready."""
    work = Path(job["work"])
    module = source.module
    with contextlib.suppress(NotImplementedError):  # an exported program keeps the mode it was traced in
        module.eval()
    check_weights(module)
    detail = f"{source.parameters:,} parameters, weights {source.weights}"
    emit({"stage": "load", "seconds": time.monotonic() - started, "detail": detail})

    started = time.monotonic()
    flat = FlatModule(module, source.args, source.kwargs)
    dynamic = [DynamicAxis(*axis) for axis in job["dynamic"]]
    asked = with_shapes(flat.example, {k: tuple(v) for k, v in job["input_shapes"].items()}, dynamic)
    example = with_free_axes(asked, dynamic)
    inputs = golden_inputs(source, example, asked, dynamic)
    outputs = tuple(reference(flat, sample) for sample in inputs)
    program = trace(flat, example, dynamic)
    check_operations(program)
    emit({"stage": "trace", "seconds": time.monotonic() - started, "detail": f"{operations(program)} operations"})

    save_program(program, work / "program.pt2")
    to_numpy = [tuple({k: v.numpy() for k, v in sample.items()} for sample in samples) for samples in (inputs, outputs)]
    write_golden(Golden(*to_numpy), work / "golden.npz")
    (work / "files").mkdir()
    for name, content in source.files.items():
        (work / "files" / name).write_bytes(content)
    origin = Origin(
        source=job["source"],
        kind=source.kind,
        weights_sha256=source.weights_sha256,
        weights=source.weights,
        parameters=source.parameters,
        task=source.task,
        license=source.license,
    )
    return {"name": source.name, "origin": asdict(origin), "signature": asdict(program.signature)}


def check_weights(module: torch.nn.Module) -> None:
    """Raise BadInput for weights that are not float32 on the CPU, or not finite; buffers may hold infinity, not NaN."""
    for name, tensor in module.named_parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise BadInput(f"weight {name!r} is {tensor.dtype}", remedy="call module.float() in the factory")
        if not torch.isfinite(tensor).all():
            raise BadInput(
                f"weight {name!r} holds NaN or infinity", remedy="export a checkpoint from before it diverged"
            )
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and torch.isnan(buffer).any():
            raise BadInput(f"buffer {name!r} holds NaN", remedy="export a checkpoint from before it diverged")


def check_operations(program: Program) -> None:
    """Raise UnsupportedOperation for operations that come with the user's code: no converter knows them."""
    for node in program.exported.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace not in NAMESPACES:
            raise UnsupportedOperation(
                f"no target has {node.target} of {user_line(node.meta.get('stack_trace') or '')}",
                remedy="rewrite that line with operations of torch",
            )


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


def golden_inputs(source: Source, example: Tensors, asked: Tensors, dynamic: list[DynamicAxis]) -> tuple[Tensors, ...]:
    """At least three sets of inputs: the source's real ones, else the example and others like it.

    With dynamic axes, one more set in which they have another length: 1 where the user's own, `asked`, have it.
    """

    def sample_sets(like: Tensors, count: int) -> tuple[Tensors, ...]:
        if source.samples:
            return source.samples({n: tuple(v.shape) for n, v in like.items()})[:count]
        return (like, *(randomized(like, seed) for seed in range(1, count)))

    samples = sample_sets(example, max(SAMPLES, 4 if source.samples else SAMPLES))
    if not dynamic:
        return samples
    shapes = {name: list(value.shape) for name, value in example.items()}
    for axis in dynamic:
        own, length = asked[axis.input].shape[axis.axis], shapes[axis.input][axis.axis]
        shapes[axis.input][axis.axis] = 1 if own == 1 else length // 2 if length >= 4 else length + 1
    other = {name: reshaped(value, tuple(shapes[name]), name) for name, value in example.items()}
    return (*samples, *sample_sets(other, 1))


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
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(LIBRARIES)]
        shapes = ", ".join(f"{name}={list(value.shape)}" for name, value in sample.items())
        raise BadInput(
            f"forward() raised {type(error).__name__} on inputs {shapes}: {str(error)[:200]}",
            where=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
            remedy="give inputs, --input-shape and --dynamic that the model takes",
        ) from error
    for name, value in outputs.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BadInput(
                f"PyTorch's own output {name!r} holds NaN or infinity", remedy="mend the model or its inputs"
            )
    return {name: value.detach() for name, value in outputs.items()}


def operations(program: Program) -> int:
    """How many operations a traced program calls."""
    return sum(node.op == "call_function" for node in program.exported.graph.nodes)
