"""Drawn inputs: what they reach, where they stop, and what is said of what a model cannot take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporter.sources.drawn import FEWEST, MOST, drawn, index_ranges, randomized
from exporter.tracing.flat_module import FlatModule


def draw(example, ranges=None, fault=lambda sample: ""):
    said: list[str] = []
    return drawn(example, ranges or {}, fault, said.append), said


def test_floats_keep_mean_and_spread_integers_their_range():
    example = {
        "x": torch.randn(1000) * 3 + 7,
        "ids": torch.tensor([4, 5, 9]),
        "one": torch.tensor([2.0]),
    }
    first, again, other = randomized(example, 1), randomized(example, 1), randomized(example, 2)
    assert all(torch.equal(first[name], again[name]) for name in example)
    assert not torch.equal(first["x"], other["x"])
    assert abs(float(first["x"].mean()) - 7) < 0.5 and abs(float(first["x"].std()) - 3) < 0.3
    assert set(first["ids"].tolist()) <= set(range(10)) and first["ids"].dtype == torch.int64
    assert first["one"].shape == (1,) and torch.isfinite(first["one"]).all()


def test_one_set_has_larger_floats():
    samples, _ = draw({"x": torch.randn(4000)})
    spreads = [float(sample["x"].std()) for sample in samples]
    assert 1.8 < max(spreads) / spreads[1] < 2.2


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("value", [0, 1])
def test_masks_are_flipped_filled_and_emptied(dtype, value):
    example = {"mask": torch.full((3, 40), value).to(dtype)}
    samples, said = draw(example)
    means = [float(sample["mask"].float().mean()) for sample in samples]
    assert all(sample["mask"].dtype == dtype and set(sample["mask"].unique().tolist()) <= {0, 1} for sample in samples)
    assert 0.0 in means and any(0.3 < mean < 0.7 for mean in means)
    assert 1.0 in means[1:]
    assert said == []


def test_integers_reach_both_ends_of_the_table_they_pick_from_and_stay_in_it():
    samples, _ = draw({"ids": torch.tensor([[3, 4, 5, 6]])}, {"ids": (0, 29999)})
    values = torch.cat([sample["ids"] for sample in samples[1:]]).flatten()
    assert (int(values.min()), int(values.max())) == (0, 29999)
    assert {0, 29999} <= set(samples[2]["ids"].flatten().tolist())


def test_integers_that_pick_from_no_table_are_negative_once():
    samples, _ = draw({"shift": torch.tensor([3, 40, 17, 2, 5, 6])})
    values = torch.cat([sample["shift"] for sample in samples[1:]])
    assert int(values.min()) == -40 and int(values.max()) == 40
    assert min(int(sample["shift"].min()) for sample in samples[4:]) >= 0, "once"


def test_the_largest_integers_are_drawn_too():
    for value in (2**63 - 1, -(2**63)):
        samples, _ = draw({"x": torch.tensor([value, 0])})
        assert len({tuple(sample["x"].tolist()) for sample in samples}) > 4
    samples, _ = draw({"x": torch.tensor([127, -128], dtype=torch.int8)})
    assert any(-128 in sample["x"].tolist() for sample in samples[1:])


def test_small_inputs_get_more_sets_than_large_ones():
    assert len(draw({"x": torch.zeros(3)})[0]) == MOST
    assert len(draw({"x": torch.zeros(3, 224, 224)})[0]) == FEWEST
    assert len(draw({"x": torch.zeros(2**20 // 4 // 6)})[0]) == 6


class Attention(nn.Module):
    """NaN where a row of the mask is empty."""

    def forward(self, x, mask):
        return x.masked_fill(~mask, -torch.inf).softmax(-1)


def faults_of(flat):
    from exporter.sources.inputs import reference
    from runtimes.errors import BadInput

    def fault(sample):
        try:
            reference(flat, sample)
        except BadInput as error:
            return error.what
        return ""

    return fault


def test_an_empty_mask_that_gives_nan_in_torch_is_left_out_and_said():
    example = {"x": torch.randn(2, 30), "mask": torch.ones(2, 30, dtype=torch.bool)}
    samples, said = draw(example, fault=faults_of(FlatModule(Attention(), (), example)))
    assert said == [
        "golden inputs with empty masks and negative integers are left out, and milder ones taken: PyTorch's own "
        "output 'output' holds NaN or infinity"
    ]
    assert len(samples) == MOST and all(bool(sample["mask"].any(-1).all()) for sample in samples)
    assert any(not bool(sample["mask"].all()) for sample in samples)


class Logarithm(nn.Module):
    """Takes positive numbers only."""

    def forward(self, x):
        return x.log()


def test_floats_that_the_model_cannot_take_are_kept_within_the_examples():
    example = {"x": torch.rand(200) + 0.01}
    samples, said = draw(example, fault=faults_of(FlatModule(Logarithm(), (), example)))
    assert len(samples) == MOST and all(float(sample["x"].min()) >= 0.01 for sample in samples)
    assert said == [
        "golden inputs with other values are left out, and milder ones taken: PyTorch's own output 'output' holds NaN "
        "or infinity"
    ]


def test_what_cannot_be_computed_at_all_is_left_out():
    example = {"x": torch.rand(3)}
    samples, said = draw(example, fault=lambda sample: "no")
    assert len(samples) == 1 and samples[0] is example
    assert said[0] == "golden inputs with other values are left out: no"


class Bag(nn.Module):
    """Offsets that must rise from zero."""

    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 4)

    def forward(self, ids, offsets):
        return self.bag(ids, offsets)


def test_offsets_of_an_embedding_bag_stay_as_they_are():
    example = {"ids": torch.tensor([1, 2, 4, 5]), "offsets": torch.tensor([0, 2])}
    flat = FlatModule(Bag(), (), example)
    samples, said = draw(example, index_ranges(flat, example), faults_of(flat))
    assert all(sample["offsets"].tolist()[0] == 0 for sample in samples)
    assert said and all("left out" in line for line in said)


class Tables(nn.Module):
    """Every way to pick rows, straight and through views and casts; one input is only added to."""

    def __init__(self):
        super().__init__()
        self.embedding, self.table = nn.Embedding(30, 4), nn.Parameter(torch.randn(12, 4))

    def forward(self, ids, narrow, rows, picked, plain, flag):
        found = self.embedding(ids[:, 1:].reshape(-1)) + self.embedding((plain + 1) % 7)
        return found, self.embedding(narrow.long()), self.table[rows], self.table.index_select(0, picked), flag, ids[0]


def test_ranges_are_those_of_the_tables():
    example = {
        "ids": torch.ones(2, 5, dtype=torch.int64),
        "narrow": torch.ones(8, dtype=torch.int32),
        "rows": torch.ones(8, dtype=torch.int64),
        "picked": torch.ones(8, dtype=torch.int64),
        "plain": torch.ones(8, dtype=torch.int64),
        "flag": torch.ones(8, dtype=torch.bool),
    }
    found = index_ranges(FlatModule(Tables(), (), example), example)
    assert found == {"ids": (0, 29), "narrow": (0, 29), "rows": (0, 11), "picked": (0, 11)}
    assert index_ranges(FlatModule(Logarithm(), (), {"x": torch.ones(1)}), {"x": torch.ones(1)}) == {}
