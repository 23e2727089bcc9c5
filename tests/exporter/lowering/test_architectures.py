"""Architectures through all three formats, each compared with PyTorch in its runtime. Slow: CI runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from exporter.load import load
from exporter.sources.inputs import randomized
from exporter.sources.source import SourceOptions
from exporter.tracing.flat_module import FlatModule

pytestmark = pytest.mark.slow
TARGETS = ("onnx", "tflite", "coreml")


class Upsampling(nn.Module):
    """Transposed convolution, group norm, both kinds of interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.norm, self.last = nn.GroupNorm(2, 6), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x):
        y = self.norm(self.up(nn.functional.gelu(self.down(x))))
        smooth = nn.functional.interpolate(y, scale_factor=2, mode="bilinear")
        return torch.sigmoid(self.last(smooth)), nn.functional.interpolate(y, scale_factor=2, mode="nearest")


class Gru(nn.Module):
    """Two layers, with the state as a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.GRU(5, 7, 2, batch_first=True), nn.Linear(7, 2)

    def forward(self, series):
        values, state = self.layers(series)
        return self.head(values), state


class Mixer(nn.Module):
    """Patches, then layers across tokens and across channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(16), nn.LayerNorm(16)])
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.channels = nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return (x + self.channels(self.norms[1](x))).mean(1)


def convolutions_1d() -> Any:
    layers = [nn.Conv1d(2, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.SiLU(), nn.MaxPool1d(2)]
    layers += [nn.Conv1d(8, 8, 3, dilation=2, padding=2, groups=4), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(1, 2, 64)


def batch_norm_mlp() -> Any:
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(), nn.Linear(16, 4), nn.Softmax(-1)]
    return nn.Sequential(*layers), torch.randn(2, 8)


def pools() -> Any:
    layers = [nn.Conv2d(3, 4, 3, padding="same"), nn.MaxPool2d(3, 2, 1), nn.ReLU6(), nn.AvgPool2d(3, 2, 1)]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)]
    return nn.Sequential(*layers, nn.LeakyReLU()), torch.randn(1, 3, 16, 16)


def encoder() -> Any:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2), torch.randn(1, 6, 16)


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**SIZES, "vocab_size": 64, "max_position_embeddings": 40}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}


def text_model(name: str, config: str, **settings: Any) -> Any:
    """A tiny transformers model for text, and 12 tokens of which 3 are padding."""
    import transformers

    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    mask = torch.ones(1, 12, dtype=torch.int64)
    mask[0, 9:] = 0
    return model, {"input_ids": torch.randint(5, 60, (1, 12)), "attention_mask": mask}


def image_model(name: str, config: str, **settings: Any) -> Any:
    """A tiny transformers model for images."""
    import transformers

    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    return model, {"pixel_values": torch.randn(1, 3, 64, 64)}


DISTILBERT = {"vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32}

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "upsampling": lambda: (Upsampling(), torch.randn(1, 3, 16, 16)),
    "gru": lambda: (Gru(), torch.randn(2, 6, 5)),
    "mixer": lambda: (Mixer(), torch.randn(1, 3, 32, 32)),
    "convolutions-1d": convolutions_1d,
    "batch-norm-mlp": batch_norm_mlp,
    "pools": pools,
    "encoder": encoder,
    "bert": lambda: text_model("BertForSequenceClassification", "BertConfig", **TEXT),
    "distilbert": lambda: text_model("DistilBertModel", "DistilBertConfig", **DISTILBERT),
    "electra": lambda: text_model("ElectraForTokenClassification", "ElectraConfig", embedding_size=16, **TEXT),
    "roberta": lambda: text_model("RobertaForMaskedLM", "RobertaConfig", **TEXT),
    "mpnet": lambda: text_model("MPNetModel", "MPNetConfig", **TEXT),
    "albert": lambda: text_model("AlbertModel", "AlbertConfig", embedding_size=16, **TEXT),
    "vit": lambda: image_model("ViTForImageClassification", "ViTConfig", image_size=64, patch_size=16, **SIZES),
    "convnext": lambda: image_model("ConvNextForImageClassification", "ConvNextConfig", **STAGES),
    "resnet": lambda: image_model("ResNetForImageClassification", "ResNetConfig", embedding_size=8, **STAGES),
}
TIMM = (
    "resnet18",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "mixer_s32_224",
)
TIMM += ("mobilevit_xxs", "ghostnet_050", "repvgg_a0", "levit_128s", "edgenext_xx_small")


def check(module: nn.Module, example: Any, target: str, lower_here: Any, computes: Any, **chosen: Any) -> None:
    """Lower, and compare with PyTorch on another input."""
    args, kwargs = ((), example) if isinstance(example, dict) else ((example,), {})
    flat = FlatModule(module.eval(), args, kwargs)
    artifact = lower_here(module, example, target, **chosen)
    fresh = randomized(flat.example, 5)
    fresh |= {name: value for name, value in flat.example.items() if name == "attention_mask"}
    with torch.no_grad():
        computes(artifact.path, fresh, flat.compute(dict(fresh)), 1e-2 if chosen else 1e-4)


@pytest.mark.matrix(one_in=8)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture(name, target, lower_here, computes):
    torch.manual_seed(0)
    check(*ARCHITECTURES[name](), target, lower_here, computes)


@pytest.mark.matrix(one_in=4)
@pytest.mark.parametrize(
    "name", ["bert", "distilbert", "electra", "roberta", "mpnet", "albert", "vit", "encoder", "mixer"]
)
def test_half_precision_of_core_ml(name, lower_here, computes):
    torch.manual_seed(0)
    check(*ARCHITECTURES[name](), "coreml", lower_here, computes, coreml_precision="float16")


@pytest.mark.matrix(one_in=8)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", TIMM)
def test_a_timm_architecture(name, target, lower_here, computes):
    pytest.importorskip("timm", reason="timm comes with pocketship[demo]")
    source = load(f"timm:{name}", SourceOptions())
    check(source.module, source.args[0], target, lower_here, computes)
