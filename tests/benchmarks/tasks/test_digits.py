"""The task digits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from benchmarks.tasks import load_task
from runtimes.errors import BadInput


def test_images_are_the_digits_upscaled_as_torch_does_it(task_called):
    task = task_called("digits")
    assert [len(split) for split in task.splits.values()] == [1097, 200, 500]
    images, labels = (np.concatenate(parts) for parts in zip(*map(_parts, task.splits.values()), strict=True))
    assert images.shape == (1797, 3, 32, 32) and images.dtype == np.float32
    assert (images == images[:, :1]).all(), "grey"
    data = load_digits()
    small = torch.from_numpy(data.images[:, None].astype(np.float32) / 8 - 1)
    wanted = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False).numpy()[:, 0]
    order = np.lexsort(wanted.reshape(1797, -1).round(3).T)
    ours = np.lexsort(images[:, 0].reshape(1797, -1).round(3).T)
    assert np.abs(wanted[order] - images[ours, 0]).max() < 1e-5
    assert (data.target[order] == labels[ours]).all(), "each image kept its label"


def _parts(split):
    return split.inputs["image"], split.labels


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(BadInput, match=r"digits: scikit-learn is not installed; pip install 'pocketship\[demo\]'"):
        load_task("digits")
