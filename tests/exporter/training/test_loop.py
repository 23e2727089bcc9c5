"""The training loop: its data, its schedule, the state it keeps, what it refuses."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from exporter.training.batches import held_out_parts
from exporter.training.context import Context
from exporter.training.loop import TrainingReport, TrainingSettings, learning_rate, summary, train
from exporter.training.losses import label_loss, mean_loss
from runtimes.errors import BadInput
from tests.exporter.training.points import module_of, task_of


def fit(flat, context, loss=None, label="fit", **changed):
    known = {f.name for f in dataclasses.fields(TrainingSettings)}
    settings = TrainingSettings(
        **{"epochs": 4, "batch_size": 8, "learning_rate": 0.05, **{k: v for k, v in changed.items() if k in known}}
    )
    hooks = {k: v for k, v in changed.items() if k not in known}
    return train(flat, context, loss or label_loss(context), settings, label=label, **hooks)


def state_bytes(flat):
    return [v.numpy().tobytes() for v in flat.module.state_dict().values()]


def test_it_learns_in_place_and_ends_in_eval_mode():
    flat = module_of()
    context = Context(flat, task_of())
    before = mean_loss(flat, context.task.train, label_loss(context))
    report = fit(flat, context)
    assert mean_loss(flat, context.task.train, label_loss(context)) < before / 3
    assert (report.steps, report.stopped) == (4 * (58 // 8), False)
    assert not any(m.training for m in flat.module.modules())


def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine():
    settings = TrainingSettings(learning_rate=0.1, warmup=0.2)
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[6] == pytest.approx(0.05)  # half way down
    assert rates[9] == pytest.approx(0.1 * (1 + math.cos(math.pi * 7 / 8)) / 2)
    assert learning_rate(0, 10, TrainingSettings(learning_rate=0.1, warmup=0.0)) == pytest.approx(0.1)


def test_a_seeded_tenth_is_held_out_and_never_trained_on():
    flat = module_of()
    context = Context(flat, task_of(), seed=3)
    fitted, held_out = held_out_parts(context)
    assert (len(fitted), len(held_out)) == (58, 6)
    everything = np.concatenate([fitted.inputs["x"], held_out.inputs["x"]])
    assert sorted(map(bytes, everything)) == sorted(map(bytes, context.task.train.inputs["x"]))
    assert np.array_equal(held_out.labels, (held_out.inputs["x"][:, :2].sum(1) > 0))
    other = held_out_parts(dataclasses.replace(context, seed=4))[1]
    assert not np.array_equal(held_out.inputs["x"], other.inputs["x"])
    seen = set()

    def loss(outputs, inputs, labels):
        if torch.is_grad_enabled():
            seen.update(map(bytes, inputs["input"].numpy()))
        return label_loss(context)(outputs, inputs, labels)

    fit(flat, context, loss)
    assert seen == set(map(bytes, fitted.inputs["x"]))


@pytest.mark.parametrize("seed", [0, 7])
def test_it_repeats_byte_for_byte_whatever_the_global_generator_is_at(seed):
    original, states = module_of(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)), []
    for noise in (1, 2):
        flat = original.copy()
        torch.manual_seed(noise)
        expected = torch.random.get_rng_state()
        fit(flat, Context(flat, task_of(), seed=seed))
        assert torch.equal(torch.random.get_rng_state(), expected)
        states.append(state_bytes(flat))
    assert states[0] == states[1]


def test_another_seed_shuffles_otherwise():
    states = []
    for seed in (0, 1):
        flat = module_of()
        fit(flat, Context(flat, task_of(), seed=seed))
        states.append(state_bytes(flat))
    assert states[0] != states[1]


def test_the_best_state_by_validation_is_kept():
    flat = module_of()
    scores = iter([5.0, 3.0, 1.0, 2.0, 4.0])
    seen = []

    def validate(held_out):
        assert len(held_out) == 6 and not flat.module.training
        seen.append(state_bytes(flat))
        return next(scores)

    report = fit(flat, Context(flat, task_of()), validate=validate)
    assert (report.best_epoch, report.best_score) == (2, 1.0)
    assert state_bytes(flat) == seen[2] and len(set(map(tuple, seen))) == 5


def test_nothing_gets_worse_than_it_was():
    flat = module_of()
    before = state_bytes(flat)
    report = fit(
        flat, Context(flat, task_of()), learning_rate=0.9, validate=lambda split: float(state_bytes(flat) != before)
    )
    assert report.best_epoch == 0 and state_bytes(flat) == before


def test_an_infinite_score_is_no_state_to_keep():
    scores = iter([math.inf, math.inf, 3.0, math.inf, math.inf])
    flat = module_of()
    assert fit(flat, Context(flat, task_of()), validate=lambda split: next(scores)).best_epoch == 2


def test_when_stopped_it_keeps_the_best_so_far():
    flat = module_of()
    done = []
    context = Context(flat, task_of(), stopped=lambda: len(done) == 10, progress=lambda *fact: done.append(fact))
    before = mean_loss(flat, held_out_parts(context)[1], label_loss(context))
    report = fit(flat, context)
    assert done[-1] == ("fit", 10, 28) and done[0] == ("fit", 1, 28)
    assert (report.steps, report.stopped) == (10, True)
    assert report.best_epoch > 0
    assert mean_loss(flat, held_out_parts(context)[1], label_loss(context)) == pytest.approx(report.best_score)
    assert report.best_score < before and not flat.module.training


def test_the_hooks_know_how_far_it_is():
    flat = module_of()
    before, after = [], []
    fit(
        flat,
        Context(flat, task_of()),
        epochs=1,
        before_step=lambda *fact: before.append(fact),
        after_step=lambda *fact: after.append(fact),
    )
    assert before == [(i, 7) for i in range(7)] and after == [(i + 1, 7) for i in range(7)]


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_statistics_are_frozen_if_the_settings_say_so(frozen):
    flat = module_of(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    before = flat.module[1].running_mean.clone()
    fit(flat, Context(flat, task_of()), frozen_statistics=frozen)
    assert torch.equal(before, flat.module[1].running_mean) == frozen


def test_what_requires_no_gradient_stays():
    flat = module_of()
    flat.module[0].requires_grad_(False)
    before = flat.module[0].weight.clone()
    fit(flat, Context(flat, task_of()))
    assert torch.equal(before, flat.module[0].weight)


def test_a_summary_says_how_it_went():
    report = TrainingReport(10, 2.5, 1, 0.25, True)
    assert summary(report) == (
        "10 steps, stopped by the user; on held-out samples the score went from 2.5 to 0.25 (lower is better), "
        "in epoch 1"
    )


def test_it_refuses_what_cannot_be_trained():
    flat = module_of()
    with pytest.raises(BadInput, match="--data: training needs data; name a task with --data"):
        fit(flat, Context(flat))
    with pytest.raises(BadInput, match="points: the train split has 1 samples; give at least two"):
        fit(flat, Context(flat, task_of(1)))
    with pytest.raises(BadInput, match="points: the train split has no labels; add labels, or use the pass distill"):
        fit(flat, Context(flat, task_of(labels=False)))
    wide = module_of(nn.Linear(4, 3))
    with pytest.raises(BadInput, match=r"points: no output has 2 columns, one a class \(output \[6, 3\]\); use a task"):
        fit(wide, Context(wide, task_of()))
    flat.module.requires_grad_(False)
    with pytest.raises(BadInput, match="fit: no parameter of the model requires a gradient; unfreeze"):
        fit(flat, Context(flat, task_of()))


def test_a_loss_that_is_no_number_ends_training_with_the_best_state():
    flat = module_of()
    context = Context(flat, task_of())
    steps = []

    def loss(outputs, inputs, labels):
        steps.append(1)
        return label_loss(context)(outputs, inputs, labels) * (math.nan if len(steps) > 12 else 1.0)

    with pytest.raises(BadInput, match="fit: the loss became nan; give a smaller learning_rate"):
        fit(flat, context, loss)
    assert not flat.module.training
    assert all(torch.isfinite(v).all() for v in flat.module.state_dict().values())


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("batch_size", 0), ("weight_decay", -0.1), ("warmup", 1.0)],
)
def test_a_setting_out_of_its_range_is_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        TrainingSettings(**{name: value})
