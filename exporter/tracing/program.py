"""Trace a module once into an ExportedProgram whose inputs and outputs are flat, named and stable."""

from __future__ import annotations

import copy
import inspect
import json
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporter.low_bit.weight import LowBit, load_low_bit, save_low_bit
from exporter.lowering import user_line
from runtimes.errors import BadInput, UnsupportedOperation
from runtimes.records import from_json
from runtimes.signature import Dimension, Signature, TensorSpec

Tensors = dict[str, torch.Tensor]
NAMESPACES = ("aten", "prims", "prim", "quantized_decomposed")
"""Where torch's own operations are, which converters know."""
INPUT_DTYPES = (torch.float32, torch.int64, torch.int32, torch.uint8, torch.int8, torch.bool)
LOW_BIT_SUFFIX = ".low_bit.npz"
PROJECT = Path(__file__).resolve().parents[1]
LIBRARIES = (str(Path(torch.__file__).parent), str(PROJECT))


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


class FlatModule(torch.nn.Module):
    """A module with the same weights that takes its tensors by flat names and returns a dict of named tensors."""

    def __init__(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        self._given = args, kwargs
        self._bound = _bind(module, args, kwargs)
        self._positional, self._keywords = len(args), tuple(kwargs)
        leaves, self._structure = pytree.tree_flatten_with_path(dict(self._bound.arguments))
        self._leaves = [(_name(path), leaf) for path, leaf in leaves]
        names = [name for name, leaf in self._leaves if isinstance(leaf, torch.Tensor)]
        _check_inputs(self._leaves)
        self.example: Tensors = {  # copies: torch.export takes one tensor given twice for one input
            n: leaf.detach().clone(memory_format=torch.contiguous_format) for n, leaf in self._leaves if n in names
        }
        self.forward = self._with_signature(names)

    def copy(self) -> FlatModule:
        """The same with a module of its own; what tells training from evaluation goes along."""
        return FlatModule(copy.deepcopy(self.module), *self._given)

    def _with_signature(self, names: Sequence[str]) -> Callable[..., Tensors]:
        """A forward() of just these keywords: torch.export reads them from the signature, for its own names."""

        def forward(**inputs: torch.Tensor) -> Tensors:
            return self.compute(inputs)

        keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        forward.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
        return forward

    def compute(self, inputs: Tensors) -> Tensors:
        """The module's outputs by name; an output that is an input, or another output, becomes a copy of its own."""
        values = [inputs.get(name, leaf) for name, leaf in self._leaves]
        self._bound.arguments.update(pytree.tree_unflatten(values, self._structure))
        found = named_tensors(self.module(*self._bound.args[: self._positional], **self._bound_keywords()))
        outputs: Tensors = {}
        taken = {id(v) for v in inputs.values()}
        for name, value in found.items():
            free = name if name not in inputs else f"{name}_out"  # formats have one name space for both
            outputs[free] = value.clone() if id(value) in taken else value
            taken.add(id(value))
        return outputs

    def _bound_keywords(self) -> dict[str, Any]:
        """What was given by keyword, by keyword again: an exported program takes its inputs in no other way."""
        keywords, arguments = self._bound.kwargs, self._bound.arguments
        return {name: keywords[name] if name in keywords else arguments[name] for name in self._keywords}


def _bind(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise BadInput(
            f"the example inputs do not fit forward(): {error}",
            where=type(module).__name__,
            remedy="return as many inputs as forward() takes",
        ) from error


def _name(path: tuple[Any, ...]) -> str:
    """A flat name for a place in the arguments: `x`, `pair_0`, `batch_mask`; letters, digits and underscores."""
    parts = [str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path]
    if parts and parts[0] in ("args", "kwargs") and len(parts) > 1 and not parts[1].isdigit():
        parts = parts[1:]  # **kwargs: the keyword itself is the name
    return identifier("_".join(parts))


def identifier(text: str) -> str:
    """`text` as a name that every format takes: letters, digits and underscores, not starting with a digit."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "tensor"
    return f"_{name}" if name[0].isdigit() else name


def _check_inputs(leaves: Sequence[tuple[str, Any]]) -> None:
    names = [name for name, leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not names:
        raise BadInput("the example inputs hold no tensor", remedy="return the module and its example tensors")
    for name, leaf in leaves:
        if names.count(name) > 1:
            raise BadInput(f"two inputs are named {name!r}", remedy="rename one of them")
        if isinstance(leaf, torch.Tensor) and leaf.dtype not in INPUT_DTYPES:
            allowed = ", ".join(str(d).removeprefix("torch.") for d in INPUT_DTYPES)
            raise BadInput(
                f"input {name!r} is {str(leaf.dtype).removeprefix('torch.')}", remedy=f"use one of {allowed}"
            )
        if not isinstance(leaf, (torch.Tensor, int, float, bool, str, type(None))):
            raise BadInput(f"input {name!r} is a {type(leaf).__name__}", remedy="give a torch.Tensor")


def named_tensors(value: Any, name: str = "output") -> Tensors:
    """The tensors of a module's return value by flat names: dict keys and field names, `output_0` in a tuple.

    Raises BadInput for a value that holds no tensor, or something that is none.
    """
    found: Tensors = {}

    def walk(item: Any, path: tuple[str, ...]) -> None:
        if isinstance(item, torch.Tensor):
            key = identifier("_".join(path) or name)
            if key in found:
                raise BadInput(f"two outputs are named {key!r}", remedy="rename one of them")
            found[key] = item
        elif isinstance(item, Mapping):
            for key, child in item.items():
                walk(child, (*path, str(key)))
        elif hasattr(item, "_fields"):
            for key in item._fields:
                walk(getattr(item, key), (*path, key))
        elif isinstance(item, (tuple, list)):
            for i, child in enumerate(item):
                walk(child, (*path, str(i)) if path else (name, str(i)) if len(item) > 1 else ())
        elif is_dataclass(item):
            for f in fields(item):
                walk(getattr(item, f.name), (*path, f.name))
        elif item is not None:
            raise BadInput(
                f"the module returns a {type(item).__name__}", remedy="return tensors, or dicts or tuples of them"
            )

    walk(value, ())
    if not found:
        raise BadInput("the module returns no tensor", remedy="return tensors, or dicts or tuples of them")
    return found


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
    in_place = any(
        isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable for n in exported.graph.nodes
    )
    signature = exported.run_decompositions({}).graph_signature if in_place else exported.graph_signature
    return [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]


def untraceable(error: Exception) -> BadInput:
    """The refusal for what torch.export raised, with the line of the user's code that it stopped at."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith(LIBRARIES) and f.filename[:1] != "<"
    ]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())
    if (
        "data-dependent" in text
        or "unbacked" in text.lower()
        or type(error).__name__.startswith("GuardOnDataDependent")
    ):
        code = f" `{frames[-1].line}`" if frames and frames[-1].line else ""
        return BadInput(
            f"control flow depends on the data{code}, which no trace can hold",
            where=place,
            remedy="use torch.where or torch.cond instead of a Python branch on tensor values",
        )
    return BadInput(
        f"torch.export cannot trace the model ({type(error).__name__}: {text[:300]})",
        where=place,
        remedy="make torch.export.export(module, inputs) work first",
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
