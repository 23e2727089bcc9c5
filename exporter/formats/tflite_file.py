"""Reads TFLite files, as the objects of their schema."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.formats.contents import Constant, Contents, Graph, Input, Operation, Reader, Region, StoredTensor
from exporter.formats.snippet import FIRST_INPUTS
from runtimes.errors import BadInput
from runtimes.mil.weights import unpack_bits
from runtimes.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

FILE_IDENTIFIER = b"TFL3"
MOST_PARTS = 1 << 17
"""Operators, tensors and the like: the largest models for phones have ten thousand."""
MOST_AXES, LONGEST_NAME = 64, 200

READERS_OF_WEIGHTS: dict[str, set[Input]] = {
    "linear": {("FULLY_CONNECTED", 1), ("BATCH_MATMUL", 0), ("BATCH_MATMUL", 1)},
    "conv": {("CONV_2D", 1), ("DEPTHWISE_CONV_2D", 1), ("TRANSPOSE_CONV", 1), ("CONV_3D", 1)},
    "embedding": {("EMBEDDING_LOOKUP", 1), ("GATHER", 0)},
}
PASSED_ON: set[Input] = {(op, 0) for op in ("DEQUANTIZE", "TRANSPOSE", "RESHAPE")}


def read_file(path: Path) -> schema.ModelT:
    """The model of a file.

    Raises BadInput for bytes without TFLite's mark.
    """
    return read(_content(path))


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if content[4:8] != FILE_IDENTIFIER:
        raise BadInput("not a TFLite file", where=str(path), remedy="export the model again")
    return content


def read(content: bytes) -> schema.ModelT:
    """The model that the bytes of a file hold, its connections in lists that may be changed."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for graph in model.subgraphs:
        for holder in (graph, *(graph.operators or ())):
            holder.inputs, holder.outputs = ([*map(int, ends)] for ends in (holder.inputs, holder.outputs))
    return model


def constant(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """The value of a float32 or int32 tensor that the file holds, of the tensor's own shape; None for any other."""
    from ai_edge_litert import schema_py_generated as schema

    dtype = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT32: np.int32}.get(tensor.type)
    data = model.buffers[tensor.buffer].data
    if dtype is None or data is None or not len(data):
        return None
    return np.asarray(data, np.uint8).view(dtype).reshape(() if tensor.shape is None else tuple(tensor.shape))


def operator_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """What an operator computes, by the schema's name: CONV_2D, or CUSTOM."""
    code = model.operatorCodes[operator.opcodeIndex]
    return _operator_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]


@functools.cache
def _operator_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


@functools.cache
def type_names() -> dict[int, str]:
    """The schema's types by number: FLOAT32."""
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}


