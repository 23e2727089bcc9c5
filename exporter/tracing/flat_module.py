"""A module whose inputs and outputs are flat and named, whatever nest forward() takes and returns."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from runtimes.errors import BadInput

Tensors = dict[str, torch.Tensor]
INPUT_DTYPES = (torch.float32, torch.int64, torch.int32, torch.uint8, torch.int8, torch.bool)


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
