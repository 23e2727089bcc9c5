"""The training loop of every pass that trains: AdamW, a cosine with warm-up, the best state by held-out samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.agent.samples import named_for
from benchmarks.tasks.task import Split
from exporter.compression.model import Context
from exporter.tracing.flat_module import FlatModule, Tensors
from runtimes.errors import BadInput

Loss = Callable[[Tensors, Tensors, Tensor | None], Tensor]
"""(outputs, inputs, labels) -> a scalar; the labels are int64 `[batch]`, or None where the task has none."""
Step = Callable[[int, int], None]
"""(steps done, steps in all)."""
Trim = Callable[[Tensors], Tensors]
MASK = "attention_mask"
"""The input that is 1 at the tokens of a sequence and 0 at its padding, as Hugging Face's models name it."""
HELD_OUT = 0.1
"""The share of the train split that chooses the best state; calibration and test splits are never touched."""


@dataclass(frozen=True)
class TrainingSettings:
    """`warmup` is the share of the steps in which the learning rate rises to `learning_rate`; then it falls to zero.

    With `frozen_statistics` BatchNorm normalizes with the statistics it has and keeps them.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.1
    frozen_statistics: bool = True

    def __post_init__(self) -> None:
        allowed = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "learning_rate": (0 < self.learning_rate < 1, "between 0 and 1"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "weight_decay": (0 <= self.weight_decay < 1, "in [0, 1)"),
            "warmup": (0 <= self.warmup < 1, "in [0, 1)"),
        }
        for name, (fits, remedy) in allowed.items():
            if not fits:
                raise BadInput(f"{name} is {getattr(self, name)}", where="training", remedy=f"give a number {remedy}")


@dataclass(frozen=True)
class TrainingReport:
    """What training did; epoch 0 is the state before the first step, and a lower score is better."""

    steps: int
    epochs_done: int
    first_score: float
    best_epoch: int
    best_score: float
    stopped: bool


def train(
    flat: FlatModule,
    context: Context,
    loss: Loss,
    settings: TrainingSettings,
    *,
    label: str,
    before_step: Step | None = None,
    after_step: Step | None = None,
    validate: Callable[[Split], float] | None = None,
) -> TrainingReport:
    """Train `flat` in place on the task's train split; it ends in eval mode, with the best state by validation.

    A tenth of the split, drawn by the seed, is held out: `validate(held_out)`, the mean loss unless given, scores the
    module before the first step, after each epoch and when training is stopped; infinity says "not yet a state to
    keep". `before_step` sees 0 to steps - 1 as done, `after_step` 1 to steps. Parameters that require no gradient stay.
    Repeatable by `context.seed`; the global random generator is left as it was.

    Raises BadInput without a task, with fewer than two samples, with nothing to train, or when the loss is no finite
    number (the best state is restored before).
    """
    fit, held_out = held_out_parts(context)
    parameters = [p for p in flat.module.parameters() if p.requires_grad]
    if not parameters:
        raise BadInput(
            "no parameter of the model requires a gradient", where=label, remedy="unfreeze what is to be trained"
        )
    batch = min(settings.batch_size, len(fit))
    epoch_steps = len(fit) // batch
    total = settings.epochs * epoch_steps
    flat.module.eval()
    trim = padding_trimmer(flat, fit)
    score = validate or (lambda split: mean_loss(flat, split, loss, batch, trim))
    best, steps = _Best(flat.module), 0
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(context.seed)  # for dropout
        optimizer = _optimizer(parameters, settings)
        first_score = _scored(flat, score, held_out)
        best.offer(0, first_score)
        try:
            for inputs, labels in _shuffled(flat, fit, batch, settings.epochs, context.seed):
                if context.stopped():
                    break
                if before_step:
                    before_step(steps, total)
                _training_mode(flat.module, settings.frozen_statistics)
                inputs = trim(inputs)
                value = loss(flat.compute(inputs), inputs, labels)
                _step(optimizer, value, learning_rate(steps, total, settings), label)
                steps += 1
                if after_step:
                    after_step(steps, total)
                context.progress(label, steps, total)
                if steps % epoch_steps == 0:
                    best.offer(steps // epoch_steps, _scored(flat, score, held_out))
            if steps % epoch_steps:
                best.offer(steps // epoch_steps + 1, _scored(flat, score, held_out))
        finally:
            best.restore()
            flat.module.eval()
    return TrainingReport(steps, steps // epoch_steps, first_score, best.epoch, best.score, steps < total)


def summary(report: TrainingReport) -> str:
    """One line for the notes of a pass."""
    stopped = ", stopped by the user" if report.stopped else ""
    return (
        f"{report.steps} steps{stopped}; on held-out samples the score went from {report.first_score:.4g} "
        f"to {report.best_score:.4g} (lower is better), in epoch {report.best_epoch}"
    )


def learning_rate(step: int, total: int, settings: TrainingSettings) -> float:
    """The rate of step 0 to total - 1: linear to the top in the warm-up, then half a cosine towards zero.

    lr * (step + 1) / w for step < w, else lr * (1 + cos(pi * (step - w) / (total - w))) / 2, with w = warmup * total
    (Loshchilov and Hutter, SGDR, 2017, without restarts).
    """
    warm = int(settings.warmup * total)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2


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


class _Best:
    """The best state of a module so far, by the lowest score."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.epoch, self.score = module, 0, math.inf
        self.state: dict[str, Tensor] | None = None

    def offer(self, epoch: int, score: float) -> None:
        if self.state is None or score < self.score or math.isnan(self.score):
            self.epoch, self.score = epoch, score
            self.state = {n: v.detach().clone() for n, v in self.module.state_dict().items()}

    def restore(self) -> None:
        if self.state is not None:
            self.module.load_state_dict(self.state)


def _batch(flat: FlatModule, split: Split) -> tuple[Tensors, Tensor | None]:
    named = named_for(split.inputs, tuple(flat.example))
    inputs = {name: torch.tensor(array) for name, array in named.items()}
    return inputs, None if split.labels is None else torch.tensor(split.labels)


def _shuffled(
    flat: FlatModule, split: Split, size: int, epochs: int, seed: int
) -> Iterator[tuple[Tensors, Tensor | None]]:
    """Full batches only: a last one of a single sample would not do for batch statistics."""
    generator = np.random.default_rng((seed, 1))
    for _ in range(epochs):
        order = generator.permutation(len(split))
        for start in range(0, len(split) - size + 1, size):
            yield _batch(flat, split.rows(order[start : start + size]))


def _scored(flat: FlatModule, score: Callable[[Split], float], held_out: Split) -> float:
    flat.module.eval()
    with torch.no_grad():
        return score(held_out)


def _optimizer(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019); biases and the gains of norms are not decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate)


def _training_mode(module: nn.Module, frozen_statistics: bool) -> None:
    module.train()
    if frozen_statistics:
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, label: str) -> None:
    if not bool(torch.isfinite(loss)):
        raise BadInput(f"the loss became {loss.item()}", where=label, remedy="give a smaller learning_rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
