"""Codes by hand, against every alternative, and in groups against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exporter.low_bit.codes import Layer, best_clip, largest_scale, low_bit_weight, quantize_weight, ternarize
from exporter.low_bit.weight import GROUPS, LARGEST_CODE, PER_CHANNEL, Granularity, LowBitWeight

# --- 8 and 4 bits --------------------------------------------------------------------------------------------------


def test_codes_by_hand():
    weight = torch.tensor([[2.54, -0.02, 0.01, 0.03], [-1.27, 0.015, 0.0, 1.27], [0.0, 0.0, 0.0, 0.0]])
    codes, scale = quantize_weight(weight, 8)
    assert scale == pytest.approx([0.02, 0.01, 1.0])
    assert codes.tolist() == [[127, -1, 0, 2], [-127, 2, 0, 127], [0, 0, 0, 0]]  # 0.5 and 1.5 go to the even code
    assert codes.dtype == np.int8 and scale.dtype == np.float32


def test_four_bits_by_hand():
    codes, scale = quantize_weight(torch.tensor([[0.7, -0.25, 0.15, 0.04]]), 4)
    assert scale == pytest.approx([0.1])
    assert codes.tolist() == [[7, -2, 2, 0]] or codes.tolist() == [[7, -3, 1, 0]]  # the halves are not exact in float32


def test_a_convolution_has_a_scale_for_each_output_channel():
    weight = torch.arange(1.0, 25).reshape(2, 3, 2, 2)
    codes, scale = quantize_weight(weight, 8)
    assert codes.shape == (2, 3, 2, 2)
    assert scale == pytest.approx([12 / 127, 24 / 127])


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38])
def test_a_channel_without_values_has_a_scale_that_can_be_divided_by(size):
    codes, scale = quantize_weight(torch.full((1, 3), size), 8)
    assert scale.tolist() == [1.0] and codes.tolist() == [[0, 0, 0]]


WEIGHTS = arrays.arrays(np.float32, (3, 7), elements=st.floats(-1e6, 1e6, width=32))


@settings(max_examples=60, deadline=None)
@given(weight=WEIGHTS, bits=st.sampled_from([8, 4]), clip=st.booleans())
def test_codes_are_within_their_levels_near_their_weights_and_stable(weight, bits, clip):
    share = best_clip(torch.from_numpy(weight), bits, clip)
    codes, scale = quantize_weight(torch.from_numpy(weight), bits, share)
    value = LowBitWeight(codes, scale, bits, "linear").value
    largest = LARGEST_CODE[bits]
    assert np.abs(codes).max() <= largest
    assert np.isfinite(scale).all() and (scale > 0).all()
    kept = np.abs(weight) <= largest * scale[:, None]
    assert (np.abs(weight - value)[kept] <= (scale[:, None] * (0.5 + 1e-4) + 1e-38).repeat(7, 1)[kept]).all()
    assert (np.abs(value) <= np.abs(weight) + scale[:, None] * 0.51).all(), "clipping only makes smaller"
    again, scale_again = quantize_weight(torch.from_numpy(value), bits, best_clip(torch.from_numpy(value), bits, clip))
    assert np.array_equal(again, codes)
    assert scale_again[codes.any(1)] == pytest.approx(scale[codes.any(1)], rel=1e-6)


def squared_error(weight, bits, clip):
    codes, scale = quantize_weight(weight, bits, clip)
    return ((LowBitWeight(codes, scale, bits, "linear").value - weight.numpy()) ** 2).sum(1)


def test_clipping_lowers_the_squared_error_of_every_channel():
    torch.manual_seed(0)
    weight = torch.randn(8, 500)
    share = best_clip(weight, 4)
    assert (squared_error(weight, 4, share) < 0.9 * squared_error(weight, 4, 1.0)).all()
    for other in (0.6, 0.76, 0.9):
        assert (squared_error(weight, 4, share) <= squared_error(weight, 4, other)).all(), "of those tried, the best"
    assert (largest_scale(weight, 4, share) < largest_scale(weight, 4)).all()


def test_clipping_is_for_four_bits_and_can_be_switched_off():
    weight = torch.randn(4, 100)
    assert best_clip(weight, 8).tolist() == best_clip(weight, 4, clip=False).tolist() == [1.0] * 4


# --- 2 bits --------------------------------------------------------------------------------------------------------

SMALL_WEIGHTS = arrays.arrays(
    np.float32, (3, 7), elements=st.floats(-4, 4, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3)
)


def error(weight, codes, scale):
    return np.square(weight.astype(np.float64) - codes * np.float64(scale)[:, None]).sum(1)


def by_every_threshold(row, thresholds):
    """The least squared error of one row over thresholds, s the mean of what is above."""
    found = [float(np.square(row).sum())]
    for threshold in thresholds:
        above = np.abs(row) >= threshold
        if above.any():
            codes = np.sign(row) * above
            found.append(float(np.square(row - codes * np.abs(row[above]).mean()).sum()))
    return min(found)


def test_ternarize_by_hand():
    weight = torch.tensor([[3.0, -2.0, 0.5, -0.25], [1.0, 1.0, -1.0, 0.9], [0.0, 0.0, 0.0, 0.0], [0.0, -4.0, 1.0, 0.0]])
    codes, scale = ternarize(weight)  # 25 / 2 > 9, 30.25 / 3; 3.9^2 / 4 > 3; 16 > 25 / 2
    assert codes.tolist() == [[1, -1, 0, 0], [1, 1, -1, 1], [0, 0, 0, 0], [0, -1, 0, 0]]
    assert scale == pytest.approx([2.5, 3.9 / 4, 1.0, 4.0])
    assert (codes.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (4,))
    kernel = ternarize(weight.view(2, 2, 2, 2))[0]
    assert kernel.shape == (2, 2, 2, 2)
    assert ternarize(torch.full((1, 2), 1e-40))[0].tolist() == [[0, 0]]


@settings(max_examples=200, deadline=None)
@given(SMALL_WEIGHTS)
def test_no_threshold_is_better_nor_is_the_rule_of_the_paper(weight):
    codes, scale = ternarize(torch.from_numpy(weight))
    rows = weight.astype(np.float64)
    least = [by_every_threshold(row, np.abs(row)) for row in rows]
    rule = [by_every_threshold(row, [0.7 * np.abs(row).mean()]) for row in rows]
    assert error(weight, codes, scale) == pytest.approx(least, rel=1e-5, abs=1e-9)
    assert (error(weight, codes, scale) <= np.array(rule) * (1 + 1e-5) + 1e-9).all()


@settings(max_examples=200, deadline=None)
@given(SMALL_WEIGHTS)
def test_a_ternary_weight_stays_to_the_last_bit(weight):
    codes, scale = ternarize(torch.from_numpy(weight))
    value = codes.astype(np.float32) * scale[:, None]
    again, scale_again = ternarize(torch.from_numpy(value))
    assert np.array_equal(codes, again)
    assert scale_again.tobytes() == np.where(codes.any(1), scale, np.float32(1)).tobytes()


# --- what shares a scale -------------------------------------------------------------------------------------------


@st.composite
def grouped_weights(draw):
    """A weight `[out, in]` whose rows are a few groups, and the length of a group."""
    group = draw(st.sampled_from(GROUPS))
    shape = draw(st.integers(1, 4)), group * draw(st.integers(1, 3))
    seed, size = draw(st.integers(0, 2**31)), draw(st.sampled_from([1e-3, 1.0, 1e3]))
    weight = np.random.default_rng(seed).normal(size=shape) * size * draw(st.sampled_from([0.0, 1.0]))
    return weight.astype(np.float32), group


@settings(max_examples=60, deadline=None)
@given(drawn=grouped_weights(), bits=st.sampled_from([8, 4]))
def test_codes_in_groups_are_those_of_numpy_group_by_group(drawn, bits):
    weight, group = drawn
    codes, scale = quantize_weight(torch.from_numpy(weight), bits, granularity=Granularity(group=group))
    value = LowBitWeight(codes, scale, bits, "linear", granularity=Granularity(group=group)).value
    assert scale.shape == (len(weight), weight.shape[1] // group)
    for row in range(len(weight)):
        for i in range(scale.shape[1]):
            part = slice(i * group, (i + 1) * group)
            step = np.abs(weight[row, part]).max() / np.float32(LARGEST_CODE[bits])
            step = step if step > np.finfo(np.float32).tiny else np.float32(1)
            expected = np.clip(np.rint(weight[row, part] / step), -LARGEST_CODE[bits], LARGEST_CODE[bits])
            assert scale[row, i] == step
            assert np.array_equal(codes[row, part], expected)
            assert np.array_equal(value[row, part], (expected * step).astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(grouped_weights())
def test_every_group_is_clipped_and_made_ternary_as_if_it_were_a_channel(drawn):
    weight, group = drawn
    rows, granularity = torch.from_numpy(weight.reshape(-1, group)), Granularity(group=group)
    whole = torch.from_numpy(weight)
    assert torch.equal(best_clip(whole, 4, granularity=granularity).flatten(), best_clip(rows, 4))
    codes, scale = ternarize(whole, granularity)
    codes_of_rows, scale_of_rows = ternarize(rows)
    assert np.array_equal(codes.reshape(-1, group), codes_of_rows) and np.array_equal(scale.ravel(), scale_of_rows)
    made = low_bit_weight(whole, Layer("linear", 4, "float", granularity), best_clip(whole, 4, granularity=granularity))
    by_rows = low_bit_weight(rows, Layer("linear", 4, "float"), best_clip(rows, 4))
    assert np.array_equal(made.value.reshape(-1, group), by_rows.value)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_channels_of_a_transposed_convolution_lie_along_its_second_axis(bits):
    weight, second = torch.randn(3, 5, 2, 2, generator=torch.Generator().manual_seed(0)), Granularity(axis=1)
    turned = weight.movedim(1, 0)
    for quantize in (
        (ternarize,) if bits == 2 else (lambda w, g: quantize_weight(w, bits, best_clip(w, bits, True, g), g),)
    ):
        codes, scale = quantize(weight, second)
        codes_turned, scale_turned = quantize(turned, PER_CHANNEL)
        assert scale.shape == (5,) and codes.shape == (3, 5, 2, 2) and codes.flags.c_contiguous
        assert np.array_equal(scale, scale_turned) and np.array_equal(np.moveaxis(codes, 1, 0), codes_turned)
        value = LowBitWeight(codes, scale, bits, "conv_transpose", granularity=second).value
        assert np.array_equal(value, codes * scale.reshape(1, 5, 1, 1))
