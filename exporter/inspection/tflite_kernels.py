"""Kernel truth of a TFLite file: which weights its operators read as codes, and what share of the time that is."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.formats.tflite_file import operator_name, parts, read_file, tables, type_names
from runtimes.errors import BadInput
from runtimes.kernels import KernelTruth

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

MOST_PARTS = 1 << 15
"""Operators, tensors and the like, each of which takes a third of a millisecond."""
LOW_BIT_TYPES = ("INT2", "INT4", "INT8", "UINT8")
FLOAT_TYPES = ("FLOAT32", "FLOAT16")
WIDENING = {"DEQUANTIZE", "DENSIFY"}
"""Operators that make other constants of constants."""
WARM_UP = 3
NOTE = (
    "LiteRT's Python package tells no time by operator, so those that read codes were run as a model of their own, "
    "in turns with the whole one, at one thread, in processor time"
)
NONE_READ = "no operator reads codes"


def kernels(path: Path, seconds: float = 1.0) -> KernelTruth:
    """Read how a file's weights are used, then run it for `seconds` with random inputs to see the share of the time.

    Only for a file that has passed the gate, since a wrong kernel may crash the process. Raises BadInput for what is no
    TFLite file, or too long a one.
    """
    many = parts(tables(path))
    if many > MOST_PARTS:
        raise BadInput(f"{many:,} operators and tensors take too long to look at", where=str(path))
    model = read_file(path)
    counts = _counts(model)
    total = max(1, sum(counts.values()))
    part = _reading_codes(model)
    return KernelTruth(
        low_bit_share=counts["low_bit"] / total,
        dequantized_share=counts["dequantized"] / total,
        float_share=counts["float"] / total,
        time_share=0.0 if part is None else _time_share(part, path.read_bytes(), seconds),
        note=NONE_READ if part is None else NOTE,
    )


def _constants(model: schema.ModelT, graph: schema.SubGraphT, types: tuple[str, ...]) -> set[int]:
    names = type_names()
    return {
        i
        for i, tensor in enumerate(graph.tensors)
        if names[tensor.type] in types and model.buffers[tensor.buffer].data is not None
    }


def _counts(model: schema.ModelT) -> dict[str, int]:
    """How many values of constants are read as codes, dequantized before use, and stored as floating point."""
    counts: dict[str, int] = defaultdict(int)
    for graph in model.subgraphs:
        readers = defaultdict(set)
        for operator in graph.operators:
            for tensor in operator.inputs:
                readers[tensor].add(operator_name(model, operator))
        coded = _constants(model, graph, LOW_BIT_TYPES)
        for i in coded | _constants(model, graph, FLOAT_TYPES):
            widened = bool(readers[i]) and readers[i] <= WIDENING
            shape = graph.tensors[i].shape
            kind = "float" if i not in coded else "dequantized" if widened else "low_bit"
            counts[kind] += math.prod(() if shape is None else map(int, shape))
    return counts


def _reading_codes(model: schema.ModelT) -> schema.ModelT | None:
    """A model of nothing but the operators that read codes: what others give them becomes its inputs."""
    part = copy.copy(model)
    graph = copy.copy(model.subgraphs[0])
    codes = _constants(model, graph, LOW_BIT_TYPES)
    graph.operators = [o for o in graph.operators if codes & set(o.inputs) and operator_name(model, o) not in WIDENING]
    if not graph.operators:
        return None
    made = [i for o in graph.operators for i in o.outputs]
    taken = dict.fromkeys(i for o in graph.operators for i in o.inputs if i >= 0)
    graph.inputs = [i for i in taken if i not in made and model.buffers[graph.tensors[i].buffer].data is None]
    graph.outputs = made
    part.subgraphs, part.signatureDefs = [graph], []
    return part


def _time_share(part: schema.ModelT, whole: bytes, seconds: float) -> float:
    """The median processor time of the part over that of the whole, which run in turns."""
    from exporter.formats.tflite_writer import write

    runs = [_run(write(part)), _run(whole)]
    times: list[list[float]] = [[], []]
    deadline = time.perf_counter() + seconds
    while len(times[0]) <= WARM_UP or time.perf_counter() < deadline:
        for run, taken in zip(runs, times, strict=True):
            started = time.thread_time()
            run()
            taken.append(time.thread_time() - started)
    alone, together = (statistics.median(taken[WARM_UP:]) for taken in times)
    return min(1.0, alone / together)


def _run(content: bytes) -> Callable[[], Any]:
    """One inference of a model on random inputs, at one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    random = np.random.default_rng(0)
    for entry in interpreter.get_input_details():
        value = random.normal(size=entry["shape"]) if entry["dtype"] == np.float32 else np.zeros(entry["shape"])
        interpreter.set_tensor(entry["index"], value.astype(entry["dtype"]))
    return interpreter.invoke
