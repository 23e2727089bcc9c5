"""Sizes by hand: sparse encodings, waterfalls of known files, and compression that repeats."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from exporter.formats.contents import Constant, Operation
from exporter.inspection.sizes import (
    GRAPH,
    OTHER_WEIGHTS,
    explain,
    gzip_bytes,
    megabytes,
    sizes_of,
    waterfall,
)
from exporter.inspection.stored import kinds_read, stored_constants
from runtimes.errors import BadInput

EXAMPLE = np.array([[0, 0, 5, 0], [0, 0, 0, 0], [1, 2, 0, 3]], np.float32)


def test_a_waterfall_by_hand():
    constants = [
        (Constant("a", "float32", 32, EXAMPLE, 48), "linear"),
        (Constant("b", "int4", 4, np.array([[0, 1], [7, 0]], np.int8), 2), "linear"),
        (Constant("c", "int8", 8, np.array([0] + [1] * 29, np.int8), 30), "embedding"),  # too few to be told apart
        (Constant("d", "float32", 32, np.zeros(3, np.float32), 12), "other"),
    ]
    assert list(waterfall(constants, 128).items()) == [
        ("linear float32", 16),
        ("linear float32, zeros", 32),
        ("linear int4", 2),
        ("embedding int8", 30),
        (OTHER_WEIGHTS, 12),
        (GRAPH, 36),
    ]


def test_a_weight_is_followed_through_what_hands_it_on():
    operations = [
        Operation("Dequantize", {0: "codes", 1: "scale"}, ("weight",)),
        Operation("Transpose", {0: "weight"}, ("turned",)),
        Operation("MatMul", {0: "x", 1: "turned", 2: "bias"}, ("y",)),
    ]
    kinds = kinds_read(operations, {("MatMul", 1): "linear"}, {("Dequantize", 0), ("Transpose", 0)})
    assert kinds == {"codes": "linear", "weight": "linear", "turned": "linear"}


def test_compression_is_zlib_s_and_repeats(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(range(256)) * 9000)
    header_and_checksum = 18 - 6  # of gzip, less those of zlib
    assert gzip_bytes(file) == len(gzip.compress(file.read_bytes(), 9)) - header_and_checksum
    package = tmp_path / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "a").write_bytes(file.read_bytes())
    (package / "b").write_bytes(file.read_bytes())
    assert gzip_bytes(package) == 2 * gzip_bytes(file)


@pytest.fixture(scope="module")
def pruned():
    """A convolution, an embedding-like look-up and two linear layers, one of which is nine tenths zeros."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(90, 16)
            self.conv = nn.Conv1d(16, 24, 3, padding=1)
            self.sparse, self.dense = nn.Linear(24, 200), nn.Linear(200, 10)

        def forward(self, ids):
            x = self.conv(self.table(ids).transpose(1, 2)).relu().mean(2)
            return self.dense(self.sparse(x).relu())

    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.sparse.weight.mul_((torch.arange(4800) % 10 == 0).reshape(200, 24))
    return module, torch.randint(0, 90, (1, 12))


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_the_bytes_of_a_real_file(target, pruned, lower_here):
    path = lower_here(*pruned, target).path
    sizes = sizes_of(path)
    parts = sizes.waterfall
    zeros = 4 * 4800 * 9 // 10
    assert sum(parts.values()) == sizes.size_bytes
    assert parts["linear float32, zeros"] == zeros
    assert parts["linear float32"] == 4 * (4800 + 2000) - zeros
    assert parts["conv float32"] == 4 * 24 * 16 * 3
    assert parts["embedding float32"] == 4 * 90 * 16
    assert 4 * (24 + 200 + 10) <= parts[OTHER_WEIGHTS] <= 4 * (24 + 200 + 10) + 400
    assert 0 < parts[GRAPH] < 25_000
    assert sizes.gzip_bytes < sizes.size_bytes - zeros // 2
    (weight,) = [c for c, kind in stored_constants(path) if kind == "linear" and c.values.size == 4800]
    assert sorted(weight.values.shape) == [24, 200]
    encoded = {"onnx": 480 * 12, "tflite": 480 * (4 + 1) + 201 * 2, "coreml": 4800 // 8 + 480 * 4}[target]
    assert sizes.size_bytes - sizes.sparse_bytes == 4 * 4800 - encoded


def test_what_zeros_cost_in_a_sentence():
    assert explain({"linear float32": 900_000, "linear float32, zeros": 4_100_000, GRAPH: 9}, 1_200_000, 2_000_000) == (
        "4.10 MB of 5.00 MB are zeros, which are stored like any other value; gzip makes the file 1.20 MB, "
        "the format's sparse encoding would make it 2.00 MB"
    )
    assert "would save nothing, its indices take more" in explain({"a, zeros": 30_000, "a": 70_000}, 9, 100_000)
    assert explain({"linear float32": 96, "linear float32, zeros": 4}, 90, 90) == ""


def test_megabytes_and_kilobytes():
    assert megabytes(91_000_000) == "91.00 MB" and megabytes(99_949) == "99.9 kB" and megabytes(100_000) == "0.10 MB"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="missing, or not a regular file"):
        sizes_of(tmp_path / "model.onnx")
