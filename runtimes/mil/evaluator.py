"""Evaluates a Core ML ML Program with numpy alone: it proves graph and weights anywhere, not Apple's kernels or speed.

Every value has the type that the program declares: half-precision results are rounded to half, so an overflow shows.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import platform
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple, Union

import numpy as np

from runtimes.errors import BadInput, NotInstalled, ParityFailed, UnsupportedOperation
from runtimes.mil.operations import LAYOUT_ONLY, OPERATIONS
from runtimes.mil.weights import unpack_bits
from runtimes.signature import Dimension, TensorSpec

DTYPES = {
    1: ("bool", 8),
    2: ("str", 0),
    10: ("float16", 16),
    11: ("float32", 32),
    12: ("float64", 64),
    21: ("int8", 8),
    22: ("int16", 16),
    23: ("int32", 32),
    24: ("int64", 64),
    25: ("int8", 4),
    31: ("uint8", 8),
    32: ("uint16", 16),
    33: ("uint32", 32),
    34: ("uint64", 64),
    35: ("uint8", 4),
    36: ("uint8", 2),
    37: ("uint8", 1),
    38: ("uint8", 6),
    39: ("uint8", 3),
}
"""MIL's DataType -> numpy's name and the bits that one element takes where it is stored (MIL.proto)."""

BLOB_SENTINEL = 0xDEADBEEF
WEIGHTS_FOLDER = "@model_path/weights"
"""Where a specification says its weights lie: beside itself, in the one place that is read here."""
BLOB_HEADER_BYTES = 64

Names = Union[str, Tuple[str, ...]]


@dataclass(frozen=True)
class Step:
    """One operation: its arguments name earlier values; `finished` are the values that nothing needs afterwards."""

    op: str
    arguments: Mapping[str, Names]
    outputs: Tuple[TensorSpec, ...]
    finished: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """An ML Program ready to run: weights decompressed, every operation known."""

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    constants: Mapping[str, Any]
    steps: Tuple[Step, ...]


def protocol_buffers() -> ModuleType:
    """coremltools' Model_pb2, without importing coremltools, which would import torch and take seconds.

    Raises NotInstalled without coremltools.
    """
    found = importlib.util.find_spec("coremltools")
    if found is None or found.origin is None:
        raise NotInstalled("coremltools is not installed", remedy=_remedy())
    package = "pocketship_coremltools_proto"
    if package not in sys.modules:
        module = ModuleType(package)
        module.__path__ = [str(Path(found.origin).parent / "proto")]
        sys.modules[package] = module
    return importlib.import_module(f"{package}.Model_pb2")


def _remedy() -> str:
    """How coremltools comes to this machine: its wheels for Linux are for x86-64 alone."""
    system, machine = platform.system(), platform.machine()
    if system == "Darwin" or machine in ("x86_64", "AMD64"):
        return "pip install 'pocketship[coreml]'"
    return f"it has no wheel for {system.lower()}-{machine}: check Core ML on x86-64 Linux or a Mac"


def tensor_spec(name: str, value_type: Any) -> TensorSpec:
    """A MIL ValueType as a TensorSpec; an axis of unknown length is called `name_axis0`.

    Raises UnsupportedOperation when it is no tensor or its elements are of a type that numpy lacks.
    """
    kind = value_type.WhichOneof("type")
    if kind != "tensorType" or value_type.tensorType.dataType not in DTYPES:
        what = f"data type {value_type.tensorType.dataType}" if kind == "tensorType" else str(kind)
        raise UnsupportedOperation(f"'{name}' is of MIL's {what}", remedy="check this model on macOS")
    shape: List[Dimension] = [
        axis.constant.size if axis.WhichOneof("dimension") == "constant" else f"{name}_axis{place}"
        for place, axis in enumerate(value_type.tensorType.dimensions)
    ]
    return TensorSpec(name, DTYPES[value_type.tensorType.dataType][0], tuple(shape))


class WeightFiles:
    """The blob files of a package, mapped into memory when first needed.

    A blob: sentinel and type (uint32 each), size and place of the data in bytes (uint64 each), padded to 64 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: Dict[str, np.ndarray] = {}

    def _bytes(self, name: str) -> np.ndarray:
        if name not in self._files:
            path = self._folder / name
            if not path.is_file() or path.stat().st_size == 0:
                raise BadInput("the weight file is missing or empty", where=str(path), remedy="export the model again")
            self._files[name] = np.memmap(path, np.uint8, "r")
        return self._files[name]

    def read(self, location: Any, dtype: str, bits: int, count: int) -> np.ndarray:
        """`count` elements of `bits` bits at a BlobFileValue -> [count] of `dtype`."""
        name, start = PurePosixPath(location.fileName).name, int(location.offset)
        if location.fileName != f"{WEIGHTS_FOLDER}/{name}":
            outside = f"its weights lie in {location.fileName!r:.80}, not in {WEIGHTS_FOLDER}"
            raise BadInput(outside, where=str(self._folder), remedy="do not trust it")
        content = self._bytes(name)
        header = content[start : start + BLOB_HEADER_BYTES]
        size_bytes = math.ceil(count * bits / 8)
        if len(header) == BLOB_HEADER_BYTES:
            stored_bytes, place = (int(number) for number in header[8:24].view(np.uint64))
            data = content[place : place + size_bytes]
            if header[:4].view(np.uint32)[0] == BLOB_SENTINEL and stored_bytes == size_bytes == len(data):
                if bits < 8:
                    return unpack_bits(data, bits, count, dtype == "int8")
                return np.asarray(data).view(dtype)
        raise BadInput(
            f"no blob of {size_bytes} bytes at byte {start}: the file is truncated or corrupt",
            where=str(self._folder / name),
            remedy="export the model again",
        )


