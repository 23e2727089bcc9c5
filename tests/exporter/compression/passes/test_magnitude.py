"""Magnitude pruning: the schedule's values, which weights go in each pattern, that zeros stay, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.model import Model
from exporter.compression.passes.magnitude import Settings, apply, choose, cubic_sparsity, prune, prune_mask
from exporter.compression.recipe import step
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context
from runtimes.errors import BadInput


def points(samples=64, labels=True):
    """Two classes of points that a line tells apart."""
    x = np.random.default_rng(0).normal(size=(samples, 8)).astype(np.float32)
    split = Split({"x": x}, (x[:, 0] + x[:, 1] > 0).astype(np.int64) if labels else None)
    return Task("points", "", ("below", "above"), split, split, split, lambda o, s: Score("accuracy", np.zeros(1), {}))


def mlp():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    return FlatModule(module, (torch.zeros(1, 8),), {})


def context(flat, task=None, **options):
    return Context(flat, task, **options)


def zeros(flat):
    return {n: int((p == 0).sum()) for n, p in flat.module.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize(
    ("progress", "sparsity"), [(0, 0.0), (0.25, 0.5203), (0.5, 0.7875), (0.75, 0.8859), (1, 0.9), (-1, 0.0), (7, 0.9)]
)
def test_the_cubic_schedule_of_zhu_and_gupta(progress, sparsity):
    assert cubic_sparsity(0.0, 0.9, progress) == pytest.approx(sparsity, abs=5e-5)


def test_the_schedule_starts_where_it_is_told_to():
    assert cubic_sparsity(0.5, 0.9, 0) == 0.5
    assert cubic_sparsity(0.5, 0.9, 0.5) == pytest.approx(0.9 - 0.4 / 8)


def test_the_smallest_magnitudes_go_and_of_equal_ones_the_first():
    weight = torch.tensor([[0.5, -0.1, 0.1, -2.0], [0.3, -0.2, 0.1, 0.0]])
    assert prune_mask(weight, 0.5, "unstructured").tolist() == [[True, False, False, True], [True, True, False, False]]
    assert prune_mask(weight, 0.25, "unstructured").tolist() == [[True, False, True, True], [True, True, True, False]]


def test_two_of_four_stay_along_the_inputs():
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.0, 0.0, 9.0, 0.0], [8.0, 7.0, 6.0, 5.0, -1.0, 2.0, -3.0, 4.0]])
    kept = [[False, True, True, False, True, False, True, False], [True, True, False, False, False, False, True, True]]
    assert prune_mask(weight, 0.5, "2:4").tolist() == kept
    conv = weight[:, :, None, None].expand(2, 8, 3, 3).contiguous()
    assert prune_mask(conv, 0.5, "2:4")[:, :, 1, 2].tolist() == kept


def test_on_the_way_to_two_of_four_only_the_ones_that_go_in_the_end_go():
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.2, 0.3, 0.4]])
    assert prune_mask(weight, 0.25, "2:4").tolist() == [[True] * 4 + [False, False, True, True]]


def test_blocks_of_outputs_by_inputs_go_together():
    weight = torch.tensor([[1.0, 0.0, 5.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0], [1.5, 0.0, 0.0]])  # sums 1 3 6, 2.5 1 0
    kept = torch.tensor([[0, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=torch.bool)
    assert torch.equal(prune_mask(weight, 0.5, "2x1"), kept)
    conv = torch.stack([weight, weight.flip(0)], -1)[..., None]  # [4, 3, 2, 1]
    mask = prune_mask(conv, 0.5, "2x1")
    assert torch.equal(mask[:, :, 0, 0], kept) and torch.equal(mask[:, :, 1, 0], kept.flip(0))


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    kernel=st.integers(1, 3),
    sparsity=st.floats(0, 0.99),
    pattern=st.sampled_from(["unstructured", "2x4", "1x4", "2:4", "1:4"]),
    seed=st.integers(0, 9),
)
def test_as_many_units_go_as_asked_and_none_is_larger_than_one_that_stays(
    rows, columns, kernel, sparsity, pattern, seed
):
    weight = torch.randn(2 * rows, 4 * columns, kernel, generator=torch.Generator().manual_seed(seed))
    n_of_m = {"2:4": 2, "1:4": 1}.get(pattern)
    sparsity = sparsity if n_of_m is None else sparsity * (1 - n_of_m / 4)
    keep = prune_mask(weight, sparsity, pattern)
    assert keep.shape == weight.shape and keep.dtype == torch.bool
    unit = {"2x4": 8, "1x4": 4}.get(pattern, 1)
    assert int((~keep).sum()) == unit * round(sparsity * weight.numel() / unit)
    if pattern == "unstructured" and not keep.all():
        assert weight[~keep].abs().max() <= weight[keep].abs().min()
    if n_of_m:
        assert int(keep.unflatten(1, (-1, 4)).sum(2).min()) >= n_of_m


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("pattern", ["2:4", "2x1", "unstructured"])
def test_a_transposed_convolution_is_pruned_as_the_convolution_with_the_same_rows(pattern, groups):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 12, 3, groups=groups)
    flat = FlatModule(layer.eval(), (torch.randn(1, 8, 4, 4),), {})
    pruned, report = apply(Model(flat), Settings(0.5, pattern), context(flat))
    for group, found, before in zip(
        range(groups), pruned.flat.module.weight.chunk(groups), layer.weight.chunk(groups), strict=True
    ):  # [in / groups, out / groups, 3, 3]
        if pattern == "2:4":
            assert bool(((found != 0).unflatten(0, (-1, 4)).sum(1) == 2).all()), group
        if pattern == "2x1":
            pairs = (found != 0).unflatten(1, (-1, 2))
            assert torch.equal(pairs[:, :, 0], pairs[:, :, 1])
        assert torch.equal(found[found != 0], before[found != 0])
    assert report.notes[0].startswith("50.0% of ")


def test_one_shot_needs_no_data_and_leaves_the_given_model_as_it_was():
    flat = mlp()
    pruned, report = apply(Model(flat), Settings(sparsity=0.75), context(flat))
    assert zeros(pruned.flat) == {"0.weight": 96, "2.weight": 24} and zeros(flat) == {"0.weight": 0, "2.weight": 0}
    assert report.name == "prune" and report.settings["sparsity"] == 0.75
    assert report.notes == ("75.0% of 160 weights in 2 layers are zero",)
    again, _ = apply(Model(flat), Settings(sparsity=0.75), context(flat))
    assert all(torch.equal(a, b) for a, b in zip(pruned.flat.parameters(), again.flat.parameters(), strict=True))


def test_layers_that_the_pattern_does_not_divide_or_that_are_left_out_are_named(as_exported):
    module, image = as_exported("cnn")
    flat = FlatModule(module, (image,), {})
    chosen, notes = choose(flat, Settings(pattern="2:4", layers_out=("stem.*",)))
    assert set(chosen) == {"head.weight"}
    assert notes == (
        "left whole: stem.0.weight, as asked",
        "left whole: depthwise.0.weight [8, 1, 3, 3], which 2:4 does not divide",
    )


def test_a_shared_weight_is_pruned_once_and_counts_as_the_embedding_that_it_is(as_exported):
    module, example = as_exported("transformer")
    flat = FlatModule(module, example, {})
    chosen, notes = choose(flat, Settings())
    assert set(chosen) == {"attention.in_proj_weight", "attention.out_proj.weight"}
    assert notes == ("left whole: embedding.weight, an embedding",)
    pruned, _ = apply(Model(flat), Settings(embeddings=True), context(flat))
    assert pruned.flat.module.output.weight is pruned.flat.module.embedding.weight
    assert zeros(pruned.flat)["embedding.weight"] == 400


@pytest.mark.parametrize("schedule", ["one-shot", "cubic"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "2x2"])
def test_zeros_stay_zero_while_the_others_learn(schedule, pattern):
    flat = mlp()
    settings = Settings(0.5, pattern, schedule, epochs=4, batch_size=8, frequency=2, learning_rate=0.05)
    pruned, report = apply(Model(flat), settings, context(flat, points()))
    assert zeros(pruned.flat) == {"0.weight": 64, "2.weight": 16}
    assert report.notes[1].startswith("fine-tuned: 28 steps")
    plain, _ = apply(Model(flat), Settings(0.5, pattern), context(flat))
    kept = pruned.flat.module[0].weight != 0
    assert not torch.equal(pruned.flat.module[0].weight[kept], plain.flat.module[0].weight[kept])
    again, _ = apply(Model(flat), settings, context(flat, points()))
    assert all(torch.equal(a, b) for a, b in zip(pruned.flat.parameters(), again.flat.parameters(), strict=True))


def test_the_sparsity_rises_between_begin_and_end_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "exporter.compression.passes.magnitude.prune",
        lambda weights, s, pattern: seen.append(s) or prune(weights, s, pattern),
    )
    settings = Settings(0.8, "unstructured", "cubic", 0.2, 0.25, 0.75, frequency=7, epochs=4, batch_size=8)
    apply(Model(mlp()), settings, context(mlp(), points()))  # 28 steps: masks before 0, 7, 14, 21, and after all
    assert seen == pytest.approx([0.2, 0.2, 0.8 - 0.6 / 8, 0.8, 0.8])


def test_stopped_before_the_schedule_ends_it_prunes_the_model_that_was_given():
    flat, calls = mlp(), iter(range(1000))
    settings = Settings(0.5, schedule="cubic", epochs=4, batch_size=8)
    pruned, report = apply(Model(flat), settings, context(flat, points(), stopped=lambda: next(calls) > 5))
    plain, _ = apply(Model(flat), Settings(0.5), context(flat))
    assert report.notes[1] == "fine-tuning ended before the schedule did: pruned at once, without fine-tuning"
    assert all(torch.equal(a, b) for a, b in zip(pruned.flat.parameters(), plain.flat.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"sparsity": 1.0}, "prune: sparsity is 1.0; give a number in [0, 1)"),
        ({"sparsity": -0.1}, "prune: sparsity is -0.1; give a number in [0, 1)"),
        ({"sparsity": float("nan")}, "prune: sparsity is nan; give a number in [0, 1)"),
        ({"pattern": "4:2"}, "prune: pattern is '4:2'; give unstructured, 2:4 (2 of 4 stay) or 4x1 (outputs x inputs)"),
        ({"pattern": "0x1"}, "prune: pattern is '0x1'; give unstructured"),
        ({"pattern": "1:4"}, "prune: the pattern 1:4 and a sparsity of 0.5; set sparsity to 0.75"),
        ({"schedule": "linear"}, "prune: schedule is 'linear'; give one of one-shot, cubic"),
        ({"initial": 0.6}, "prune: initial is 0.6; give a share in [0, sparsity]"),
        ({"begin": 0.8}, "prune: begin is 0.8, end 0.75; give 0 <= begin < end < 1"),
        ({"frequency": 0}, "prune: frequency is 0; give a whole number of 1 or more"),
        ({"epochs": -1}, "prune: epochs is -1; give a whole number of 0 or more"),
        ({"schedule": "cubic"}, "prune: a cubic schedule without training; set epochs"),
        ({"epochs": 1, "learning_rate": 2.0}, "prune: learning_rate is 2.0; give a number in (0, 1)"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, line):
    with pytest.raises(BadInput) as refusal:
        step("prune", settings, "recipe.yaml")
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "task", "line"),
    [
        ({"sparsity": 0.99}, None, "prune: a sparsity of 0.99 would empty 2.weight [2, 16]; give a lower sparsity, or"),
        ({"sparsity": 0.9, "pattern": "2x8"}, None, "would empty 2.weight [2, 16]"),
        (
            {"pattern": "3x1"},
            None,
            "prune: no weight can be pruned in the pattern 3x1 (left whole: 0.weight [16, 8], whi",
        ),
        ({"layers_out": ("head",)}, None, "prune: layers_out 'head' fits no layer; the layers are 0.weight, 2.weight"),
        ({"epochs": 1}, None, "prune: fine-tuning needs data; name a task with --data, or set epochs to 0"),
        (
            {"epochs": 1},
            points(labels=False),
            "points: the train split has no labels; add labels, or use the pass distill",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused(settings, task, line):
    flat = mlp()
    with pytest.raises(BadInput) as refusal:
        apply(Model(flat), Settings(**settings), context(flat, task))
    assert line in str(refusal.value)


def test_it_says_whether_it_changed_the_model():
    flat = mlp()
    pruned, report = apply(Model(flat), Settings(sparsity=0.5), context(flat))
    assert report.changed and not apply(Model(flat), Settings(sparsity=0.0), context(flat))[1].changed
    assert not apply(pruned, Settings(sparsity=0.25), context(flat))[1].changed, "those are zero already"
