"""Kinds of model that were proven on their example and wrong on other inputs: each format against PyTorch at the edges.

A row is a module whose outputs are many operations of one kind, so that a kind costs one lowering a format.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from exporter.tracing.flat_module import named_tensors
from runtimes.mil.operations import OPERATIONS

FORMATS = ("onnx", "tflite", "coreml")
INF = math.inf
Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Kind:
    """What `forward` computes of its inputs, the example that it is traced with, and inputs that the example is not."""

    forward: Callable[..., Any]
    example: Inputs
    others: tuple[Inputs, ...]
    submodules: tuple[tuple[str, nn.Module], ...] = ()
    dynamic: tuple[tuple[str, int], ...] = ()
    formats: tuple[str, ...] = FORMATS


class Model(nn.Module):
    """A module around `forward(self, *inputs)`."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self._forward = kind.forward
        for name, module in kind.submodules:
            self.add_module(name, module)

    def forward(self, *inputs):
        return self._forward(self, *inputs)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def whole(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def attention(self, q, k, v, mask):
    allowed = mask != 0
    added = torch.zeros(mask.shape).masked_fill(mask == 0, -INF)
    lowest = (1.0 - mask.float()) * torch.finfo(torch.float32).min
    return [F.scaled_dot_product_attention(q, k, v, attn_mask=m) for m in (allowed, added, lowest)]


def padded(self, x, mask):
    """Padding as a mask of booleans, of an encoder layer and of attention that gives its weights."""
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    weighed = self.attention(x, x, x, key_padding_mask=mask == 0, need_weights=True)
    return [self.layer(x, src_key_padding_mask=mask == 0), *weighed] + [
        self.attention(x, x, x, key_padding_mask=mask == 0, attn_mask=future, need_weights=False)[0]
    ]


def typed(self, x, i):
    """New tensors of another type than what they are like, from booleans above all."""
    nine = i == 9
    return [
        x + torch.zeros_like(nine, dtype=torch.float32).masked_fill(nine, -0.75),
        x * torch.ones_like(nine, dtype=torch.float32),
        x + torch.full_like(nine, 3.5, dtype=torch.float32),
        x * nine.new_zeros(i.shape, dtype=torch.float32),
        x * nine.new_full(i.shape, 2.5, dtype=torch.float32),
        x * torch.full_like(i, 2.5, dtype=torch.float32),
        i + torch.full_like(x, 2, dtype=torch.int64),
        nine & torch.ones_like(i, dtype=torch.bool),
        x.masked_fill(~nine, -INF).softmax(-1).nan_to_num(7.0),
        torch.where(nine, 1.5, 0.25) * x,
    ]


def divided(self, x, y):
    return [
        x // y,
        x // 0.1,
        torch.div(x, y, rounding_mode="floor"),
        torch.div(x, y, rounding_mode="trunc"),
        x % y,
        x % 3.0,
        torch.remainder(x, 0.1),
        torch.fmod(x, y),
        torch.fmod(x, 2.0),
    ]


def divided_whole(self, i, j):
    return [
        i // j,
        i // 4,
        i // -4,
        torch.div(i, j, rounding_mode="trunc"),
        i % j,
        i % -4,
        torch.fmod(i, j),
        torch.fmod(i, 4),
        i >> 2,
    ]


def hashed(self, i):
    """What needs 64 bits on its way to a small remainder."""
    return [
        (i * 100003) % 53,
        (i * 2654435761) % 50,
        (i * 31 + 7) % 1000003,
        ((i * 31 + 7) * 17 - i * i) % 97,
        (-(i * 100003)) % 53,
        (3 - i * 7919) % 101,
        ((i + 1) * (i - 5)) % 30011,
        (i * 100003).remainder(torch.tensor(53)),
    ]


ANGLES = [(0.0, -1.0), (-0.0, -1.0), (0.0, 1.0), (-0.0, 1.0), (1.0, 0.0), (-1.0, 0.0), (1.0, -0.0), (0.0, 0.0)]
ANGLES += [(0.0, -0.0), (-0.0, -0.0), (-0.0, 0.0), (1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0), (1e-3, -5.0)]
ANGLES += [(1e20, -1e20), (INF, 1.0), (1.0, -INF), (1.0, INF), (INF, INF), (-INF, -INF)]
"""(y, x) in each quadrant, on the axes with either sign of zero, and without bounds."""
EDGES = torch.tensor([-200.0, -80.0, -20.0, -2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 90.0])
DIVIDENDS = torch.tensor([0.5, 1.0, 0.6, 0.9, -0.5, -1.0, 7.0, -7.0, 7.5, 0.0, 5.0, -5.0, 1e6, 3.0, -3.0])
DIVISORS = torch.tensor([0.1, 0.1, 0.2, 0.3, 0.1, 0.1, 3.0, 3.0, -2.0, 3.0, -5.0, 5.0, 0.3, 3.0, 1.5])
WHOLE = whole(-9, -8, -7, -5, -4, -3, -1, 0, 1, 3, 4, 8, 2**31 - 1, 2**30, -(2**31) + 1, 16777217)
WHOLE_DIVISORS = whole(4, 3, -3, 5, -4, 2, 7, 3, -2, 4, 3, 5, 1000, 7, 10, 2)
ONES = torch.ones(2, 6, dtype=torch.int64)
ROWS = torch.ones(2, 1, 5, 5, dtype=torch.int64)
ROWS[0, 0, 1] = 0  # nothing
ROWS[0, 0, 2] = whole(0, 1, 0, 0, 0)  # one
ROWS[1, 0] = torch.tril(ROWS[1, 0])
ROWS[1, 0, 4] = 0
FLIPPED = torch.full((3, 4), 9)
PADDING = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])