def contents(path: Path) -> Contents:
    """See `Reader`; from the file's own tables, as making objects of a hundred thousand operators takes a minute.

    Raises ValueError for more parts than a model has, and for tables that lie in each other.
    """
    model, name_bytes = tables(path), 0
    dtypes = {value: name.lower() for value, name in type_names().items()}
    codes = [_code_name(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    buffer_bytes = [model.Buffers(i).DataLength() for i in range(model.BuffersLength())]
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    operations = tuple(codes[g.Operators(i).OpcodeIndex()] for g in graphs for i in range(g.OperatorsLength()))
    tensors: dict[int, StoredTensor] = {}
    for tensor in (g.Tensors(i) for g in graphs for i in range(g.TensorsLength())):
        buffer = tensor.Buffer()
        if buffer not in tensors and buffer_bytes[buffer]:
            name, shape = tensor.Name() or b"", _lengths(tensor.ShapeAsNumpy())
            name_bytes += len(name)
            if name_bytes > len(model._tab.Bytes):  # each lies there once
                raise ValueError("its tables lie in each other")
            tensors[buffer] = StoredTensor(name.decode(), dtypes[tensor.Type()], shape, buffer_bytes[buffer])

    def spec(entry: schema.TensorMap) -> TensorSpec:
        tensor = graphs[0].Tensors(entry.TensorIndex())
        lengths = _lengths(tensor.ShapeAsNumpy() if tensor.ShapeSignatureIsNone() else tensor.ShapeSignatureAsNumpy())
        shape = tuple(d if d >= 0 else f"axis{i}" for i, d in enumerate(lengths))
        return TensorSpec(entry.Name().decode(), dtypes[tensor.Type()], shape)

    key = model.SignatureDefs(0)
    signature = Signature(
        tuple(spec(key.Inputs(i)) for i in range(key.InputsLength())),
        tuple(spec(key.Outputs(i)) for i in range(key.OutputsLength())),
    )
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    metadata = {
        entry.Name().decode(): bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).rstrip(b"\0").decode(errors="replace")
        for entry in entries
    }
    return Contents(signature, operations, tuple(tensors.values()), metadata)


def tables(path: Path) -> schema.Model:
    """The tables of a file, once they are known to be no more than a model's; raises as `parts` and `read_file`."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(_content(path), 0)
    parts(model)
    return model


def parts(model: schema.Model) -> int:
    """How many operators, tensors and the like a file has.

    Raises ValueError for more than a model has: the same table may be listed a million times.
    """
    counts = [model.OperatorCodesLength(), model.SubgraphsLength(), model.BuffersLength(), 16 * model.MetadataLength()]
    for i in range(min(model.SubgraphsLength(), MOST_PARTS)):
        graph = model.Subgraphs(i)
        counts += [graph.OperatorsLength(), graph.TensorsLength()]
    for i in range(min(model.SignatureDefsLength(), MOST_PARTS)):
        key = model.SignatureDefs(i)
        counts += [1, 16 * key.InputsLength(), 16 * key.OutputsLength()]
    if sum(counts) > MOST_PARTS:
        raise ValueError(f"more than {MOST_PARTS:,} operators, tensors and the like")
    return sum(counts)


def _code_name(code: schema.OperatorCode) -> str:
    name = _operator_names()[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    return f"CUSTOM {(code.CustomCode() or b'').decode():.{LONGEST_NAME}}" if name == "CUSTOM" else name


def _lengths(shape: Any) -> tuple[int, ...]:
    found = () if isinstance(shape, int) else tuple(map(int, shape[: MOST_AXES + 1]))  # 0 is none
    if len(found) > MOST_AXES:
        raise ValueError(f"a tensor of more than {MOST_AXES} axes")
    return found


def graph(path: Path) -> Graph:
    """See `Reader`."""
    model = read_file(path)
    types = {value: name.lower() for value, name in type_names().items()}
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
    return Graph(tuple(found.values()), tuple(operations))


def sparse_bytes(values: np.ndarray) -> int:
    """SparsityParameters with all dimensions dense but the last, which is SPARSE_CSR.

    (schema.fbs.) That is one segment a row of the last dimension, rows + 1 in all, an index within its row of each
    nonzero, and the nonzeros. Segments and indices each lie in the narrowest of the schema's three vectors that holds
    their largest: Uint8Vector, Uint16Vector, Int32Vector. The flatbuffer's own tables are not counted.
    """
    columns = values.shape[-1] if values.ndim else 1
    rows = values.size // max(columns, 1)
    nonzero = int(np.count_nonzero(values))
    return nonzero * (values.itemsize + _index_bytes(columns - 1)) + (rows + 1) * _index_bytes(nonzero)


def _index_bytes(largest: int) -> int:
    return 1 if largest <= 0xFF else 2 if largest <= 0xFFFF else 4


def regions(file: bytes) -> tuple[Region, ...]:
    """See `Reader`."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(file, 0)
    dtypes = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.FLOAT16: "<f2"}
    floats = {
        graph.Tensors(i).Buffer(): dtypes[graph.Tensors(i).Type()]
        for graph in (model.Subgraphs(s) for s in range(model.SubgraphsLength()))
        for i in range(graph.TensorsLength())
        if graph.Tensors(i).Type() in dtypes
    }
    found = set()
    for i, dtype in floats.items():
        buffer = model.Buffers(i)
        field = buffer._tab.Offset(4)
        if field and buffer.DataLength():
            found.add(Region.of(buffer._tab.Vector(field), buffer.DataLength(), dtype))
    return tuple(sorted(found, key=lambda region: region.offset))


def snippet(low_bit: bool) -> str:
    """See `Reader`."""
    return f"""```python
import numpy as np, ai_edge_litert.interpreter as litert
runner = litert.Interpreter("model.tflite").get_signature_runner()
inputs = {FIRST_INPUTS}
outputs = runner(**{{k: inputs[k].astype(d["dtype"]) for k, d in runner.get_input_details().items()}})
```"""


READER = Reader(
    contents=contents,
    graph=graph,
    readers_of_weights=READERS_OF_WEIGHTS,
    passed_on=PASSED_ON,
    sparse_bytes=sparse_bytes,
    regions=regions,
    tensors_in=".tflite",
    snippet=snippet,
)
