"""Masks that may forbid a whole row are opened there and the row's output is 0; others stay as they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from exporter.lowering.attention import ATTENTION, keep_empty_rows
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import functional, trace

QKV = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(1))
IDS = torch.ones(1, 4, dtype=torch.int64)


class Attention(nn.Module):
    """Two attentions under one mask, which `make` computes of an input or of nothing."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def forward(self, q, given):
        mask = self.make(given)
        x = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        return F.scaled_dot_product_attention(x, q, q, attn_mask=mask)


def kept(make, given: torch.Tensor):
    """The program after `keep_empty_rows`, and whether its mask was opened."""
    flat = FlatModule(Attention(make), (QKV[0], given), {})
    exported = functional(trace(flat, flat.example)).exported
    before = len(exported.graph.nodes)
    keep_empty_rows(exported)
    return exported, len(exported.graph.nodes) - before


def written(given):
    mask = torch.zeros(4, 4)
    mask[:, 2] = -math.inf
    mask[1] = -math.inf
    return mask


OPENED = {
    "boolean of an input": (lambda ids: (ids == 1)[:, None, None, :], IDS),
    "minus infinity of an input": (lambda ids: torch.zeros(1, 4).masked_fill(ids == 0, -math.inf), IDS),
    "float input": (lambda mask: mask, torch.zeros(4, 4)),
    "a logarithm": (lambda ids: ids.float().log(), IDS),
    "constant with an empty row": (lambda ids: torch.ones(4, 4, dtype=torch.bool).tril(-1), IDS),
    "written in place": (written, IDS),
}
LEFT = {
    "constant": (lambda ids: torch.ones(4, 4, dtype=torch.bool).tril(), IDS),
    "constant of floats": (lambda ids: torch.full((4, 4), -math.inf).triu(1), IDS),
    "large but finite": (lambda ids: (1.0 - ids.float()) * torch.finfo(torch.float32).min, IDS),
}


@pytest.mark.parametrize("name", OPENED)
def test_a_mask_that_may_forbid_all_is_opened_once(name):
    make, given = OPENED[name]
    exported, added = kept(make, given)
    assert 6 <= added <= 7  # forbidden (of a boolean and of floats alike), empty, filled, mask; and two products
    for other in (
        given,
        torch.zeros_like(given),
        torch.full_like(given, -math.inf) if given.is_floating_point() else given,
    ):
        want = Attention(make)(QKV[1], other)
        got = exported.module()(q=QKV[1], given=other)["output"]
        torch.testing.assert_close(got, want)
        assert torch.isfinite(got).all()


@pytest.mark.parametrize("name", LEFT)
def test_a_mask_that_always_allows_something_stays(name):
    make, given = LEFT[name]
    _, added = kept(make, given)
    assert added == 0


def test_attention_without_a_mask_stays():
    class Causal(nn.Module):
        def forward(self, q):
            return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    flat = FlatModule(Causal(), (QKV[0],), {})
    exported = trace(flat, flat.example).exported
    before = str(exported.graph)
    keep_empty_rows(exported)
    assert str(exported.graph) == before


def test_what_attention_gives_has_its_strides():
    """Views after attention rely on them: without, `permute` and `view` of a decomposed program fail."""
    exported, _ = kept(*OPENED["boolean of an input"])
    for node in exported.graph.nodes:
        if node.target is ATTENTION:
            (product,) = node.users
            assert product.meta["val"].stride() == node.meta["val"].stride()
