"""Grids of 256 values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporter.low_bit.grid import grid_of, range_of
from exporter.low_bit.weight import Range


@pytest.mark.parametrize(
    "reach, scale, zero_point",
    [
        (Range(0.0, 2.55), 0.01, 0),
        (Range(-1.27, 1.28), 0.01, 127),
        (Range(-2.55, 0.0), 0.01, 255),
        (Range(0.0, 0.0), 1.0, 0),
        (Range(-1e-42, 1e-42), 1.0, 0),
    ],
)
def test_grids_by_hand(reach, scale, zero_point):
    grid = grid_of(reach)
    assert (grid.scale, grid.zero_point) == (pytest.approx(scale), zero_point)
    assert grid.scale == float(np.float32(grid.scale)), "what the format stores"


def test_a_tensor_s_own_range_holds_zero():
    assert range_of(torch.tensor([2.0, 5.0])) == Range(0.0, 5.0)
    assert range_of(torch.tensor([-2.0, -5.0])) == Range(-5.0, 0.0)
