"""PatchMixer: a small mixer for the classification of time series, after TSMixer and Tiny Time Mixers.

TSMixer: Ekambaram et al., "TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series Forecasting", 2023. The
weights were trained from scratch with `python -m exporter.training.zoo series` on the train splits of the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporter.families.packaged import packaged
from exporter.load import Source
from runtimes.processing.preprocessor import Series

EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """What a mixer takes, and how large it is; `patch` divides `steps`."""

    channels: int
    steps: int
    classes: int
    patch: int
    width: int = 128
    blocks: int = 3


MIXERS = {
    "gunpoint": Shape(channels=1, steps=150, classes=2, patch=10),
    "italypower": Shape(channels=1, steps=24, classes=2, patch=4),
    "basicmotions": Shape(channels=6, steps=100, classes=4, patch=10),
}


class Mlp(nn.Module):
    """W2 gelu(W1 x) over the last axis."""

    def __init__(self, length: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(length, hidden), nn.Linear(hidden, length)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., length]` -> the same."""
        return self.down(nn.functional.gelu(self.up(x)))


class Block(nn.Module):
    """Mixes the patches of a channel, then the features of a patch, each with a norm before and a residual around."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.patch_norm, self.patch_mixer = nn.LayerNorm(width), Mlp(patches, 2 * patches)
        self.feature_norm, self.feature_mixer = nn.LayerNorm(width), Mlp(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, patches, width]` -> the same."""
        x = x + self.patch_mixer(self.patch_norm(x).transpose(2, 3)).transpose(2, 3)
        return x + self.feature_mixer(self.feature_norm(x))


class PatchMixer(nn.Module):
    """Instance norm, non-overlapping patches, mixer blocks, the mean over the patches, a linear head.

    What instance norm takes away, each channel's mean and spread, is embedded and added to the channel's patches: level
    and strength tell some classes apart.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch = shape.patch
        self.embedding = nn.Linear(shape.patch, shape.width)
        self.statistics = nn.Linear(2, shape.width)
        patches = shape.steps // shape.patch
        self.positions = nn.Parameter(torch.randn(patches, shape.width) * 0.02)
        self.blocks = nn.Sequential(*[Block(patches, shape.width) for _ in range(shape.blocks)])
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.channels * shape.width, shape.classes)

    def forward(self, series: Tensor) -> dict[str, Tensor]:
        """`[batch, channels, steps]` -> `logits` `[batch, classes]`."""
        batch, channels, steps = series.shape
        mean = series.mean(2, keepdim=True)
        centred = series - mean
        spread = (centred.square().mean(2, keepdim=True) + EPSILON).sqrt()
        patches = (centred / spread).reshape(batch, channels, steps // self.patch, self.patch)
        level = self.statistics(torch.cat([mean, spread], 2)).unsqueeze(2)  # [batch, channels, 1, width]
        x = self.blocks(self.embedding(patches) + level + self.positions)
        return {"logits": self.head(self.norm(x).mean(2).flatten(1))}


def mixer(name: str) -> PatchMixer:
    """The untrained mixer of a row of MIXERS."""
    return PatchMixer(MIXERS[name])


def load(name: str) -> Source:
    """The trained mixer, with real series."""
    shape = MIXERS[name]
    series = Series("series", shape.channels, shape.steps)  # the module itself normalizes
    return packaged(name, mixer(name), {"series": (1, shape.channels, shape.steps)}, (series,))
