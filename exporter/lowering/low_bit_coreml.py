"""Low-bit weights in a Core ML program: their codes and scales as they are, behind MIL's constexpr operations.

Core ML keeps such a weight compressed on disk and decompresses it itself, when it loads the model or while it computes,
always to floating point. The passes of coremltools.optimize write the same operations, but compute the codes again from
the largest value of each channel, which gives others where that is not the largest code (after clipping, and in ternary
channels); so the operations are put into the program here, between conversion and saving.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from exporter.low_bit.weight import LowBit, LowBitWeight
from exporter.lowering.representation import COREML_PALETTE, Carried, representation
from exporter.lowering.settings import CoreMlSettings

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var

TOLERANCE = 1e-5
"""How far a converter may have moved a weight, in scales."""
IOS_OF_BLOCKS = 18
"""The first with scales for blocks, on which coremltools writes int8 weights that way too."""
LEAST_VALUES = 10
"""coremltools writes smaller constants into the program itself, where they cannot be compressed."""
CODES_OF_PALETTE = (0, 1, 0, -1)
"""The palette that a ternary code, as an unsigned integer of two bits, is an index of; its third entry has no use."""


def carry(program: Program, low_bit: LowBit, settings: CoreMlSettings) -> tuple[Carried, ...]:
    """Replace each constant of a converted MIL program that holds a low-bit weight; the program is changed in place.

    Says of each weight how it is stored; one that no constant holds stays in floating point, with the reason.

    Raises BadInput for a weight that Core ML refuses (see `representation`).
    """
    block = program.functions["main"]
    stored: dict[str, str] = {}
    with block:
        for operation in list(block.operations):
            if not _may_be_compressed(operation):
                continue
            value = operation.outputs[0].val
            for candidates in (low_bit, _first_rows(low_bit, value.shape)):
                names, axes = _find(value, candidates)
                if names:
                    weight = candidates[names[0]]
                    _replace(operation, weight, axes, settings.version)
                    stored.update(dict.fromkeys(names, representation("coreml", weight).name))
                    break
    return tuple(
        Carried(name, stored.get(name, settings.coreml_precision), "" if name in stored else _why_not(weight))
        for name, weight in low_bit.items()
    )


def _may_be_compressed(operation: Operation) -> bool:
    """Whether it is a floating-point constant that only operations read: Core ML returns no decompressed weight."""
    value = operation.outputs[0].val if operation.op_type == "const" else None
    if not isinstance(value, np.ndarray) or operation.outputs[0].consuming_blocks:
        return False
    return value.dtype.kind == "f" and value.ndim > 1 and value.size >= LEAST_VALUES


def _why_not(weight: LowBitWeight) -> str:
    if weight.codes.size < LEAST_VALUES:
        return f"Core ML compresses no constant of fewer than {LEAST_VALUES} values"
    return "no constant holds it that only operations read: coremltools folded or split it, or the model returns it"


def _first_rows(low_bit: LowBit, shape: tuple[int, ...]) -> LowBit:
    """Embeddings cut to what a constant `[1, ..., rows, width]` holds: positions that are looked up at conversion."""
    *ones, rows, width = shape
    return {
        name: replace(weight, codes=weight.codes[:rows].reshape(rows, *ones, width), scale=weight.scale[:rows])
        for name, weight in low_bit.items()
        if weight.kind == "embedding" and set(ones) <= {1} and width == weight.codes.shape[1]
        if rows <= len(weight.codes)
    }


def _find(value: np.ndarray, low_bit: LowBit) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of the low-bit weights, of one value all, that a constant holds, and the order of their axes there."""
    for axes in permutations(range(value.ndim)):
        names = tuple(name for name, weight in low_bit.items() if _holds(value, weight, axes))
        if names:
            return names, axes
    return (), ()


def _holds(value: np.ndarray, weight: LowBitWeight, axes: tuple[int, ...]) -> bool:
    """Whether `value` is the weight with its axes in this order, but for a rounding of its own type."""
    codes = weight.codes
    if codes.ndim != value.ndim or codes.transpose(axes).shape != value.shape:
        return False
    here = value.transpose(np.argsort(axes))  # the axes as PyTorch has them
    scale = _along(weight.scale, 0, codes.ndim)
    return all(
        bool(np.all(np.abs(here[p] - codes[p] * scale[p]) <= TOLERANCE * scale[p] + np.spacing(np.abs(here[p]))))
        for p in (slice(1), slice(1, None))  # most others differ in the first channel
    )


def _along(scale: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])


def _replace(operation: Operation, weight: LowBitWeight, axes: tuple[int, ...], min_ios: int) -> None:
    """Let all that reads a constant read the decompressed weight instead, of the same type and shape."""
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    old, block = operation.outputs[0], operation.enclosing_block
    origin = {k: v for k, v in operation.scopes.items() if k is not ScopeSource.COREMLTOOLS_GRAPH_PASS}
    with mb.scope(*(ScopeInfo(source, data) for source, data in origin.items())):  # each operation must have one
        new = _decompressed(operation, weight, axes, min_ios)
    block.replace_uses_of_var_after_op(anchor_op=operation, old_var=old, new_var=new, no_check_var_types=True)
    block.remove_ops([operation])


def _decompressed(operation: Operation, weight: LowBitWeight, axes: tuple[int, ...], min_ios: int) -> Var:
    """Codes times scales, before the constant `operation` and of its type: what Core ML is to compute."""
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    stored = representation("coreml", weight)
    assert min_ios >= stored.min_ios, "the export raises it to what its weights need"
    dtype = operation.outputs[0].val.dtype
    codes = np.ascontiguousarray(weight.codes.transpose(axes))
    channels, scale = axes.index(0), weight.scale.astype(dtype)
    place = {"before_op": operation, "name": f"{operation.name}_quantized"}
    if min_ios < IOS_OF_BLOCKS:
        zero, axis = np.int8(0), np.int32(channels)
        return mb.constexpr_affine_dequantize(quantized_data=codes, zero_point=zero, scale=scale, axis=axis, **place)
    data = codes if weight.bits == 8 else codes.astype(types.np_int4_dtype)
    if stored.name == COREML_PALETTE:
        data = mb.constexpr_lut_to_dense(
            indices=(codes & 3).astype(types.np_uint2_dtype),
            lut=np.array(CODES_OF_PALETTE, dtype).reshape(*[1] * codes.ndim, len(CODES_OF_PALETTE), 1),
            before_op=operation,
            name=f"{operation.name}_palettized",
        )
    return mb.constexpr_blockwise_shift_scale(data=data, scale=_along(scale, channels, codes.ndim), **place)
