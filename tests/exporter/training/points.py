"""A task of points that a line tells apart, and small modules that learn it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.tracing.flat_module import FlatModule


def score(outputs, split):
    return Score("accuracy", np.zeros(len(split)), {})


def task_of(samples=64, seed=0, labels=True):
    """Two classes of points that a line tells apart; the calibration and test splits poison who trains on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    train_split = Split({"x": x}, y if labels else None)
    poison = Split({"x": np.full((4, 4), np.nan, np.float32)}, None)
    return Task("points", "", ("below", "above"), train_split, poison, poison, score)


def module_of(*layers):
    torch.manual_seed(1)
    module = nn.Sequential(*layers or (nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    return FlatModule(module.eval(), (torch.zeros(1, 4),), {})
