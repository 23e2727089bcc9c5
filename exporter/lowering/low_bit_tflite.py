"""Low-bit weights in a TFLite file: their codes and scales as they are, and integers around static layers.

The graph transformations of ai-edge-quantizer do the surgery: packing, QUANTIZE, DEQUANTIZE, requantization. Its
recipes would compute the codes again from the largest value of each channel, which gives others where that is not the
largest code (after clipping, and in ternary channels); so the transformations get codes, scales and ranges from us.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exporter.formats.tflite_file import constant, operator_name, read
from exporter.formats.tflite_writer import add_tensor, operator_code, set_constant, write
from exporter.low_bit.grid import grid_of
from exporter.low_bit.weight import HALF_BITS, LowBit, LowBitWeight, Range
from exporter.lowering.found_weights import Layout, find
from exporter.lowering.representation import Carried, Representation, representation

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import qtyping

WEIGHT = 1
"""Which of an operator's inputs it is."""
INTEGER_OPERATORS = {"FULLY_CONNECTED": (0, 2), "CONV_2D": (0, 2), "TRANSPOSE_CONV": (2, 3)}
"""Operators with integer kernels, and which of their inputs the activations and the bias are."""
DEPTHWISE = "DEPTHWISE_CONV_2D"
BIAS = {**{name: at for name, (_, at) in INTEGER_OPERATORS.items()}, DEPTHWISE: 2}
LOOKUP = "EMBEDDING_LOOKUP"
FEW_CHANNELS = 4
"""A convolution of so few input channels gains nothing from integers, as a depthwise one does not, but pays for the
conversions: a MobileNetV3-Small of static int8 is slower with both in int8 than with both in float."""
PER_CHANNEL_VERSION = 12
"""Of FULLY_CONNECTED with float inputs and integer weights: runtimes that know only older ones (TFLite 2.14 does) take
the first channel's scale for all, and must refuse the file."""
ROUNDED_TWICE = "the converter multiplied it by a number, and float16 would round the product"
NOT_FOUND = "no constant of the converted file holds it: the converter folded it into another, or split it"
AXES: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((0, 1), (1, 0)),
    4: ((0, 2, 3, 1), (1, 2, 3, 0)),
    5: ((2, 3, 4, 1, 0),),
}
"""How operators order the axes of PyTorch's weights: FULLY_CONNECTED [out, in], CONV_2D and TRANSPOSE_CONV
[out, h, w, in], DEPTHWISE_CONV_2D [1, h, w, out], CONV_3D [d, h, w, in, out]; others take them as they are."""
LAYOUT = Layout(lambda rank: (*AXES.get(rank, ()), tuple(range(rank))), first_rows=True, factor=True)


@dataclass(frozen=True)
class Found:
    """A constant of the file that holds `factor` times a low-bit weight: codes as they lie there, scales along `axis`.

    `names` are several where weights are equal. The factor is not 1 where the converter multiplies the weights instead
    of the layer's output, as it does with those of attention's queries and keys.
    """

    names: tuple[str, ...]
    weight: LowBitWeight
    codes: np.ndarray
    axis: int
    factor: float
    stored: Representation

    @property
    def bits(self) -> int:
        """Bits a code takes in the file."""
        return self.stored.bits

    @property
    def multiplied(self) -> np.ndarray:
        """`factor` times the codes, float32."""
        return self.codes.astype(np.float32) * np.float32(self.factor)

    @functools.cached_property
    def parameters(self) -> qtyping.UniformQuantParams | qtyping.NonLinearQuantParams:
        """Codes and scales for the file; a channel of zeros gets the scale of another, since kernels take no 0."""
        from ai_edge_quantizer import qtyping

        if self.bits == HALF_BITS:
            return qtyping.NonLinearQuantParams(HALF_BITS, np.ascontiguousarray(self.multiplied.astype(np.float16)))
        scale = (self.weight.scale * abs(self.factor)).astype(np.float32)
        return qtyping.UniformQuantParams(
            num_bits=self.bits,
            quantized_dimension=self.axis,
            scale=np.where(scale > 0, scale, scale.max() or np.float32(1)),
            zero_point=np.zeros(scale.shape, np.int64),
            quantized_data=np.ascontiguousarray(self.codes * np.int8(np.sign(self.factor))),
        )

    @property
    def outputs(self) -> Range | None:
        """The range of the layer's output in the file."""
        reach = self.weight.outputs
        return reach and Range(*sorted((reach.low * self.factor, reach.high * self.factor)))


