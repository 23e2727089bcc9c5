"""Translations to MIL in place of coremltools' own that are inexact, and types as the traced program has them.

What Apple's kernels do with a negative operand of `mod` and `floor_div` is not documented, so neither ever gets one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil import register_torch_op
from coremltools.converters.mil.frontend.torch import ops, torch_op_registry
from coremltools.converters.mil.mil import types


def _promoted(context: Any, node: Any) -> tuple[Any, Any]:
    x, y = ops.promote_input_dtypes(ops._get_inputs(context, node)[:2])
    return x, y


def _is_negative(x: Any) -> Any:
    return mb.less(x=x, y=_number(x, 0))


def _number(like: Any, value: int) -> Any:
    return types.nptype_from_builtin(like.dtype)(value)


def _with_sign(negative: Any, x: Any) -> Any:
    return mb.select(cond=negative, a=mb.mul(x=x, y=_number(x, -1)), b=x)


@register_torch_op(override=True)
def fmod(context: Any, node: Any) -> None:
    """The rest of a division towards zero, with the sign of x."""
    x, y = _promoted(context, node)
    rest = mb.mod(x=mb.abs(x=x), y=mb.abs(x=y))
    context.add(_with_sign(_is_negative(x), rest), node.name)


@register_torch_op(torch_alias=["floordiv"], override=True)
def floor_divide(context: Any, node: Any) -> None:
    """Of integers, in integers: coremltools makes float32 of the result. Those of floats are decomposed."""
    x, y = _promoted(context, node)
    whole = mb.floor_div(x=mb.abs(x=x), y=mb.abs(x=y))
    rest = mb.sub(x=mb.abs(x=x), y=mb.mul(x=whole, y=mb.abs(x=y)))
    below = mb.logical_xor(x=_is_negative(x), y=_is_negative(y))
    apart = mb.logical_and(x=below, y=mb.not_equal(x=rest, y=_number(rest, 0)))
    quotient = mb.sub(x=_with_sign(below, whole), y=mb.cast(x=apart, dtype="int32"))
    context.add(quotient, node.name)


@register_torch_op(override=True)
def trunc(context: Any, node: Any) -> None:
    """x without its fraction."""
    (x,) = ops._get_inputs(context, node, expected=1)
    if types.is_int(x.dtype):
        context.add(mb.identity(x=x), node.name)
        return
    context.add(_with_sign(_is_negative(x), mb.floor(x=mb.abs(x=x))), node.name)


@register_torch_op(override=True)
def log(context: Any, node: Any) -> None:
    """Minus infinity of 0, where MIL adds 1e-45 first and gives -103."""
    (x,) = ops._get_inputs(context, node, expected=1)
    if not types.is_float(x.dtype):
        x = mb.cast(x=x, dtype="fp32")
    zero = mb.equal(x=x, y=_number(x, 0))
    context.add(mb.select(cond=zero, a=types.nptype_from_builtin(x.dtype)(-math.inf), b=mb.log(x=x)), node.name)


@register_torch_op(override=True)
def roll(context: Any, node: Any) -> None:
    """x[(i - shift) mod n] along each axis; all axes as one where none are given."""
    x, shifts, *rest = ops._get_inputs(context, node)
    axes = [] if not rest or rest[0] is None or rest[0].val is None else [int(a) for a in np.ravel(rest[0].val)]
    flat = mb.reshape(x=x, shape=[-1]) if not axes else x
    for shift, axis in zip(np.ravel(shifts.val), axes or [0], strict=True):
        flat = mb.gather(x=flat, indices=_rolled(flat, int(shift), axis % flat.rank), axis=axis % flat.rank)
    context.add(flat if axes else mb.reshape(x=flat, shape=mb.shape(x=x)), node.name)


def _rolled(x: Any, shift: int, axis: int) -> Any:
    """Where each place of a rolled axis comes from."""
    length = ops._utils.pymil_value_at(mb.shape(x=x), axis)
    if length.val is not None:
        return (np.arange(int(length.val), dtype=np.int32) - shift) % int(length.val)
    # -shift, or what it is plus shift lengths: never negative
    ahead = mb.mul(x=mb.sub(x=length, y=1), y=shift) if shift > 0 else -shift
    places = mb.range_1d(start=0, end=length, step=1)
    return mb.mod(x=mb.add(x=places, y=ahead), y=length)


MIL_TYPES = {torch.bool: "bool", **dict.fromkeys((torch.int8, torch.int16, torch.int32, torch.int64), "int32")}
FLOATS = (torch.float32, torch.float16, torch.float64)


@contextlib.contextmanager
def types_as_traced() -> Iterator[None]:
    """Within it a value that coremltools makes of another kind (boolean, integer, float) than torch is converted.

    A boolean in the place of a float is true wherever that is not zero, and so turns a mask around.
    """
    registry = torch_op_registry._TORCH_OPS_REGISTRY
    translation_of = registry.get_func

    def checked(name: str) -> Any:
        translate = translation_of(name)

        def converted(context: Any, node: Any) -> None:
            translate(context, node)
            wanted = _mil_type((node.meta or {}).get("val"))
            made: Any = context[node.name] if wanted and node.name in context else None
            if hasattr(made, "dtype") and _kind(made.dtype) not in (wanted, ""):
                context.add(mb.cast(x=made, dtype=wanted), node.name, override=True)

        return converted if translate else None

    registry.get_func = checked
    try:
        yield
    finally:
        del registry.get_func  # the class's own again


def _mil_type(value: Any) -> str:
    """What a traced value is in MIL; empty for sizes and tuples, which have no type of their own there."""
    if not isinstance(value, torch.Tensor):
        return ""
    return "fp32" if value.dtype in FLOATS else MIL_TYPES.get(value.dtype, "")


def _kind(dtype: Any) -> str:
    if types.is_bool(dtype):
        return "bool"
    return "fp32" if types.is_float(dtype) else "int32" if types.is_int(dtype) else ""
