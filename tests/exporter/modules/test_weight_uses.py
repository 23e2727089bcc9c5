"""Where a module uses its weights: what is seen, under which name, and what can be put in its place."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import conv1d as taken_conv1d
from torch import nn
from torch.nn.functional import embedding as taken_embedding
from torch.nn.functional import linear as taken_linear

from exporter.modules.weight_uses import (
    Use,
    left_out,
    multiply_adds,
    output_first,
    uses_to_round,
    watched_weights,
    weight_uses,
)
from exporter.tracing.flat_module import FlatModule
from runtimes.errors import BadInput
from tests.exporter.modules.upsampling import flat_upsampling


def flat_of(module: nn.Module, *example: torch.Tensor) -> FlatModule:
    return FlatModule(module.eval(), example, {})


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("mlp", {"0.weight": [("linear", 1)], "2.weight": [("linear", 1)]}),
        ("cnn", {"stem.0.weight": [("conv", 1)], "depthwise.0.weight": [("conv", 8)], "head.weight": [("linear", 1)]}),
        ("two_inputs", {"left.weight": [("linear", 1)] * 2, "right.weight": [("linear", 1)]}),
        (
            "transformer",
            {
                "embedding.weight": [("embedding", 1), ("linear", 1)],  # tied to the output layer
                "attention.in_proj_weight": [("linear", 1)],  # three projections in one functional call
                "attention.out_proj.weight": [("linear", 1)],
            },
        ),
        ("recurrent", {"head.weight": [("linear", 1)]}),  # the cells' weights go into one fused call
    ],
)
def test_every_use_is_seen_under_the_parameter_s_name(name, uses, as_exported):
    module, example = as_exported(name)
    flat = FlatModule(module, *((), example) if isinstance(example, dict) else (_tuple(example), {}))
    assert weight_uses(flat) == {n: tuple(Use(n, *use) for use in found) for n, found in uses.items()}


def _tuple(example):
    return example if isinstance(example, tuple) else (example,)


def test_the_fused_encoder_layer_shows_its_linears():
    flat = flat_of(nn.TransformerEncoderLayer(8, 2, batch_first=True), torch.randn(1, 3, 8))
    assert list(weight_uses(flat)) == [
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    ]


def test_what_is_given_back_is_what_is_computed_with():
    linear = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    with watched_weights(linear, lambda use, value, weight: (value * 2, weight * 3), lambda use, output: output + 1):
        found = linear(x)
    assert torch.allclose(found, (x * 2) @ (linear.weight * 3).T + linear.bias + 1, atol=1e-6)
    assert torch.equal(linear(x), nn.functional.linear(x, linear.weight, linear.bias)), "and nothing stays behind"


def test_nothing_stays_behind_after_an_error():
    linear, seen = nn.Linear(1, 1), []
    with (
        pytest.raises(ZeroDivisionError),
        watched_weights(linear, lambda use, value, weight: (seen.append(use), (value, weight))[1]),
    ):
        linear(torch.ones(1))
        _ = 1 / 0
    linear(torch.ones(1))
    assert len(seen) == 1 and torch.overrides._get_current_function_mode() is None


class Watcher(nn.Module):
    """Looks at torch while it runs, from this thread and from another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.elsewhere = nn.Linear(3, 3), nn.Linear(3, 3)
        self.here: list[object] = []

    def forward(self, x):
        self.here = [nn.functional.linear, torch.conv2d, torch.backends.mha.get_fastpath_enabled()]
        other = threading.Thread(target=lambda: self.here.append(nn.functional.linear(x, self.elsewhere.weight)))
        other.start()
        other.join()
        return self.layer(x)


def test_nothing_global_changes_while_a_module_runs():
    expected = [nn.functional.linear, torch.conv2d, torch.backends.mha.get_fastpath_enabled()]
    flat = flat_of(Watcher(), torch.ones(1, 3))
    with torch.no_grad():
        original = flat.compute(flat.example)["output"]
    assert list(weight_uses(flat)) == ["layer.weight"], "what another thread does is its own"
    module = flat.module
    assert module.here[:3] == expected
    with watched_weights(module, after=lambda use, output: output + 1):
        changed = module(torch.ones(1, 3))
        bystander = []
        other = threading.Thread(target=lambda: bystander.append(module(torch.ones(1, 3))))
        other.start()
        other.join()
    assert torch.equal(changed, original + 1) and torch.equal(bystander[0], original)


