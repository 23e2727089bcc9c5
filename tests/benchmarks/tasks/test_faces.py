"""The task faces."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from skimage.data import lfw_subset

from benchmarks.tasks import load_task
from runtimes.errors import BadInput


def test_faces_come_normalized_as_rnet_takes_them(task_called):
    task = task_called("faces")
    assert [len(split) for split in task.splits.values()] == [80, 40, 80]
    for split in task.splits.values():
        assert split.labels.mean() == 0.5
        assert split.inputs["image"].shape[1:] == (3, 24, 24)
    images = np.concatenate([split.inputs["image"] for split in task.splits.values()])
    labels = np.concatenate([split.labels for split in task.splits.values()])
    assert -127.5 / 128 <= images.min() < -0.9 and 0.9 < images.max() <= 127.5 / 128
    brightness = images.mean((1, 2, 3)) * 128 + 127.5
    first_faces = lfw_subset()[:100].mean((1, 2)) * 255
    assert abs(brightness[labels == 1].mean() - first_faces.mean()) < 1, "label 1 are the file's first hundred"
    assert abs(brightness[labels == 0].mean() - first_faces.mean()) > 5


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(BadInput, match=r"faces: scikit-image is not installed; pip install 'pocketship\[demo\]'"):
        load_task("faces")
