"""Remainders of sums and products that need 64 bits, computed in 32; and what is known of a program's integers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exporter.lowering.integers import INT32, Integers, keep_remainders_small
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import functional, trace


class Formula(nn.Module):
    def __init__(self, compute) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, ids):
        return self.compute(ids)


FORMULAS = {
    "product": lambda i: (i * 100003) % 53,
    "beyond 32 bits": lambda i: (i * 2654435761) % 50,
    "a large divisor": lambda i: (i * 31 + 7) % 1000003,
    "the largest divisor": lambda i: (i * 536870909) % 536870911,
    "polynomial": lambda i: ((i * 31 + 7) * 17 - i * i) % 97,
    "negative": lambda i: (-(i * 100003)) % 53,
    "subtracted from": lambda i: (3 - i * 7919) % 101,
    "sums at the end": lambda i: ((i + 1) * (i - 5)) % 30011,
    "stored divisor": lambda i: (i * 100003).remainder(torch.tensor(53)),
    "stored factor": lambda i: (torch.tensor(2654435761) * i) % 53,
    "with a boolean": lambda i: (i * (i != 3) * 100003) % 53,
    "power of two": lambda i: (i * 100003) % 1024,
}


def exported_of(compute) -> torch.export.ExportedProgram:
    flat = FlatModule(Formula(compute), (torch.arange(4),), {})
    return functional(trace(flat, flat.example)).exported


class In32Bits(torch.fx.Interpreter):
    """Runs a graph and refuses a value that 32 bits do not hold."""

    def run_node(self, node: torch.fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, torch.Tensor) and node.op == "call_function":
            assert INT32[0] <= int(value.min()) and int(value.max()) <= INT32[1], node.format_node()
        return value


@pytest.fixture(scope="module", params=FORMULAS)
def small(request):
    """A formula, and the program that computes it in 32 bits."""
    exported = exported_of(FORMULAS[request.param])
    keep_remainders_small(exported)
    return FORMULAS[request.param], exported


EDGES = [0, 1, 2, 7, 52, 53, 1999, 29999, 21475, 46341, 2**24 + 1, 2**30, 2**31 - 2, 2**31 - 1]
IDS = torch.cat([torch.tensor(EDGES), torch.randint(0, 2**31, (2000,), generator=torch.Generator().manual_seed(7))])


def test_a_remainder_never_leaves_32_bits(small):
    formula, exported = small
    constants = [exported.constants[s.target] for s in exported.graph_signature.input_specs if s.target]
    (got,) = In32Bits(exported.graph_module).run(*constants, IDS)
    assert torch.equal(got, formula(IDS))


def test_what_fits_already_stays():
    for compute in (
        lambda i: i % 53,
        lambda i: (i + 5) % 53,
        lambda i: ((i % 100) * 1000) % 53,
        lambda i: i // 3,
        lambda i: torch.tensor(2**40) % 53 + i,
    ):
        exported = exported_of(compute)
        before = str(exported.graph)
        keep_remainders_small(exported)
        assert str(exported.graph) == before


def test_what_leaves_64_bits_wraps_around_as_before():
    exported = exported_of(lambda i: (i * i * 33) % 30011)
    before = str(exported.graph)
    keep_remainders_small(exported)
    assert str(exported.graph) == before


def test_products_of_two_large_remainders_stay_as_they_are():
    """They cannot be mended by this, and are said at export."""
    exported = exported_of(lambda i: (i * i) % 1000003)
    before = str(exported.graph)
    keep_remainders_small(exported)
    assert next(n.name for n in exported.graph.nodes if n.op == "call_function") == "mul"
    assert len(str(exported.graph).splitlines()) == len(before.splitlines())


BOUNDS = {
    "input": (lambda i: i + 0, INT32),
    "boolean": (lambda i: (i == 3).long(), (0, 1)),
    "remainder": (lambda i: i % 53, (0, 52)),
    "negative divisor": (lambda i: i % -53, (-52, 0)),
    "clamp": (lambda i: i.clamp(-3, 9), (-3, 9)),
    "product": (lambda i: (i % 5) * -7, (-28, 0)),
    "difference": (lambda i: i % 5 - (i % 3) * 2, (-4, 4)),
    "subtracted from": (lambda i: 10 - i % 5, (6, 10)),
    "running sum": (lambda i: (i == 3).long().cumsum(0), (0, 4)),
    "places": (lambda i: i.argmax(0, keepdim=True), (0, 3)),
    "numbers in order": (lambda i: torch.arange(7) + 0, (0, 7)),
    "choice": (lambda i: torch.where(i == 3, i % 5, -1), (-1, 4)),
    "power": (lambda i: (i % 5) ** 2, (0, 16)),
    "shift": (lambda i: (i % 5) << 3, (0, 32)),
    "parts": (lambda i: torch.cat([i % 5, i % 9]), (0, 8)),
    "stored": (lambda i: torch.tensor([3, -8]) + 0, (-8, 3)),
    "unknown": (lambda i: i & 3, INT32),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name):
    compute, expected = BOUNDS[name]
    exported = exported_of(compute)
    (output,) = exported.graph.output_node().args[0]
    assert Integers(exported).bounds(output) == expected
