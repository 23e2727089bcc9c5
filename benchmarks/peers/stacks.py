"""Models made for the comparison of benches: stacks of equal layers with random weights, since only time matters."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.agent.loop import timed_block
from runtimes.golden import Golden, write_golden
from runtimes.session import open_session

OPSET = 17
TRIED_LAYERS = 10
TRIED_RUNS = 20


@dataclass(frozen=True)
class Shape:
    """What every layer multiplies: `[rows, width]` by `[width, width]`."""

    rows: int
    width: int


SMALL = Shape(32, 64)
"""About 2 us a layer on an x86-64 core with AVX-512; the weights of some dozens of layers fit into its second cache.

Where they do not, whatever runs between two inferences, a loop in C too, costs reads from further away.
"""
MIDDLE = Shape(256, 512)
"""About 0.7 ms a layer there."""
LARGE = Shape(256, 1024)
"""About 3 ms a layer there."""


@dataclass(frozen=True)
class Stack:
    """A model on disk: the file, golden values for the agent, and the input's raw values for a C program."""

    path: Path
    golden: Path
    raw: Path
    layers: int


def stack(folder: Path, layers: int, shape: Shape, name: str = "stack") -> Stack:
    """`layers` matrix products, one after the other, each with weights of its own that keep the values' scale."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    values = first = generator.normal(size=(shape.rows, shape.width)).astype(np.float32)  # [rows, width]
    tensors = ["x", *(f"h{i}" for i in range(1, layers)), "y"]
    nodes, weights = [], []
    for i in range(layers):
        matrix = (generator.normal(size=(shape.width, shape.width)) / shape.width**0.5).astype(np.float32)
        values = values @ matrix
        weights.append(numpy_helper.from_array(matrix, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [tensors[i], f"w{i}"], [tensors[i + 1]]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, first.shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    found = Stack(folder / f"{name}.onnx", folder / f"{name}.npz", folder / f"{name}.raw", layers)
    onnx.save(model, found.path)
    write_golden(Golden(({"x": first},), ({"y": values},)), found.golden)
    first.tofile(found.raw)
    return found


def stack_of(folder: Path, target_ns: float, shape: Shape, name: str) -> Stack:
    """A stack of about `target_ns` on this machine with one thread, by the processor time of a short one."""
    tried = stack(folder, TRIED_LAYERS, shape, name)
    session = open_session(tried.path, 1)
    run = session.bind({"x": np.fromfile(tried.raw, np.float32).reshape(shape.rows, shape.width)})
    fastest_ns = min(timed_block(run, TRIED_RUNS, time.thread_time_ns))
    session.close()
    return stack(folder, max(1, round(TRIED_LAYERS * target_ns / fastest_ns)), shape, name)
