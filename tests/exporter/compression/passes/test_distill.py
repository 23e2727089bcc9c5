"""Distillation: a student that becomes its teacher without labels."""

from __future__ import annotations

import pytest
import torch

from exporter.compression.model import Model
from exporter.compression.passes import distill
from exporter.compression.recipe import step
from exporter.training.context import Context
from exporter.training.distillation import Settings
from runtimes.errors import BadInput
from tests.exporter.training.students import net, task_of


@pytest.mark.parametrize("loss", ["soft", "jensen-shannon", "embedding", "hidden"])
def test_the_student_becomes_its_teacher_and_the_given_model_stays(loss):
    teacher, student = net(0), net(1)
    context = Context(teacher, task_of())
    before = [p.clone() for p in student.module.parameters()]
    chosen = Settings(loss=loss, epochs=30, learning_rate=0.02, batch_size=16)
    model, report = distill.apply(Model(student), chosen, context)
    inputs = {"input": torch.randn(200, 4)}
    probabilities = [f.compute(inputs)["output"].softmax(1) for f in (student, model.flat, teacher)]
    assert (probabilities[1] - probabilities[2]).abs().mean() < (probabilities[0] - probabilities[2]).abs().mean() / 3
    assert all(torch.equal(a, b) for a, b in zip(before, student.module.parameters(), strict=True))
    assert report.name == "distill" and report.settings["loss"] == loss
    assert report.notes[0].startswith("150 steps; on held-out samples")


def test_the_report_says_which_loss_was_chosen_and_training_repeats():
    context = Context(net(0), task_of(), seed=5)
    models = [distill.apply(Model(net(1)), Settings(epochs=1), context) for _ in range(2)]
    assert models[0][1] == models[1][1] and models[0][1].settings["loss"] == "soft"
    states = [[v.numpy().tobytes() for v in m.flat.module.state_dict().values()] for m, _ in models]
    assert states[0] == states[1]


def test_what_a_pruning_pass_made_zero_stays_zero():
    teacher, student = net(0), net(1)
    with torch.no_grad():
        student.module[0].weight[::2] = 0.0
        student.module[2].bias.zero_()
    mask = student.module[0].weight == 0
    model, _ = distill.apply(Model(student), Settings(epochs=3, learning_rate=0.02), Context(teacher, task_of()))
    trained = model.flat.module
    assert torch.equal(trained[0].weight == 0, mask)
    assert bool((trained[2].bias != 0).all()) and not torch.equal(trained[0].weight, student.module[0].weight)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loss", "kl", "loss is 'kl'; give one of auto, soft, jensen-shannon, embedding, hidden"),
        ("temperature", 0.0, "temperature is 0.0; give a number above 0"),
        ("hidden_weight", -1.0, "hidden_weight is -1.0; give a number of 0 or more"),
        ("epochs", 0, "epochs is 0; give a whole number of 1 or more"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name, value, message):
    with pytest.raises(BadInput, match=message):
        step("distill", {name: value}, "recipe.yaml")


def test_it_says_whether_it_changed_the_model():
    context = Context(net(0), task_of())
    assert distill.apply(Model(net(1)), Settings(epochs=1), context)[1].changed
    assert not distill.apply(Model(net(0)), Settings(epochs=1), context)[1].changed, "no state is nearer than its own"
