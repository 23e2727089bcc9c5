"""Error compensation: against a plain column loop, against plain rounding, and the inputs that convolutions see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporter.compression.analysis.error_compensation import compensated_codes, input_hessian
from exporter.low_bit.codes import ternarize
from exporter.tracing.flat_module import FlatModule


def correlated(seed, out=6, inputs=24, samples=200):
    """A weight `[out, inputs]`, inputs `[samples, inputs]` of which many go together, and their Hessian."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(samples, 5, generator=generator) @ torch.randn(5, inputs, generator=generator)
    x = (mixed + 0.2 * torch.randn(samples, inputs, generator=generator)).double()
    return torch.randn(out, inputs, generator=generator), x, 2 * x.T @ x / samples


def output_error(x, weight, value):
    return ((weight.double() - value.double()) @ x.T).square().mean(1)


def by_columns(weight, hessian, scale, damping):
    """Algorithm 1 of the paper with blocks of one column, in numpy, from the inverse itself."""
    damped = hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    work, codes = weight.astype(np.float64), np.zeros(weight.shape)
    for row in range(len(work)):
        for i in range(work.shape[1]):
            codes[row, i] = np.clip(np.round(work[row, i] / scale[row]), -1, 1)
            error = (work[row, i] - scale[row] * codes[row, i]) / factor[i, i]
            for j in range(i, work.shape[1]):
                work[row, j] -= error * factor[i, j]
    return codes


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_column_loop_of_the_paper(seed):
    weight, _, hessian = correlated(seed)
    scale = ternarize(weight)[1]
    codes = compensated_codes(weight, hessian, torch.from_numpy(scale), 1, 0.01)
    assert np.array_equal(codes.numpy(), by_columns(weight.numpy(), hessian.numpy(), scale, 0.01))


def test_on_correlated_inputs_the_outputs_are_nearer_than_with_plain_rounding():
    """Not for every draw, since the columns are settled one by one, but for nearly all, and by far in the middle."""
    ratios = []
    for seed in range(60):
        weight, x, hessian = correlated(seed)
        plain, scale = (torch.from_numpy(a) for a in ternarize(weight))
        codes = compensated_codes(weight, hessian, scale, 1, 0.01)
        errors = [output_error(x, weight, values * scale[:, None]).sum() for values in (codes, plain)]
        ratios.append(float(errors[0] / errors[1]))
    assert sum(ratio < 1 for ratio in ratios) >= 54
    assert np.median(ratios) < 0.7


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_where_inputs_do_not_go_together_it_is_plain_rounding(seed):
    weight, _, _ = correlated(seed)
    plain, scale = (torch.from_numpy(a) for a in ternarize(weight))
    identity = torch.eye(24, dtype=torch.float64)
    codes = compensated_codes(weight, identity, scale, 1, 0.01)
    assert torch.equal(codes, plain.double())


def test_more_levels_are_nearer():
    weight, x, hessian = correlated(0)
    errors = []
    for largest in (1, 7):
        scale = weight.abs().amax(1) / largest
        codes = compensated_codes(weight, hessian, scale, largest, 0.01)
        assert codes.abs().max() == largest
        errors.append(output_error(x, weight, codes * scale[:, None]).sum())
    assert errors[1] < errors[0] / 10


def test_pruned_weights_keep_the_code_0_and_dead_inputs_are_rounded():
    weight, _, hessian = correlated(2)
    weight[:, 3] = 0.0
    hessian[5] = hessian[:, 5] = 0.0
    plain, scale = (torch.from_numpy(a) for a in ternarize(weight))
    codes = compensated_codes(weight, hessian, scale, 1, 0.01)
    assert codes[:, 3].eq(0).all() and torch.equal(codes[:, 5], plain[:, 5].double())
    assert torch.equal(compensated_codes(weight, torch.zeros_like(hessian), scale, 1, 0.01), plain.double())


def test_the_hessian_of_a_linear_layer_counts_every_use():
    layer = nn.Linear(4, 4)
    flat = FlatModule(nn.Sequential(layer, layer, nn.ReLU()).eval(), (torch.zeros(1, 4),), {})
    samples = [{"input": torch.randn(3, 4)}, {"input": torch.randn(2, 4)}]
    first = torch.cat([s["input"] for s in samples])
    rows = torch.cat([first, layer(first)]).double()
    torch.testing.assert_close(input_hessian(flat, "0.weight", samples), 2 * rows.T @ rows / 10, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=2), (2, 3, 9, 8)),
        (nn.Conv2d(3, 5, (2, 3), padding="same", padding_mode="reflect", bias=False), (2, 3, 6, 7)),
        (nn.Conv1d(4, 5, 3, padding=1), (2, 4, 9)),
        (nn.Conv3d(2, 5, 2), (1, 2, 4, 4, 4)),
    ],
)
def test_a_convolution_is_a_linear_layer_on_its_patches(layer, shape):
    """The mean of (w p)^2 over patches p is w H w / 2, and the layer itself gives w p."""
    x = torch.randn(shape)
    flat = FlatModule(nn.Sequential(layer).eval(), (x[:1],), {})
    hessian = input_hessian(flat, "0.weight", [{"input": x}])
    weight = layer.weight.detach().flatten(1).double()
    layer.bias = None
    expected = layer(x).detach().movedim(1, -1).flatten(0, -2).square().mean(0)
    torch.testing.assert_close(((weight @ hessian) * weight).sum(1).float() / 2, expected)


def test_grouped_convolutions_and_embeddings_have_none():
    flat = FlatModule(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)).eval(), (torch.zeros(1, 4, 5, 5),), {})
    assert input_hessian(flat, "0.weight", [flat.example]) is None
    flat = FlatModule(nn.Sequential(nn.Embedding(5, 4)).eval(), (torch.zeros(1, 3, dtype=torch.int64),), {})
    assert input_hessian(flat, "0.weight", [flat.example]) is None
