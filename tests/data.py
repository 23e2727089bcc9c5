"""Small tasks for the models of tests/models.py, as a user's own: `tests/data.py:NAME` returns a dict of splits."""

from __future__ import annotations

import numpy as np


def clouds(shape: tuple[int, ...], classes: int, name: str, counts: tuple[int, int, int] = (60, 24, 40)) -> dict:
    """Samples around a random centre a class, far enough apart for any model to learn."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, *shape)) * 2
    splits = {}
    for split, count in zip(("train", "calibration", "test"), counts, strict=True):
        labels = np.arange(count) % classes
        values = centres[labels] + generator.normal(size=(count, *shape))
        splits[split] = {name: values.astype(np.float32), "labels": labels}
    return splits


def points() -> dict:
    """For `mlp`: 8 numbers, 4 classes."""
    return clouds((8,), 4, "input")


def images() -> dict:
    """For `cnn`: 3x32x32, 5 classes."""
    return clouds((3, 32, 32), 5, "image")


def two_of_four() -> dict:
    """For `mlp`: 8 numbers, labels of its first 2 classes alone."""
    return clouds((8,), 2, "input")
