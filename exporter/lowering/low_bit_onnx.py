"""Low-bit weights in an ONNX model: their codes as INT8, INT4 or INT2, and integer arithmetic around them.

Every code becomes an int8 or a float when onnxruntime loads the file: it folds a Cast of a constant, but neither a
DequantizeLinear (for which it has slow kernels below 8 bits) nor anything else that quantization tools write. So a
layer of 4 or 2 bits takes their place on disk, and has the speed of int8 where its activations are int8, else of fp32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exporter.low_bit.grid import grid_of
from exporter.low_bit.weight import HALF_BITS, LowBit, LowBitWeight, Range
from exporter.lowering.found_weights import Layout, find
from exporter.lowering.onnx_graph import Found, Writer, only_reader, replace_value
from exporter.lowering.representation import Carried, representation

if TYPE_CHECKING:
    import onnx_ir as ir

LAYOUT = Layout(lambda rank: ((0, 1), (1, 0)) if rank == 2 else (tuple(range(rank)),))
"""The converter turns the weight of a linear layer around, and leaves every other as it is."""
IR_VERSIONS = {21: 10, 25: 13}
"""The least version of the file format for an opset with types of its own."""
CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""
INTEGER_READERS = (
    *("Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "MatMul", "Gemm"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity"),
)
"""What may read the output of an int8 convolution, besides another one."""
CLAMPS = ("Relu", "Clip")
LARGEST_BIAS = 2**30
"""In steps of input scale * weight scale: half of what int32 holds, since the sum of products comes on top."""
LEFT_FLOAT = "stored as codes, but computed in float: an int8 kernel among float operations would be slower"
NOT_FOUND = "no constant of the converted model holds it: the converter folded it into another, or split it"


def carry(model: ir.Model, low_bit: LowBit) -> tuple[Carried, ...]:
    """Replace each constant of a converted model that holds a low-bit weight; the model is changed in place.

    Its opset is raised where a representation needs a higher one. Says of each weight how it is stored; one that no
    constant holds stays float32, with the reason.

    Raises BadInput for a weight that ONNX refuses (see `representation`).
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass
    from onnx_ir.tape import Tape

    if not low_bit:
        return ()
    _raise_opset(model, max(representation("onnx", weight).opset for weight in low_bit.values()))
    found = list(_find(model, low_bit))
    integer = _integer_convolutions(model.graph, found)
    writer = Writer(Tape(model.graph))
    for each in found:
        _rewrite(model.graph, writer, each, integer)
    for node, weight in integer.items():
        _round_output(writer, node, weight)
    if any(domain == CONTRIB for domain, _ in writer.tape.used_opsets):
        model.opset_imports[CONTRIB] = 1
    RemoveUnusedNodesPass()(model)
    TopologicalSortPass()(model)
    return tuple(writer.carried.get(name, Carried(name, None, NOT_FOUND)) for name in low_bit)


def _raise_opset(model: ir.Model, opset: int) -> None:
    """Convert the model to a higher opset: the few operations that changed their meaning are rewritten."""
    from onnxscript.version_converter import ConvertVersionPass

    if model.opset_imports[""] < opset:
        ConvertVersionPass(opset)(model)
    for least, version in IR_VERSIONS.items():
        if opset >= least:
            model.ir_version = max(model.ir_version, version)


def _find(model: ir.Model, low_bit: LowBit) -> Iterator[Found]:
    """The constants that hold low-bit weights.

    Where several layers have one value (untrained copies of a layer), one stands for all: their ranges cannot be told
    apart, and become one that covers them.
    """
    import onnx_ir as ir

    for constant in list(model.graph.initializers.values()):
        tensor = constant.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        found = find(str(constant.name), tensor.numpy(), low_bit, LAYOUT)
        if found:
            yield Found(constant, found.names, found.weight, found.axes == (1, 0))


def _integer_convolutions(graph: ir.Graph, found: list[Found]) -> dict[ir.Node, LowBitWeight]:
    """The static convolutions that compute in int8: those with another one before or behind them, all in int8.

    Whatever else reads the output of one, HardSwish or a product, gets it as float and gives float to the next (see
    INTEGER_READERS).
    """
    chosen = {
        node: each.weight
        for each in found
        if representation("onnx", each.weight).activations == "static"
        for node, index in each.constant.uses()
        if node.op_type == "Conv" and index == 1 and node.graph is graph
    }
    while True:
        going_on = [node for node in chosen if _goes_on(node, chosen)]
        followed = {node: _following(_clamped(node)[0], going_on) for node in going_on}
        joined = {node for node, others in followed.items() if others}.union(*followed.values())
        if len(joined) == len(chosen):
            return chosen
        chosen = {node: weight for node, weight in chosen.items() if node in joined}


