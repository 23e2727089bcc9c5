"""The constants inside an artifact as they are stored: their values, and what kind of layer reads each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.session import format_of

KINDS = ("linear", "conv", "embedding")
OTHER = "other"
WEIGHT_RANK = 2
"""A weight has at least two axes; with fewer it is a bias, a scale, or another constant."""

Input = tuple[str, int | str]
"""An operation and which of its inputs: by position, in Core ML by name."""

READERS_OF_WEIGHTS: dict[str, dict[str, set[Input]]] = {
    "onnx": {
        "linear": {
            *(("MatMul", 0), ("MatMul", 1), ("Gemm", 0), ("Gemm", 1), ("MatMulInteger", 1), ("MatMulNBits", 1)),
            *(("MatMulIntegerToFloat", 1), ("DynamicQuantizeMatMul", 1), ("QLinearMatMul", 3), ("QGemm", 3)),
        },
        "conv": {("Conv", 1), ("ConvTranspose", 1), ("ConvInteger", 1), ("QLinearConv", 3)},
        "embedding": {("Gather", 0), ("GatherBlockQuantized", 0)},
    },
    "tflite": {
        "linear": {("FULLY_CONNECTED", 1), ("BATCH_MATMUL", 0), ("BATCH_MATMUL", 1)},
        "conv": {("CONV_2D", 1), ("DEPTHWISE_CONV_2D", 1), ("TRANSPOSE_CONV", 1), ("CONV_3D", 1)},
        "embedding": {("EMBEDDING_LOOKUP", 1), ("GATHER", 0)},
    },
    "coreml": {
        "linear": {("linear", "weight"), ("matmul", "x"), ("matmul", "y")},
        "conv": {("conv", "weight"), ("conv_transpose", "weight")},
        "embedding": {("gather", "x")},
    },
}
"""format -> kind of layer -> which input of which operation its weight is."""

PASSED_ON: dict[str, set[Input]] = {
    "onnx": {
        *((op, 0) for op in ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")),
        ("Mul", 0),  # codes that were cast to float, by their scale
    },
    "tflite": {(op, 0) for op in ("DEQUANTIZE", "TRANSPOSE", "RESHAPE")},
    "coreml": {
        *(("transpose", "x"), ("reshape", "x"), ("cast", "x"), ("constexpr_cast", "source_val")),
        *(("constexpr_affine_dequantize", "quantized_data"), ("constexpr_blockwise_shift_scale", "data")),
        *(("constexpr_lut_to_dense", "indices"), ("constexpr_sparse_to_dense", "nonzero_data")),
    },
}
"""format -> which input of which operation comes out again as the same weight in another form."""


@dataclass(frozen=True)
class Constant:
    """A constant of an artifact: `values` are its elements, codes of fewer than 8 bits one in each int8 or uint8.

    `dtype` is what is stored (float32, int4), `bits` what an element of it takes.
    """

    name: str
    dtype: str
    bits: int
    values: np.ndarray
    size_bytes: int


@dataclass(frozen=True)
class Operation:
    """What an operation reads, by input, and the names of its outputs."""

    name: str
    inputs: Mapping[int | str, str]
    outputs: tuple[str, ...]


def stored_constants(path: Path) -> tuple[tuple[Constant, str], ...]:
    """The constants of an artifact, each with the kind of layer whose weight it is: one of KINDS, or OTHER."""
    format_name = format_of(path)
    constants, operations = READERS[format_name](path)
    readers = {place: kind for kind, places in READERS_OF_WEIGHTS[format_name].items() for place in places}
    kinds = kinds_read(operations, readers, PASSED_ON[format_name])
    return tuple((c, kinds.get(c.name, OTHER) if c.values.ndim >= WEIGHT_RANK else OTHER) for c in constants)


def kinds_read(operations: Iterable[Operation], readers: Mapping[Input, str], passed_on: set[Input]) -> dict[str, str]:
    """The kind of layer that reads each value as its weight, itself or in another form; operations in graph order."""
    kinds: dict[str, str] = {}
    for operation in reversed(list(operations)):
        for place, value in operation.inputs.items():
            kind = readers.get((operation.name, place))
            if (operation.name, place) in passed_on:
                kind = next((kinds[output] for output in operation.outputs if output in kinds), None)
            if kind:
                kinds[value] = kind
    return kinds


Contents = tuple[list[Constant], list[Operation]]


def _onnx(path: Path) -> Contents:
    import onnx
    import onnx_ir

    graph = onnx_ir.from_proto(onnx.load(path)).graph
    floats = {"float": "float32", "double": "float64"}
    constants = [
        Constant(
            name,
            floats.get(tensor.dtype.name.lower(), tensor.dtype.name.lower()),
            tensor.dtype.bitwidth,
            _wide(tensor.numpy()),
            tensor.nbytes,
        )
        for name, value in graph.initializers.items()
        if (tensor := value.const_value) is not None and tensor.dtype != onnx_ir.DataType.STRING
    ]
    operations = [
        Operation(
            node.op_type,
            {i: str(value.name) for i, value in enumerate(node.inputs) if value is not None},
            tuple(str(value.name) for value in node.outputs),
        )
        for node in graph.all_nodes()
    ]
    return constants, operations


def _wide(values: np.ndarray) -> np.ndarray:
    """Elements of fewer than 8 bits, of types that numpy has by ml_dtypes only, as int8 or uint8."""
    wider = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
    return values.astype(wider[values.dtype.name]) if values.dtype.name in wider else values


def _tflite(path: Path) -> Contents:
    from ai_edge_litert import schema_py_generated as schema

    from exporter.formats.tflite_file import operator_name, read
    from runtimes.mil.weights import unpack_bits

    model = read(path.read_bytes())
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    found: dict[int, Constant] = {}
    operations = []
    for number, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            data, dtype = model.buffers[tensor.buffer].data, types[tensor.type]
            if data is None or not len(data) or dtype == "string":
                continue
            raw = np.asarray(data, np.uint8)
            bits = {"int4": 4, "int2": 2}.get(dtype, 0)
            shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
            flat = unpack_bits(raw, bits, math.prod(shape), signed=True) if bits else raw.view(np.dtype(dtype))
            values = flat.reshape(shape)
            name = f"buffer {tensor.buffer}"
            found[tensor.buffer] = Constant(name, dtype, bits or 8 * values.itemsize, values, len(raw))

        def named(tensor: int, graph: Any = graph, number: int = number) -> str:
            buffer = graph.tensors[tensor].buffer
            return f"buffer {buffer}" if buffer in found else f"tensor {number}/{tensor}"

        operations += [
            Operation(
                operator_name(model, operator),
                {i: named(tensor) for i, tensor in enumerate(operator.inputs) if tensor >= 0},
                tuple(named(tensor) for tensor in operator.outputs),
            )
            for operator in graph.operators
        ]
    return list(found.values()), operations


def _coreml(path: Path) -> Contents:
    from runtimes.coreml_runtime import read_specification
    from runtimes.mil.evaluator import DTYPES, WeightFiles, main_block, written_value

    specification, folder = read_specification(path)
    block, weights = main_block(specification.mlProgram), WeightFiles(folder)
    found: dict[tuple[str, int], Constant] = {}
    aliases: dict[str, str] = {}

    def keep(name: str, value: Any) -> None:
        if value.WhichOneof("value") != "blobFileValue":
            return
        values = written_value(name, value, weights)
        dtype, bits = DTYPES[value.type.tensorType.dataType]
        stored = dtype if bits >= 8 else dtype.replace("8", str(bits))
        place = (value.blobFileValue.fileName, value.blobFileValue.offset)
        aliases[name] = found.setdefault(place, Constant(name, stored, bits, values, -(-values.size * bits // 8))).name

    operations = []
    for operation in block.operations:
        outputs = tuple(output.name for output in operation.outputs)
        inputs: dict[int | str, str] = {}
        for key, value in operation.attributes.items():
            name = outputs[0] if operation.type == "const" else f"{outputs[0]}.{key}"
            keep(name, value)
            inputs[key] = name
        for key, argument in operation.inputs.items():
            for binding in argument.arguments:
                inputs[key] = binding.name
                if binding.WhichOneof("binding") == "value":
                    inputs[key] = f"{outputs[0]}.{key}"
                    keep(inputs[key], binding.value)
        named = {key: aliases.get(name, name) for key, name in inputs.items()}
        operations.append(Operation(operation.type, named, outputs))
    return list(found.values()), operations


READERS = {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml}
