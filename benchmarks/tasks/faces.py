"""Face or not: scikit-image's 100 faces and 100 pieces of background from Labeled Faces in the Wild, grey, 25x25."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.tasks import TASKS
from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Split, Task, stratified
from runtimes.errors import BadInput

SIDE = 24
SIZES = (80, 40, 80)
"""Train, calibration and test; together all images."""
SEED = 0


def load(name: str) -> Task:
    """The task; its input `image` is float32 `[3, 24, 24]`: bilinear, the grey three times, (pixel - 127.5) / 128.

    So RNet takes it.

    Raises BadInput where scikit-image is not installed.
    """
    try:
        from scipy.ndimage import zoom
        from skimage.data import lfw_subset
    except ImportError as error:
        raise BadInput("scikit-image is not installed", where=name, remedy="pip install 'pocketship[demo]'") from error
    pixels = lfw_subset().astype(np.float32) * 255  # [200, 25, 25]; the file holds 0 to 1
    scale = SIDE / pixels.shape[1]
    images = zoom((pixels - 127.5) / 128, (1, scale, scale), order=1, mode="nearest", grid_mode=True)
    images = np.repeat(images[:, None], 3, axis=1)  # [200, 3, 24, 24]
    labels = np.repeat([1, 0], len(pixels) // 2)  # the faces come first
    everything = Split({"image": images}, labels)
    train, calibration, test = (everything.rows(rows) for rows in stratified(labels, SIZES, SEED))
    classes = ("not a face", "face")
    return Task(name, TASKS[name].description, classes, train, calibration, test, partial(accuracy, classes))
