"""Train a classifier on data of your own, export it in int8, print what it cost: `python own_classifier.py`.

Its calibration split finds the ranges of the activations, its test split says what int8 cost.
The data are scikit-learn's wines: 13 numbers a sample, three classes.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_wine
from torch import nn

import exporter

WEIGHTS = Path("wine.pth")


def task():
    """Three splits that share no sample; the names of the classes stand in the train split."""
    values, labels = load_wine(return_X_y=True)
    values = ((values - values.mean(0)) / values.std(0)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(values))
    rows = {"train": order[:90], "calibration": order[90:120], "test": order[120:]}
    splits = {name: {"wine": values[chosen], "labels": labels[chosen]} for name, chosen in rows.items()}
    splits["train"]["classes"] = np.array(["Barolo", "Grignolino", "Barbera"])
    return splits


class Classifier(nn.Module):
    """`[batch, 13]` -> scores of three classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(13, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3))

    def forward(self, wine):
        return {"scores": self.layers(wine)}


def model():
    """What `pocketship export own_classifier.py:model` asks for: the module and example inputs."""
    classifier = Classifier()
    classifier.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return classifier, {"wine": torch.randn(1, 13)}


def train():
    """Write the weights."""
    torch.manual_seed(0)
    classifier, data = Classifier(), task()["train"]
    values, labels = torch.from_numpy(data["wine"]), torch.from_numpy(data["labels"])
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.001)
    for _ in range(100):
        loss = nn.functional.cross_entropy(classifier(values)["scores"], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(classifier.state_dict(), WEIGHTS)


def main():
    """Train, export, print the ledger."""
    train()
    bundle = exporter.export(
        f"{__file__}:model",
        targets=["onnx", "tflite"],
        output="wine-int8",
        quantize="int8",
        data=f"{__file__}:task",
        max_drop=0.05,
        force=True,
    )
    for row in bundle.manifest.ledger:
        print(f"{row.format:<7}{row.stage:<9}{row.size_bytes:>8,} bytes  accuracy {row.accuracy.value:.1%}")


if __name__ == "__main__":
    main()
