"""Reads Core ML packages that hold an ML Program."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporter.formats.contents import Constant, Contents, Graph, Input, Operation, Reader, Region, StoredTensor
from exporter.formats.snippet import FIRST_INPUTS

READERS_OF_WEIGHTS: dict[str, set[Input]] = {
    "linear": {("linear", "weight"), ("matmul", "x"), ("matmul", "y")},
    "conv": {("conv", "weight"), ("conv_transpose", "weight")},
    "embedding": {("gather", "x")},
}
PASSED_ON: set[Input] = {
    *(("transpose", "x"), ("reshape", "x"), ("cast", "x"), ("constexpr_cast", "source_val")),
    *(("constexpr_affine_dequantize", "quantized_data"), ("constexpr_blockwise_shift_scale", "data")),
    *(("constexpr_lut_to_dense", "indices"), ("constexpr_sparse_to_dense", "nonzero_data")),
}

BLOB = struct.Struct("<IIQQ")
BLOB_SENTINEL, BLOB_ALIGNMENT = 0xDEADBEEF, 64
BLOB_FLOATS = {1: "<f2", 2: "<f4"}


def main_operations(path: Path) -> list[Any]:
    """The operations of a package's ML Program, as MIL's protobuf has them.

    Raises BadInput when it is no ML Program that can be read.
    """
    from runtimes.coreml_runtime import read_specification
    from runtimes.mil.evaluator import main_block

    specification, _ = read_specification(path)
    return list(main_block(specification.mlProgram).operations)


def contents(path: Path) -> Contents:
    """See `Reader`."""
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

    tensors = tuple(
        stored(name, value)
        for operation in block.operations
        for name, value in _written_values(operation)
        if value.WhichOneof("value") == "blobFileValue"
    )
    names = tuple(operation.type for operation in block.operations if operation.type != "const")
    metadata = dict(specification.description.metadata.userDefined)
    return Contents(signature_of(specification), names, tensors, metadata)


def _written_values(operation: Any) -> Iterator[tuple[str, Any]]:
    """The values that stand in a MIL operation: a constant's own, and the codes, scales and palettes of a constexpr."""
    output = operation.outputs[0].name if operation.outputs else ""
    for key, value in operation.attributes.items():
        yield output if operation.type == "const" else f"{output}.{key}", value
    for key, argument in operation.inputs.items():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield f"{output}.{key}", binding.value


def graph(path: Path) -> Graph:
    """See `Reader`."""
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
    return Graph(tuple(found.values()), tuple(operations))


def sparse_bytes(values: np.ndarray) -> int:
    """A constexpr_sparse_to_dense: a mask of one bit an element, padded to whole bytes, and the nonzeros."""
    return -(-values.size // 8) + int(np.count_nonzero(values)) * values.itemsize


def regions(file: bytes) -> tuple[Region, ...]:
    """See `Reader`; before each blob stands a record of 64 bytes: a mark, its type, its size and its place.

    (MIL's blob format 2.)
    """
    found, at = [], BLOB_ALIGNMENT
    while at + BLOB.size <= len(file):
        sentinel, kind, size, offset = BLOB.unpack_from(file, at)
        if sentinel != BLOB_SENTINEL or not at + BLOB_ALIGNMENT <= offset <= offset + size <= len(file):
            break
        if dtype := BLOB_FLOATS.get(kind):
            found.append(Region.of(offset, size, dtype))
        end = offset + size
        at = end + -end % BLOB_ALIGNMENT
    return tuple(found)


def snippet(low_bit: bool) -> str:
    """See `Reader`."""
    return f"""```python
import numpy as np, coremltools  # on macOS; in an app, Xcode generates the class from model.mlpackage
model = coremltools.models.MLModel("model.mlpackage")
inputs = {FIRST_INPUTS}
outputs = model.predict({{k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in inputs.items()}})
```"""


READER = Reader(
    contents=contents,
    graph=graph,
    readers_of_weights=READERS_OF_WEIGHTS,
    passed_on=PASSED_ON,
    sparse_bytes=sparse_bytes,
    regions=regions,
    tensors_in="/weight.bin",
    snippet=snippet,
)
