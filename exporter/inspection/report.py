"""What is inside an artifact: signature, operations, and bytes by tensor; read from the file, nothing is executed.

What its low-bit weights run on, for which it has to run, is found in inspection/kernels.py, in a child process.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.bundle import digest
from runtimes.errors import BadInput
from runtimes.session import format_of
from runtimes.signature import Signature, TensorSpec


@dataclass(frozen=True)
class StoredTensor:
    """A constant inside an artifact, as stored."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Report:
    """An artifact's contents: operations by count, tensors by size, both largest first."""

    path: str
    format: str
    size_bytes: int
    signature: Signature
    operations: dict[str, int]
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def inspect(path: Path) -> Report:
    """Read an artifact of any format.

    Raises BadInput when the file is missing, empty, or not what its suffix says.
    """
    format_name = format_of(path)
    if not path.exists():
        raise BadInput("no such artifact", where=str(path), remedy="check the path")
    try:
        signature, operations, tensors, metadata = READERS[format_name](path)
    except BadInput:
        raise
    except ImportError as error:
        raise BadInput(
            f"{error.name} is not installed", where=str(path), remedy="pip install 'pocketship[export]'"
        ) from error
    except Exception as error:  # each parser fails in its own way on bytes that are not its format
        raise BadInput(
            f"not a {format_name} file, or damaged ({type(error).__name__})",
            where=str(path),
            remedy="export the model again",
        ) from error
    return Report(
        path=str(path),
        format=format_name,
        size_bytes=digest(path)[0],
        signature=signature,
        operations=dict(Counter(operations).most_common()),
        tensors=tuple(sorted(tensors, key=lambda t: -t.size_bytes)),
        metadata=metadata,
    )


Contents = tuple[Signature, Iterable[str], Iterable[StoredTensor], dict[str, str]]


def _onnx(path: Path) -> Contents:
    import onnx
    import onnx_ir

    if not path.stat().st_size:
        raise BadInput("the file is empty", where=str(path), remedy="export the model again")
    model = onnx_ir.from_proto(onnx.load(path))

    def spec(value: onnx_ir.Value) -> TensorSpec:
        shape = tuple(d if isinstance(d, int) else str(d) for d in value.shape or ())
        return TensorSpec(value.name or "", value.dtype.numpy().name if value.dtype else "unknown", shape)

    tensors = [
        StoredTensor(name, str(t.dtype), tuple(int(d) for d in t.shape.numpy()), t.nbytes)
        for name, value in model.graph.initializers.items()
        if (t := value.const_value) is not None
    ]
    signature = Signature(tuple(map(spec, model.graph.inputs)), tuple(map(spec, model.graph.outputs)))
    return signature, [node.op_type for node in model.graph.all_nodes()], tensors, dict(model.metadata_props)


def _tflite(path: Path) -> Contents:
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise BadInput("not a TFLite file", where=str(path), remedy="export the model again")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    dtypes = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    graph = model.subgraphs[0]

    def spec(entry: schema.TensorMapT) -> TensorSpec:
        tensor = graph.tensors[entry.tensorIndex]
        lengths = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        shape = tuple(int(d) if d >= 0 else f"axis{i}" for i, d in enumerate(lengths if lengths is not None else ()))
        return TensorSpec(entry.name.decode(), dtypes[tensor.type], shape)

    def operation(node: schema.OperatorT) -> str:
        code = model.operatorCodes[node.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" else name

    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in model.buffers]
    tensors = {
        t.buffer: StoredTensor(t.name.decode(), dtypes[t.type], tuple(map(int, t.shape)), sizes[t.buffer])
        for subgraph in model.subgraphs
        for t in subgraph.tensors
        if sizes[t.buffer]
    }
    metadata = {
        entry.name.decode(): bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode(errors="replace")
        for entry in model.metadata or []
    }
    key = model.signatureDefs[0]
    signature = Signature(tuple(map(spec, key.inputs)), tuple(map(spec, key.outputs)))
    return signature, [operation(n) for s in model.subgraphs for n in s.operators], tensors.values(), metadata


def _coreml(path: Path) -> Contents:
    from runtimes.coreml_runtime import read_specification, signature_of
    from runtimes.mil.evaluator import DTYPES, main_block, tensor_spec

    specification, _ = read_specification(path)
    block = main_block(specification.mlProgram)

    def stored(name: str, value: Any) -> StoredTensor:
        spec = tensor_spec(name, value.type)
        shape = tuple(int(length) for length in spec.shape)
        bits = DTYPES[value.type.tensorType.dataType][1]
        dtype = spec.dtype if bits >= 8 else spec.dtype.replace("8", str(bits))  # numpy has none of fewer
        return StoredTensor(name, dtype, shape, math.ceil(math.prod(shape) * bits / 8))

    tensors = [
        stored(name, value)
        for operation in block.operations
        for name, value in _written_values(operation)
        if value.WhichOneof("value") == "blobFileValue"
    ]
    names = [operation.type for operation in block.operations if operation.type != "const"]
    return signature_of(specification), names, tensors, dict(specification.description.metadata.userDefined)


def _written_values(operation: Any) -> Iterator[tuple[str, Any]]:
    """The values that stand in a MIL operation: a constant's own, and the codes, scales and palettes of a constexpr."""
    output = operation.outputs[0].name if operation.outputs else ""
    for key, value in operation.attributes.items():
        yield output if operation.type == "const" else f"{output}.{key}", value
    for key, argument in operation.inputs.items():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield f"{output}.{key}", binding.value


READERS = {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml}
