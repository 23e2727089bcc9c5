"""Models whose inputs and outputs are what browsers have trouble with: `boundary.py:NAME` for pocketship export."""

from __future__ import annotations

import torch
from torch import nn


class Narrow(nn.Module):
    """A layer, its output cast to int8."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return (self.linear(x) * 20).to(torch.int8)


def int8_output():
    """Which LiteRT.js has no tensors for."""
    return Narrow(), torch.randn(1, 4)
