"""Magnitude pruning: the smallest weights of each layer become zero, at once or along a schedule with fine-tuning.

The schedule is that of Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
compression" (2017), begun at a quarter of the training and ended at three quarters: "The Journey Matters: Average
Parameter Count over Pre-training Unifies Sparse and Dense Scaling Laws" (Jin et al., 2025) found that best. In a dense
file the zeros take as many bytes as before: only compression, or a format's sparse encoding, makes them smaller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from exporter.compression.model import Model, PassReport, differs
from exporter.modules.weight_uses import left_out, output_first, weight_uses
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context
from exporter.training.loop import TrainingReport, TrainingSettings, summary, train
from exporter.training.losses import label_loss, mean_loss
from exporter.training.settings import CHECKED, Count, CountOrZero, Patterns, ProperShare, ShareBelowOne
from runtimes.errors import BadInput

NAME = "prune"
KEPT_OF = re.compile(r"([1-9]\d*):([1-9]\d*)")
BLOCK = re.compile(r"([1-9]\d*)x([1-9]\d*)")
PATTERNS = "unstructured, 2:4 (2 of 4 stay) or 4x1 (outputs x inputs)"
Pattern = Annotated[str, Field(pattern=r"^(unstructured|[1-9]\d*[:x][1-9]\d*)$", description=PATTERNS)]


@checked_dataclass(frozen=True, config=CHECKED)
class Settings:
    """What share of each weight becomes zero, in which pattern, and how it gets there.

    `pattern` is "unstructured"; "2:4" (of each 4 weights along the input axis 2 stay, so the sparsity is 0.5; any n:m);
    or "4x1" (blocks of 4 outputs by 1 input go together). With `epochs` the model is fine-tuned on the task's labels,
    zeros staying zero: after pruning ("one-shot"), or while the sparsity rises from `initial`, every `frequency` steps
    from the share `begin` to the share `end` of the training ("cubic"). `layers_out` are patterns (as of a shell) of
    the layers or weights that stay whole; so do embeddings, unless `embeddings` is set.
    """

    sparsity: ShareBelowOne = 0.5
    pattern: Pattern = "unstructured"
    schedule: Literal["one-shot", "cubic"] = "one-shot"
    initial: ShareBelowOne = 0.0
    begin: ShareBelowOne = 0.25
    end: ProperShare = 0.75
    frequency: Count = 10
    epochs: CountOrZero = 0
    learning_rate: ProperShare = 1e-3
    batch_size: Count = 32
    layers_out: Patterns = ()
    embeddings: bool = False

    def __post_init__(self) -> None:
        kept_of = KEPT_OF.fullmatch(self.pattern)
        kept, of = map(int, kept_of.groups()) if kept_of else (0, 1)
        refusals = (
            (kept >= of, f"pattern is {self.pattern!r}", f"give {PATTERNS}"),
            (
                kept and abs(self.sparsity - (1 - kept / of)) > 1e-6,
                f"the pattern {self.pattern} and a sparsity of {self.sparsity}",
                f"set sparsity to {1 - kept / of:.4g}",
            ),
            (self.initial > self.sparsity, f"initial is {self.initial}", "give a share in [0, sparsity]"),
            (self.begin >= self.end, f"begin is {self.begin}, end {self.end}", "give 0 <= begin < end < 1"),
            (self.schedule == "cubic" and self.epochs == 0, "a cubic schedule without training", "set epochs"),
        )
        for refused, what, remedy in refusals:
            if refused:
                raise BadInput(what, remedy=remedy)

    def training(self) -> TrainingSettings:
        """The fine-tuning's settings; without weight decay, which would choose the weights to prune."""
        return TrainingSettings(self.epochs, self.learning_rate, self.batch_size, weight_decay=0.0)


