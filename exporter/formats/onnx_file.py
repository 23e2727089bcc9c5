"""Reads ONNX files: through onnx_ir, and where their tensors lie, by protobuf's wire format."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.formats.contents import Constant, Contents, Graph, Input, Operation, Reader, Region, StoredTensor
from exporter.formats.snippet import FIRST_INPUTS
from runtimes import wire
from runtimes.errors import BadInput
from runtimes.onnx_runtime import EXACT_INT8
from runtimes.signature import Signature, TensorSpec

if TYPE_CHECKING:
    import onnx_ir

READERS_OF_WEIGHTS: dict[str, set[Input]] = {
    "linear": {
        *(("MatMul", 0), ("MatMul", 1), ("Gemm", 0), ("Gemm", 1), ("MatMulInteger", 1), ("MatMulNBits", 1)),
        *(("MatMulIntegerToFloat", 1), ("DynamicQuantizeMatMul", 1), ("QLinearMatMul", 3), ("QGemm", 3)),
    },
    "conv": {("Conv", 1), ("ConvTranspose", 1), ("ConvInteger", 1), ("QLinearConv", 3)},
    "embedding": {("Gather", 0), ("GatherBlockQuantized", 0)},
}
PASSED_ON: set[Input] = {
    *((op, 0) for op in ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")),
    ("Mul", 0),  # codes that were cast to float, by their scale
}

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_TYPE, TENSOR_RAW = 7, 5, 2, 9
TENSOR_FLOATS = {1: "<f4", 10: "<f2"}
"""Fields of ModelProto, GraphProto and TensorProto, and TensorProto.FLOAT (onnx.proto3)."""
MODEL = "ModelProto"
HOLDERS = {
    MODEL: {7: "GraphProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto"},
    "FunctionProto": {7: "NodeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {6: "GraphProto", 11: "GraphProto"},
}
"""Messages that hold operators, by field (onnx.proto3)."""
MOST_PARTS = 1 << 19
"""Fields of all of them; a model of ten thousand operators has a fifth."""


def read(path: Path) -> onnx_ir.Model:
    """The model of a file.

    Raises BadInput for an empty one, and the parser's own error for bytes that are none.
    """
    import onnx
    import onnx_ir

    if not path.stat().st_size:
        raise BadInput("the file is empty", where=str(path), remedy="export the model again")
    return onnx_ir.from_proto(onnx.load(path))


def contents(path: Path) -> Contents:
    """See `Reader`.

    Raises ValueError for more parts than a model has, before protobuf makes an object of each.
    """
    if path.stat().st_size:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if next(itertools.islice(_parts(content, (0, len(content)), MODEL), MOST_PARTS, None), None) is not None:
                raise ValueError(f"more than {MOST_PARTS:,} fields of operators, tensors and the like")
    model = read(path)

    def spec(value: onnx_ir.Value) -> TensorSpec:
        shape = tuple(d if isinstance(d, int) else str(d) for d in value.shape or ())
        return TensorSpec(value.name or "", value.dtype.numpy().name if value.dtype else "unknown", shape)

    tensors = tuple(
        StoredTensor(name, str(t.dtype), tuple(int(d) for d in t.shape.numpy()), t.nbytes)
        for name, value in model.graph.initializers.items()
        if (t := value.const_value) is not None
    )
    signature = Signature(tuple(map(spec, model.graph.inputs)), tuple(map(spec, model.graph.outputs)))
    operations = tuple(node.op_type for node in model.graph.all_nodes())
    return Contents(signature, operations, tensors, dict(model.metadata_props))


def graph(path: Path) -> Graph:
    """See `Reader`."""
    import onnx_ir

    found = read(path).graph
    floats = {"float": "float32", "double": "float64"}
    constants = tuple(
        Constant(
            name,
            floats.get(tensor.dtype.name.lower(), tensor.dtype.name.lower()),
            tensor.dtype.bitwidth,
            _wide(tensor.numpy()),
            tensor.nbytes,
        )
        for name, value in found.initializers.items()
        if (tensor := value.const_value) is not None and tensor.dtype != onnx_ir.DataType.STRING
    )
    operations = tuple(
        Operation(
            node.op_type,
            {i: str(value.name) for i, value in enumerate(node.inputs) if value is not None},
            tuple(str(value.name) for value in node.outputs),
        )
        for node in found.all_nodes()
    )
    return Graph(constants, operations)


def _wide(values: np.ndarray) -> np.ndarray:
    """Elements of fewer than 8 bits, of types that numpy has by ml_dtypes only, as int8 or uint8."""
    wider = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
    return values.astype(wider[values.dtype.name]) if values.dtype.name in wider else values


def sparse_bytes(values: np.ndarray) -> int:
    """A SparseTensorProto: of each nonzero its value, and int64 its index into the flattened tensor.

    (onnx.proto: `indices` of shape [NNZ] are linearized.) With float32 it is smaller than dense below one third.
    """
    return int(np.count_nonzero(values)) * (values.itemsize + 8)


def regions(file: bytes) -> tuple[Region, ...]:
    """See `Reader`; by the wire format: the onnx package gives a tensor's bytes, and not where they lie."""
    found = []
    for tensor in wire.messages(file, (0, len(file)), MODEL_GRAPH, GRAPH_INITIALIZER):
        parts = {n: value for n, value in wire.fields(file, tensor) if n in (TENSOR_TYPE, TENSOR_RAW)}
        raw, kind = parts.get(TENSOR_RAW), parts.get(TENSOR_TYPE)
        if kind in TENSOR_FLOATS and isinstance(raw, tuple) and raw[0] < raw[1]:
            found.append(Region.of(raw[0], raw[1] - raw[0], TENSOR_FLOATS[kind]))
    return tuple(found)


def _parts(file: wire.Bytes, place: wire.Place, message: str) -> Iterator[int]:
    """The numbers of a message's fields, and of those of the messages within it that may hold operators."""
    for number, value in wire.fields(file, place):
        yield number
        if number in HOLDERS[message] and isinstance(value, tuple):
            yield from _parts(file, value, HOLDERS[message][number])


def snippet(low_bit: bool) -> str:
    """See `Reader`; onnxruntime saturates some sums of low-bit weights, unless it is told not to."""
    session = 'session = onnxruntime.InferenceSession("model.onnx")'
    if low_bit:
        entry = str(EXACT_INT8).replace("'", '"')
        session = f"""options = onnxruntime.SessionOptions()
options.add_session_config_entry{entry}  # where x86-64 has no VNNI: int8 would saturate; with VNNI it is only slower
session = onnxruntime.InferenceSession("model.onnx", options)"""
    return f"""```python
import numpy as np, onnxruntime
{session}
inputs = {FIRST_INPUTS}
outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))
```"""


READER = Reader(
    contents=contents,
    graph=graph,
    readers_of_weights=READERS_OF_WEIGHTS,
    passed_on=PASSED_ON,
    sparse_bytes=sparse_bytes,
    regions=regions,
    tensors_in=".onnx",
    snippet=snippet,
)