def written_value(name: str, value: Any, weights: WeightFiles) -> Any:
    """A MIL Value as an array of its declared type and shape, or a string."""
    spec = tensor_spec(name, value.type)
    bits = DTYPES[value.type.tensorType.dataType][1]
    shape = tuple(int(length) for length in spec.shape)
    count = math.prod(shape)
    if value.WhichOneof("value") == "blobFileValue":
        return weights.read(value.blobFileValue, spec.dtype, bits, count).reshape(shape)
    tensor = value.immediateValue.tensor
    content = getattr(tensor, tensor.WhichOneof("value")).values
    if spec.dtype == "str":
        return content[0]
    if isinstance(content, bytes):
        packed = np.frombuffer(content, np.uint8)
        flat = unpack_bits(packed, bits, count, spec.dtype == "int8") if bits < 8 else packed.view(spec.dtype)
    else:
        flat = np.array(content, spec.dtype)
    return flat.reshape(shape)


def _unknown(operation: Any) -> str:
    """What the evaluator lacks of an operation, or ""."""
    name = operation.outputs[0].name if operation.outputs else "no output"
    if operation.type == "const":
        return ""
    if operation.type not in OPERATIONS:
        return f"{operation.type} '{name}'"
    given = set(operation.inputs) | (set(operation.attributes) - {"name"} if _is_constexpr(operation.type) else set())
    strange = given - set(inspect.signature(OPERATIONS[operation.type]).parameters)
    return f"{operation.type} '{name}' with {', '.join(sorted(strange))}" if strange else ""


def _is_constexpr(op: str) -> bool:
    return op.startswith("constexpr_")


def _refuse_unknown(operations: Sequence[Any]) -> None:
    lacking = [what for what in map(_unknown, operations) if what]
    if lacking:
        raise UnsupportedOperation(
            f"the evaluator of Core ML programs lacks {len(lacking)} of its operations: {'; '.join(lacking)}",
            remedy="check this model on macOS, or decompose them before the conversion",
        )


def _step(operation: Any, constants: Dict[str, Any], weights: WeightFiles) -> Step:
    """An operation as a Step; values written into it become constants of their own."""
    outputs = tuple(tensor_spec(output.name, output.type) for output in operation.outputs)
    arguments: Dict[str, Names] = {}
    for key, argument in operation.inputs.items():
        names = []
        for place, binding in enumerate(argument.arguments):
            name = binding.name
            if binding.WhichOneof("binding") == "value":
                name = f"{outputs[0].name}.{key}.{place}"
                constants[name] = written_value(name, binding.value, weights)
            names.append(name)
        arguments[key] = names[0] if len(names) == 1 else tuple(names)
    if _is_constexpr(operation.type):  # up to iOS17 its inputs are attributes
        for key, value in operation.attributes.items():
            if key != "name":
                name = f"{outputs[0].name}.{key}"
                constants[name] = written_value(name, value, weights)
                arguments[key] = name
    return Step(operation.type, arguments, outputs)


