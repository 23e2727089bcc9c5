"""The ranges that calibration finds, by each method, and the data that it refuses."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporter.compression.analysis.calibration import (
    BINS_A_LEVEL,
    PERCENTILE_BINS,
    SIDE_LEVELS,
    Method,
    calibrate,
    entropy_threshold,
)
from exporter.low_bit.weight import Range
from exporter.tracing.flat_module import FlatModule
from runtimes.errors import BadInput


def flat_of(module, *args):
    return FlatModule(module.eval(), args, {})


def scaled(factor, bias):
    """A linear layer that computes factor * x + bias on each of two features."""
    layer = nn.Linear(2, 2)
    nn.init.eye_(layer.weight).data.mul_(factor)
    nn.init.constant_(layer.bias, bias)
    return layer


def data(values):
    return {"input": np.asarray(values, np.float32).reshape(-1, 2)}


# --- min-max -------------------------------------------------------------------------------------------------------


def test_extremes_of_inputs_and_of_outputs_with_bias_by_hand():
    flat = flat_of(nn.Sequential(scaled(2.0, 1.0), nn.ReLU(), scaled(-1.0, 0.0)), torch.zeros(1, 2))
    ranges = calibrate(flat, data([[-1.0, 0.5], [3.0, 2.0]]))
    assert list(ranges) == ["0.weight", "2.weight"]
    assert ranges["0.weight"] == (Range(-1.0, 3.0), Range(-1.0, 7.0))
    assert ranges["2.weight"] == (Range(0.0, 7.0), Range(-7.0, 0.0))


def test_zero_is_always_within():
    flat = flat_of(nn.Sequential(scaled(-1.0, 0.0)), torch.zeros(1, 2))
    assert calibrate(flat, data([[2.0, 3.0]]))["0.weight"] == (Range(0.0, 3.0), Range(-3.0, 0.0))


def test_all_batches_count_and_no_more_samples_than_the_limit():
    flat = flat_of(nn.Sequential(scaled(1.0, 0.0)), torch.zeros(1, 2))
    values = np.ones((100, 2))
    values[99] = -5.0
    values[70] = 9.0
    values[3] = 2.0
    assert calibrate(flat, data(values))["0.weight"][0] == Range(-5.0, 9.0)
    assert calibrate(flat, data(values), limit=99)["0.weight"][0] == Range(0.0, 9.0)
    assert calibrate(flat, data(values), limit=70)["0.weight"][0] == Range(0.0, 2.0)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = scaled(1.0, 0.0)

    def forward(self, input):
        return self.layer(input) + self.layer(10 * input)


def test_the_uses_of_one_weight_are_pooled():
    assert calibrate(flat_of(Twice(), torch.zeros(1, 2)), data([[1.0, -2.0]]))["layer.weight"][0] == Range(-20.0, 10.0)


def test_convolutions_and_packed_projections_are_seen_and_embeddings_are_not(as_exported):
    module, image = as_exported("cnn")
    generator = np.random.default_rng(0)
    ranges = calibrate(flat_of(module, image), {"image": generator.normal(size=(4, 3, 32, 32)).astype(np.float32)})
    assert list(ranges) == [n for n, p in module.named_parameters() if p.ndim > 1]
    module, example = as_exported("transformer")
    ids = generator.integers(0, 50, size=(4, 12))
    ranges = calibrate(flat_of(module, *example), {"ids": ids, "mask": np.ones((4, 12), np.int64)})
    names = ["attention.in_proj_weight", "attention.out_proj.weight"]
    assert [name for name in ranges if name != "embedding.weight"] == names
    only = calibrate(flat_of(module, *example), {"ids": ids, "mask": np.ones((4, 12), np.int64)}, weights=names[:1])
    assert only == {names[0]: ranges[names[0]]}
    reach = float(module.embedding.weight.detach()[np.unique(ids)].max())
    assert ranges["attention.in_proj_weight"][0].high == pytest.approx(reach)


# --- percentile ----------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), percentile=st.floats(90, 100), shift=st.floats(-1, 1))
def test_the_percentile_is_numpy_s_to_the_width_of_a_bin(seed, percentile, shift):
    values = np.random.default_rng(seed).normal(shift, size=(500, 2)).astype(np.float32)
    flat = flat_of(nn.Sequential(scaled(1.0, 0.0)), torch.zeros(1, 2))
    found = calibrate(flat, data(values), "percentile", percentile)["0.weight"][0]
    cut = (100 - percentile) / 2
    low, high = np.percentile(values, [cut, 100 - cut])
    near = np.sort(values.ravel())
    gaps = float(
        np.diff(near)[[*range(60), *range(-60, 0)]].max()
    )  # numpy interpolates between neighbours, a bin does not
    width = float(near[-1] - near[0]) / PERCENTILE_BINS
    assert found.low == pytest.approx(min(0.0, low), abs=gaps + width)
    assert found.high == pytest.approx(max(0.0, high), abs=gaps + width)
    assert near[0] - width <= found.low <= 0.0 <= found.high <= near[-1] + width


def test_an_outlier_is_cut_off_by_the_percentile_alone():
    values = np.random.default_rng(0).uniform(-1, 1, size=(10_000, 2))
    values[17, 0] = 1000.0
    flat = flat_of(nn.Sequential(scaled(1.0, 0.0)), torch.zeros(1, 2))
    assert calibrate(flat, data(values), "min-max")["0.weight"][0].high == 1000.0
    assert calibrate(flat, data(values), "percentile", 99.9)["0.weight"][0].high < 1.02
    assert calibrate(flat, data(values), "percentile", 100.0)["0.weight"][0].high == pytest.approx(1000.0)


# --- entropy -------------------------------------------------------------------------------------------------------


def plain_threshold(counts, levels):
    """The procedure of the slides, step by step."""
    best, least = None, np.inf
    for kept in range(levels, len(counts) + 1):
        p = [float(c) for c in counts[:kept]]
        p[-1] += float(sum(counts[kept:]))
        q = [0.0] * kept
        for level in range(levels):
            group = range(level * kept // levels, (level + 1) * kept // levels)
            filled = [i for i in group if counts[i] > 0]
            for i in filled:
                q[i] = sum(counts[i] for i in group) / len(filled)
        if sum(q) == 0 or any(b == 0 for a, b in zip(p, q, strict=True) if a > 0):
            continue
        divergence = sum(a / sum(p) * np.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True) if a > 0)
        if best is None or divergence <= least + 1e-15:
            best, least = kept, divergence
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_that_of_the_plain_procedure(seed):
    values = np.abs(np.random.default_rng(seed).standard_t(3, size=500))
    counts = np.histogram(values, 64, (0, values.max()))[0].astype(float)
    assert entropy_threshold(counts, 8) == plain_threshold(counts, 8)


ENTROPY_BINS = BINS_A_LEVEL * SIDE_LEVELS


def bins_of(values):
    return np.histogram(np.abs(values), ENTROPY_BINS, (0, np.abs(values).max()))[0].astype(float)


def test_thresholds_of_known_distributions():
    generator = np.random.default_rng(0)
    assert entropy_threshold(bins_of(generator.uniform(size=100_000))) == ENTROPY_BINS, "nothing to gain"
    values = np.concatenate([generator.normal(size=100_000), [40.0, 40.0, 40.0]])
    threshold = entropy_threshold(bins_of(values)) * 40 / ENTROPY_BINS
    assert 3.0 < threshold < 5.0, "the normal values' own end (4.6), not the outliers'"


def test_entropy_on_one_side_and_on_both():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(20_000, 2))
    values[0] = [40.0, 0.0]
    flat = flat_of(nn.Sequential(scaled(1.0, 0.0), nn.ReLU(), scaled(1.0, 0.0)), torch.zeros(1, 2))
    ranges = calibrate(flat, data(values), "entropy")
    both, one = ranges["0.weight"][0], ranges["2.weight"][0]
    assert 3.0 < both.high < 6.0
    assert both.low == pytest.approx(max(-both.high, values.min()), rel=1e-6), "magnitudes share one threshold"
    assert one.low == 0.0 and 3.0 < one.high < 8.0


def test_zeros_do_not_count_for_entropy():
    values = np.random.default_rng(0).normal(size=(5_000, 2))
    flat = flat_of(nn.Sequential(scaled(1.0, 0.0)), torch.zeros(1, 2))
    many_zeros = np.concatenate([values, np.zeros((50_000, 2))])
    assert calibrate(flat, data(many_zeros), "entropy") == calibrate(flat, data(values), "entropy")


@pytest.mark.parametrize("method", typing.get_args(Method))
@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_an_output_that_never_varies_has_a_range_nevertheless(method, bias):
    flat = flat_of(nn.Sequential(scaled(0.0, bias)), torch.zeros(1, 2))
    inputs, outputs = calibrate(flat, data(np.random.default_rng(0).normal(size=(50, 2))), method)["0.weight"]
    assert (outputs.low, outputs.high) == (0.0, pytest.approx(bias))
    assert inputs.low < -1 and inputs.high > 1


# --- what is refused -----------------------------------------------------------------------------------------------


def refusal(values, module=None, **chosen):
    flat = flat_of(module or nn.Sequential(scaled(1.0, 0.0)), torch.zeros(1, 2))
    with pytest.raises(BadInput) as error:
        calibrate(flat, values if isinstance(values, dict) else data(values), **chosen)
    return str(error.value)


@pytest.mark.parametrize("values", [{}, {"input": np.zeros((0, 2), np.float32)}])
def test_no_samples(values):
    assert refusal(values) == "calibration data: there are no samples; give a calibration split with samples"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value):
    assert refusal([[1.0, value]]) == "calibration data: input 'input' holds NaN or infinity; clean the data"


@pytest.mark.parametrize("values", [[[3.0, 3.0]], np.zeros((5, 2)), [[1.0, 2.0]] * 4])
def test_constant_data(values):
    assert refusal(values) == "calibration data: it is constant: no sample differs from the first; give real samples"


def test_an_input_of_a_layer_that_never_varies():
    module = nn.Sequential(scaled(1.0, -100.0), nn.ReLU(), scaled(1.0, 0.0))
    assert refusal([[1.0, 2.0], [3.0, 4.0]], module) == (
        "calibration data: the input of layer 2.weight is 0 in every sample; give data on which it varies, or leave "
        "the layer out with layers_out"
    )


class Hidden(nn.Module):
    """Computes NaN on its way to outputs that hold none."""

    def __init__(self):
        super().__init__()
        self.layer = scaled(1.0, 0.0)

    def forward(self, input):
        return self.layer(input.log()).nan_to_num()


def test_a_layer_that_computes_nan():
    values = np.arange(1.0, 201.0)
    values[0] = -1.0
    assert refusal(values, Hidden()) == (
        "calibration data: layer layer.weight computes NaN or infinity; mend the model, or leave the layer out with "
        "layers_out"
    )


def test_samples_of_another_shape():
    said = refusal({"input": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)})
    assert "forward() raised RuntimeError on inputs input=[4, 3]" in said


def test_inputs_of_other_names():
    values = {"left": np.ones((2, 2), np.float32), "right": np.ones((2, 2), np.float32)}
    values["left"][0] = 0
    assert "the task has the inputs left, right, the model takes input" in refusal(values)
