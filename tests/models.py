"""Small models that the tests export as `tests/models.py:NAME`; each returns (module, example_inputs)."""

from __future__ import annotations

import torch
from torch import nn


def mlp():
    """Two linear layers, one input, one output."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(2, 8)


class TwoInputs(nn.Module):
    """Inputs of the same shape that must not be swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, a, b):
        return {"difference": self.left(a) - 2 * self.right(b), "left": self.left(a)}


def two_inputs():
    """A dict of outputs, keyword inputs."""
    return TwoInputs(), {"a": torch.randn(3, 6), "b": torch.randn(3, 6)}


class Cnn(nn.Module):
    """Convolution, depthwise convolution, batch norm, pooling, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image)
        x = nn.functional.max_pool2d(x + self.depthwise(x), 2)
        return self.head(x.mean((2, 3)))


def cnn():
    """A small CNN on 32x32 images, its batch norm statistics not at their defaults."""
    module = Cnn()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module, torch.randn(1, 3, 32, 32)


class TinyTransformer(nn.Module):
    """Embedding tied to the output layer, attention with a mask, layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.output = nn.Linear(16, 50, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids, mask):
        x = self.embedding(ids)
        bias = (1.0 - mask[:, None, :].float()) * torch.finfo(torch.float32).min
        bias = bias.expand(-1, ids.shape[1], -1).repeat_interleave(2, 0)
        x = self.norm(x + self.attention(x, x, x, attn_mask=bias, need_weights=False)[0])
        return self.output(x)


def transformer():
    """Token ids and mask as int64, shared weights."""
    mask = torch.ones(1, 12, dtype=torch.int64)
    mask[0, 9:] = 0
    return TinyTransformer(), (torch.randint(0, 50, (1, 12)), mask)


class Recurrent(nn.Module):
    """LSTM and GRU, which coremltools takes from no exported program."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, series):
        return self.head(self.gru(self.lstm(series)[0])[0][:, -1])


def recurrent():
    """A series of 7 steps."""
    return Recurrent(), torch.randn(1, 7, 6)


class Nested(nn.Module):
    """Tuples, dicts, a buffer, a constant, an unused input, an output that is an input, one returned twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("offset", torch.arange(4.0))

    def forward(self, pair, options, scale=2.0, *, unused=None):
        a, b = pair
        y = self.linear(a) * scale + b + self.offset + options["shift"]
        return {"y": y, "pair": (y.relu(), a), "again": y}


def nested():
    """Inputs pair_0, pair_1, options_shift and unused; outputs y, pair_0_out, pair_1_out and again."""
    pair = (torch.randn(2, 4), torch.randn(2, 4))
    return Nested(), {"pair": pair, "options": {"shift": torch.randn(2, 4)}, "unused": torch.randn(3)}


class Inexact(nn.Module):
    """What coremltools computes only roughly: the logarithm of a softmax, a reciprocal near zero."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)

    def forward(self, x):
        y = self.linear(x)
        return torch.log_softmax(y * 60, -1), 1 / (x.abs() + 0.002), nn.functional.log_softmax(y, -1)


def inexact():
    """Large logits, small denominators."""
    return Inexact(), torch.randn(2, 8)


class Hearer(nn.Module):
    """A log-mel spectrogram with an axis of one channel, to three scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3, 2), nn.Linear(4, 3)

    def forward(self, mel):
        return {"scores": self.head(self.stem(mel).relu().mean((2, 3))).sigmoid()}


def hearer():
    """[1, 1, 16, 26]: 16 mel bands of 26 frames."""
    return Hearer(), {"mel": torch.randn(1, 1, 16, 26)}


class Detector(nn.Module):
    """Boxes in pixels beside small scores in one tensor, as YOLO gives them: [batch, places, 4 + 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.Linear(8, 10)

    def forward(self, image):
        found = self.head(self.stem(image).relu().flatten(2).transpose(1, 2))
        return {"found": torch.cat([found[..., :4].sigmoid() * 640, (found[..., 4:] - 5).sigmoid()], -1)}


def detector():
    """An image of 32x32, 64 places."""
    return Detector(), {"image": torch.randn(1, 3, 32, 32)}
