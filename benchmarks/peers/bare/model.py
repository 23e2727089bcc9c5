"""The two models of the comparison, as a user's own script would load them from a Hugging Face folder."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers


class Sentence(torch.nn.Module):
    """all-MiniLM-L6-v2 with its mean pooling, as its model card spells it out."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(folder)

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).float()
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=-1)


class Logits(torch.nn.Module):
    """An image classifier that returns its logits."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.classifier = transformers.AutoModelForImageClassification.from_pretrained(folder)

    def forward(self, pixel_values):
        return self.classifier(pixel_values).logits


def load() -> tuple[torch.nn.Module, dict[str, torch.Tensor], Path]:
    """The module and its inputs for `SCRIPT minilm|cnn FOLDER OUTPUT`, and the output folder."""
    name, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if name == "cnn":
        return Logits(folder).eval(), {"pixel_values": torch.randn(1, 3, 224, 224)}, output
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("a sentence", padding="max_length", max_length=128, return_tensors="pt")
    return Sentence(folder).eval(), dict(inputs), output


def save_cnn(folder: Path) -> None:
    """A ResNet-18 of 1,000 classes with random weights, where a user would have a fine-tuned one."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], layer_type="basic", hidden_sizes=[64, 128, 256, 512], num_labels=1000
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)


if __name__ == "__main__":
    save_cnn(Path(sys.argv[1]))
