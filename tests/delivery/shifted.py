"""A fine-tune to deliver: the zoo's digits model, and the same after it has learned digits that are out of the middle.

`shifted.py:old` and `shifted.py:new` are factories for `pocketship export`, `shifted.py:task` is their task;
docs/delivery.md has what an update of it costs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from benchmarks.tasks import load_task
from benchmarks.tasks.task import Split, Task
from exporter.families.digits import CompactConvolutionalTransformer
from exporter.families.packaged import WEIGHTS
from exporter.sources.weights import read_weights

FARTHEST = 6
BACKGROUND = -1.0
STEPS, BATCH, RATE = 200, 64, 5e-4


def moved(split: Split, seed: int) -> Split:
    """Each image moved by up to `FARTHEST` pixels down or up, and right or left."""
    generator = np.random.default_rng(seed)
    images = np.full_like(split.inputs["image"], BACKGROUND)
    side = images.shape[-1]
    for i, image in enumerate(split.inputs["image"]):
        down, right = generator.integers(-FARTHEST, FARTHEST + 1, 2)
        rows, columns = (slice(max(0, by), side + min(0, by)) for by in (down, right))
        from_rows, from_columns = (slice(max(0, -by), side + min(0, -by)) for by in (down, right))
        images[i, :, rows, columns] = image[:, from_rows, from_columns]
    return Split({"image": images}, split.labels)


def task() -> Task:
    """Digits, moved; the three splits are those of the task `digits`."""
    known = load_task("digits")
    splits = (moved(split, seed) for seed, split in enumerate((known.train, known.calibration, known.test)))
    return Task("shifted digits", "digits out of the middle", known.classes, *splits, known.score)


def few() -> Task:
    """The same with fewer samples to calibrate and to score with."""

    def first(split: Split) -> Split:
        return Split({"image": split.inputs["image"][:150]}, split.labels[:150])

    whole = task()
    return replace(whole, calibration=first(whole.calibration), test=first(whole.test))


def old() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The model as it is, and an example."""
    module = CompactConvolutionalTransformer()
    module.load_state_dict(read_weights(WEIGHTS / "digits.safetensors"))
    return module, {"image": torch.from_numpy(load_task("digits").calibration.inputs["image"][:1])}


def new() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The model after it has learned the moved train split."""
    module, example = old()
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(a) for a in (task().train.inputs["image"], task().train.labels))
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE)
    module.train()
    for _ in range(STEPS):
        rows = torch.randint(0, len(images), (BATCH,))
        loss = nn.functional.cross_entropy(module(images[rows])["logits"], labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval(), example
