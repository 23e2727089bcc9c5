"""The trace: dynamic axes, state, weights that are shared, and the round trip through a file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from exporter.low_bit.weight import LowBitWeight, Range
from exporter.sources.inputs import with_free_axes
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import DynamicAxis, check_operations, load_program, operations, save_program, trace
from runtimes.errors import BadInput, UnsupportedOperation
from runtimes.signature import TensorSpec


class Module(nn.Module):
    """A module whose forward() is the given function."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.ones(3))

    @property
    def forward(self):
        return self.function


def names(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


def traced(function, *args, dynamic=(), **kwargs):
    """The program of a function of tensors."""
    flat = FlatModule(Module(function), args, kwargs)
    axes = [DynamicAxis(*axis) for axis in dynamic]
    return trace(flat, with_free_axes(flat.example, axes), axes)


X = torch.arange(6.0).reshape(2, 3)


def test_the_program_computes_what_the_module_does_after_a_round_trip_through_its_file(tmp_path, as_exported):
    module, example = as_exported("nested")
    flat = FlatModule(module, (), example)
    save_program(trace(flat, flat.example), tmp_path / "program.pt2")
    program = load_program(tmp_path / "program.pt2")
    assert names(program.signature.inputs) == ["pair_0", "pair_1", "options_shift", "unused"]
    assert names(program.signature.outputs) == ["y", "pair_0_out", "pair_1_out", "again"]
    inputs = {name: torch.randn_like(value) for name, value in flat.example.items()}
    outputs = program.exported.module()(**inputs)
    expected = module((inputs["pair_0"], inputs["pair_1"]), {"shift": inputs["options_shift"]})
    assert torch.equal(outputs["y"], expected["y"])
    assert torch.equal(outputs["again"], expected["y"])
    assert torch.equal(outputs["pair_0_out"], expected["pair"][0])
    assert torch.equal(outputs["pair_1_out"], inputs["pair_0"])


def test_axes_of_one_length_share_one_name():
    program = traced(lambda a, b: a + b, X, X, dynamic=[("a", 0), ("b", 0)])
    assert [spec.shape for spec in program.signature.inputs] == [("a_0", 3), ("a_0", 3)]
    assert program.signature.outputs[0].shape == ("a_0", 3)


def test_axes_of_different_lengths_keep_names_of_their_own():
    program = traced(lambda a, b: (a * 2, b.relu()), X, X, dynamic=[("a", 0), ("b", 1)])
    assert [spec.shape for spec in program.signature.inputs] == [("a_0", 3), (2, "b_1")]
    assert [spec.shape for spec in program.signature.outputs] == [("a_0", 3), (2, "b_1")]


def test_a_dynamic_axis_of_length_1_is_traced_with_2():
    one = X[:1]
    flat = FlatModule(Module(lambda a: a * 2), (one,), {})
    example = with_free_axes(flat.example, [DynamicAxis("a", 0)])
    assert example["a"].shape == (2, 3)
    assert trace(flat, example, [DynamicAxis("a", 0)]).signature.inputs[0].shape == ("a_0", 3)


def test_an_axis_that_the_model_fixes_is_refused():
    with pytest.raises(BadInput, match=r"torch\.export cannot trace the model"):
        traced(lambda a: a.reshape(2, 3) * 2, X, dynamic=[("a", 0)])


def test_state_that_changes_is_refused():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count += 1
            return x * self.count

    flat = FlatModule(Counter(), (X,), {})
    with pytest.raises(BadInput, match=r"Counter: forward\(\) changes 'count', and an exported model keeps no state"):
        trace(flat, flat.example)


class Tied(nn.Module):
    """An embedding that is the output layer too, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(600, 64)
        self.twice = nn.Linear(64, 64)
        self.output = nn.Linear(64, 600, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids):
        return self.output(self.twice(self.twice(self.embedding(ids))))


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_shared_weights_are_stored_once(target, lower_here, computes):
    torch.manual_seed(0)
    module, ids = Tied(), torch.tensor([[3, 599, 0]])
    artifact = lower_here(module, ids, target)
    once = sum(p.numel() for p in module.parameters()) * 4
    size = sum(p.stat().st_size for p in [artifact.path, *artifact.path.rglob("*")] if p.is_file())
    assert once <= size < once + 64 * 64 * 4  # less than the smallest weight would add
    with torch.no_grad():
        computes(artifact.path, {"ids": ids}, {"output": module(ids)})


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_an_unused_input_stays_and_a_buffer_is_kept(target, lower_here, computes, as_exported):
    module, example = as_exported("nested")
    artifact = lower_here(module, example, target)
    inputs = dict(FlatModule(module, (), example).example)
    assert "unused" in inputs
    outputs = module(**example)
    expected = {"y": outputs["y"], "again": outputs["again"], "pair_0_out": outputs["pair"][0]}
    computes(artifact.path, inputs, expected | {"pair_1_out": inputs["pair_0"]})


class Names(nn.Module):
    """Outputs named like the operations and weights inside."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, weight):
        a = self.linear(x)
        return {"linear": a.relu(), "relu": a.relu().tanh(), "tanh": a + weight, "module_linear_weight": a * 2}


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_an_output_may_be_named_like_an_operation(target, lower_here, computes):
    torch.manual_seed(0)
    module, x = Names(), torch.randn(2, 4)
    artifact = lower_here(module, (x, x * 2), target)
    computes(artifact.path, {"x": x, "weight": x * 2}, module(x, x * 2))


def test_operations_of_the_user_s_own_are_refused():
    with torch.library._scoped_library("pocketship_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        library.impl("twice", lambda x: x.new_empty(x.shape), "Meta")

        class Custom(nn.Module):
            def forward(self, x):
                return torch.ops.pocketship_test.twice(x)

        flat = FlatModule(Custom(), (torch.ones(2),), {})
        program = trace(flat, flat.example)
        assert operations(program) == 1
        with pytest.raises(UnsupportedOperation) as refusal:
            check_operations(program)
    assert f"no target has pocketship_test.twice.default of {__file__}:" in str(refusal.value)
    assert "return torch.ops.pocketship_test.twice(x)" in str(refusal.value)


def test_low_bit_weights_travel_with_the_program(tmp_path):
    codes, scale = np.array([[1, -1], [0, 1]], np.int8), np.array([0.5, 2.0], np.float32)
    low_bit = {"a.weight": LowBitWeight(codes, scale, 2, "linear", "static", Range(-1.0, 2.5), Range(0.0, 1.0))}
    flat = FlatModule(nn.Linear(2, 2), (torch.ones(1, 2),), {})
    program = dataclasses.replace(trace(flat, flat.example), low_bit=low_bit)
    save_program(program, tmp_path / "program.pt2")
    found = load_program(tmp_path / "program.pt2").low_bit["a.weight"]
    assert found.value.tolist() == [[0.5, -0.5], [0.0, 2.0]] and found.value.dtype == np.float32
    same = dataclasses.replace(low_bit["a.weight"], codes=found.codes, scale=found.scale)
    assert found == same and found.codes.dtype == np.int8
