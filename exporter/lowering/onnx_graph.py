"""What the low-bit lowering to ONNX builds its nodes from: a weight's codes and scales, an activation's uint8 codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporter.low_bit.grid import Grid, grid_of
from exporter.low_bit.weight import HALF_BITS, LowBitWeight, Range
from exporter.lowering.representation import Carried

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx_ir.tape import Tape


@dataclass(frozen=True)
class Found:
    """A constant that holds a low-bit weight, transposed or as PyTorch has it, and the names of all of that value."""

    constant: ir.Value
    names: tuple[str, ...]
    weight: LowBitWeight
    transposed: bool

    @property
    def name(self) -> str:
        """The first name, for all."""
        return self.names[0]

    @property
    def codes(self) -> np.ndarray:
        """Their axes in the order of the constant."""
        return np.ascontiguousarray(self.weight.codes.T if self.transposed else self.weight.codes)

    @property
    def scale(self) -> np.ndarray:
        """float32 `[channels]`; a channel of zeros gets that of another, as kernels divide a bias by it."""
        scale = self.weight.scale.astype(np.float32)
        return np.where(scale > 0, scale, scale.max() if scale.max() > 0 else np.float32(1))


@dataclass(frozen=True)
class Rounded:
    """A tensor as uint8 codes, with the scale and the zero point of their grid."""

    codes: ir.Value
    scale: ir.Value
    zero_point: ir.Value


@dataclass
class Writer:
    """The model that is rewritten, and what its new nodes share."""

    tape: Tape
    constants: dict[tuple[str, str], ir.Value] = field(default_factory=dict)
    int8: dict[tuple[str, bool], ir.Value] = field(default_factory=dict)
    dynamic: dict[ir.Value, Rounded] = field(default_factory=dict)
    static: dict[tuple[ir.Value, Grid], Rounded] = field(default_factory=dict)
    floats: dict[ir.Value, ir.Value] = field(default_factory=dict)
    latest: dict[ir.Value, ir.Value] = field(default_factory=dict)
    carried: dict[str, Carried] = field(default_factory=dict)

    def op(self, name: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """The output of a new node."""
        return self.tape.op(name, list(inputs), attributes)

    def constant(self, owner: str, what: str, value: np.ndarray) -> ir.Value:
        """`value` as a constant of the model: one for each thing of an owner."""
        import onnx_ir as ir

        if (owner, what) not in self.constants:
            self.constants[owner, what] = self.tape.initializer(ir.tensor(value, name=f"{owner}.{what}"))
        return self.constants[owner, what]

    def as_float(self, value: ir.Value) -> ir.Value:
        """The values as float32."""
        import onnx_ir as ir

        return self.op("Cast", value, to=ir.DataType.FLOAT.value)

    def unshared(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """A constant of this shape for one more layer, which no other node reads; it lies in the file once.

        Where onnxruntime makes uint8 of what integer layers read (`runtimes.onnx_runtime.EXACT_INT8`), it takes two
        layers with the same constant for a mistake. It folds a Reshape into another constant before that; each is of
        the one before, as it would make one of equal ones.
        """
        latest = self.latest.get(value, value)
        if latest.uses():
            sizes = self.constant("shape_" + "x".join(map(str, shape)), "int64", np.array(shape, np.int64))
            latest = self.op("Reshape", latest, sizes)
        self.latest[value] = latest
        return latest

    def codes(self, found: Found) -> ir.Value:
        """The codes, in the constant's order: int8, or the values in float16.

        A weight that is read in two orders lies in the file once.
        """
        import ml_dtypes
        import onnx_ir as ir

        if (found.name, found.transposed) not in self.int8:
            other = self.int8.get((found.name, not found.transposed))
            if other is not None:
                codes = self.op("Transpose", other)
            else:
                types = {HALF_BITS: np.float16, 8: np.int8, 4: ml_dtypes.int4, 2: ml_dtypes.int2}
                dtype = np.dtype(types[found.weight.bits])
                codes = self.constant(found.name, "codes", found.codes.astype(dtype))
                if found.weight.bits < 8:
                    codes = self.op("Cast", codes, to=ir.DataType.INT8.value)
            self.int8[found.name, found.transposed] = codes
        return self.int8[found.name, found.transposed]

    def scale_of(self, found: Found) -> ir.Value:
        """The scale, shaped for a multiplication with codes in the constant's order."""
        if found.transposed:
            return self.channel_scale(found)
        scale = found.weight.granularity.along(found.scale, found.weight.codes.shape)
        return self.constant(found.name, "scale", scale)

    def weight(self, found: Found) -> ir.Value:
        """The weight as float32, in the constant's order."""
        codes = self.as_float(self.codes(found))
        return codes if found.weight.bits == HALF_BITS else self.op("Mul", codes, self.scale_of(found))

    def channel_scale(self, found: Found) -> ir.Value:
        """The scale as `[channels]`."""
        return self.constant(found.name, "channel_scale", found.scale)

    def rounded(self, value: ir.Value, reach: Range | None) -> Rounded:
        """`value` in uint8 within `reach`, or within its own range where there is none: once for all that read it."""
        if reach is None:
            if value not in self.dynamic:
                made = self.tape.op_multi_out("DynamicQuantizeLinear", [value], num_outputs=3)
                self.dynamic[value] = Rounded(*made)
            return self.dynamic[value]
        grid = grid_of(reach)
        if (value, grid) not in self.static:
            owner = f"grid_{len(self.static)}"
            scale = self.constant(owner, "scale", np.array(grid.scale, np.float32))
            zero_point = self.constant(owner, "zero_point", np.array(grid.zero_point, np.uint8))
            self.static[value, grid] = Rounded(self.op("QuantizeLinear", value, scale, zero_point), scale, zero_point)
        return self.static[value, grid]

    def restored(self, rounded: Rounded) -> ir.Value:
        """The codes as float32 again: once for all that read them."""
        if rounded.codes not in self.floats:
            parts = rounded.codes, rounded.scale, rounded.zero_point
            self.floats[rounded.codes] = self.op("DequantizeLinear", *parts)
        return self.floats[rounded.codes]


def only_reader(value: ir.Value, *kinds: str) -> ir.Node | None:
    """The one node that reads a value, if it is of one of these kinds."""
    readers = [node for node, _ in value.uses()]
    return readers[0] if len(readers) == 1 and readers[0].op_type in kinds and not value.is_graph_output() else None


def replace_value(old: ir.Value, new: ir.Value, but: ir.Node | None = None) -> None:
    """Let all readers of `old` read `new`, which takes its name where it is an output of the model."""
    new.type, new.shape = old.type, old.shape
    name, is_output = old.name, old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if but is not None:
        but.replace_input_with(0, old)
    if is_output:
        old.name, new.name = f"{name}_before", name