def carry(content: bytes, low_bit: LowBit) -> tuple[bytes, tuple[Carried, ...]]:
    """Replace each float constant that holds a low-bit weight by its codes; `content` is a converted file of float32.

    The inputs and outputs of the model stay float. Says of each weight how it is stored; one that no constant holds
    stays float32, with the reason.

    Raises BadInput for a weight that TFLite refuses (see `representation`).
    """
    if not low_bit:
        return content, ()
    model = read(content)
    plan: Plan = {}
    names: list[dict[int, str]] = []
    carried = {name: Carried(name, None, NOT_FOUND) for name in low_bit}
    for graph in model.subgraphs:
        found = _find(model, graph, low_bit)
        for weight in _without_factors(model, graph, found):
            carried.update({name: Carried(name, None, ROUNDED_TWICE) for name in weight.names})
        changes, notes = _plan(model, graph, found)
        plan.update(changes)
        names.append({tensor: weight.names[0] for tensor, weight in found.items()})
        for weight in found.values():
            for name in weight.names:
                if name in notes:
                    widened = replace(weight.stored, name=f"int{weight.bits}, DEQUANTIZE", activations="float")
                    carried[name] = Carried(name, widened, notes[name])
                else:
                    carried[name] = Carried(name, weight.stored)
    _transform(model, plan)
    for graph, weights in zip(model.subgraphs, names, strict=True):
        _scale_after_lookup(model, graph)
        _rename(graph, weights)
    return write(model), tuple(carried.values())


def _find(model: schema.ModelT, graph: schema.SubGraphT, low_bit: LowBit) -> dict[int, Found]:
    """The low-bit weights among a graph's constants, by tensor; one constant may serve weights of equal value."""
    found: dict[int, Found] = {}
    for i, tensor in enumerate(graph.tensors):
        value = constant(model, tensor)
        if value is None or value.dtype != np.float32 or i in graph.outputs:
            continue
        held = find(tensor.name.decode(), value, low_bit, LAYOUT)
        if held:
            stored = representation("tflite", held.weight)
            found[i] = Found(held.names, held.weight, held.codes, held.axis, held.factor, stored)
    return found


def _without_factors(model: schema.ModelT, graph: schema.SubGraphT, found: dict[int, Found]) -> list[Found]:
    """Multiply outputs again where the converter multiplied float16 weights, by a number that float16 would round.

    Those whose outputs cannot be multiplied are taken out of `found`, and returned.
    """
    given_up = []
    for tensor, weight in list(found.items()):
        if weight.bits != HALF_BITS or (weight.multiplied == weight.multiplied.astype(np.float16)).all():
            continue
        readers = [operator for operator in graph.operators if tensor in operator.inputs]
        if all(_is_linear(model, graph, operator, tensor) for operator in readers):
            _replace_constant(model, graph.tensors[tensor], weight.codes.astype(np.float32))
            for operator in readers:
                _multiply_output(model, graph, operator, weight.factor)
            found[tensor] = replace(weight, factor=1.0)
        else:
            given_up.append(found.pop(tensor))
    return given_up


