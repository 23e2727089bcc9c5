"""Whether a pass changed a model: by one value, one name or one code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from exporter.compression.model import Model, differs
from exporter.low_bit.weight import LowBitWeight
from exporter.tracing.flat_module import FlatModule

CODES = LowBitWeight(np.ones((2, 2), np.int8), np.ones(2, np.float32), 8, "linear")


def model():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    return Model(FlatModule(module.eval(), (torch.zeros(1, 2),), {}), {"0.weight": CODES})


def test_a_copy_does_not_differ():
    assert not differs(model(), model().copy())


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_one_value_makes_it_differ(name):
    other = model()
    with torch.no_grad():
        other.flat.module.state_dict()[name].view(-1)[0] += 1
    assert differs(model(), other)


def test_a_layer_or_a_code_more_or_less_makes_it_differ():
    thinner, folded = model(), model()
    thinner.flat.module[0] = nn.Linear(2, 3)
    del folded.flat.module[1]
    assert differs(model(), thinner) and differs(model(), folded)
    flat = model().flat
    again = LowBitWeight(CODES.codes, CODES.scale, 8, "linear")
    assert all(differs(Model(flat, {"0.weight": CODES}), Model(flat, low)) for low in ({}, {"0.weight": again}))
