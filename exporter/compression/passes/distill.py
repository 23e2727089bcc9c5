"""Distillation: train the compressed model to compute what the full-precision one computes; it needs no labels."""

from __future__ import annotations

import dataclasses

from exporter.compression.model import Model, PassReport, differs
from exporter.training.context import Context
from exporter.training.distillation import Settings, chosen_loss, hidden_states_too, zeros_kept
from exporter.training.loop import summary, train


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Train a copy of the model against `context.teacher` on the inputs of the task's train split.

    Every weight that is exactly zero in a tensor of two or more axes stays zero: a pruned layer stays pruned. Raises
    BadInput as `train` and `distillation_loss` do.
    """
    student = model.copy()
    settings = dataclasses.replace(settings, loss=chosen_loss(settings, context))
    with hidden_states_too(student.flat, settings, context) as loss:
        keep_zeros = zeros_kept(student.flat.module)
        report = train(student.flat, context, loss, settings.training, label="distill", after_step=keep_zeros)
    return student, PassReport("distill", dataclasses.asdict(settings), differs(model, student), (summary(report),))
