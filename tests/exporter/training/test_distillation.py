"""What distillation compares: the losses by hand and by their properties, and the hidden states."""

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

from exporter.training import distillation
from exporter.training.context import Context
from exporter.training.distillation import (
    Settings,
    distillation_loss,
    hidden_states_too,
    jensen_shannon,
    relative_error,
)
from exporter.training.distillation import soft_cross_entropy as soft
from runtimes.errors import BadInput
from tests.exporter.training.students import flat_of, net, task_of

LOGITS = nps.arrays(np.float64, (3, 4), elements=st.floats(-20, 20))
quick = partial(settings, max_examples=50, deadline=None)


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
    assert distillation.chosen_loss(Settings(), context) == "embedding"
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

    assert distillation._matching(model(), model(), ()) == ["blocks.0", "blocks.1", "stem.0"]
    assert distillation._matching(net().module, net().module, ()) == ["0", "1", "2"]


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
