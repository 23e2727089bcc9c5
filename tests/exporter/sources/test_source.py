"""A source's example inputs."""

from __future__ import annotations

import torch

from exporter.sources.source import arguments


def test_example_inputs_as_forward_takes_them():
    x, y = torch.zeros(1), torch.ones(1)
    assert arguments(x) == ((x,), {})
    assert arguments([x, y]) == ((x, y), {})
    assert arguments({"b": y}) == ((), {"b": y})