def _goes_on(node: ir.Node, chosen: Collection[ir.Node]) -> bool:
    readers = [reader for reader, _ in _clamped(node)[0].uses()]
    return all(reader in chosen or reader.op_type in INTEGER_READERS for reader in readers)


def _following(value: ir.Value, chosen: Collection[ir.Node]) -> set[ir.Node]:
    """The next of the chosen convolutions behind a value."""
    found, seen, values = set(), set(), [value]
    while values:
        for reader, _ in values.pop().uses():
            if reader in chosen:
                found.add(reader)
            elif reader not in seen and reader.op_type in (*INTEGER_READERS, *CLAMPS):
                values.extend(reader.outputs)
            seen.add(reader)
    return found


def _rewrite(graph: ir.Graph, writer: Writer, found: Found, integer: Collection[ir.Node]) -> None:
    """Let every reader of a constant read its codes.

    A look-up takes the rows that it needs from the codes, a layer computes as the representation has it, and any other
    reader gets a float weight.
    """
    stored = representation("onnx", found.weight)
    reach = found.weight.inputs if stored.activations == "static" else None
    reason = ""
    for node, index, held in list(_uses(_with_room_for_bias(found, integer))):
        kind = node.op_type if node.graph is graph else ""
        if kind == "Gather" and index == 0 and not held.transposed and node.attributes.get_int("axis", 0) == 0:
            _look_up(writer, node, held)
        elif stored.activations != "float" and index == 1 and _is_linear(node, kind, held):
            _multiply_integers(writer, node, held, reach)
        elif node in integer:
            _quantize_and_dequantize(writer, node, held)
        else:
            node.replace_input_with(index, writer.weight(held))
            reason = LEFT_FLOAT if stored.activations != "float" else reason
    writer.carried.update({name: Carried(name, stored, reason) for name in found.names})


def _uses(found: Found) -> Iterator[tuple[ir.Node, int, Found]]:
    """What reads a constant and at which input, also behind a Transpose, which the converter leaves to a large one."""
    for node, index in found.constant.uses():
        order = node.attributes.get_ints("perm", (1, 0)) if found.weight.codes.ndim == 2 else ()
        if node.op_type == "Transpose" and tuple(order) == (1, 0):
            yield from _uses(replace(found, constant=node.outputs[0], transposed=not found.transposed))
        else:
            yield node, index, found


def _with_room_for_bias(found: Found, integer: Collection[ir.Node]) -> Found:
    """The weight with wider scales where the bias of an int8 convolution would not fit int32.

    onnxruntime stores the bias in steps of input scale * weight scale, and cuts it off at 2**31 of them: a channel that
    is all but dead would lose its bias. Its codes are rounded to the wider scale, which moves a sum of K products by
    no more than K * 255 / 2**31 of the bias.
    """
    biases = [node.inputs[2] for node, _ in found.constant.uses() if node in integer and len(node.inputs) > 2]
    values = [bias.const_value.numpy() for bias in biases if bias is not None and bias.const_value is not None]
    if not values:
        return found
    assert found.weight.inputs is not None
    least = np.abs(values).max(0) / (grid_of(found.weight.inputs).scale * LARGEST_BIAS)
    scale = np.maximum(found.scale, least.astype(np.float32))
    ratio = (found.scale / scale).reshape(-1, *[1] * (found.weight.codes.ndim - 1))
    return replace(
        found, weight=replace(found.weight, codes=np.rint(found.weight.codes * ratio).astype(np.int8), scale=scale)
    )


def _is_linear(node: ir.Node, kind: str, found: Found) -> bool:
    """Whether it multiplies with the weight's `[in, out]`, and adds a bias if it is a Gemm."""
    number = node.attributes.get_int
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    plain = kind == "MatMul" or (kind == "Gemm" and factors == [1, 1] and not number("transA", 0))
    return plain and found.transposed != bool(number("transB", 0))


