"""Transposed convolutions from the pass to each format's runtime: their codes in the file, and what it computes."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.analysis.emulation import emulated, quantization_noise
from exporter.compression.model import Model
from exporter.compression.passes.integer import Settings, apply
from exporter.formats.readers import READERS
from exporter.low_bit.weight import LARGEST_CODE, Granularity
from exporter.lowering.representation import TABLE, Carried
from exporter.lowering.target import TARGETS
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import trace
from exporter.training.context import Context

KERNELS = {"a.weight": (6, 8, 4, 4), "b.weight": (8, 7, 2, 2), "c.weight": (7, 5, 3, 3)}
"""Of transposed convolutions: that of stride 1 becomes a convolution of a turned kernel in TFLite."""


class Decoder(nn.Module):
    """What enlarges a picture in a segmenter or an image-to-image model."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ConvTranspose2d(6, 8, 4, 2, 1)
        self.b = nn.ConvTranspose2d(8, 7, 2, 2, bias=False)
        self.c = nn.ConvTranspose2d(7, 5, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def quantized(bits: int, activations: str) -> Model:
    torch.manual_seed(0)
    flat = FlatModule(Decoder().eval(), (torch.randn(1, 6, 5, 5),), {})
    samples = {name: torch.randn(8, *value.shape[1:]).numpy() for name, value in flat.example.items()}
    split = Split(samples, None)
    task = Task("pictures", "", ("a",), split, split, split, lambda outputs, split: Score("none", np.zeros(8), {}))
    settings = Settings(conv_bits=bits, activations=activations)
    return apply(Model(flat, {}), settings, Context(flat, task))[0]


def lowered(target: str, model: Model, folder):
    row = TARGETS[target]
    needed = row.settings.version_of(TABLE[target, "conv_transpose", 4, "float"])
    chosen = row.settings().raised_to(needed)
    program = dataclasses.replace(trace(model.flat, model.flat.example, []), low_bit=model.low_bit)
    module = importlib.import_module(TARGETS[target].module)
    path = folder / TARGETS[target].file_name
    return module.lower(module.prepare(program, chosen), path, chosen, {}), path


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("target", TARGETS)
def test_weights_alone_are_exact(target, bits, tmp_path, computes):
    model = quantized(bits, "float")
    assert {name: weight.codes.shape for name, weight in model.low_bit.items()} == KERNELS
    assert {weight.granularity for weight in model.low_bit.values()} == {Granularity(axis=1)}
    carried, path = lowered(target, model, tmp_path)
    row = TABLE[target, "conv_transpose", bits, "float"]
    assert set(carried) == {Carried(name, row) for name in KERNELS}
    graph = READERS[target].graph(path)
    stored = {constant.values.size: constant for constant in graph.constants if constant.values.ndim == 4}
    for weight in model.low_bit.values():
        constant = stored[weight.codes.size]
        assert constant.bits == bits
        assert np.array_equal(np.sort(constant.values.ravel()), np.sort(weight.codes.ravel()))
    computes(path, model.flat.example, model.flat.compute(model.flat.example))


@pytest.mark.parametrize("target", TARGETS)
def test_calibrated_activations_where_the_runtime_has_them(target, tmp_path, computes):
    model = quantized(8, "static")
    carried, path = lowered(target, model, tmp_path)
    assert not [c.reason for c in carried if c.reason]
    computed = {"onnx": "float", "tflite": "static", "coreml": "float"}[target]
    assert {c.stored.activations for c in carried} == {computed}
    if computed == "float":
        computes(path, model.flat.example, model.flat.compute(model.flat.example))
        return
    with torch.no_grad(), emulated(model.flat, model.low_bit):
        expected = {name: value.numpy() for name, value in model.flat.compute(dict(model.flat.example)).items()}
    (noise,) = quantization_noise(model.flat, model.low_bit, [model.flat.example]).values()
    (largest,) = (float(np.abs(value).max()) for value in expected.values())
    assert noise < 0.1 * largest
    computes(path, model.flat.example, expected, noise / largest)
    names = READERS["tflite"].contents(path).operations
    assert names.count("TRANSPOSE_CONV") == 2 and names.count("CONV_2D") == 1
    graph = READERS["tflite"].graph(path)
    codes = {constant.name for constant in graph.constants if constant.dtype == "int8"}
    assert all(o.inputs[1] in codes for o in graph.operations if o.name in ("TRANSPOSE_CONV", "CONV_2D"))


@pytest.mark.parametrize("target", ["onnx", "coreml"])
def test_in_groups_the_scales_lie_along_the_first_axis(target, tmp_path, computes):
    torch.manual_seed(0)
    flat = FlatModule(nn.ConvTranspose2d(6, 6, 2, 2, groups=6).eval(), (torch.randn(1, 6, 5, 5),), {})
    model, _ = apply(Model(flat, {}), Settings(conv_bits=4, activations="float"), Context(flat, None))
    (weight,) = model.low_bit.values()
    assert (weight.bits, weight.granularity, weight.scale.shape) == (8, Granularity(), (6,))
    assert np.abs(weight.codes).reshape(6, -1).max(1).tolist() == [LARGEST_CODE[8]] * 6
    (carried,), path = lowered(target, model, tmp_path)
    assert carried.stored is not None and not carried.reason
    computes(path, flat.example, model.flat.compute(flat.example))
