"""A model of your own for pocketship: fill in `model` and `task`; both work as they stand, on made-up data.

pocketship export THIS_FILE:model                                            # three formats, proven
pocketship export THIS_FILE:model --quantize int8 --data THIS_FILE:task      # a quarter of the size, and what it costs
"""

import numpy as np
import torch
from torch import nn

LABELS = ["left", "right"]


class Network(nn.Module):
    """Your network; this one looks where a picture of 32 x 32 pixels is brighter."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(16 * 16 * 16, len(LABELS))

    def forward(self, image):
        # A dict names the outputs: in the files, in the app's code and in the reports.
        return {"scores": self.head(self.stem(image).flatten(1))}


def model():
    """The module with its weights, example inputs by the names of forward(), and what is around the model."""
    torch.manual_seed(0)
    network = Network()
    # network.load_state_dict(torch.load("weights.pth", weights_only=True))
    inputs = {"image": torch.rand(1, 3, 32, 32)}
    # A picture is scaled to the input's size, divided by 255, then (x - mean) / std, plane by plane. A text model has
    # {"tokenizer": "tokenizer.json"} instead; leave the third value out where the app makes the tensors itself.
    around = {"labels": LABELS, "image": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}
    return network, inputs, around


def task():
    """Three splits that share no sample: what passes train on, what finds ranges, what is scored.

    The inputs are as the model takes them, one sample a row; labels are rows of LABELS. Without labels a split still
    calibrates int8.
    """
    splits = {}
    for seed, (name, samples) in enumerate({"train": 200, "calibration": 64, "test": 200}.items()):
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, len(LABELS), samples)
        image = generator.random((samples, 3, 32, 32), dtype=np.float32)
        image[labels == 0, :, :, :16] += 0.5
        image[labels == 1, :, :, 16:] += 0.5
        splits[name] = {"image": image, "labels": labels}
    splits["train"]["classes"] = np.array(LABELS)
    return splits
