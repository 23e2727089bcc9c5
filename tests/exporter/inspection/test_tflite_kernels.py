"""Kernel truth of TFLite files: what is read as codes, dequantized, or float, and for how much of the time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from exporter.formats.tflite_file import operator_name, read
from exporter.inspection import tflite_kernels
from exporter.inspection.tflite_kernels import NONE_READ, NOTE, kernels
from exporter.low_bit.weight import LowBitWeight
from exporter.lowering.low_bit_tflite import carry
from runtimes.errors import BadInput


class Stack(nn.Module):
    """384 + 32 values for `first`, 512 + 16 for `second`, 64 for `third`, an embedding of 60."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(12, 32), nn.Linear(32, 16), nn.Linear(16, 4, bias=False)
        self.words = nn.Embedding(5, 12)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.third(torch.tanh(self.second(torch.tanh(self.first(self.words(ids))))))


@pytest.fixture(scope="module")
def stack(lower_here):
    """A file of float32 whose weights are int8 ones, and their table."""
    torch.manual_seed(0)
    module, low_bit = Stack(), {}
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.endswith("weight"):
                codes = torch.randint(-127, 128, weight.shape).numpy().astype(np.int8)
                kind = "embedding" if name == "words.weight" else "linear"
                low_bit[name] = LowBitWeight(codes, np.full(len(codes), 0.01, np.float32), 8, kind)
                weight.copy_(torch.from_numpy(low_bit[name].value))
    return lower_here(module, torch.randint(0, 5, (1, 40)), "tflite").path.read_bytes(), low_bit


@pytest.fixture
def truth_of(stack, tmp_path):
    """Kernel truth of that file with the named weights at 8 bits, their activations given."""

    def get(**activations: str):
        content, low_bit = stack
        table = {f"{n}.weight": replace(low_bit[f"{n}.weight"], activations=kind) for n, kind in activations.items()}
        (tmp_path / "model.tflite").write_bytes(carry(content, table)[0])
        return kernels(tmp_path / "model.tflite", seconds=0.05)

    return get


FLOATS = 32 + 16
"""The biases stay float32."""


def test_a_float_file_reads_no_codes(truth_of):
    truth = truth_of()
    assert (truth.low_bit_share, truth.dequantized_share, truth.float_share) == (0, 0, 1)
    assert (truth.time_share, truth.note) == (0, NONE_READ)


def test_each_weight_counts_as_its_operator_reads_it(truth_of):
    truth = truth_of(first="dynamic", second="float")
    total = 384 + 512 + 64 + 60 + FLOATS
    assert truth.low_bit_share == pytest.approx(384 / total, rel=0.01)  # the converter adds a scalar or two
    assert truth.dequantized_share == pytest.approx(512 / total, rel=0.01)
    assert truth.float_share == pytest.approx((64 + 60 + FLOATS) / total, rel=0.02)
    assert truth.low_bit_share + truth.dequantized_share + truth.float_share == pytest.approx(1)
    assert truth.time_share is not None and 0 < truth.time_share <= 1
    assert truth.note == NOTE


def test_a_look_up_reads_codes(truth_of):
    assert truth_of(words="float").low_bit_share == pytest.approx(60 / (384 + 512 + 64 + 60 + FLOATS), rel=0.02)


def test_weights_that_are_dequantized_take_no_time_as_codes(truth_of):
    truth = truth_of(first="float", second="float", third="float")
    assert truth.dequantized_share > 0.85
    assert (truth.low_bit_share, truth.time_share) == (0, 0)


def test_only_the_operators_that_read_codes_are_timed_alone(stack):
    content, low_bit = stack
    first = replace(low_bit["first.weight"], activations="dynamic")
    table = {"first.weight": first, "words.weight": low_bit["words.weight"]}
    model = read(carry(content, table)[0])
    part = tflite_kernels._reading_codes(model)
    names = [operator_name(part, o) for o in part.subgraphs[0].operators]
    assert names == ["EMBEDDING_LOOKUP", "FULLY_CONNECTED"]
    assert len(part.subgraphs[0].inputs) == 2  # indices, and what a reshape makes of the rows
    assert len(model.subgraphs[0].operators) > 5, "the model itself stays whole"


def test_the_time_share_is_that_of_the_part_in_the_whole(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(tflite_kernels.time, "thread_time", lambda: next(clock))
    runs = iter([lambda: None, lambda: [next(clock) for _ in range(3)]])  # one tick, and four
    monkeypatch.setattr(tflite_kernels, "_run", lambda content: next(runs))
    monkeypatch.setattr("exporter.formats.tflite_writer.write", lambda model: b"")
    assert tflite_kernels._time_share(None, b"", 0) == 0.25


def test_what_is_no_tflite_file(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"no flatbuffer")
    with pytest.raises(BadInput, match="not a TFLite file; export the model again"):
        kernels(tmp_path / "model.tflite")
