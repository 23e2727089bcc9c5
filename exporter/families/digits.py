"""CCT-2/3x2 (Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers", 2021), for handwritten digits.

The weights were trained from scratch with `python -m exporter.training.zoo digits` on the train split of the task.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from exporter.families.packaged import packaged
from exporter.load import Source
from runtimes.processing.preprocessor import Image

SIDE = 32
CLASSES = 10


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value in one projection without bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]` -> the same."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, -1, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each [batch, heads, tokens, head width]
        weights = ((query * self.head_width**-0.5) @ key.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(batch, tokens, -1))


class EncoderLayer(nn.Module):
    """CCT's layer: the second norm is of the residual stream itself, not of a branch."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x = x + Attn(LN(x)); x = LN1(x); x = x + MLP(x)."""
        x = self.norm1(x + self.self_attn(self.pre_norm(x)))
        return x + self.linear2(nn.functional.gelu(self.linear1(x)))


class CompactConvolutionalTransformer(nn.Module):
    """CCT for images: convolutions make the tokens, then learned positions, layers, sequence pooling, a linear head.

    With the defaults CCT-2/3x2: 2 layers, 2 convolutions of 3x3; 283,723 parameters for 32x32 and 10 classes.
    """

    def __init__(
        self, layers: int = 2, width: int = 128, heads: int = 2, ratio: int = 1, kernel: int = 3, convolutions: int = 2
    ) -> None:
        super().__init__()
        channels = [3, *[64] * (convolutions - 1), width]
        stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
        self.tokenizer = nn.Sequential()
        for before, after in pairwise(channels):
            convolution = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            self.tokenizer.extend([convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1)])
        with torch.no_grad():
            tokens = self.tokenizer(torch.zeros(1, 3, SIDE, SIDE)).flatten(2).shape[2]
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, tokens, width), std=0.2))
        self.layers = nn.Sequential(*[EncoderLayer(width, heads, ratio * width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.attention_pool = nn.Linear(width, 1)
        self.head = nn.Linear(width, CLASSES)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`[batch, 3, 32, 32]` -> `logits` `[batch, 10]`."""
        x = self.tokenizer(image).flatten(2).transpose(1, 2) + self.positions  # [batch, tokens, width]
        x = self.norm(self.layers(x))
        weights = self.attention_pool(x).softmax(1)  # [batch, tokens, 1]
        return {"logits": self.head((weights * x).sum(1))}


def load(name: str) -> Source:
    """The trained network, with real images."""
    image = Image("image", SIDE, SIDE, channels="gray3", divisor=127.5, mean=(1.0,))  # -1 to 1, white on black
    return packaged(name, CompactConvolutionalTransformer(), {"image": (1, 3, SIDE, SIDE)}, (image,))
