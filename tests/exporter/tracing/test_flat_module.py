"""Flat names of nested inputs and outputs, and what a module may not take or return."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from exporter.tracing.flat_module import FlatModule, identifier, named_tensors
from exporter.tracing.program import trace
from runtimes.errors import BadInput
from runtimes.signature import TensorSpec

Pair = namedtuple("Pair", "mean, spread")


@dataclass
class Found:
    """As Hugging Face models return their values."""

    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Module(nn.Module):
    """A module whose forward() is the given function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    @property
    def forward(self):
        return self.function


def names(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


def traced(function, *args, **kwargs):
    """The program of a function of tensors."""
    flat = FlatModule(Module(function), args, kwargs)
    return trace(flat, flat.example)


X = torch.arange(6.0).reshape(2, 3)


def test_inputs_are_named_by_their_place():
    def forward(image, pair, *rest, options, **kwargs):
        return image + pair[0] - pair[1] + rest[0] * rest[1] + options["shift"]["by"] - kwargs["extra"]

    program = traced(forward, X, (X, X), X, X, options={"shift": {"by": X}}, extra=X)
    inputs = ["image", "pair_0", "pair_1", "rest_0", "rest_1", "options_shift_by", "extra"]
    assert names(program.signature.inputs) == inputs
    assert names(program.signature.outputs) == ["output"]
    assert program.signature.inputs[0] == TensorSpec("image", "float32", (2, 3))


def test_what_is_no_tensor_is_fixed_in_the_program():
    program = traced(lambda x, scale, flag=True, name="a", none=None: x * scale if flag else x, X, 3.0)
    assert names(program.signature.inputs) == ["x"]
    assert torch.equal(program.exported.module()(x=X)["output"], X * 3)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (lambda x: x + 1, ["output"]),
        (lambda x: (x + 1,), ["output"]),
        (lambda x: [x + 1, x + 2], ["output_0", "output_1"]),
        (lambda x: {"b": x + 1, "a": x + 2}, ["b", "a"]),
        (lambda x: {"b": (x + 1, {"c": x + 2})}, ["b_0", "b_1_c"]),
        (lambda x: Pair(x + 1, x + 2), ["mean", "spread"]),
        (lambda x: Found(x + 1), ["logits"]),
        (lambda x: Found(x + 1, x + 2), ["logits", "hidden"]),
        (lambda x: ((x + 1, x + 2), {"last": x + 3}), ["output_0_0", "output_0_1", "output_1_last"]),
        (lambda x: {"a b": x + 1, "1st": x + 2, "é": x + 3}, ["a_b", "_1st", "tensor"]),
    ],
)
def test_outputs_are_named_by_their_place(returned, expected):
    signature = traced(returned, X).signature
    assert names(signature.outputs) == expected


@pytest.mark.parametrize(
    ("text", "name"), [("a.b", "a_b"), ("7", "_7"), ("", "tensor"), ("__x__", "x"), ("Ünder", "nder")]
)
def test_identifier(text, name):
    assert identifier(text) == name


def test_an_output_named_as_an_input_gets_a_name_of_its_own():
    program = traced(lambda x, y: {"x": x + y, "y": y}, X, X)
    assert names(program.signature.outputs) == ["x_out", "y_out"]


def test_two_names_that_collide_are_refused():
    with pytest.raises(BadInput, match=r"two inputs are named 'a_b'; rename one of them"):
        FlatModule(Module(lambda a, a_b: a["b"] + a_b), ({"b": X}, X), {})
    with pytest.raises(BadInput, match=r"two outputs are named 'a_b'; rename one of them"):
        named_tensors({"a": {"b": X}, "a_b": X})


def test_what_a_module_may_not_take_or_return():
    with pytest.raises(BadInput, match=r"the module returns a str; return tensors, or dicts or tuples of them"):
        named_tensors({"a": "text"})
    with pytest.raises(BadInput, match="the module returns no tensor"):
        named_tensors({"a": None})
    with pytest.raises(BadInput, match="input 'x' is float64; use one of float32, int64"):
        FlatModule(Module(lambda x: x), (X.double(),), {})
    with pytest.raises(BadInput, match=r"input 'x' is a ndarray; give a torch\.Tensor"):
        FlatModule(Module(lambda x, y: x), (X.numpy(), X), {})
    with pytest.raises(BadInput, match="the example inputs hold no tensor"):
        FlatModule(Module(lambda x: x), (3.0,), {})
    with pytest.raises(BadInput, match=r"Module: the example inputs do not fit forward\(\): too many positional"):
        FlatModule(Module(lambda x: x), (X, X), {})


def test_one_tensor_given_for_two_inputs_stays_two_inputs():
    program = traced(lambda a, b: a - 2 * b, X, X)
    assert torch.equal(program.exported.module()(a=X, b=X + 1)["output"], X - 2 * (X + 1))


def test_a_copy_of_a_flat_module_computes_the_same_and_shares_nothing():
    flat = FlatModule(nn.Linear(2, 2), (torch.ones(1, 2),), {})
    copy = flat.copy()
    assert torch.equal(flat.compute(dict(flat.example))["output"], copy.compute(dict(copy.example))["output"])
    with torch.no_grad():
        copy.module.weight.zero_()
    assert not torch.equal(flat.compute(dict(flat.example))["output"], copy.compute(dict(copy.example))["output"])
