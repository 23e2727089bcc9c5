"""Distillation: the losses by hand and by their properties, and a student that becomes its teacher without labels."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.model import Context, Model
from exporter.compression.passes import distill
from exporter.compression.passes.distill import (
    Settings,
    distillation_loss,
    hidden_states_too,
    jensen_shannon,
    relative_error,
)
from exporter.compression.passes.distill import soft_cross_entropy as soft
from exporter.tracing.flat_module import FlatModule
from runtimes.errors import BadInput

LOGITS = nps.arrays(np.float64, (3, 4), elements=st.floats(-20, 20))
quick = partial(settings, max_examples=50, deadline=None)


def task_of(classes=("a", "b", "c")):
    x = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    split = Split({"x": x}, None)
    return Task("points", "", classes, split, split, split, lambda outputs, split: Score("none", np.zeros(96), {}))


def flat_of(module):
    return FlatModule(module.eval(), (torch.zeros(1, 4),), {})


def net(seed=0, hidden=8):
    torch.manual_seed(seed)
    return flat_of(nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)))


class TwoHeads(nn.Module):
    """Class logits and a box."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.boxes = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return {"box": self.boxes(x), "logits": self.scores(x)}


def test_soft_cross_entropy_by_hand():
    teacher = torch.tensor([[0.0, math.log(3)]])  # 1/4, 3/4
    student = torch.tensor([[0.0, 0.0]])
    assert soft(student, teacher).item() == pytest.approx(math.log(2))
    assert soft(teacher, teacher).item() == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))


@quick()
@given(LOGITS, LOGITS)
def test_the_gradient_of_soft_cross_entropy_is_the_difference_of_the_probabilities(a, b):
    student = torch.tensor(a, requires_grad=True)
    teacher = torch.tensor(b)
    soft(student, teacher).backward()
    expected = (torch.tensor(a).softmax(-1) - teacher.softmax(-1)) / 3
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-12)
    assert soft(torch.tensor(a), teacher) >= soft(teacher, teacher) - 1e-12  # Gibbs


