"""Handwritten digits: scikit-learn's 1,797 images of 8x8 (from UCI's optical recognition of handwritten digits)."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.tasks import TASKS
from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Split, Task, stratified
from runtimes.errors import BadInput

SIDE = 32
SIZES = (1097, 200, 500)
"""Train, calibration and test; together all images."""
SEED = 0


def load(name: str) -> Task:
    """The task; its input `image` is float32 `[3, 32, 32]` within -1..1: bilinear upscaling, the grey three times.

    Raises BadInput where scikit-learn is not installed.
    """
    try:
        from scipy.ndimage import zoom
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BadInput("scikit-learn is not installed", where=name, remedy="pip install 'pocketship[demo]'") from error
    data = load_digits()
    images = data.images.astype(np.float32) / 8 - 1  # [1797, 8, 8]; the pixels are 0 to 16
    scale = SIDE / images.shape[1]
    images = zoom(images, (1, scale, scale), order=1, mode="nearest", grid_mode=True)
    images = np.repeat(images[:, None], 3, axis=1)  # [1797, 3, 32, 32]
    labels = data.target.astype(np.int64)
    everything = Split({"image": images}, labels)
    train, calibration, test = (everything.rows(rows) for rows in stratified(labels, SIZES, SEED))
    classes = tuple("0123456789")
    return Task(name, TASKS[name].description, classes, train, calibration, test, partial(accuracy, classes))