def _is_linear(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT, tensor: int) -> bool:
    """Whether a number that multiplies this weight and the bias multiplies the output."""
    from ai_edge_litert import schema_py_generated as schema

    name = operator_name(model, operator)
    if name not in (*INTEGER_OPERATORS, DEPTHWISE) or list(operator.inputs).index(tensor) != WEIGHT:
        return False
    at = BIAS[name]
    constant_bias = len(operator.inputs) <= at or operator.inputs[at] < 0 or _bias(model, graph, operator) is not None
    activation = getattr(operator.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
    return constant_bias and activation == schema.ActivationFunctionType.NONE


def _replace_constant(model: schema.ModelT, tensor: schema.TensorT, value: np.ndarray) -> None:
    """Give a tensor another value; the old one does not stay in the file where nothing else has it."""
    before = tensor.buffer
    set_constant(model, tensor, value)
    if all(other.buffer != before for graph in model.subgraphs for other in graph.tensors):
        model.buffers[before].data = None


def _multiply_output(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT, factor: float) -> None:
    """Let a layer compute without the factor, in its bias either, and multiply its output by it."""
    bias = _bias(model, graph, operator)
    if bias is not None:
        at = BIAS[operator_name(model, operator)]
        _own(model, graph, operator, at)
        _replace_constant(model, graph.tensors[operator.inputs[at]], bias / np.float32(factor))
    (whole,) = operator.outputs
    name, shape = graph.tensors[whole].name, tuple(map(int, graph.tensors[whole].shape))
    plain = add_tensor(model, graph, name + b".plain", shape)
    graph.tensors[plain].shapeSignature = graph.tensors[whole].shapeSignature
    number = add_tensor(model, graph, name + b".factor", (), np.array(factor))
    operator.outputs = [plain]
    graph.operators.insert(graph.operators.index(operator) + 1, _product(model, plain, number, whole))


Plan = dict[str, "qtyping.TensorTransformationParams"]
"""What becomes of each tensor that changes, by its name."""


def _plan(model: schema.ModelT, graph: schema.SubGraphT, found: dict[int, Found]) -> tuple[Plan, dict[str, str]]:
    """What becomes of a graph's tensors, and which weights are dequantized before use against the table, with why."""
    plan: Plan = {}
    notes: dict[str, str] = {}
    for index, operator in enumerate(graph.operators):
        for position, tensor in enumerate(operator.inputs):
            if tensor not in found:
                continue
            weight, name = found[tensor], operator_name(model, operator)
            hindrance = _hindrance(model, graph, operator, position, weight)
            if hindrance:
                notes.update(dict.fromkeys(weight.names, hindrance))
            widened = weight.bits == HALF_BITS or (weight.stored.activations == "float" and name != LOOKUP)
            if hindrance or widened:
                _consume(plan, graph, index, position, "ADD_DEQUANTIZE", weight.parameters)
                continue
            _consume(plan, graph, index, position, "QUANTIZE_TENSOR", weight.parameters)
            if weight.stored.activations == "dynamic" and name == "FULLY_CONNECTED":
                _ask_for_version(model, operator, PER_CHANNEL_VERSION)
            if weight.stored.activations == "static" and name != LOOKUP:
                _plan_activations(plan, model, graph, index, weight)
    return plan, notes


def _hindrance(
    model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT, position: int, weight: Found
) -> str:
    """Why this operator is not to compute with the codes themselves; empty if it is."""
    if weight.bits == HALF_BITS:
        return ""
    name = operator_name(model, operator)
    row = weight.codes.shape[-1]
    if position != WEIGHT or name not in (*INTEGER_OPERATORS, DEPTHWISE, LOOKUP):
        return f"{name} takes no integer weights"
    if name == LOOKUP:
        return f"{LOOKUP} reads rows of {row} codes wrongly, which fill no whole bytes" if row * weight.bits % 8 else ""
    if weight.stored.activations == "float":
        return ""
    if name == DEPTHWISE:
        return f"{DEPTHWISE} is faster in float"
    if name == "CONV_2D" and row <= FEW_CHANNELS:
        return f"CONV_2D of {row} input channels is faster in float"
    if weight.axis != 0:
        return f"{name} takes a scale for each output, and these weights have one for each input"
    bias = _bias(model, graph, operator)
    if weight.stored.activations == "static" and bias is not None:
        codes = np.abs(bias / _bias_scale(weight))
        if codes.max() > np.iinfo(np.int32).max:
            return f"the bias of channel {codes.argmax()} exceeds int32 at the scale of its weights"
    return ""


def _plan_activations(plan: Plan, model: schema.ModelT, graph: schema.SubGraphT, index: int, weight: Found) -> None:
    """Integers around a static layer: its input and output within their ranges, its bias in int32."""
    from ai_edge_quantizer import qtyping

    operator = graph.operators[index]
    inputs, at_bias = INTEGER_OPERATORS[operator_name(model, operator)]
    _consume(plan, graph, index, inputs, "ADD_QUANTIZE", _activation(weight.weight.inputs))
    bias = _bias(model, graph, operator)
    if bias is not None:
        scale = _bias_scale(weight)
        codes = np.rint(bias / scale).astype(np.int32)
        _own(model, graph, operator, at_bias)
        zero = np.zeros(scale.shape, np.int64)
        _consume(
            plan, graph, index, at_bias, "QUANTIZE_TENSOR", qtyping.UniformQuantParams(32, 0, scale, zero, True, codes)
        )
    change = qtyping.QuantTransformation.ADD_DEQUANTIZE
    output = _entry(plan, graph.tensors[operator.outputs[0]])
    output.producer = qtyping.OpToTensorParams(index, [change], _activation(weight.outputs))


def _bias(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT) -> np.ndarray | None:
    at = BIAS[operator_name(model, operator)]
    given = len(operator.inputs) > at and operator.inputs[at] >= 0
    return constant(model, graph.tensors[operator.inputs[at]]) if given else None


def _bias_scale(weight: Found) -> np.ndarray:
    """That of the sums of products, float32 [out]."""
    return weight.parameters.scale * _activation(weight.weight.inputs).scale


def _activation(reach: Range | None) -> qtyping.UniformQuantParams:
    """The int8 grid of a calibrated range."""
    from ai_edge_quantizer import qtyping

    assert reach is not None, "a static layer has ranges"
    grid = grid_of(reach)
    scale, zero = np.array([grid.scale], np.float32), np.array([grid.zero_point - 128], np.int64)
    return qtyping.UniformQuantParams(8, None, scale, zero, symmetric=False)


def _own(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT, position: int) -> None:
    """Give an operator an input of its own where others use it too: the converter keeps equal biases once."""
    shared = operator.inputs[position]
    if sum(list(o.inputs).count(shared) for o in graph.operators) == 1:
        return
    tensor, buffer = copy.copy(graph.tensors[shared]), copy.copy(model.buffers[graph.tensors[shared].buffer])
    tensor.name, tensor.buffer = f"{tensor.name.decode()}_{len(graph.tensors)}".encode(), len(model.buffers)
    operator.inputs = [*operator.inputs[:position], len(graph.tensors), *operator.inputs[position + 1 :]]
    graph.tensors.append(tensor)
    model.buffers.append(buffer)


def _ask_for_version(model: schema.ModelT, operator: schema.OperatorT, version: int) -> None:
    """Give an operator an entry of that version among the model's operator codes."""
    code = copy.copy(model.operatorCodes[operator.opcodeIndex])
    code.version = version
    same = [i for i, other in enumerate(model.operatorCodes) if vars(other) == vars(code)]
    operator.opcodeIndex = same[0] if same else len(model.operatorCodes)
    if not same:
        model.operatorCodes.append(code)


def _entry(plan: Plan, tensor: schema.TensorT) -> qtyping.TensorTransformationParams:
    from ai_edge_quantizer import qtyping

    name = tensor.name.decode()
    return plan.setdefault(name, qtyping.TensorTransformationParams(name, None, []))


def _consume(
    plan: Plan,
    graph: schema.SubGraphT,
    index: int,
    position: int,
    change: str,
    parameters: qtyping.UniformQuantParams | qtyping.NonLinearQuantParams,
) -> None:
    """Note the change of a tensor on its way into an operator's input."""
    from ai_edge_quantizer import qtyping

    tensor = graph.tensors[graph.operators[index].inputs[position]]
    use = qtyping.OpToTensorParams(index, [qtyping.QuantTransformation[change]], parameters)
    consumers = _entry(plan, tensor).consumers
    assert consumers is not None
    consumers.append(use)


def _transform(model: schema.ModelT, plan: Plan) -> None:
    """Carry a plan out; outputs that are dequantized now keep their names in the signatures."""
    from ai_edge_quantizer.transformation_instruction_generator import TransformationInstructionsGenerator
    from ai_edge_quantizer.transformation_performer import TransformationPerformer

    before = [list(graph.outputs) for graph in model.subgraphs]
    instructions = TransformationInstructionsGenerator().quant_params_to_transformation_insts(plan, model)
    TransformationPerformer().transform_graph(instructions, model)
    for signature in model.signatureDefs:
        now = dict(zip(before[signature.subgraphIndex], model.subgraphs[signature.subgraphIndex].outputs, strict=True))
        for entry in signature.outputs:
            entry.tensorIndex = now[entry.tensorIndex]


def _scale_after_lookup(model: schema.ModelT, graph: schema.SubGraphT) -> None:
    """Give tables of codes the scale 1, look the rows' scales up too, and multiply: the same values.

    A scale in the table itself comes with a zero point of eight bytes, which a row of 384 ternary codes feels.
    """
    scales: dict[int, int] = {}
    for index in range(len(graph.operators) - 1, -1, -1):  # what is inserted moves only those that are done
        lookup = graph.operators[index]
        if operator_name(model, lookup) != LOOKUP:
            continue
        table = lookup.inputs[WEIGHT]
        if table not in scales and _has_row_scales(model, graph, table):
            scales[table] = _take_scales(model, graph, table)
        if table in scales:
            graph.operators[index + 1 : index + 1] = _scaling(model, graph, lookup, scales[table])


def _has_row_scales(model: schema.ModelT, graph: schema.SubGraphT, table: int) -> bool:
    """Whether a tensor has a scale for each of several rows, and is read by lookups alone."""
    grid = graph.tensors[table].quantization
    several = grid is not None and grid.scale is not None and len(grid.scale) > 1 and not grid.quantizedDimension
    return several and all(operator_name(model, o) == LOOKUP for o in graph.operators if table in o.inputs)


def _take_scales(model: schema.ModelT, graph: schema.SubGraphT, table: int) -> int:
    """Put the scales of a table into a constant of their own, float32 [rows, 1]: its tensor."""
    tensor = graph.tensors[table]
    scale = np.asarray(tensor.quantization.scale, np.float32)
    tensor.quantization = copy.copy(tensor.quantization)
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    return add_tensor(model, graph, tensor.name + b".scale", (len(scale), 1), scale)


def _scaling(
    model: schema.ModelT, graph: schema.SubGraphT, lookup: schema.OperatorT, scales: int
) -> list[schema.OperatorT]:
    """The operators that make of the codes which `lookup` now gives what it gave before."""
    (whole,) = lookup.outputs
    name, shape = graph.tensors[whole].name, tuple(map(int, graph.tensors[whole].shape))
    codes = add_tensor(model, graph, name + b".codes", shape)
    factor = add_tensor(model, graph, name + b".scale", (*shape[:-1], 1))
    signature = graph.tensors[whole].shapeSignature
    if signature is not None:
        graph.tensors[codes].shapeSignature = signature
        graph.tensors[factor].shapeSignature = np.array([*signature[:-1], 1], np.int32)
    second = copy.copy(lookup)
    second.inputs, second.outputs, lookup.outputs = [lookup.inputs[0], scales], [factor], [codes]
    return [second, _product(model, codes, factor, whole)]


def _product(model: schema.ModelT, left: int, right: int, output: int) -> schema.OperatorT:
    """The operator that multiplies two tensors."""
    from ai_edge_litert import schema_py_generated as schema

    product = schema.OperatorT()
    product.opcodeIndex = operator_code(model, schema.BuiltinOperator.MUL)
    product.builtinOptionsType, product.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    product.inputs, product.outputs = [left, right], [output]
    return product


def _rename(graph: schema.SubGraphT, weights: dict[int, str]) -> None:
    """Name the weights as the model does, and number what else is neither input nor output.

    The converter names each tensor by a whole path of modules, which adds up where weights take few bits.
    """
    ends = {*graph.inputs, *graph.outputs}
    for i, tensor in enumerate(graph.tensors):
        if i not in ends:
            tensor.name = weights.get(i, str(i)).encode()
