"""The training loop of every pass that trains: AdamW, a cosine with warm-up, the best state by held-out samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from benchmarks.tasks.task import Split
from exporter.tracing.flat_module import FlatModule
from exporter.training.batches import held_out_parts, padding_trimmer, shuffled_batches
from exporter.training.context import Context
from exporter.training.losses import Loss, mean_loss
from exporter.training.settings import CHECKED, Count, ProperShare, ShareBelowOne
from runtimes.errors import BadInput

Step = Callable[[int, int], None]
"""(steps done, steps in all)."""


@checked_dataclass(frozen=True, config=CHECKED)
class TrainingSettings:
    """`warmup` is the share of the steps in which the learning rate rises to `learning_rate`; then it falls to zero.

    With `frozen_statistics` BatchNorm normalizes with the statistics it has and keeps them.
    """

    epochs: Count = 5
    learning_rate: ProperShare = 1e-3
    batch_size: Count = 32
    weight_decay: ShareBelowOne = 0.01
    warmup: ShareBelowOne = 0.1
    frozen_statistics: bool = True


@dataclass(frozen=True)
class TrainingReport:
    """What training did; epoch 0 is the state before the first step, and a lower score is better."""

    steps: int
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
            for inputs, labels in shuffled_batches(flat, fit, batch, settings.epochs, context.seed):
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
    return TrainingReport(steps, first_score, best.epoch, best.score, steps < total)


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
