"""The data of training: a part held out, batches in order or shuffled, and padding cut where it does not count."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.agent.samples import named_for
from benchmarks.tasks.task import Split
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.training.context import Context
from runtimes.errors import BadInput

Trim = Callable[[Tensors], Tensors]
MASK = "attention_mask"
"""The input that is 1 at the tokens of a sequence and 0 at its padding, as Hugging Face's models name it."""
HELD_OUT = 0.1
"""The share of the train split that chooses the best state; calibration and test splits are never touched."""


def held_out_parts(context: Context) -> tuple[Split, Split]:
    """The train split in two, shuffled by the seed: what to fit, and the last tenth (one sample at least).

    Raises BadInput without a task, or when the train split has fewer than two samples.
    """
    if context.task is None:
        raise BadInput("training needs data", where="--data", remedy="name a task with --data")
    split = context.task.train
    if len(split) < 2:
        raise BadInput(f"the train split has {len(split)} samples", where=context.task.name, remedy="give at least two")
    order = np.random.default_rng(context.seed).permutation(len(split))
    edge = len(split) - max(1, round(HELD_OUT * len(split)))
    return split.rows(order[:edge]), split.rows(order[edge:])


def batches(flat: FlatModule, split: Split, size: int) -> Iterator[tuple[Tensors, Tensor | None]]:
    """A split in order, `size` samples at a time, the rest last: inputs by the module's names, and labels.

    Raises BadInput when the inputs of task and model do not fit.
    """
    for start in range(0, len(split), size):
        yield _batch(flat, split.rows(slice(start, start + size)))


def _batch(flat: FlatModule, split: Split) -> tuple[Tensors, Tensor | None]:
    named = named_for(split.inputs, tuple(flat.example))
    inputs = {name: torch.tensor(array) for name, array in named.items()}
    return inputs, None if split.labels is None else torch.tensor(split.labels)


def shuffled_batches(
    flat: FlatModule, split: Split, size: int, epochs: int, seed: int
) -> Iterator[tuple[Tensors, Tensor | None]]:
    """Full batches only: a last one of a single sample would not do for batch statistics."""
    generator = np.random.default_rng((seed, 1))
    for _ in range(epochs):
        order = generator.permutation(len(split))
        for start in range(0, len(split) - size + 1, size):
            yield _batch(flat, split.rows(order[start : start + size]))


@torch.no_grad()
def padding_trimmer(flat: FlatModule, split: Split) -> Trim:
    """A function that cuts a batch of token sequences to the longest one: what is computed for padding is for nothing.

    It gives a batch as it is where the model has no `attention_mask`, where an input has another shape than that, or
    where the outputs of a few samples are not the same either way.
    """
    inputs, _ = next(batches(flat, split, 4))
    mask = inputs.get(MASK)
    if mask is None or mask.ndim != 2 or any(value.shape != mask.shape for value in inputs.values()):
        return lambda batch: batch
    try:
        whole, cut = flat.compute(inputs), flat.compute(_trimmed(inputs))
    except (RuntimeError, ValueError, IndexError):  # a module for one length only
        return lambda batch: batch
    same = all(v.shape == cut[n].shape and torch.allclose(v, cut[n], rtol=1e-3, atol=1e-5) for n, v in whole.items())
    return _trimmed if same else lambda batch: batch


def _trimmed(inputs: Tensors) -> Tensors:
    length = int(inputs[MASK].any(0).nonzero().max()) + 1 if inputs[MASK].any() else 1
    return {name: value[:, :length] for name, value in inputs.items()}
