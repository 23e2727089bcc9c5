"""Where a module uses its weights: what is seen, under which name, and what can be put in its place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporter.modules.weight_uses import Use, left_out, multiply_adds, watched_weights, weight_uses
from exporter.tracing.program import FlatModule
from runtimes.errors import BadInput


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


def test_everything_is_put_back_after_an_error():
    original = nn.functional.linear
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), watched_weights(nn.Linear(1, 1)):
        _ = 1 / 0
    assert nn.functional.linear is original and torch.backends.mha.get_fastpath_enabled() == fast_path


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
