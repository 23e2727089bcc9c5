"""Granularities by hand, what they refuse, and the table's way through a file."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.low_bit.weight import Granularity, LowBitWeight, Range, load_low_bit, save_low_bit


def test_scales_by_hand():
    scale = np.array([[2, 3], [5, 7]], np.float32)
    spread = Granularity(group=32).along(scale, (2, 64))
    assert spread.shape == (2, 64)
    assert spread[0].tolist() == [2] * 32 + [3] * 32 and spread[1].tolist() == [5] * 32 + [7] * 32
    assert Granularity().along(np.ones(4), (4, 3, 2, 2)).shape == (4, 1, 1, 1)
    assert Granularity(axis=1).along(np.ones(3), (4, 3, 2, 2)).shape == (1, 3, 1, 1)
    assert Granularity(group=64).scale_shape((3, 2, 32)) == (3, 1)


@pytest.mark.parametrize(("axis", "group"), [(0, 48), (0, 0), (1, 32)])
def test_a_group_that_no_format_has(axis, group):
    with pytest.raises(
        ValueError, match=rf"no group of {group} along axis {axis}: give one of \(32, 64, 128\), and axis 0"
    ):
        Granularity(axis, group)


def test_a_row_that_is_no_whole_number_of_groups():
    with pytest.raises(ValueError, match="a row of 40 values is no whole number of groups of 32"):
        Granularity(group=32).scale_shape((2, 40))


def test_the_table_travels_in_a_file(tmp_path):
    codes, scale = np.ones((2, 64), np.int8), np.ones((2, 2), np.float32)
    grouped = LowBitWeight(codes, scale, 4, "linear", "static", Range(0, 1), Range(-1, 1), Granularity(group=32))
    turned = LowBitWeight(codes, scale[0], 8, "conv_transpose", granularity=Granularity(axis=1))
    save_low_bit({"a": grouped, "b": turned}, tmp_path / "low_bit.npz")
    back = load_low_bit(tmp_path / "low_bit.npz")
    assert (back["a"].granularity, back["b"].granularity) == (Granularity(group=32), Granularity(axis=1))
    assert (back["a"].inputs, back["b"].inputs, back["a"].scale.shape) == (Range(0, 1), None, (2, 2))
