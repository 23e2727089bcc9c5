"""Trace a module once into an ExportedProgram whose inputs and outputs are flat, named and stable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporter.low_bit.weight import LowBit, load_low_bit, save_low_bit
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.tracing.user_code import untraceable, user_line
from runtimes.errors import BadInput, UnsupportedOperation
from runtimes.records import from_json
from runtimes.signature import Dimension, Signature, TensorSpec

NAMESPACES = ("aten", "prims", "prim", "quantized_decomposed")
"""Where torch's own operations are, which converters know."""
LOW_BIT_SUFFIX = ".low_bit.npz"


@dataclass(frozen=True)
class DynamicAxis:
    """Axis `axis` of input `input` may have any length."""

    input: str
    axis: int


@dataclass(frozen=True)
class Program:
    """A traced model: `exported` takes the inputs of `signature` as keywords and returns its outputs as a dict.

    `low_bit` says which of its weights are low-bit ones, by the name of the parameter in the source's own module.
    """

    exported: torch.export.ExportedProgram
    signature: Signature
    low_bit: LowBit = field(default_factory=dict)


def trace(flat: FlatModule, example: Tensors, dynamic: Sequence[DynamicAxis] = ()) -> Program:
    """Trace `flat` with torch.export on `example`; the axes in `dynamic` stay free.

    Raises BadInput, with the user's line, for what torch.export cannot trace: control flow that depends on data, state
    that changes in forward().
    """
    shapes: dict[str, dict[int, Any]] = {name: {} for name in example}
    for axis in dynamic:
        shapes[axis.input][axis.axis] = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad():
            exported = torch.export.export(
                flat, (), kwargs=example, dynamic_shapes=shapes if dynamic else None, strict=False
            )
    except Exception as error:  # torch.export raises every kind of exception, the user's own among them
        raise untraceable(error) from error
    changed = _changed_state(exported)
    if changed:
        raise BadInput(
            f"forward() changes {changed[0].removeprefix('module.')!r}, and an exported model keeps no state",
            where=type(flat.module).__name__,
            remedy="return the new value instead",
        )
    return Program(exported, _signature(exported, dynamic))


def functional(program: Program) -> Program:
    """The program with what it changes in place made anew instead; itself where it changes nothing."""
    if not changes_in_place(program.exported):
        return program
    return Program(program.exported.run_decompositions({}), program.signature, program.low_bit)


def check_operations(program: Program) -> None:
    """Raise UnsupportedOperation for operations that come with the user's code: no converter knows them."""
    for node in program.exported.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace not in NAMESPACES:
            raise UnsupportedOperation(
                f"no target has {node.target} of {user_line(node.meta.get('stack_trace') or '')}",
                remedy="rewrite that line with operations of torch",
            )


def operations(program: Program) -> int:
    """How many operations a traced program calls."""
    return sum(node.op == "call_function" for node in program.exported.graph.nodes)


def _changed_state(exported: torch.export.ExportedProgram) -> list[str]:
    """The buffers and inputs that forward() writes to, which show once in-place operations are made functional."""
    in_place = changes_in_place(exported)
    signature = exported.run_decompositions({}).graph_signature if in_place else exported.graph_signature
    return [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]


def changes_in_place(exported: torch.export.ExportedProgram) -> bool:
    """Whether an operation writes into a tensor that it is given, also in the branches of a `torch.cond`."""
    graphs = [module.graph for module in exported.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return any(
        isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable
        for graph in graphs
        for n in graph.nodes
    )


def _signature(exported: torch.export.ExportedProgram, dynamic: Sequence[DynamicAxis]) -> Signature:
    """Names, dtypes and shapes of a program traced from a `FlatModule`; axes of one symbol share one name."""
    values = {n.name: n.meta.get("val") for n in exported.graph.nodes}
    labels: dict[str, str] = {}

    def spec(name: str, value: torch.Tensor) -> TensorSpec:
        shape: list[Dimension] = []
        for axis, length in enumerate(value.shape):
            fixed = isinstance(length, int)
            shape.append(length if fixed else labels.setdefault(str(length), f"{name}_{axis}"))
        return TensorSpec(name, str(value.dtype).removeprefix("torch."), tuple(shape))

    input_names = pytree.tree_unflatten(list(exported.graph_signature.user_inputs), exported.call_spec.in_spec)[1]
    output_names = pytree.tree_unflatten(list(exported.graph_signature.user_outputs), exported.call_spec.out_spec)
    inputs = tuple(spec(name, values[node]) for name, node in input_names.items())
    return Signature(inputs, tuple(spec(name, values[node]) for name, node in output_names.items()))


def save_program(program: Program, path: Path) -> None:
    """Keep a traced program for the children that lower it; its signature travels inside, its low-bit weights beside.

    Raises BadInput for what torch.export traces but cannot save.
    """
    from torch._export.serde.serialize import SerializeError

    extra_files = {"signature.json": json.dumps(asdict(program.signature))}
    try:
        torch.export.save(program.exported, path, extra_files=extra_files)
    except SerializeError as error:
        raise untraceable(error) from error
    save_low_bit(program.low_bit, path.with_suffix(LOW_BIT_SUFFIX))


def load_program(path: Path) -> Program:
    """Read what `save_program` wrote."""
    extra = {"signature.json": ""}
    exported = torch.export.load(path, extra_files=extra)
    signature = from_json(Signature, json.loads(extra["signature.json"]))
    return Program(exported, signature, load_low_bit(path.with_suffix(LOW_BIT_SUFFIX)))
