"""One matcher for all formats: any order of axes, a factor, cut and turned weights; by name first, by value always."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.low_bit.weight import PER_CHANNEL, Granularity, LowBitWeight, Range
from exporter.lowering import low_bit_coreml, low_bit_onnx, low_bit_tflite
from exporter.lowering.found_weights import Layout, find

ANY = Layout(lambda rank: permutations(range(rank)), first_rows=True, factor=True)
PLAIN = Layout(lambda rank: (tuple(range(rank)),))


def random_weight(shape, kind="linear", seed=0, granularity=PER_CHANNEL):
    random = np.random.default_rng(seed)
    codes = random.integers(-127, 128, shape).astype(np.int8)
    codes.flat[0] = 1
    scale = random.uniform(0.01, 1, granularity.scale_shape(shape)).astype(np.float32)
    return LowBitWeight(codes, scale, 8, kind, granularity=granularity)


def test_weights_of_equal_value_share_a_constant_and_the_widest_range():
    weight = LowBitWeight(np.eye(3, dtype=np.int8), np.ones(3, "f4"), 8, "linear", "static", Range(-1, 2), Range(0, 1))
    other = replace(weight, inputs=Range(-3, 1), outputs=Range(-0.5, 0.5))
    both = find("x", weight.value, {"a": weight, "b": other}, PLAIN)
    assert both.names == ("a", "b")
    assert (both.weight.inputs, both.weight.outputs) == (Range(-3, 2), Range(-0.5, 1))


@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from([((5, 7), (0, 1)), ((5, 7), (1, 0)), ((4, 3, 2, 5), (0, 2, 3, 1)), ((6, 1, 3, 3), (1, 2, 3, 0))]),
    st.sampled_from([1.0, 0.40824829, -2.5]),
)
def test_a_weight_is_found_in_any_order_and_scaled_but_not_with_one_value_changed(seed, layout, factor):
    shape, axes = layout
    weight = random_weight(shape, "conv" if len(shape) == 4 else "linear", seed)
    value = (weight.value * np.float32(factor)).transpose(axes)
    found = find("x", value, {"w": weight}, low_bit_tflite.LAYOUT)
    np.testing.assert_array_equal(found.codes, weight.codes.transpose(axes))
    np.testing.assert_allclose(found.codes * found.scale * found.factor, value, rtol=1e-6)
    assert found.axis == axes.index(0) and found.factor == pytest.approx(factor, rel=1e-6)
    wrong = value.copy()
    wrong.flat[np.random.default_rng(seed).integers(wrong.size)] += 0.01 * np.float32(abs(factor))
    assert find("x", wrong, {"w": weight}, low_bit_tflite.LAYOUT) is None
    assert (find("x", value, {"w": weight}, low_bit_coreml.LAYOUT) is None) == (factor != 1.0)


def test_the_rounding_of_the_file_s_own_type_is_allowed_and_no_more():
    weight = random_weight((6, 40))
    half = weight.value.astype(np.float16)
    for moved in (half, weight.value, np.nextafter(weight.value, np.float32(1))):
        assert find("x", moved, {"w": weight}, PLAIN) is not None
    for wrong in (half * np.float16(1.004), weight.value * np.float32(1.000002)):
        assert find("x", wrong, {"w": weight}, PLAIN) is None


@pytest.mark.parametrize(
    "name", ["module.layer.query.weight", "p_module_layer_query_weight", "a/b/layer.query.weight;1"]
)
def test_the_name_decides_between_weights_that_are_multiples_of_each_other(name):
    weight = random_weight((3, 5))
    double = replace(weight, scale=weight.scale * 2)
    low_bit = {"layer.key.weight": double, "query.weight": double, "layer.query.weight": weight}
    found = find(name, double.value, low_bit, ANY)
    assert (found.names, found.factor) == (("layer.query.weight",), 2.0), "what the converter made of that weight"
    anonymous = find("arith.constant7", double.value, low_bit, ANY)
    assert (anonymous.names, anonymous.factor) == (("layer.key.weight", "query.weight"), 1.0)


def test_a_name_alone_proves_nothing():
    weight, other = random_weight((3, 5)), random_weight((3, 5), seed=1)
    found = find("a.weight", other.value, {"a.weight": weight, "b.weight": other}, ANY)
    assert found.names == ("b.weight",)
    assert find("a.weight", other.value, {"a.weight": weight}, ANY) is None
    assert find("a.weight", weight.value, {"a.weight": weight}, ANY).names == ("a.weight",)


def test_a_transposed_convolution_is_found_as_it_is_and_as_a_convolution():
    weight = random_weight((3, 5, 2, 4), "conv_transpose", granularity=Granularity(axis=1))
    as_it_is = find("x", weight.value.transpose(1, 2, 3, 0), {"w": weight}, low_bit_tflite.LAYOUT)
    assert as_it_is.axis == 0 and np.array_equal(as_it_is.codes, weight.codes.transpose(1, 2, 3, 0))
    turned = weight.value[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)
    as_convolution = find("x", turned, {"w": weight}, low_bit_tflite.LAYOUT)
    assert as_convolution.axis == 0
    assert np.array_equal(as_convolution.codes * as_convolution.scale, turned)
    assert find("x", turned, {"w": replace(weight, kind="conv")}, low_bit_tflite.LAYOUT) is None


def test_a_kernel_of_one_axis_is_found_with_two():
    weight = random_weight((4, 3, 5), "conv")
    found = find("x", weight.value[:, :, None].transpose(0, 2, 3, 1), {"w": weight}, low_bit_tflite.LAYOUT)
    assert found.codes.shape == (4, 1, 5, 3)


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4), (1, 1, 5, 4)], ids=str)
def test_the_first_rows_of_an_embedding_are_found_where_the_layout_has_them(shape):
    weight = random_weight((9, 4), "embedding")
    value = weight.value[:5].reshape(shape)
    for layout in (low_bit_tflite.LAYOUT, low_bit_coreml.LAYOUT):
        found = find("x", value, {"w": weight}, layout)
        assert found.axis == len(shape) - 2 and np.array_equal(found.codes * found.scale, value)
    assert find("x", value, {"w": weight}, low_bit_onnx.LAYOUT) is None
    assert find("x", value, {"w": replace(weight, kind="linear")}, ANY) is None


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_scales_of_groups_lie_in_the_constant_s_order(axes):
    weight = random_weight((3, 128), granularity=Granularity(group=64))
    found = find("x", weight.value.transpose(axes), {"w": weight}, ANY)
    assert np.array_equal(found.scale, weight.scale.transpose(axes))