def _used(step: Step) -> Set[str]:
    names: Set[str] = set()
    for value in step.arguments.values():
        names.update([value] if isinstance(value, str) else value)
    return names


def _with_lifetimes(steps: Sequence[Step], kept: Set[str]) -> Tuple[Step, ...]:
    """The steps, each told which values are finished after it."""
    needed, result = set(kept), []
    for step in reversed(steps):
        names = (_used(step) | {output.name for output in step.outputs}) - needed
        needed |= names
        result.append(Step(step.op, step.arguments, step.outputs, tuple(sorted(names))))
    return tuple(reversed(result))


def main_block(specification: Any) -> Any:
    """The block of operations of the function "main"."""
    function = specification.functions["main"]
    return function.block_specializations[function.opset]


def declared_outputs(specification: Any) -> Tuple[TensorSpec, ...]:
    """The outputs of "main" as the program declares them; the model's description leaves flexible shapes out."""
    block = main_block(specification)
    types = {value.name: value.type for value in specification.functions["main"].inputs}
    types.update({output.name: output.type for operation in block.operations for output in operation.outputs})
    return tuple(tensor_spec(name, types[name]) for name in block.outputs)


def load_program(specification: Any, weights_folder: Path) -> Program:
    """The function "main" of a MIL Program protocol buffer, with the blobs of `weights_folder`.

    Raises UnsupportedOperation, with all of them, when it holds operations that the evaluator lacks, and BadInput when
    weights are missing or damaged.
    """
    block = main_block(specification)
    _refuse_unknown(block.operations)
    weights = WeightFiles(weights_folder)
    constants: Dict[str, Any] = {}
    steps: List[Step] = []
    for operation in block.operations:
        if operation.type == "const":
            name = operation.outputs[0].name
            constants[name] = written_value(name, operation.attributes["val"], weights)
            continue
        step = _step(operation, constants, weights)
        if _is_constexpr(step.op):
            with np.errstate(all="ignore"):
                constants.update(_compute(step, constants))
        else:
            steps.append(step)
    inputs = tuple(tensor_spec(value.name, value.type) for value in specification.functions["main"].inputs)
    used = set().union(*map(_used, steps), block.outputs)
    constants = {name: value for name, value in constants.items() if name in used}
    lasting = set(block.outputs) | set(constants)
    return Program(inputs, declared_outputs(specification), constants, _with_lifetimes(steps, lasting))


def _compute(step: Step, values: Mapping[str, Any]) -> Dict[str, np.ndarray]:
    """The outputs of one step, by name, rounded to their declared types."""

    def fetch(name: str) -> Any:
        value = values[name]
        halves = isinstance(value, np.ndarray) and value.dtype == np.float16 and step.op not in LAYOUT_ONLY
        return value.astype(np.float32) if halves else value

    arguments = {
        key: fetch(names) if isinstance(names, str) else [fetch(name) for name in names]
        for key, names in step.arguments.items()
    }
    where = step.outputs[0].name
    try:
        results = OPERATIONS[step.op](**arguments)
    except (ValueError, IndexError, TypeError) as error:
        raise ParityFailed(f"{step.op} cannot be computed: {error}", where=where, remedy="check the inputs") from error
    results = results if isinstance(results, (list, tuple)) else [results]
    stored = {}
    for spec, result in zip(step.outputs, results):
        array = np.asarray(result).astype(spec.dtype, copy=False)
        if array.ndim != len(spec.shape) or any(w != g for w, g in zip(spec.shape, array.shape) if isinstance(w, int)):
            raise ParityFailed(
                f"{step.op} gives shape {list(array.shape)}, the program declares {list(spec.shape)}",
                where=spec.name,
                remedy="report this model: its conversion or the evaluator is wrong",
            )
        stored[spec.name] = array
    return stored


def evaluate(program: Program, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The program's outputs by name, of its declared types; `inputs` have the declared shapes.

    Raises ParityFailed when an operation cannot be computed (an index out of range) or its result has another shape
    than the program declares.
    """
    values: Dict[str, Any] = dict(program.constants)
    for spec in program.inputs:
        values[spec.name] = np.asarray(inputs[spec.name], spec.dtype)
    with np.errstate(all="ignore"):
        for step in program.steps:
            values.update(_compute(step, values))
            for name in step.finished:
                del values[name]
    return {spec.name: np.array(values[spec.name]) for spec in program.outputs}
