"""Quantized activations in PyTorch against ONNX's formulas in numpy, and against onnxruntime itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from exporter.compression.analysis.emulation import emulated, quantization_noise, quantized, signal_to_noise_db
from exporter.low_bit.codes import quantize_weight
from exporter.low_bit.grid import Grid, grid_of
from exporter.low_bit.weight import LowBitWeight, Range
from exporter.tracing.flat_module import FlatModule


def flat_of(module, *args):
    return FlatModule(module.eval(), args, {})


def layer(activations="static", inputs=None, outputs=None, kind="linear"):
    return LowBitWeight(np.zeros((1, 1), np.int8), np.ones(1, np.float32), 8, kind, activations, inputs, outputs)


def dequantized(x, grid):
    """DequantizeLinear(QuantizeLinear(x)) of the ONNX specification, uint8: saturate(round(x / scale) + zero_point)."""
    scale = np.float32(grid.scale)
    q = np.clip(np.rint(x / scale) + grid.zero_point, 0, 255).astype(np.uint8)
    return (q.astype(np.int32) - grid.zero_point).astype(np.float32) * scale


@settings(max_examples=100, deadline=None)
@given(
    x=arrays.arrays(np.float32, 20, elements=st.floats(-100, 100, width=32)),
    low=st.floats(-50, 0, width=32),
    high=st.floats(0, 50, width=32),
)
def test_rounding_is_that_of_onnx_s_formulas(x, low, high):
    grid = grid_of(Range(low, high))
    found = quantized(torch.from_numpy(x), grid).numpy()
    assert np.array_equal(found, dequantized(x, grid))
    assert np.array_equal(quantized(torch.from_numpy(found), grid).numpy(), found), "once more changes nothing"
    assert quantized(torch.zeros(1), grid) == 0.0
    inside = (x >= grid.scale * -grid.zero_point) & (x <= grid.scale * (255 - grid.zero_point))
    assert (np.abs(x - found)[inside] <= grid.scale * 0.5001).all()


def test_halves_go_to_the_even_code_whatever_the_zero_point():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5])
    assert quantized(x, Grid(1.0, 3)).tolist() == [0.0, 2.0, 2.0, 0.0]
    assert quantized(x, Grid(1.0, 4)).tolist() == [0.0, 2.0, 2.0, 0.0]


def test_the_gradient_passes_inside_the_grid_and_ends_outside():
    x = torch.tensor([-3.0, 0.3, 1.26, 700.0], requires_grad=True)
    y = quantized(x, Grid(1.0, 2))
    y.sum().backward()
    assert y.tolist() == [-2.0, 0.0, 1.0, 253.0]
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


# --- layers --------------------------------------------------------------------------------------------------------


def test_a_static_layer_rounds_input_and_output_with_bias():
    torch.manual_seed(0)
    module = nn.Linear(6, 4)
    x = torch.randn(5, 6)
    flat = flat_of(module, x)
    inputs, outputs = Range(-2.0, 2.0), Range(-1.0, 0.5)
    with emulated(flat, {"weight": layer("static", inputs, outputs)}), torch.no_grad():
        found = flat.compute({"input": x})["output"].numpy()
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    want = dequantized(dequantized(x.numpy(), grid_of(inputs)) @ weight.T + bias, grid_of(outputs))
    assert np.abs(found - want).max() <= 1.001 * grid_of(outputs).scale  # a half may fall to the other side
    assert (found == want).mean() > 0.9
    assert found.min() >= -1.01 and found.max() <= 0.51
    with torch.no_grad():
        assert torch.equal(flat.compute({"input": x})["output"], module(x)), "over afterwards"


def test_a_dynamic_layer_takes_the_range_of_each_input_and_leaves_its_output():
    torch.manual_seed(0)
    module = nn.Linear(6, 4)
    flat = flat_of(module, torch.randn(5, 6))
    for size in (1.0, 100.0):
        x = size * torch.randn(5, 6)
        with emulated(flat, {"weight": layer("dynamic")}), torch.no_grad():
            found = flat.compute({"input": x})["output"]
        rounded = dequantized(x.numpy(), grid_of(Range(float(x.min()), float(x.max()))))
        with torch.no_grad():
            assert torch.allclose(found, module(torch.from_numpy(rounded)), rtol=1e-5)


def test_embeddings_float_layers_and_layers_unknown_round_nothing(as_exported):
    module, example = as_exported("transformer")
    flat = flat_of(module, *example)
    narrow = Range(-1e-3, 1e-3)
    table = {
        "embedding.weight": layer("float", kind="embedding"),
        "attention.in_proj_weight": layer("float"),
        "unknown.weight": layer("static", narrow, narrow),
    }
    with torch.no_grad():
        want = flat.compute(dict(flat.example))["output"]
        with emulated(flat, table):
            assert torch.equal(flat.compute(dict(flat.example))["output"], want)
        table["attention.in_proj_weight"] = layer("static", narrow, narrow)
        with emulated(flat, table):
            assert not torch.equal(flat.compute(dict(flat.example))["output"], want), "or this test is blind"


def qdq_model(module, weight):
    """The layer as onnxruntime runs it: QuantizeLinear and DequantizeLinear around Gemm, its weight as int8 codes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def pair(source, name):
        names = [f"{name}_scale", f"{name}_zero"]
        quantize = helper.make_node("QuantizeLinear", [source, *names], [f"{name}_q"])
        return [quantize, helper.make_node("DequantizeLinear", [f"{name}_q", *names], [name])]

    tensors = {"codes": weight.codes, "codes_scale": weight.scale, "b": module.bias.detach().numpy()}
    for name, reach in (("xr", weight.inputs), ("yr", weight.outputs)):
        tensors[f"{name}_scale"] = np.float32(grid_of(reach).scale)
        tensors[f"{name}_zero"] = np.uint8(grid_of(reach).zero_point)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["codes", "codes_scale"], ["w"], axis=0),
            *pair("x", "xr"),
            helper.make_node("Gemm", ["xr", "w", "b"], ["y"], transB=1),
            *pair("y", "yr"),
        ],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16])],
        [helper.make_tensor_value_info("yr", TensorProto.FLOAT, [None, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_it_is_what_onnxruntime_computes():
    import onnxruntime

    torch.manual_seed(1)
    module = nn.Linear(16, 8)
    codes, scale = quantize_weight(module.weight, 8)
    weight = LowBitWeight(codes, scale, 8, "linear", "static", Range(-3.0, 2.5), Range(-1.2, 1.5))
    module.weight.data = torch.from_numpy(weight.value)
    x = torch.randn(200, 16)
    session = onnxruntime.InferenceSession(qdq_model(module, weight), providers=["CPUExecutionProvider"])
    got = session.run(None, {"x": x.numpy()})[0]
    flat = flat_of(module, x)
    with emulated(flat, {"weight": weight}), torch.no_grad():
        want = flat.compute({"input": x})["output"].numpy()
    assert (np.abs(got - want) < 1e-6).mean() > 0.98
    assert np.abs(got - want).max() <= 1.001 * grid_of(weight.outputs).scale
    noise = quantization_noise(flat, {"weight": weight}, [{"input": x}])
    assert np.abs(got - want).max() <= noise["output"]


# --- the noise -----------------------------------------------------------------------------------------------------


def test_noise_of_one_layer_is_about_a_step_of_its_output():
    torch.manual_seed(0)
    module = nn.Linear(4, 32)
    x = torch.rand(64, 4)
    flat = flat_of(module, x)
    fine, coarse = Range(0.0, 1.0), Range(-64.0, 63.5)
    noise = quantization_noise(flat, {"weight": layer("static", fine, coarse)}, [{"input": x}])
    assert 0.5 < noise["output"] / grid_of(coarse).scale <= 1.05


def test_noise_covers_a_value_that_is_rounded_to_the_other_side():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(-1))
    x = torch.randn(64, 8)
    flat = flat_of(module, x)
    table = {
        "0.weight": layer("static", Range(-4.0, 4.0), Range(-4.0, 4.0)),
        "2.weight": layer("static", Range(0.0, 4.0), Range(-2.0, 2.0)),
    }
    noise = quantization_noise(flat, table, [{"input": x}])["output"]
    other_side = [lambda v: torch.floor(v + 0.49), lambda v: torch.ceil(v - 0.49)]
    for rounding in other_side:
        with torch.no_grad():
            with emulated(flat, table):
                want = flat.compute({"input": x})["output"]
            with emulated(flat, table, rounding):
                got = flat.compute({"input": x})["output"]
        assert 0 < float((got - want).abs().max()) <= noise


def test_noise_is_the_same_again_the_worst_of_all_samples_and_for_floating_outputs_only():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            y = self.layer(x)
            return {"y": y, "best": y.argmax(-1)}

    torch.manual_seed(0)
    flat = flat_of(Both(), torch.randn(2, 4))
    table = {"layer.weight": layer("dynamic")}
    small, large = {"x": torch.randn(8, 4)}, {"x": 100 * torch.randn(8, 4)}
    noise = quantization_noise(flat, table, [small, large])
    assert list(noise) == ["y"]
    assert noise == quantization_noise(flat, table, [small, large])
    assert noise["y"] > 20 * quantization_noise(flat, table, [small])["y"] > 0
    assert quantization_noise(flat, {}, [small]) == {"y": 0.0}


def test_decibels_by_hand():
    exact = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([10.0]), "best": torch.tensor([1])}
    assert signal_to_noise_db(exact, {**exact, "a": torch.tensor([3.0, 4.5])}) == pytest.approx(20.0)
    both = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([20.0]), "best": torch.tensor([0])}
    assert signal_to_noise_db(exact, both) == pytest.approx(0.0), "the lowest"
    assert signal_to_noise_db(exact, {**exact, "best": torch.tensor([0])}) == math.inf
