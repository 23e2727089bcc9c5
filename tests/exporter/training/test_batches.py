"""The data of training: batches in order, and padding that is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.task import Split
from exporter.tracing.flat_module import FlatModule
from exporter.training.batches import batches, padding_trimmer
from tests.exporter.training.points import module_of, task_of


def test_batches_are_in_order_and_the_last_is_short():
    flat = module_of()
    split = task_of(10).train
    found = list(batches(flat, split, 4))
    assert [len(labels) for _, labels in found] == [4, 4, 2]
    assert np.array_equal(torch.cat([inputs["input"] for inputs, _ in found]).numpy(), split.inputs["x"])


class Masked(nn.Module):
    """The mean embedding of the tokens that are not padding; with `leaks`, of all of them."""

    def __init__(self, leaks=False) -> None:
        super().__init__()
        self.embedding, self.leaks = nn.Embedding(9, 3), leaks

    def forward(self, ids, attention_mask):
        weight = torch.ones_like(attention_mask) if self.leaks else attention_mask
        return (self.embedding(ids) * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


@pytest.mark.parametrize("leaks", [False, True])
def test_padding_is_cut_only_where_it_does_not_count(leaks):
    mask = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    split = Split({"ids": np.arange(10).reshape(2, 5) % 9, "attention_mask": mask})
    flat = FlatModule(Masked(leaks).eval(), (torch.tensor(split.inputs["ids"]), torch.tensor(mask)), {})
    (inputs, _), *_ = batches(flat, split, 2)
    cut = padding_trimmer(flat, split)(inputs)
    assert {v.shape for v in cut.values()} == {(2, 5 if leaks else 3)}
    plain = module_of()
    (inputs, _), *_ = batches(plain, task_of().train, 2)
    assert padding_trimmer(plain, task_of().train)(inputs) is inputs
