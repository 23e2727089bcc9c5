"""A task out of what a caller of `exporter.export` holds: a `Task`, splits, arrays, tensors, a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.tasks.task import Task, unlabelled
from benchmarks.tasks.user_data import LABELS, SPLITS, check, split_at_random, task_of
from runtimes.errors import BadInput

INPUT = "x"
"""The name of the only input: the task's goes for the model's, whatever its name."""
WHERE = "data"
FORMS = "give a Task, (X, y), {'train': ..., 'calibration': ..., 'test': ...}, a DataLoader, or arrays alone"


def task_of_data(data: Any, seed: int = 0) -> Task:
    """The task of `data`, checked.

    That is a `Task`; splits, each `(X, y)` or a mapping of arrays with `labels`; `(X, y)`, or a DataLoader of such
    batches, of which 60% become the train split, 20% each calibration and test, by classes and drawn by `seed`; or
    arrays without labels, which calibrate and train, and score nothing. X is an array or a tensor, a sample a row, or a
    mapping from the model's inputs to such.

    Raises BadInput for anything else, and for data that no task can be made of.
    """
    task = data if isinstance(data, Task) else _task(data, seed)
    check(task, WHERE)
    return task


def _task(data: Any, seed: int) -> Task:
    if isinstance(data, Mapping) and data and set(data) <= set(SPLITS):
        return task_of(WHERE, {name: _named(split) for name, split in data.items()}, WHERE)
    arrays = _named(_gathered(data) if _is_loader(data) else data)
    if LABELS not in arrays:
        return unlabelled(WHERE, arrays)
    return split_at_random(arrays, seed, WHERE)


def _named(data: Any) -> dict[str, np.ndarray]:
    """Arrays by name, the labels under `LABELS`, of one split."""
    if isinstance(data, (tuple, list)) and len(data) == 2 and not isinstance(data[0], (int, float, str)):
        inputs, labels = data
        return {**_named(inputs), LABELS: _array(labels)}
    if isinstance(data, Mapping):
        return {str(name): _array(value) for name, value in data.items()}
    return {INPUT: _array(data)}


def _array(value: Any) -> np.ndarray:
    """A tensor or array as an array; words of labels, too."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = value if isinstance(value, np.ndarray) else np.asarray(value) if isinstance(value, (list, tuple)) else None
    if array is None or array.dtype.kind not in "fiubUS":
        kind = type(value).__name__ if array is None else f"an array of {array.dtype}"
        raise BadInput(f"{kind} is no data", where=WHERE, remedy=FORMS)
    return array


def _is_loader(data: Any) -> bool:
    return isinstance(data, Iterable) and hasattr(data, "dataset") and hasattr(data, "batch_size")


def _gathered(loader: Iterable[Any]) -> dict[str, np.ndarray]:
    """All batches of a DataLoader, one after the other."""
    batches = [_named(batch[0] if isinstance(batch, (tuple, list)) and len(batch) == 1 else batch) for batch in loader]
    if not batches:
        raise BadInput("the DataLoader is empty", where=WHERE, remedy="give at least one batch")
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
