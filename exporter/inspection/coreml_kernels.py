"""Kernel truth of a Core ML package: what share of its weights is stored low-bit. The kernels are Apple's to choose."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from exporter.formats.coreml_file import main_operations
from runtimes.kernels import KernelTruth

CODED = {
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_lut_to_dense",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
}
"""MIL's operations that make a weight of codes: the others on constants only widen it, or fill in zeros."""
NOTE = (
    "off-device: Core ML decompresses low-bit weights to floating point when it loads the model or while it computes, "
    "on kernels that Apple's compiler chooses for each chip, so how much time they take only an Apple device can tell"
)


def kernels(package: Path) -> KernelTruth:
    """Read from a package how its weights are stored; nothing is executed, and no share of the time is known.

    Raises BadInput when it is no ML Program that can be read.
    """
    operations = main_operations(package)
    values = {"float": 0, "codes": 0}
    coded: set[str] = set()
    between = {name for operation in operations if _is_constexpr(operation) for name in _inputs(operation)}
    for operation in operations:
        if operation.type != "const" and not _is_constexpr(operation):
            continue
        names = {output.name for output in operation.outputs}
        if operation.type in CODED or coded & _inputs(operation):
            coded |= names
        if not names & between:  # a weight, and no step on the way to one
            values["codes" if names & coded else "float"] += _floats(operation.outputs[0].type)
    share = values["codes"] / max(1, sum(values.values()))
    return KernelTruth(low_bit_share=0.0, dequantized_share=share, float_share=1.0 - share, note=NOTE)


def _is_constexpr(operation: Any) -> bool:
    return bool(operation.type.startswith("constexpr_"))


def _inputs(operation: Any) -> set[str]:
    """The values that an operation takes by name, from others."""
    return {binding.name for argument in operation.inputs.values() for binding in argument.arguments}


def _floats(value_type: Any) -> int:
    """How many values a tensor of a floating-point type has; 0 for other types."""
    from runtimes.mil.evaluator import tensor_spec

    spec = tensor_spec("", value_type)
    return math.prod(map(int, spec.shape)) if spec.dtype.startswith("float") else 0
