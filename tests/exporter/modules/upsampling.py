"""A small model that makes images larger: transposed convolutions, plain, in groups of one channel, and with a norm."""

from __future__ import annotations

import torch
from torch import nn

from exporter.tracing.flat_module import FlatModule


def upsampling(groups: int = 8) -> tuple[nn.Module, torch.Tensor]:
    """`[2, 3, 8, 8]` to `[2, 3, 16, 16]`."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(8, 3, 3, 1, 1),
    )
    nn.init.uniform_(module[3].running_mean, -0.5, 0.5)
    nn.init.uniform_(module[3].running_var, 0.5, 1.5)
    return module.eval(), torch.randn(2, 3, 8, 8)


def flat_upsampling(groups: int = 8) -> FlatModule:
    """The same, ready for passes."""
    module, example = upsampling(groups)
    return FlatModule(module, (example,), {})
