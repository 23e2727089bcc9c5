"""Low-rank factors: the rank rules, what SVD and FWSVD are best at, which layers change, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.model import Model
from exporter.compression.passes.low_rank import (
    Settings,
    apply,
    candidates,
    energy_rank,
    input_fisher,
    pela_rank,
    weighted_svd,
)
from exporter.compression.recipe import step
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context
from runtimes.errors import BadInput
from tests.exporter.modules.upsampling import flat_upsampling


def task(x, labels=None, classes=()):
    split = Split({"x": x.astype(np.float32)}, labels)
    return Task("points", "", classes, split, split, split, lambda o, s: Score("accuracy", np.zeros(1), {}))


def flat_of(*layers, inputs=24):
    torch.manual_seed(0)
    return FlatModule(nn.Sequential(*layers).eval(), (torch.randn(2, inputs),), {})


def mlp():
    return flat_of(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def factored(flat, settings, data=None, seed=0):
    model, report = apply(Model(flat), settings, Context(flat, data, seed))
    return model.flat, report


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cut(weight, rank, fisher=None):
    u, s, v = weighted_svd(weight, fisher)
    return u[:, :rank] @ torch.diag(s[:rank]) @ v[:, :rank].T


@pytest.mark.parametrize(
    ("shape", "ratio", "rank"), [((768, 768), 3, 128), ((768, 3072), 3, 204), ((8, 8), 2, 2), ((2, 2), 9, 1)]
)
def test_pela_s_rank_rule(shape, ratio, rank):
    assert pela_rank(*shape, ratio) == rank


def test_the_energy_is_of_squared_singular_values():
    singular = torch.tensor([3.0, 2.0, 1.0, 0.0])  # squares 9, 4, 1 of 14
    assert [energy_rank(singular, share) for share in (0.5, 9 / 14 + 0.01, 13 / 14, 0.95)] == [1, 2, 2, 3]


@given(rows=st.integers(2, 12), columns=st.integers(2, 12), rank=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_error_is_what_was_dropped(rows, columns, rank, seed):
    weight, x = gaussian(rows, columns, seed=seed), gaussian(5, columns, seed=seed + 1)
    singular = torch.linalg.svdvals(weight)
    dropped = singular[rank:]
    wrong = weight - cut(weight, rank)
    assert float(wrong.square().sum()) == pytest.approx(float(dropped.square().sum()), abs=1e-9)
    largest = float(dropped[0]) if len(dropped) else 0.0
    assert ((x @ wrong.T).norm(dim=1) <= largest * x.norm(dim=1) + 1e-9).all()


@given(rank=st.integers(1, 12), seed=st.integers(0, 99))
def test_fwsvd_is_best_in_the_fisher_norm_and_svd_in_the_plain_one(rank, seed):
    weight, fisher = gaussian(32, 24, seed=seed), gaussian(24, seed=seed + 1).square() + 1e-3
    plain, weighted = weight - cut(weight, rank), weight - cut(weight, rank, fisher)
    assert (fisher * weighted.square()).sum() <= (fisher * plain.square()).sum() + 1e-9
    assert plain.square().sum() <= weighted.square().sum() + 1e-9
    assert torch.allclose(cut(weight, rank, torch.full((24,), 7.0)), cut(weight, rank), atol=1e-9)
    assert torch.allclose(cut(weight, 24, fisher), weight, atol=1e-9), "the full rank reproduces the weight"


def test_an_input_that_the_loss_never_felt_does_no_harm():
    weight, fisher = gaussian(6, 4, seed=0), torch.tensor([1.0, 0.0, 2.0, 0.0])
    assert torch.allclose(cut(weight, 4, fisher), weight, atol=1e-9)
    assert torch.equal(cut(weight, 2, torch.zeros(4)), cut(weight, 2))


def test_a_layer_of_low_rank_comes_out_exact_and_smaller():
    flat = mlp()
    with torch.no_grad():
        for i in (0, 2):
            weight = flat.module[i].weight
            weight.copy_(gaussian(len(weight), 3, seed=i).float() @ gaussian(3, weight.shape[1], seed=i + 1).float())
        small, report = factored(flat, Settings(rank=3))
        expected, got = flat.compute(flat.example)["output"], small.compute(flat.example)["output"]
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert isinstance(flat.module[0], nn.Linear), "the given model is not touched"
    assert [tuple(p.shape) for p in small.module[0].parameters()] == [(3, 24), (32, 3), (32,)]
    before, after = (sum(p.numel() for p in f.parameters()) for f in (flat, small))
    assert after == before - 24 * 32 - 32 * 32 + 3 * (24 + 32) + 3 * (32 + 32)
    assert report.notes == (
        f"2 layers factored: {before:,} parameters became {after:,}",
        "left whole: 4.weight, of 4 outputs",
    )
    down, up = small.module[2]
    assert torch.allclose(down.weight.norm(), up.weight.norm()), "the roots on both sides"


def test_what_would_not_be_smaller_stays():
    flat = flat_of(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 12))
    small, report = factored(flat, Settings(rank=9))
    assert isinstance(small.module[2], nn.Linear)
    assert report.notes[1] == "left whole: 2.weight [12, 32], no smaller at rank 9"


def test_pointwise_convolutions_when_asked():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 1, stride=2, padding=1), nn.Conv2d(24, 24, 1, groups=2)
    flat = FlatModule(nn.Sequential(*layers).eval(), (torch.randn(1, 3, 9, 9),), {})
    small, _ = factored(flat, Settings(pointwise=True, rank=4))
    assert [type(m).__name__ for m in small.module] == ["Conv2d", "Sequential", "Conv2d"]
    with torch.no_grad():
        weight = flat.module[1].weight[:, :, 0, 0]
        flat.module[1].weight.copy_(cut(weight, 4)[:, :, None, None])
        expected, got = flat.compute(flat.example)["output"], small.compute(flat.example)["output"]
    assert torch.allclose(got, expected, atol=1e-5)
    with pytest.raises(BadInput, match="no layer would be smaller"):
        factored(flat, Settings(rank=4))


def test_a_transposed_convolution_stays_and_is_named():
    flat = FlatModule(
        nn.Sequential(nn.ConvTranspose2d(16, 24, 1), nn.Conv2d(24, 24, 1)).eval(), (torch.randn(1, 16, 3, 3),), {}
    )
    small, report = factored(flat, Settings(pointwise=True, rank=4))
    assert report.notes[1:] == ("left whole: 0.weight, a transposed convolution",)
    assert isinstance(small.module[0], nn.ConvTranspose2d) and isinstance(small.module[1], nn.Sequential)
    with pytest.raises(BadInput, match="no layer would be smaller"):
        factored(flat_upsampling(), Settings())


def test_shared_weights_and_weights_that_their_owner_reads_stay(as_exported):
    module, example = as_exported("transformer")
    found, notes = candidates(FlatModule(module, example, {}), Settings())
    assert found == {}
    assert notes == [
        "left whole: embedding.weight, which is shared",
        "left whole: attention.in_proj_weight, which another module than a plain layer reads",
        "left whole: attention.out_proj.weight, which another module than a plain layer reads",
    ]


def test_torch_s_own_transformer_layer_keeps_its_parts_and_still_runs():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)).eval()
    flat = FlatModule(module, (torch.randn(1, 5, 8),), {})
    small, report = factored(flat, Settings(rank=2))
    assert list(candidates(flat, Settings())[0]) == ["0.weight"] and len(report.notes) == 5
    small.compute(flat.example)


def test_a_model_that_is_one_linear_layer():
    flat = FlatModule(nn.Linear(24, 32).eval(), (torch.randn(2, 24),), {})
    small, _ = factored(flat, Settings(energy=0.5))
    assert isinstance(small.module, nn.Sequential) and small.compute(flat.example)["output"].shape == (2, 32)


def test_the_fisher_information_of_labels_by_hand():
    flat = flat_of(nn.Linear(3, 2), inputs=3)
    x, y = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 0.0]]), np.array([0, 1])
    found = input_fisher(flat, ("0.weight",), 8, Context(flat, task(x, y, ("a", "b"))))["0.weight"]
    p = flat.compute({"input": torch.from_numpy(x).float()})["output"].softmax(1).detach().numpy()
    gradient = p - np.eye(2)[y]  # of the logits; of the weight it is its outer product with x
    expected = np.mean([(np.outer(g, row) ** 2).sum(0) for g, row in zip(gradient, x, strict=True)], axis=0)
    assert found.numpy() == pytest.approx(expected, rel=1e-5) and found[2] == 0


def test_without_labels_the_fisher_information_is_that_of_gaussian_outputs():
    flat = flat_of(nn.Linear(3, 2), inputs=3)
    x = np.tile([[1.0, 2.0, 0.0]], (2000, 1))
    found = input_fisher(flat, ("0.weight",), 2000, Context(flat, task(x)))["0.weight"]
    assert found.numpy() == pytest.approx([2 * 1.0, 2 * 4.0, 0.0], rel=0.1)  # J^T J = x^2, summed over 2 outputs
    assert all(p.grad is None for p in flat.parameters())


def test_fwsvd_keeps_more_of_what_the_model_computes_than_svd():
    """Half of the inputs hardly matter: what rank there is belongs to the others."""
    flat = flat_of(nn.Linear(24, 24, bias=False), nn.ReLU(), nn.Linear(24, 2))
    x = np.random.default_rng(0).normal(size=(64, 24)) * np.repeat([1.0, 0.01], 12)
    data = task(x, (x[:, 0] > 0).astype(np.int64), ("a", "b"))
    inputs = {"input": torch.from_numpy(x).float()}
    errors = {}
    for method in ("svd", "fwsvd"):
        small, report = factored(flat, Settings(method, rank=6, samples=64, layers_out=("2",)), data)
        errors[method] = float((small.compute(inputs)["output"] - flat.compute(inputs)["output"]).norm())
    assert errors["fwsvd"] < 0.9 * errors["svd"]
    assert report.notes[1] == "Fisher information of 64 samples, by labels"


def test_labels_that_do_not_belong_to_the_outputs_are_not_used_and_the_seed_decides():
    flat = mlp()
    data = task(np.random.default_rng(0).normal(size=(4, 24)), np.array([0, 1, 2, 0]), ("a", "b", "c"))
    (one, report), (same, _), (other, _) = (factored(flat, Settings("fwsvd"), data, seed) for seed in (0, 0, 1))
    assert report.notes[1].endswith("by random projections of the outputs: no labels belong to them")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.module[0][0].weight, other.module[0][0].weight)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"method": "qr"}, "low-rank: method is 'qr'; give one of svd, fwsvd"),
        ({"ratio": 1.0}, "low-rank: ratio is 1.0; give a number above 1"),
        ({"rank": 0}, "low-rank: rank is 0; give a whole number of 1 or more, or null"),
        ({"energy": 1.0}, "low-rank: energy is 1.0; give a number in (0, 1), or null"),
        ({"rank": 2, "energy": 0.5}, "low-rank: rank and energy are both given; give one of them"),
        ({"smallest_out": 0}, "low-rank: smallest_out is 0; give a whole number of 1 or more"),
        ({"samples": 0}, "low-rank: samples is 0; give a whole number of 1 or more"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, line):
    with pytest.raises(BadInput) as refusal:
        step("low-rank", settings, "recipe.yaml")
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"rank": 30}, "low-rank: no layer would be smaller (left whole: 4.weight, of 4 outputs; left whole: 0.wei"),
        ({"layers_out": ("head",)}, "low-rank: layers_out 'head' fits no layer; the layers are 0.weight, 2.weight"),
        ({"method": "fwsvd"}, "low-rank: fwsvd needs data; name a task with --data, or use the method svd"),
    ],
)
def test_what_cannot_be_factored_is_refused(settings, line):
    with pytest.raises(BadInput) as refusal:
        factored(mlp(), Settings(**settings))
    assert line in str(refusal.value)


@pytest.mark.slow
def test_it_computes_the_same_in_onnxruntime(lower_here, computes):
    flat = mlp()
    small, _ = factored(flat, Settings(ratio=2.0))
    lowered = lower_here(small.module, (flat.example["input"],), "onnx")
    computes(lowered.path, flat.example, small.compute(flat.example))


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (np.zeros((0, 24)), "points: the train split is empty; give samples, or use the method svd"),
        (np.full((2, 24), np.nan), "low-rank: the gradient of 0.weight is no finite number; clean the data"),
    ],
)
def test_data_of_no_use_is_refused(x, line):
    with pytest.raises(BadInput) as refusal:
        factored(mlp(), Settings("fwsvd"), task(x))
    assert line in str(refusal.value)


def test_it_says_that_it_changed_the_model():
    assert factored(mlp(), Settings(ratio=2.0))[1].changed, "one that would not is refused"