class BoundBefore(nn.Module):
    """Calls functions by names that it took from torch when it was imported."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.kernel = nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(4, 1, 2))
        self.table = nn.Parameter(torch.randn(5, 3))

    def forward(self, ids):
        return taken_conv1d(
            taken_linear(taken_embedding(ids, weight=self.table), bias=None, weight=self.weight), self.kernel
        )


def test_names_that_a_module_took_from_torch_before_are_seen_too():
    assert list(weight_uses(flat_of(BoundBefore(), torch.tensor([[1]])))) == ["table", "weight", "kernel"]


@pytest.mark.parametrize("training", [False, True])
def test_what_is_seen_of_attention_computes_what_it_did(training):
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).train(training), torch.randn(2, 3, 8)
    with watched_weights(attention):
        found = attention(x, x, x)
    expected = attention(x, x, x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_weight_that_is_no_parameter_of_the_module_passes_through():
    seen = []

    def before(use, value, weight):
        seen.append(use)
        return value, weight

    with watched_weights(nn.Linear(1, 1), before):
        nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2))
    assert seen == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", 2 * (8 * 16 + 16 * 4)),  # a batch of 2
        ("cnn", 16 * 16 * (8 * 3 * 9 + 8 * 9) + 8 * 5),  # a depthwise convolution reads one channel
        ("two_inputs", 3 * 3 * 6 * 5),  # the left layer twice
        ("transformer", 12 * (3 * 16 * 16 + 16 * 16 + 16 * 50)),  # the embedding multiplies nothing
    ],
)
def test_multiply_adds_of_linear_layers_and_convolutions(name, expected, as_exported):
    module, example = as_exported(name)
    flat = FlatModule(module, *((), example) if isinstance(example, dict) else (_tuple(example), {}))
    assert multiply_adds(flat) == expected


def test_transposed_convolutions_are_weights_too():
    uses = weight_uses(flat_upsampling())
    assert [(name, used[0].kind, used[0].groups) for name, used in uses.items()] == [
        ("0.weight", "conv", 1),
        ("2.weight", "conv_transpose", 1),
        ("5.weight", "conv_transpose", 8),
        ("7.weight", "conv", 1),
    ]
    lines = flat_of(nn.ConvTranspose1d(4, 6, 3, groups=2), torch.randn(1, 4, 5))
    assert weight_uses(lines) == {"weight": (Use("weight", "conv_transpose", 2),)}
    assert multiply_adds(lines) == 5 * 4 * 3 * 3, "each of 4 inputs at 5 places reaches 3 outputs of its group, 3 times"
    assert list(uses_to_round(flat_upsampling(), {"0.weight", "5.weight"})) == ["2.weight", "7.weight"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_weight_of_a_transposed_convolution_can_be_had_with_its_outputs_first(groups):
    layer = nn.ConvTranspose1d(4, 8, 3, padding=2, groups=groups, bias=False)
    rows, x = output_first(layer.weight, groups), torch.randn(1, 4, 9)
    assert rows.shape == (8, 4 // groups, 3)
    assert torch.allclose(nn.functional.conv1d(x, rows.flip(-1), groups=groups), layer(x), atol=1e-6)
    assert torch.equal(output_first(rows, groups), layer.weight)


def test_layers_are_left_out_by_their_own_name_or_their_weight_s():
    names = ("body.0.weight", "body.1.weight", "head.weight")
    assert left_out(names, ("body.*",), "prune") == {"body.0.weight", "body.1.weight"}
    assert left_out(names, ("head", "body.0.weight"), "prune") == {"head.weight", "body.0.weight"}
    assert left_out(names, (), "prune") == set()
    with pytest.raises(BadInput, match=r"prune: layers_out 'tail' fits no layer; the layers are body.0.weight, body.1"):
        left_out(names, ("head", "tail"), "prune")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_transposed_convolution_is_a_use_and_reads_each_input_once(axes):
    layer = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][axes - 1](4, 6, 3, stride=2, groups=2)
    flat = flat_of(layer, torch.randn(1, 4, *[5] * axes))
    assert weight_uses(flat) == {"weight": (Use("weight", "conv_transpose", 2),)}
    assert multiply_adds(flat) == 4 * 5**axes * 3 * 3**axes  # inputs, times outputs a group, times the kernel