KINDS = {
    "masks": Kind(attention, (*(random(2, 2, 5, 8),) * 3, ROWS * 0 + 1), ((*(random(2, 2, 5, 8),) * 3, ROWS),)),
    "padding": Kind(
        padded,
        (random(2, 5, 8), torch.ones(2, 5, dtype=torch.int64)),
        ((random(2, 5, 8), PADDING),),
        submodules=(
            ("layer", nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
            ("attention", nn.MultiheadAttention(8, 2, batch_first=True)),
        ),
    ),
    "types": Kind(typed, (random(3, 4), FLIPPED - 6), ((random(3, 4), FLIPPED), (random(3, 4), FLIPPED.tril() + 0))),
    "logarithms": Kind(
        lambda self, x: [F.logsigmoid(x), F.softplus(x), F.log_softmax(x, -1), x.relu().log().clamp(-500, 500)],
        (random(12),),
        ((EDGES,),),
    ),
    "angles": Kind(lambda self, p: torch.atan2(p[:, 0], p[:, 1]), (random(22, 2),), ((torch.tensor(ANGLES),),)),
    "quotients": Kind(divided, (random(15), random(15).abs() + 0.5), ((DIVIDENDS, DIVISORS),)),
    "whole quotients": Kind(divided_whole, (torch.arange(16), torch.arange(16) + 1), ((WHOLE, WHOLE_DIVISORS),)),
    "rounding": Kind(
        lambda self, x: [x.trunc(), x.sign(), x.round(), x.floor(), x.ceil(), x.frac(), x.long()],
        (random(12),),
        ((EDGES,),),
    ),
    "hashes": Kind(hashed, (torch.arange(8),), ((whole(0, 1, 7, 1999, 29999, 21475, 2**31 - 1, 123456789),),)),
    "rolls": Kind(
        lambda self, x: [x.roll(-2, 1), x.roll(9, 1), x.roll((-1, 3), (0, 1)), x.roll(5)],
        (random(2, 5, 3),),
        ((random(5, 3, 2).reshape(2, 5, 3),),),
    ),
    "rolls of any length": Kind(
        lambda self, x: [x.roll(-2, 1), x.roll(2, 1), x.roll(-11, 1), x.roll((-3, 1), (1, 2))],
        (random(2, 6, 3),),
        ((random(2, 9, 3),), (random(2, 3, 3),)),
        dynamic=(("inputs_0", 1),),
        formats=("onnx", "coreml"),
    ),
}
SLOW = {"tflite": [pytest.mark.slow]}
"""litert-torch takes seconds for many operations at once."""
ROWS_OF_TESTS = [
    pytest.param(name, target, marks=SLOW.get(target, [])) for name, kind in KINDS.items() for target in kind.formats
]


def check(got: np.ndarray, wanted: torch.Tensor) -> None:
    """Whole numbers and booleans to the last digit, others as far as float32 goes."""
    want = wanted.numpy()
    assert got.shape == want.shape
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    else:
        np.testing.assert_array_equal(got, want)


@contextlib.contextmanager
def truncating() -> Iterator[None]:
    """An evaluator that divides towards zero, as Core ML on a device may: what MIL says of it leaves that open."""

    def divide(x, y):
        quotient = np.abs(x) // np.abs(y)
        return np.where((x < 0) == (y < 0), quotient, -quotient)

    taken = OPERATIONS["gather"]

    def gather(x, indices, axis=0, batch_dims=0, validate_indices=False):
        assert np.min(indices) >= 0, "a place that only numpy counts from the end"
        return taken(x, indices, axis, batch_dims)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(OPERATIONS, "gather", gather)
        patched.setitem(OPERATIONS, "mod", lambda x, y: np.fmod(x, y))
        patched.setitem(OPERATIONS, "floor_div", divide)
        yield


@pytest.mark.slow
@pytest.mark.matrix(one_in=2)
@pytest.mark.parametrize(("name", "target"), ROWS_OF_TESTS, ids=lambda word: str(word).replace(" ", "-"))
def test_a_kind_is_right_on_inputs_that_the_example_does_not_show(name, target, lower_here, outputs_of):
    kind = KINDS[name]
    torch.manual_seed(0)
    module = Model(kind).eval()
    path = lower_here(module, kind.example, target, dynamic=kind.dynamic).path
    for divides in (None, truncating) if target == "coreml" else (None,):
        with divides() if divides else contextlib.nullcontext():
            for inputs in (kind.example, *kind.others):
                with torch.no_grad():
                    wanted = named_tensors(module(*inputs))
                got = outputs_of(path, {f"inputs_{place}": value.numpy() for place, value in enumerate(inputs)})
                for output, want in wanted.items():
                    check(got[output], want)
