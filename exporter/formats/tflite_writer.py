"""Changes to the objects of a TFLite file, and back to bytes that kernels accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flatbuffers
import numpy as np

from exporter.formats.tflite_file import FILE_IDENTIFIER

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

BUFFER_ALIGNMENT = 16


def write(model: schema.ModelT) -> bytes:
    """The bytes of a model's file; the same model gives the same bytes."""
    for buffer in model.buffers:
        buffer.Pack = _pack_aligned.__get__(buffer)
    builder = _Builder(sum(len(b.data) for b in model.buffers if b.data is not None) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Stores equal vectors once: of twelve bytes that a channel's scale and zero point take, eight are always zero."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._made: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        key = x.dtype.str, x.tobytes()
        if key not in self._made:
            self._made[key] = super().CreateNumpyVector(x)
        return self._made[key]


def add_tensor(
    model: schema.ModelT, graph: schema.SubGraphT, name: bytes, shape: tuple[int, ...], value: np.ndarray | None = None
) -> int:
    """Add a float32 tensor to a graph, with its constant value where one is given; its index."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, np.array(shape, np.int32), schema.TensorType.FLOAT32
    set_constant(model, tensor, value)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def set_constant(model: schema.ModelT, tensor: schema.TensorT, value: np.ndarray | None) -> None:
    """Give a tensor a buffer of its own with this value, float32; an empty one for None."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    if value is not None:
        buffer.data = np.frombuffer(value.astype(np.float32).tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)


def operator_code(model: schema.ModelT, builtin: int) -> int:
    """The index of an operator (a value of `BuiltinOperator`) among the model's codes, to which it may be added."""
    from ai_edge_litert import schema_py_generated as schema

    for i, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _pack_aligned(buffer: schema.BufferT, builder: flatbuffers.Builder) -> int:
    """BufferT.Pack with the schema's `force_align: 16`, which flatbuffers' Python code ignores and kernels rely on."""
    from ai_edge_litert import schema_py_generated as schema

    data = None
    if buffer.data is not None and len(buffer.data):
        raw = np.asarray(buffer.data, dtype=np.uint8).tobytes()
        builder.StartVector(1, len(raw), BUFFER_ALIGNMENT)
        builder.head = builder.Head() - len(raw)
        builder.Bytes[builder.Head() : builder.Head() + len(raw)] = raw
        data = builder.EndVector()
    schema.BufferStart(builder)
    if data is not None:
        schema.BufferAddData(builder, data)
    return schema.BufferEnd(builder)
