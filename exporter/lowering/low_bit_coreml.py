"""Low-bit weights in a Core ML program: their codes and scales as they are, behind MIL's constexpr operations.

Core ML keeps such a weight compressed on disk and decompresses it itself, when it loads the model or while it computes,
always to floating point. The passes of coremltools.optimize write the same operations, but compute the codes again from
the largest value of each channel, which gives others where that is not the largest code (after clipping, and in ternary
channels); so the operations are put into the program here, between conversion and saving.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from exporter.low_bit.weight import HALF_BITS, LowBit, LowBitWeight
from exporter.lowering.found_weights import FoundWeight, Layout, find
from exporter.lowering.representation import Carried, Representation, representation
from exporter.lowering.settings import CoreMlSettings

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program, Var

LAYOUT = Layout(lambda rank: permutations(range(rank)), first_rows=True)
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
    stored: dict[str, Representation] = {}
    with block:
        for operation in list(block.operations):
            if not _may_be_compressed(operation):
                continue
            found = find(operation.outputs[0].name, operation.outputs[0].val, low_bit, LAYOUT)
            if found:
                chosen = representation("coreml", found.weight)
                is_one = found.codes.dtype == operation.outputs[0].val.dtype  # where the model computes in float16
                if not is_one:
                    _replace(operation, found, chosen, settings.version)
                stored.update(dict.fromkeys(found.names, chosen))
    return tuple(
        Carried(name, stored.get(name), "" if name in stored else _why_not(weight)) for name, weight in low_bit.items()
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


def _replace(operation: Operation, found: FoundWeight, stored: Representation, min_ios: int) -> None:
    """Let all that reads a constant read the decompressed weight instead, of the same type and shape."""
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    old, block = operation.outputs[0], operation.enclosing_block
    origin = {k: v for k, v in operation.scopes.items() if k is not ScopeSource.COREMLTOOLS_GRAPH_PASS}
    with mb.scope(*(ScopeInfo(source, data) for source, data in origin.items())):  # each operation must have one
        new = _decompressed(operation, found, stored, min_ios)
    block.replace_uses_of_var_after_op(anchor_op=operation, old_var=old, new_var=new, no_check_var_types=True)
    block.remove_ops([operation])


def _decompressed(operation: Operation, found: FoundWeight, stored: Representation, min_ios: int) -> Var:
    """Codes times scales, before the constant `operation` and of its type: what Core ML is to compute."""
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    assert min_ios >= stored.min_ios, "the export raises it to what its weights need"
    dtype = operation.outputs[0].val.dtype
    codes, scale = found.codes, found.scale.astype(dtype)
    place = {"before_op": operation, "name": f"{operation.name}_quantized"}
    if stored.bits == HALF_BITS:
        return mb.constexpr_cast(source_val=codes, output_dtype="fp32", **place)
    if min_ios < IOS_OF_BLOCKS:
        zero, axis = np.int8(0), np.int32(found.axis)
        return mb.constexpr_affine_dequantize(
            quantized_data=codes, zero_point=zero, scale=scale.ravel(), axis=axis, **place
        )
    data = codes if stored.bits == 8 else codes.astype(types.np_int4_dtype)
    if stored.bits == 2:
        data = mb.constexpr_lut_to_dense(
            indices=(codes & 3).astype(types.np_uint2_dtype),
            lut=np.array(CODES_OF_PALETTE, dtype).reshape(*[1] * codes.ndim, len(CODES_OF_PALETTE), 1),
            before_op=operation,
            name=f"{operation.name}_palettized",
        )
    return mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **place)