@dataclass(frozen=True)
class Weight:
    """A weight to prune; `transposed_groups` are the groups of the transposed convolution that has it, 0 of others."""

    parameter: nn.Parameter
    transposed_groups: int = 0

    @property
    def rows(self) -> Tensor:
        """Its values `[out, in / groups, ...]`, whatever its layout."""
        groups = self.transposed_groups
        return output_first(self.parameter.detach(), groups) if groups else self.parameter.detach()

    def mask(self, sparsity: float, pattern: str) -> Tensor:
        """True where it stays, of the parameter's own shape."""
        mask = prune_mask(self.rows, sparsity, pattern)
        return output_first(mask, self.transposed_groups) if self.transposed_groups else mask


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Set the smallest weights of each layer to zero.

    Raises BadInput where a layer would be emptied, no layer fits, a pattern in `layers_out` fits none, or training has
    no data.
    """
    if settings.epochs and context.task is None:
        raise BadInput("fine-tuning needs data", where=NAME, remedy="name a task with --data, or set epochs to 0")
    pruned = model.copy()
    chosen, notes = choose(pruned.flat, settings)
    for name, weight in chosen.items():
        _check_not_emptied(name, weight.parameter, settings)
    report = _fine_tune(pruned.flat, chosen, settings, context) if settings.epochs else None
    prune(chosen, settings.sparsity, settings.pattern)
    parameters = [weight.parameter for weight in chosen.values()]
    zeros, total = sum(int((p == 0).sum()) for p in parameters), sum(p.numel() for p in parameters)
    done = f"{zeros / total:.1%} of {total:,} weights in {len(chosen)} layers are zero"
    notes = (done, *_training_notes(report), *notes)
    return pruned, PassReport(NAME, asdict(settings), differs(model, pruned), notes)


def cubic_sparsity(initial: float, final: float, progress: float) -> float:
    """The sparsity s_t = s_f + (s_i - s_f) * (1 - (t - t_0) / (n * dt))^3 of Zhu and Gupta, equation 1.

    `progress` is (t - t_0) / (n * dt), and taken as 0 before the pruning begins and as 1 after its end.
    """
    return final + (initial - final) * (1.0 - min(max(progress, 0.0), 1.0)) ** 3


def prune_mask(weight: Tensor, sparsity: float, pattern: str) -> Tensor:
    """True where a weight `[out, in, ...]` stays, of its shape; False at the `round(sparsity * n)` smallest of n units.

    A unit is one weight, by |w|; or a block, by the sum of its |w|; with "n:m" only the m - n smallest |w| of each m
    consecutive inputs may go ("Accelerating Sparse Deep Neural Networks", Mishra et al., 2021). Equal ones go in order.
    """
    scores = weight.detach().abs()
    kept_of, block = KEPT_OF.fullmatch(pattern), BLOCK.fullmatch(pattern)
    if block:
        rows, columns = map(int, block.groups())
        blocks = scores.movedim((0, 1), (-2, -1)).unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))
        keep = _largest(blocks.sum((-3, -1)), sparsity)  # [..., out / rows, in / columns]
        spread = keep[..., :, None, :, None].expand(blocks.shape).flatten(-2).flatten(-3, -2)  # [..., out, in]
        return spread.movedim((-2, -1), (0, 1))
    if kept_of:
        n, m = map(int, kept_of.groups())
        groups = scores.movedim(1, -1).unflatten(-1, (-1, m))  # [out, ..., in / m, m]
        largest = groups.argsort(dim=-1, descending=True, stable=True)[..., :n]
        protected = groups.scatter(-1, largest, torch.inf)
        scores = protected.flatten(-2).movedim(-1, 1)
    return _largest(scores, sparsity)


@torch.no_grad()
def prune(weights: Mapping[str, Weight], sparsity: float, pattern: str) -> dict[str, Tensor]:
    """Set the smallest weights to zero in place; the masks of what stays, by name."""
    masks = {name: weight.mask(sparsity, pattern) for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.parameter.mul_(masks[name])
    return masks


def choose(flat: FlatModule, settings: Settings) -> tuple[dict[str, Weight], tuple[str, ...]]:
    """The weights to prune by name, and notes on those left whole; one that two layers share counts once.

    A weight that is used as an embedding too is an embedding. Raises BadInput where a pattern in `layers_out` fits no
    layer, or nothing is left to prune.
    """
    parameters = dict(flat.module.named_parameters())
    uses = weight_uses(flat)
    excluded = left_out(tuple(uses), settings.layers_out, NAME)
    chosen, notes = {}, []
    for name, used in uses.items():
        weight = Weight(parameters[name], used[0].groups if used[0].kind == "conv_transpose" else 0)
        shape = list(weight.rows.shape)
        if name in excluded:
            notes.append(f"left whole: {name}, as asked")
        elif not settings.embeddings and any(use.kind == "embedding" for use in used):
            notes.append(f"left whole: {name}, an embedding")
        elif not _divides(settings.pattern, shape):
            notes.append(f"left whole: {name} {shape}, which {settings.pattern} does not divide")
        else:
            chosen[name] = weight
    if not chosen:
        raise BadInput(
            f"no weight can be pruned in the pattern {settings.pattern} ({'; '.join(notes) or 'the model has none'})",
            where=NAME,
            remedy="give another pattern or leave fewer layers out",
        )
    return chosen, tuple(notes)


def _largest(scores: Tensor, sparsity: float) -> Tensor:
    """False at the `round(sparsity * n)` smallest of n scores, the first of equal ones."""
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.flatten().argsort(stable=True)[: round(sparsity * scores.numel())]] = False
    return keep.view(scores.shape)


def _divides(pattern: str, shape: Sequence[int]) -> bool:
    block, kept_of = BLOCK.fullmatch(pattern), KEPT_OF.fullmatch(pattern)
    rows, columns = map(int, block.groups()) if block else (1, int(kept_of[2]) if kept_of else 1)
    return shape[0] % rows == 0 and shape[1] % columns == 0


def _check_not_emptied(name: str, weight: Tensor, settings: Settings) -> None:
    block = BLOCK.fullmatch(settings.pattern)
    units = weight.numel() // (int(block[1]) * int(block[2]) if block else 1)
    if units - round(settings.sparsity * units) < 1:
        raise BadInput(
            f"a sparsity of {settings.sparsity} would empty {name} {list(weight.shape)}",
            where=NAME,
            remedy="give a lower sparsity, or name the layer in layers_out",
        )


def _fine_tune(flat: FlatModule, weights: Mapping[str, Weight], settings: Settings, context: Context) -> TrainingReport:
    """Train with the zeros held; a state short of the wanted sparsity is none to keep, unless there is no other."""
    cubic = settings.schedule == "cubic"
    loss, reached = label_loss(context), not cubic
    masks = {} if cubic else prune(weights, settings.sparsity, settings.pattern)

    def before_step(done: int, total: int) -> None:
        nonlocal masks, reached
        progress = (done / total - settings.begin) / (settings.end - settings.begin)
        if not reached and (done % settings.frequency == 0 or progress >= 1):
            masks = prune(weights, cubic_sparsity(settings.initial, settings.sparsity, progress), settings.pattern)
            reached = progress >= 1

    @torch.no_grad()
    def after_step(done: int, total: int) -> None:
        for name, mask in masks.items():
            weights[name].parameter.mul_(mask)

    return train(
        flat,
        context,
        loss,
        settings.training(),
        label=NAME,
        before_step=before_step,
        after_step=after_step,
        validate=lambda split: mean_loss(flat, split, loss) if reached else torch.inf,
    )


def _training_notes(report: TrainingReport | None) -> tuple[str, ...]:
    if report is None:
        return ()
    if report.best_score == torch.inf:
        return ("fine-tuning ended before the schedule did: pruned at once, without fine-tuning",)
    return (f"fine-tuned: {summary(report)}",)
