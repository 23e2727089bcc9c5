"""Importance against values by hand: of units by activations and weights, of blocks by their influence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.analysis.importance import block_influence, unit_importance
from exporter.modules.dependencies import find_groups
from exporter.modules.structure import Block, find_blocks
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context


def context_of(flat, x):
    split, poison = Split({"x": x.numpy()}), Split({"x": np.full((4, *x.shape[1:]), np.nan, np.float32)})
    return Context(flat, Task("t", "", (), poison, split, poison, lambda o, s: Score("accuracy", np.zeros(1), {})))


def scores(flat, x, importance, kind=None):
    groups = [g for g in find_groups(flat)[0] if kind in (None, g.kind)]
    return [s.tolist() for s in unit_importance(flat, groups, importance, context_of(flat, x), 100)]


def test_of_neurons_it_is_the_mean_over_positions_and_the_l2_norm_over_samples():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Identity(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2))
        module[2].weight.copy_(torch.tensor([[3.0, -0.5]]))
    x = torch.tensor([[[1.0, -2.0], [3.0, 0.0]], [[-2.0, 8.0], [0.0, 0.0]]])  # [samples, positions, neurons]
    flat = FlatModule(module.eval(), (x[:1],), {})
    plain = [np.hypot(2, 1), np.hypot(1, 4)]  # means of |x|: 2 and 1 of the first sample, 1 and 4 of the second
    assert scores(flat, x, "activation") == [pytest.approx(plain)]
    assert scores(flat, x, "contribution") == [pytest.approx([3.0 * plain[0], 0.5 * plain[1]])]
    assert scores(flat, x, "weights") == [pytest.approx([3.0, 0.5])]


def test_of_channels_it_is_summed_over_the_layers_that_read_them():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1), nn.Conv2d(2, 1, 1)

        def forward(self, x):
            y = self.first(x)
            return self.a(y) + self.b(y.relu())

    module = Two().eval()
    with torch.no_grad():
        module.first.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        module.first.bias.zero_()
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    flat = FlatModule(module, (x,), {})
    assert scores(flat, x, "activation") == [pytest.approx([3.0 + 3.0, 3.0 + 0.0])]


def test_of_channels_between_transposed_convolutions_the_weights_that_make_and_read_them_count():
    module = nn.Sequential(nn.ConvTranspose1d(3, 2, 1, bias=False), nn.ConvTranspose1d(2, 4, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 0.0]])[..., None])  # [in, out, 1]
        module[1].weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])[..., None])
    x = torch.tensor([[[1.0, 1.0], [0.0, 1.0], [5.0, 5.0]]])
    flat = FlatModule(module.eval(), (x,), {})
    assert scores(flat, x, "weights") == [pytest.approx([5.0, 2.0])]
    assert scores(flat, x, "activation") == [pytest.approx([5.0, 0.5])]  # channels [3, 7] and [0, 1]
    assert scores(flat, x, "contribution") == [pytest.approx([5.0, 1.0])]


class Attention(nn.Module):
    """Two heads of two; the values are the input itself, each position attends to itself."""

    def __init__(self):
        super().__init__()
        self.heads, self.qkv, self.proj = 2, nn.Linear(4, 12, bias=False), nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            self.qkv.weight.zero_()
            self.qkv.weight[8:] = torch.eye(4)
            self.proj.weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0])))

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        return self.proj(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(len(x), x.shape[1], -1))


def test_of_heads_it_is_the_norm_of_what_a_head_gives():
    x = torch.tensor([[[3.0, 4.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 2.0]]])  # one position: attention is the identity
    flat = FlatModule(Attention().eval(), (x,), {})
    assert scores(flat, x, "activation") == [pytest.approx([5.0, np.hypot(1, 2)])]
    assert scores(flat, x, "contribution") == [pytest.approx([5.0 * np.hypot(1, 2), 0.0])]


class Residual(nn.Module):
    """x + W x; the identity where W is zero."""

    def __init__(self, weight):
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.as_tensor(weight))

    def forward(self, x):
        return x + self.linear(x)


def test_block_influence_is_zero_for_an_identity_and_one_for_a_right_angle():
    turn = [[-1.0, -1.0], [1.0, -1.0]]  # x + turn x is x turned by 90 degrees
    module = nn.Sequential(Residual(torch.zeros(2, 2)), Residual(turn), Residual(torch.eye(2)), nn.Linear(2, 2))
    x = torch.randn(5, 3, 2)
    flat = FlatModule(module.eval(), (x[:1],), {})
    blocks = find_blocks(flat)
    assert blocks == (Block("", 0), Block("", 1), Block("", 2))
    for context in (context_of(flat, x), Context(flat)):
        assert block_influence(flat, blocks, context, 100) == pytest.approx((0.0, 1.0, 0.0), abs=1e-7)
