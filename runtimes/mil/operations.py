"""The operations of Core ML's MIL (iOS15 to iOS18) on numpy arrays, so that a Core ML artifact can be checked anywhere.

Keyword inputs and defaults are MIL's own (coremltools/converters/mil/mil/ops/defs). Half-precision tensors arrive here
as float32 and are rounded to half where `evaluator` stores the result, as Apple's kernels accumulate.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

from runtimes.mil.convolution import CONVOLUTIONS
from runtimes.mil.elementwise import ELEMENTWISE
from runtimes.mil.layout import LAYOUT
from runtimes.mil.reductions import REDUCTIONS
from runtimes.mil.weights import WEIGHTS

OPERATIONS: Dict[str, Callable[..., Any]] = {**ELEMENTWISE, **REDUCTIONS, **CONVOLUTIONS, **LAYOUT, **WEIGHTS}
"""MIL's name of an operation -> its function; a list or tuple result is several outputs."""

LAYOUT_ONLY = frozenset(
    ("concat", "crop", "expand_dims", "fill", "fill_like", "gather", "gather_along_axis", "gather_nd", "identity")
    + ("pad", "reshape", "reverse", "select", "shape", "slice_by_index", "slice_by_size", "slice_update", "split")
    + ("squeeze", "stack", "tile", "transpose")
)
"""Operations that only move values: they take half-precision tensors as they are."""