def test_jensen_shannon_by_hand():
    p, q = np.array([0.25, 0.75]), np.array([0.5, 0.5])
    m = (p + q) / 2
    expected = (np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2
    assert jensen_shannon(torch.tensor(p).log()[None], torch.tensor(q).log()[None]).item() == pytest.approx(expected)
    apart = jensen_shannon(torch.tensor([[800.0, 0.0]]), torch.tensor([[0.0, 800.0]]))
    assert apart.item() == pytest.approx(math.log(2))


@quick()
@given(LOGITS, LOGITS)
def test_jensen_shannon_is_symmetric_bounded_by_ln_2_and_zero_at_equality(a, b):
    a, b = torch.tensor(a), torch.tensor(b)
    value = jensen_shannon(a, b)
    torch.testing.assert_close(value, jensen_shannon(b, a), rtol=0, atol=1e-12)
    assert -1e-12 <= value <= math.log(2) + 1e-12
    assert abs(jensen_shannon(a, a + 3.0)) < 1e-12
    if (a.softmax(-1) - b.softmax(-1)).abs().max() > 1e-4:
        assert value > 0


@quick()
@given(nps.arrays(np.float64, (2, 5, 3), elements=st.floats(0.1, 5)))
def test_the_relative_error_of_unit_vectors_is_twice_one_minus_their_cosine(values):
    a, b = nn.functional.normalize(torch.tensor(values), dim=-1)
    expected = 2 * (1 - nn.functional.cosine_similarity(a, b)).mean()
    torch.testing.assert_close(relative_error(a, b), expected, rtol=0, atol=1e-12)
    assert relative_error(a, torch.zeros_like(a)) > 1e30  # finite, whatever the teacher gives


@pytest.mark.parametrize("loss", ["auto", "soft", "jensen-shannon"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_are_compared_at_a_temperature(loss, temperature):
    teacher, student = net(0), net(1)
    inputs = {"input": torch.randn(5, 4)}
    given_loss = distillation_loss(Settings(loss=loss, temperature=temperature), Context(teacher, task_of()))
    formula = jensen_shannon if loss == "jensen-shannon" else soft
    a, b = (flat.compute(inputs)["output"] / temperature for flat in (student, teacher))
    torch.testing.assert_close(given_loss(student.compute(inputs), inputs, None), formula(a, b) * temperature**2)


def test_other_outputs_count_too():
    torch.manual_seed(0)
    teacher, student = flat_of(TwoHeads()), flat_of(TwoHeads())
    inputs = {"x": torch.randn(5, 4)}
    a, b = student.compute(inputs), teacher.compute(inputs)
    value = distillation_loss(Settings(), Context(teacher, task_of()))(a, inputs, None)
    torch.testing.assert_close(value, soft(a["logits"], b["logits"]) + relative_error(a["box"], b["box"]))


def test_without_class_logits_the_outputs_are_vectors():
    teacher, student = net(0), net(1)
    inputs = {"input": torch.randn(5, 4)}
    context = Context(teacher, task_of(classes=("one", "two")))
    assert distill.chosen_loss(Settings(), context) == "embedding"
    value = distillation_loss(Settings(), context)(student.compute(inputs), inputs, None)
    torch.testing.assert_close(
        value, relative_error(student.compute(inputs)["output"], teacher.compute(inputs)["output"])
    )


@pytest.mark.parametrize(("loss", "weight"), [("hidden", 0.0), ("soft", 0.5)])
def test_hidden_states_of_one_name_and_shape_are_compared(loss, weight):
    teacher, student = net(0), net(1)
    inputs = {"input": torch.randn(5, 4)}
    chosen = Settings(loss=loss, hidden_weight=weight, hidden_layers=("0", "1"))
    context = Context(teacher, task_of())
    with hidden_states_too(student, chosen, context) as given_loss:
        outputs = student.compute(inputs)
        value = given_loss(outputs, inputs, None)
        states = [[flat.module[:i](inputs["input"]) for i in (1, 2)] for flat in (student, teacher)]
    hidden = (relative_error(states[0][0], states[1][0]) + relative_error(states[0][1], states[1][1])) / 2
    expected = hidden if loss == "hidden" else soft(outputs["output"], teacher.compute(inputs)["output"]) + 0.5 * hidden
    torch.testing.assert_close(value, expected)
    assert not any(m._forward_hooks for flat in (teacher, student) for m in flat.module.modules())


def test_by_default_the_elements_of_the_outermost_lists_are_compared():
    def model():
        blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)])
        return nn.ModuleDict({"blocks": blocks, "stem": nn.Sequential(nn.Linear(4, 4)), "head": nn.Linear(4, 3)})

    assert distill._matching(model(), model(), ()) == ["blocks.0", "blocks.1", "stem.0"]
    assert distill._matching(net().module, net().module, ()) == ["0", "1", "2"]


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


def test_it_refuses_what_cannot_be_compared():
    context = Context(net(0), task_of())
    with pytest.raises(BadInput, match="loss: hidden states are not compared here; give soft, jensen-shannon or auto"):
        distillation_loss(Settings(loss="hidden"), context)
    inputs = {"input": torch.randn(2, 4)}
    with pytest.raises(BadInput, match="loss: the outputs output cannot be compared by soft; give auto"):
        wrong = Context(net(0), task_of(("one", "two")))
        distillation_loss(Settings(loss="soft"), wrong)(net(1).compute(inputs), inputs, None)
    with pytest.raises(BadInput, match="loss: the outputs output cannot be compared by embedding; give auto"):
        distillation_loss(Settings(loss="embedding"), context)({"x": torch.zeros(2)}, inputs, None)
    with (
        pytest.raises(
            BadInput, match=r"hidden_layers: student and teacher share no module named blocks\.\*; give patterns"
        ),
        hidden_states_too(net(1), Settings(loss="hidden", hidden_layers=("blocks.*",)), context),
    ):
        pass
    narrow = net(1, hidden=6)
    with (
        pytest.raises(BadInput, match=r"hidden_layers: student and teacher have no hidden states of one shape \(0\)"),
        hidden_states_too(narrow, Settings(loss="hidden", hidden_layers=("0",)), context) as given_loss,
    ):
        given_loss(narrow.compute(inputs), inputs, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loss", "kl", "loss is 'kl'; give one of auto, soft, jensen-shannon, embedding, hidden"),
        ("temperature", 0.0, "temperature is 0.0; give a number above 0"),
        ("hidden_weight", -1.0, "hidden_weight is -1.0; give 0 or more"),
        ("epochs", 0, "epochs is 0; give a number 1 or more"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name, value, message):
    with pytest.raises(BadInput, match=message):
        Settings(**{name: value})
