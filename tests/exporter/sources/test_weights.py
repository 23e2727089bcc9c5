"""The facts of a model's weights."""

from __future__ import annotations

import torch
from torch import nn

from exporter.sources.weights import weights_facts


def test_the_hash_of_weights_tells_names_types_and_values_apart():
    def facts(**tensors):
        module = nn.Module()
        for name, value in tensors.items():
            module.register_buffer(name, value)
        return weights_facts(module)["weights_sha256"]

    zeros = torch.zeros(4)
    hashes = {facts(a=zeros), facts(b=zeros), facts(a=zeros.int()), facts(a=zeros.reshape(2, 2)), facts(a=zeros + 1)}
    assert len(hashes) == 5
    assert facts(a=zeros) == facts(a=torch.zeros(4))


def test_parameters_that_are_shared_count_once():
    linear = nn.Linear(4, 4, bias=False)
    assert weights_facts(nn.Sequential(linear, linear))["parameters"] == 16