def _look_up(writer: Writer, node: ir.Node, found: Found) -> None:
    """Rows of codes times rows of scales."""
    ids = node.inputs[1]
    assert ids is not None
    rows = writer.as_float(writer.op("Gather", writer.codes(found), ids))
    if found.weight.bits != HALF_BITS:
        rows = writer.op("Mul", rows, writer.op("Gather", writer.scale_of(found), ids))
    replace_value(node.outputs[0], rows)


def _multiply_integers(writer: Writer, node: ir.Node, found: Found, reach: Range | None) -> None:
    """A product of integers, its sums scaled back to float: a linear layer's output is not quantized.

    With a dynamic range onnxruntime makes a DynamicQuantizeMatMul of it, or a MatMulIntegerToFloat where several layers
    share their input. With a static one it would fuse nothing, so that the latter is written right away.
    """
    value = node.inputs[0]
    assert value is not None
    columns = replace(found, transposed=True)
    weight = writer.unshared(writer.codes(columns), columns.codes.shape)
    inputs, scale = writer.rounded(value, reach), writer.channel_scale(found)
    bias, output = _bias(node)
    if reach is not None:
        parts = [inputs.codes, weight, inputs.scale, scale, inputs.zero_point, None, bias]
        result = writer.tape.op("MatMulIntegerToFloat", parts, domain=CONTRIB)
    else:
        sums = writer.as_float(writer.op("MatMulInteger", inputs.codes, weight, inputs.zero_point))
        result = writer.op("Mul", sums, writer.op("Mul", inputs.scale, scale))
        result = result if bias is None else writer.op("Add", result, bias)
    replace_value(output, result)


def _bias(node: ir.Node) -> tuple[ir.Value | None, ir.Value]:
    """The bias `[channels]` of a linear layer, if it has one, and the layer's output."""
    if node.op_type == "Gemm":
        return (node.inputs[2] if len(node.inputs) > 2 else None), node.outputs[0]
    adds = only_reader(node.outputs[0], "Add")
    others = [v for v in adds.inputs if v is not node.outputs[0]] if adds else []
    if (
        adds
        and others
        and others[0] is not None
        and others[0].const_value is not None
        and len(others[0].shape or ()) == 1
    ):
        return others[0], adds.outputs[0]
    return None, node.outputs[0]


def _quantize_and_dequantize(writer: Writer, node: ir.Node, found: Found) -> None:
    """Quantized input and weight (QDQ), from which onnxruntime makes a QLinearConv."""
    value = node.inputs[0]
    assert value is not None
    codes = writer.unshared(writer.codes(found), found.codes.shape)
    zeros = np.zeros(len(found.scale), np.int8)
    zero_points = writer.unshared(writer.constant(found.name, "zero_points", zeros), zeros.shape)
    weight = writer.op("DequantizeLinear", codes, writer.channel_scale(found), zero_points, axis=0)
    node.replace_input_with(0, writer.restored(writer.rounded(value, found.weight.inputs)))
    node.replace_input_with(1, weight)


def _round_output(writer: Writer, node: ir.Node, weight: LowBitWeight) -> None:
    """Quantize the output of a convolution, behind a ReLU or Clip, which the kernel includes.

    Where a layer that reads it quantizes it anyway, its range holds for all: one rounding instead of two.
    """
    assert weight.outputs is not None
    output, low, high = _clamped(node)
    reach = Range(min(max(weight.outputs.low, low), high), min(weight.outputs.high, high))
    readers = [rounded for (value, _), rounded in writer.static.items() if value is output]
    rounded = readers[0] if readers else writer.rounded(output, reach)
    replace_value(output, writer.restored(rounded), but=rounded.codes.producer())


def _clamped(node: ir.Node) -> tuple[ir.Value, float, float]:
    """The output of a layer behind the ReLU or Clip that alone reads it, and the limits of that."""
    clamps = only_reader(node.outputs[0], *CLAMPS)
    if clamps is None:
        return node.outputs[0], -np.inf, np.inf
    given = [None if v is None or v.const_value is None else v.const_value.numpy().item() for v in clamps.inputs[1:]]
    low, high = (0.0, None) if clamps.op_type == "Relu" else (*given, None, None)[:2]
    return clamps.outputs[0], -np.inf if low is None else low, np.inf if high is None else high
