"""The sensitivity of layers: the formula, the order, and that only calibration samples are looked at."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.analysis.emulation import signal_to_noise_db
from exporter.compression.analysis.sensitivity import rounded, sensitivities
from exporter.compression.model import Model
from exporter.low_bit.weight import LowBitWeight
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context
from runtimes.errors import BadInput


def score(outputs, split):
    return Score("accuracy", (outputs["output"].argmax(1) == split.labels).astype(float), {})


def task_of(inputs, labels=None, **others):
    split = Split({"input": np.asarray(inputs, np.float32)}, labels)
    poison = Split({"input": np.full_like(split.inputs["input"], np.nan)}, labels)
    return Task("points", "", ("a", "b"), poison, split, poison, score, **others)


class Net(nn.Module):
    """The outputs hang on `strong`; `weak` adds next to nothing, `exact` is ternary as it stands."""

    def __init__(self):
        super().__init__()
        self.exact, self.strong, self.weak = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.exact.weight.data = torch.eye(4) * 0.5
        self.weak.weight.data *= 1e-3

    def forward(self, input):
        x = self.exact(input)
        return self.strong(x) + self.weak(x)


@pytest.fixture
def flat():
    torch.manual_seed(0)
    return FlatModule(Net().eval(), (torch.randn(1, 4),), {})


def test_weights_in_few_bits():
    weight = torch.tensor([[1.27, 0.004, -0.6], [0.5, 0.0, -0.5]])
    assert rounded(weight, 8) == pytest.approx(torch.tensor([[1.27, 0.0, -0.6], [0.5, 0.0, -0.5]]), abs=0.00501)
    assert rounded(weight, 2)[1].tolist() == [0.5, 0.0, -0.5]
    assert len(rounded(torch.randn(1, 100), 4).unique()) <= 15
    assert len(rounded(torch.randn(1, 100), 2).unique()) == 3


def test_the_most_sensitive_come_first(flat):
    inputs = np.random.default_rng(0).normal(size=(40, 4))
    with torch.no_grad():
        labels = flat.module(torch.tensor(inputs, dtype=torch.float32)).argmax(1).numpy()
    told = []
    context = Context(flat, task_of(inputs, labels), progress=lambda *event: told.append(event))
    before = {n: p.clone() for n, p in flat.module.named_parameters()}
    found = sensitivities(Model(flat), context, (8, 2))
    assert [layer.name for layer in found] == ["strong.weight", "weak.weight", "exact.weight"]
    strong, weak, exact = found
    assert (strong.kind, strong.parameters, exact.parameters) == ("linear", 8, 16)
    assert strong.snr_db[2] < strong.snr_db[8] - 20
    assert weak.snr_db[2] > strong.snr_db[2] + 20
    assert exact.snr_db == {8: math.inf, 2: math.inf} or exact.snr_db[8] > 120
    assert exact.score == {8: 1.0, 2: 1.0}
    assert strong.score[2] < 1.0
    assert told == [("sensitivity", done, 3) for done in range(4)]
    assert all(torch.equal(p, before[n]) for n, p in flat.module.named_parameters())


def test_it_is_the_same_as_rounding_that_layer_by_hand(flat):
    inputs = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    found = sensitivities(Model(flat), Context(flat, task_of(inputs)), (4,), samples=35)
    copy = flat.copy()
    copy.module.strong.weight.data = rounded(flat.module.strong.weight, 4)
    with torch.no_grad():
        want, got = (f.compute({"input": torch.from_numpy(inputs[:35])}) for f in (flat, copy))
    strong = next(layer for layer in found if layer.name == "strong.weight")
    assert strong.snr_db[4] == pytest.approx(signal_to_noise_db(want, got), rel=1e-6)
    assert strong.score == {}, "no labels"


def test_without_a_task_the_example_serves_and_low_bit_weights_are_passed_over(flat):
    ternary = LowBitWeight(np.zeros((4, 4), np.int8), np.ones(4, np.float32), 2, "linear")
    found = sensitivities(Model(flat, {"exact.weight": ternary}), Context(flat), (2,))
    assert [layer.name for layer in found] == ["strong.weight", "weak.weight"]
    assert all(layer.score == {} for layer in found)


def test_a_task_with_a_gallery_has_no_score_here(flat):
    inputs = np.random.default_rng(0).normal(size=(8, 4))
    task = task_of(inputs, np.zeros(8, np.int64), gallery=Split({"input": inputs}))
    assert sensitivities(Model(flat), Context(flat, task), (8,))[0].score == {}


def test_samples_that_do_not_fit(flat):
    with pytest.raises(BadInput, match=r"forward\(\) raised RuntimeError on inputs input=\[3, 5\]"):
        sensitivities(Model(flat), Context(flat, task_of(np.ones((3, 5)))))
