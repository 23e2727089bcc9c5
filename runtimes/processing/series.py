"""A time series into a model's input, as docs/preprocessor.md has it: cut or padded, and scaled."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Series


def to_tensor(series: np.ndarray, options: Series) -> np.ndarray:
    """The model's input, float32 `[1, channels, steps]`, of float32 `[channels, n]`.

    Raises BadInput for another number of channels, and for no step at all.
    """
    if series.ndim != 2 or series.shape[0] != options.channels or series.shape[1] < 1 or series.dtype != np.float32:
        raise BadInput(
            f"{series.dtype}{list(series.shape)} is no such series", remedy=f"give float32 [{options.channels}, n]"
        )
    kept = series[:, -options.steps :] if options.keep == "last" else series[:, : options.steps]
    scaled = _scaled(kept.astype(np.float64), options)
    result = np.full((options.channels, options.steps), options.pad, np.float64)
    n = scaled.shape[1]
    result[:, options.steps - n if options.keep == "last" else 0 :][:, :n] = scaled
    return result.astype(np.float32)[np.newaxis]


def _scaled(values: np.ndarray, options: Series) -> np.ndarray:
    if options.scaling == "standard":
        return (values - _column(options.mean)) / _column(options.std)
    if options.scaling == "minmax":
        low, high = _column(options.low), _column(options.high)
        return (values - low) / (high - low)
    if options.scaling == "instance":
        n = values.shape[1]
        centred = values - _sums(values) / n
        return centred / np.sqrt(_sums(centred * centred) / n + options.epsilon)
    return values


def _column(values: Tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float64)[:, np.newaxis]


def _sums(values: np.ndarray) -> np.ndarray:
    """The sum of each row, one after the other: numpy's own sum takes pairs, and gives other bits."""
    return np.add.accumulate(values, axis=1)[:, -1:]
