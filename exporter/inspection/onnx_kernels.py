"""Kernel truth of an ONNX file: which weights onnxruntime reads as codes, and what share of the time that is."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.formats.onnx_file import read
from runtimes.errors import BadInput
from runtimes.kernels import KernelTruth

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime

LOW_BIT_TYPES = ("INT2", "UINT2", "INT4", "UINT4", "INT8", "UINT8")
FLOAT_TYPES = ("FLOAT", "FLOAT16")
DEQUANTIZE = ("DequantizeLinear", "Cast")
WARM_UP = 3
RUNS = 20
DYNAMIC_AXIS = 16
NOTE = "onnxruntime's own profile, at one thread"
KERNEL_TIME = "_kernel_time"


def kernels(path: Path) -> KernelTruth:
    """Run a file with random inputs, and look in the graph that onnxruntime made of it for what reads each weight.

    A weight that is stored as codes and is floating point in that graph was dequantized when the file was loaded.
    Raises BadInput for what is no ONNX file, or what onnxruntime cannot load or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        try:
            times = _profile(path, optimized)
        except Exception as error:  # onnxruntime raises a family of its own without a common base
            raise BadInput(f"onnxruntime cannot run it: {error}", where=str(path), remedy="export it again") from error
        stored = read(path).graph
        used = read(optimized).graph
    readers = _readers(used)
    reading = {node.name for nodes in readers.values() for node in nodes}
    codes, floats = (
        _values(stored.initializers.values(), LOW_BIT_TYPES),
        _values(stored.initializers.values(), FLOAT_TYPES),
    )
    low_bit = min(codes, _values(readers, LOW_BIT_TYPES))  # a weight read in two orders lies there twice
    total = max(1, codes + floats)
    return KernelTruth(
        low_bit_share=low_bit / total,
        dequantized_share=(codes - low_bit) / total,
        float_share=floats / total,
        time_share=sum(t for name, t in times.items() if name in reading) / max(1, sum(times.values())),
        note=NOTE,
    )


def _profile(path: Path, optimized: Path) -> dict[str, float]:
    """The median microseconds of RUNS inferences by the node's name; writes the graph that ran."""
    import onnxruntime

    from runtimes.onnx_runtime import ask_for_exact_int8

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ask_for_exact_int8(options)
    options.optimized_model_filepath = str(optimized)
    options.enable_profiling = True
    options.profile_file_prefix = str(optimized.with_suffix(""))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = _random_inputs(session)
    for _ in range(WARM_UP + RUNS):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    calls: dict[str, list[int]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(KERNEL_TIME):
            calls.setdefault(event["name"].removesuffix(KERNEL_TIME), []).append(event["dur"])
    return {name: statistics.median(taken[WARM_UP:]) for name, taken in calls.items()}


def _random_inputs(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    """Normal values for floats, ones for integers, which are indices and masks."""
    from runtimes.onnx_runtime import DTYPES

    random = np.random.default_rng(0)

    def value(entry: Any) -> np.ndarray:
        dtype = np.dtype(DTYPES[entry.type])
        shape = [length if isinstance(length, int) else DYNAMIC_AXIS for length in entry.shape]
        return random.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)

    return {entry.name: value(entry) for entry in session.get_inputs()}


def _readers(graph: ir.Graph) -> dict[ir.Value, list[ir.Node]]:
    """The operators that read each low-bit constant as codes."""
    found = {}
    for constant in graph.initializers.values():
        if constant.const_value is not None and constant.const_value.dtype.name in LOW_BIT_TYPES:
            nodes = [node for node, _ in constant.uses() if node.op_type not in DEQUANTIZE]
            if nodes:
                found[constant] = nodes
    return found


def _values(constants: Iterable[ir.Value], types: tuple[str, ...]) -> int:
    tensors = [c.const_value for c in constants if c.const_value is not None]
    return sum(math.prod(t.shape.numpy()) for t in tensors if t.dtype.name in types)
