"""The loss on labels, and the mean of any loss over a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.tasks.task import Split
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.training.batches import Trim, batches
from exporter.training.context import Context
from runtimes.errors import BadInput

Loss = Callable[[Tensors, Tensors, Tensor | None], Tensor]
"""(outputs, inputs, labels) -> a scalar; the labels are int64 `[batch]`, or None where the task has none."""


def class_output(outputs: Tensors, classes: Sequence[str]) -> str | None:
    """The name of the output `[batch, len(classes)]`, "logits" before any other; None where there is none."""
    fitting = [n for n, v in outputs.items() if v.ndim == 2 and v.is_floating_point() and v.shape[1] == len(classes)]
    if len(classes) < 2 or not fitting:
        return None
    return "logits" if "logits" in fitting else fitting[0]


def as_logits(scores: Tensor) -> Tensor:
    """Logits as they are; probabilities (rows without a negative value that sum to one) as their logarithms.

    Softmax gives either as probabilities.
    """
    values = scores.detach()
    if bool((values >= 0).all()) and torch.allclose(values.sum(1), torch.ones(len(values)), atol=1e-4):
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return scores


def label_loss(context: Context) -> Loss:
    """Cross-entropy of the class logits with the labels, which is what fine-tuning minimizes.

    The loss raises BadInput where the task has no labels or the model no output of one column a class.
    """
    classes = context.task.classes if context.task else ()
    where = context.task.name if context.task else "--data"

    def loss(outputs: Tensors, inputs: Tensors, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise BadInput("the train split has no labels", where=where, remedy="add labels, or use the pass distill")
        name = class_output(outputs, classes)
        if name is None:
            shapes = ", ".join(f"{n} {list(v.shape)}" for n, v in outputs.items())
            raise BadInput(
                f"no output has {len(classes)} columns, one a class ({shapes})",
                where=where,
                remedy="use a task of the model's classes",
            )
        return nn.functional.cross_entropy(as_logits(outputs[name]), labels)

    return loss


@torch.no_grad()
def mean_loss(
    flat: FlatModule, split: Split, loss: Loss, batch_size: int = 64, trim: Trim = lambda inputs: inputs
) -> float:
    """The mean over the samples of a split, each batch counted by its size; the module stays in the mode it is in."""
    values = []
    for inputs, labels in batches(flat, split, batch_size):
        cut = trim(inputs)
        values.append(float(loss(flat.compute(cut), cut, labels)) * len(next(iter(inputs.values()))))
    return math.fsum(values) / len(split)
