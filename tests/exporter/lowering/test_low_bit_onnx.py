"""Low-bit weights in ONNX files: codes bit for bit, what onnxruntime computes, on which kernels, and how small."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporter.compression.analysis.emulation import emulated, quantization_noise
from exporter.low_bit.grid import grid_of
from exporter.low_bit.weight import ACTIVATIONS, KINDS, LARGEST_CODE, LowBit, LowBitWeight, Range
from exporter.lowering import to_onnx
from exporter.lowering.low_bit_onnx import LEFT_FLOAT, NOT_FOUND, carry
from exporter.lowering.representation import TABLE, Carried, Representation, representation
from exporter.lowering.settings import OnnxSettings
from exporter.modules.batch_norm import fold_batch_norms
from exporter.modules.weight_uses import watched_weights, weight_uses
from exporter.sources.source import arguments
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import DynamicAxis, trace
from runtimes.onnx_runtime import EXACT_INT8

FLOAT_ERROR = 1e-5
"""Relative to an output's largest value, as everywhere: two orders of float32 sums."""


def low_bit_of(weight: np.ndarray, bits: int, kind: str, activations: str, *ranges: Range) -> LowBitWeight:
    """Codes by rounding; ternary ones with the mean magnitude for a scale; the last channel zero."""
    rows = np.abs(weight.reshape(len(weight), -1))
    scale = (rows.mean(1) if bits == 2 else rows.max(1) / LARGEST_CODE[bits]).astype(np.float32)
    codes = np.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    codes[-1] = 0
    limit = LARGEST_CODE[bits]
    return LowBitWeight(np.clip(codes, -limit, limit).astype(np.int8), scale, bits, kind, activations, *ranges)


def made_low_bit(flat: FlatModule, bits: int, activations: str) -> dict[str, LowBitWeight]:
    """Round all weights of a module in place; static ranges are those of the example."""
    ranges: dict[tuple[str, bool], Range] = {}

    def see(name, is_input, value):
        old = ranges.get((name, is_input), Range(0.0, 0.0))
        ranges[name, is_input] = Range(min(old.low, float(value.min())), max(old.high, float(value.max())))

    def before(use, value, weight):
        see(use.name, True, value)
        return value, weight

    def after(use, output):
        see(use.name, False, output)
        return output

    with torch.no_grad(), watched_weights(flat.module, before, after):
        flat.compute(dict(flat.example))
    parameters, low_bit = dict(flat.module.named_parameters()), {}
    for name, uses in weight_uses(flat).items():
        both = (ranges[name, True], ranges[name, False]) if activations == "static" else ()
        value = parameters[name].detach().numpy()
        low_bit[name] = low_bit_of(value, bits, uses[0].kind, activations, *both)
        parameters[name].data = torch.from_numpy(low_bit[name].value)
    return low_bit


@dataclass(frozen=True)
class Made:
    """A low-bit module, its table, what the lowering said of each weight, and the file."""

    flat: FlatModule
    low_bit: LowBit
    carried: tuple[Carried, ...]
    path: Path

    def left(self) -> dict[str, str]:
        return {c.name: c.reason for c in self.carried if c.reason}


@pytest.fixture
def lowered(tmp_path):
    """Make the weights of a module low-bit (none of them for bits=0) and lower it."""

    def make(module, example, bits, activations="float", *, opset=20, dynamic=(), fold=True) -> Made:
        flat = FlatModule(module.eval(), *arguments(example))
        flat = fold_batch_norms(flat) if fold else flat
        low_bit = made_low_bit(flat, bits, activations) if bits else {}
        return Made(flat, low_bit, *write(flat, low_bit, tmp_path / "model.onnx", opset, dynamic))

    return make


def write(flat: FlatModule, low_bit: LowBit, path: Path, opset=20, dynamic=()) -> tuple[tuple[Carried, ...], Path]:
    chosen = OnnxSettings(opset)
    program = dataclasses.replace(trace(flat, flat.example, dynamic), low_bit=low_bit)
    carried = to_onnx.lower(to_onnx.prepare(program, chosen), path, chosen, {})
    onnx.checker.check_model(str(path), full_check=True)
    return carried, path


def stored(path: Path) -> dict[str, np.ndarray]:
    """All constants of a file."""
    graph = ir.from_proto(onnx.load(path)).graph
    return {name: value.const_value.numpy() for name, value in graph.initializers.items()}


def stored_codes(path: Path) -> dict[str, np.ndarray]:
    """The codes in a file by the weight's name, int8, in the order in which they lie there."""
    found = {name: value for name, value in stored(path).items() if name.endswith(".codes")}
    return {name.removesuffix(".codes"): codes.astype(np.int8) for name, codes in found.items()}


def compute(path: Path, inputs) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*EXACT_INT8)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {entry.name: np.asarray(inputs[entry.name]) for entry in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def executed(path: Path) -> Counter[str]:
    """The operators of the graph that onnxruntime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def differs(made: Made, expected) -> dict[str, float]:
    """By how much each output of the file on the example differs, in shares of its largest value."""
    got = compute(made.path, made.flat.example)
    assert set(got) == set(expected)
    return {
        name: float(np.abs(got[name] - value.numpy()).max() / max(np.abs(value.numpy()).max(), 1e-9))
        for name, value in expected.items()
    }


def reference(made: Made) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return made.flat.compute(dict(made.flat.example))


def check(made: Made) -> None:
    """The file computes what the module computes: exactly with float activations, else within their rounding."""
    exact = reference(made)
    noise = dict.fromkeys(exact, 0.0)
    if any(w.activations != "float" for w in made.low_bit.values()):
        noise.update(quantization_noise(made.flat, made.low_bit, [made.flat.example]))
    for name, error in differs(made, exact).items():
        largest = float(exact[name].abs().max())
        assert error * largest <= FLOAT_ERROR * largest + noise[name], (name, error)


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("bits", LARGEST_CODE)
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_has_a_row(kind, bits, activations):
    row = TABLE["onnx", kind, bits, activations]
    assert isinstance(row, Representation) and row.why
    assert row.opset == {8: 18, 4: 21, 2: 25}[bits]
    convolved = "float" if activations == "dynamic" else activations
    assert (
        row.activations
        == {
            "linear": activations,
            "embedding": "float",
            "conv": convolved,
            "conv_transpose": "float",
        }[kind]
    )


def test_a_dynamic_layer_with_ranges_computes_in_them():
    """LiteRT's dynamic range is that of a row, which is nearer; onnxruntime's is that of the whole tensor."""
    plain = low_bit_of(np.eye(3, dtype=np.float32), 8, "linear", "dynamic")
    ranged = dataclasses.replace(plain, inputs=Range(-1.0, 1.0), outputs=Range(-1.0, 1.0))
    assert representation("onnx", plain).activations == "dynamic"
    assert representation("onnx", ranged).activations == "static"
    assert representation("tflite", ranged).activations == "dynamic"


# --- each row: codes and computation -------------------------------------------------------------------------------


class EveryKind(nn.Module):
    """Linear layers with and without bias on two and three axes, convolutions of one to three, with groups."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.left, self.right = nn.Linear(12, 9), nn.Linear(12, 9, bias=False)
        self.conv1d = nn.Conv1d(7, 5, 3)
        self.stem = nn.Conv2d(3, 8, 3, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.conv3d = nn.Conv3d(2, 4, (1, 2, 2))
        self.flat = nn.Linear(6, 5)

    def forward(self, ids, image, volume, rows):
        words = self.embedding(ids)
        words = self.conv1d(torch.tanh(self.left(words) + self.right(words)))
        image = nn.functional.relu6(self.depthwise(torch.relu(self.grouped(torch.relu(self.stem(image))))))
        return words, image, self.conv3d(volume), self.flat(rows)


def every_kind():
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, 9, 9), torch.randn(1, 2, 3, 4, 4), torch.randn(2, 6)
    return EveryKind(), (torch.randint(0, 20, (1, 7)), *inputs)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_codes_lie_in_the_file_and_the_runtime_computes_with_them(bits, activations, lowered):
    made = lowered(*every_kind(), bits, activations)
    found = stored_codes(made.path)
    assert set(found) == set(made.low_bit) and len(found) == 9
    for name, weight in made.low_bit.items():
        assert any(np.array_equal(order, weight.codes) for order in (found[name], found[name].T)), name
    assert [c.stored.name for c in made.carried] == [
        TABLE["onnx", w.kind, bits, activations].name for w in made.low_bit.values()
    ]
    wanted = {8: (20, 10), 4: (21, 10), 2: (25, 13)}[bits]
    model = onnx.load(made.path)
    assert ({o.domain: o.version for o in model.opset_import}[""], model.ir_version) == wanted
    check(made)


@pytest.mark.slow
@pytest.mark.matrix(one_in=2)
@pytest.mark.parametrize("name", ["mlp", "two_inputs", "cnn", "transformer", "recurrent", "nested"])
@pytest.mark.parametrize(("bits", "activations"), [(8, "static"), (4, "dynamic"), (2, "float")])
def test_models(name, bits, activations, lowered, as_exported):
    made = lowered(*as_exported(name), bits, activations)
    assert set(made.left().values()) <= {LEFT_FLOAT}
    check(made)


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_dynamic_is_the_emulation_itself(bits, lowered):
    torch.manual_seed(1)
    made = lowered(nn.Linear(64, 32), torch.randn(5, 64), bits, "dynamic")
    with torch.no_grad(), emulated(made.flat, made.low_bit):
        assert differs(made, made.flat.compute(dict(made.flat.example)))["output"] < 1e-6


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_static_rounds_the_input_of_a_linear_layer_and_not_its_output(bits, lowered):
    torch.manual_seed(1)
    made = lowered(nn.Linear(64, 32), 3 * torch.randn(5, 64), bits, "static")
    weight, bias = made.low_bit["weight"], made.flat.module.bias.detach().numpy()
    grid = grid_of(weight.inputs)
    value = made.flat.example["input"].numpy()
    codes = np.clip(np.rint(value / np.float32(grid.scale)) + grid.zero_point, 0, 255) - grid.zero_point
    sums = codes.astype(np.int64) @ weight.codes.T.astype(np.int64)
    expected = sums * (grid.scale * weight.scale.astype(np.float64)) + bias
    assert differs(made, {"output": torch.from_numpy(expected)})["output"] < 1e-6


@given(
    bits=st.sampled_from(sorted(LARGEST_CODE)),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    transposed=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_any_codes_come_back_as_scale_times_code(bits, shape, transposed, seed):
    random = np.random.default_rng(seed)
    limit = LARGEST_CODE[bits]
    codes = random.integers(-limit, limit + 1, shape).astype(np.int8)
    weight = LowBitWeight(codes, random.uniform(1e-4, 2, len(codes)).astype(np.float32), bits, "linear")
    held = weight.value if transposed else weight.value.T  # as a MatMul and a Gemm with transB=1 have it
    node = "y = Gemm <transB=1> (x, w)" if transposed else "y = MatMul (x, w)"
    model = text_model(node, held, x=(shape[1], shape[1]), y=(shape[1], len(codes)))
    assert carry(model, {"w": weight})[0].reason == ""
    assert np.array_equal(run_text(model, np.eye(shape[1], dtype=np.float32)), weight.value.T)


def text_model(nodes: str, weight: np.ndarray, x: tuple[int, ...], y: tuple[int, ...], more: str = "") -> ir.Model:
    """A graph of an input x, an output y, and the weight w."""
    text = f"float{list(x)} x{more}, float{list(weight.shape)} w) => (float{list(y)} y) {{ {nodes} }}"
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 20]> m ({text}')
    constant = model.graph.inputs.pop()
    constant.const_value = ir.tensor(np.ascontiguousarray(weight), name="w")
    model.graph.register_initializer(constant)
    return model


def run_text(model: ir.Model, x: np.ndarray, **others: np.ndarray) -> np.ndarray:
    """The output y."""
    content = ir.to_proto(model).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*EXACT_INT8)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, **others})[0]


# --- on which kernels ----------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Three layers that share their input, and one that reads something else."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.o(torch.softmax(q @ k.transpose(1, 2), -1) @ v)


def attention():
    torch.manual_seed(2)
    return Attention(), torch.randn(1, 6, 32)


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_layers_that_share_an_input_quantize_it_once(bits, lowered):
    made = lowered(*attention(), bits, "dynamic")
    assert Counter(n.op_type for n in onnx.load(made.path).graph.node)["DynamicQuantizeLinear"] == 2
    kernels = executed(made.path)
    assert (kernels["MatMulIntegerToFloat"], kernels["DynamicQuantizeMatMul"], kernels["MatMulInteger"]) == (3, 1, 0)
    assert kernels["Add"] == 0, "the bias is in the kernel"


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_layers_with_one_static_range_quantize_it_once(bits, lowered):
    kernels = executed(lowered(*attention(), bits, "static").path)
    assert (kernels["QuantizeLinear"], kernels["MatMulIntegerToFloat"], kernels["DequantizeLinear"]) == (2, 4, 0)
    assert kernels["Add"] == 0, "the bias is in the kernel"


def test_a_float_weight_is_folded_at_load(lowered):
    kernels = executed(lowered(*attention(), 4, "float").path)
    assert set(kernels) & {"Cast", "Mul", "DequantizeLinear", "MatMulNBits"} == set()


def chain(*activations: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    for activation in activations:
        layers += [activation, nn.Conv2d(8, 8, 3, padding=1, groups=2)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_convolutions_in_a_row_pass_int8_on(bits, lowered):
    made = lowered(chain(nn.ReLU(), nn.ReLU6(), nn.Identity()), torch.randn(1, 3, 12, 12), bits, "static")
    kernels = executed(made.path)
    assert kernels == {"QuantizeLinear": 1, "QLinearConv": 4, "DequantizeLinear": 1, "Transpose": kernels["Transpose"]}
    assert made.left() == {}
    check(made)


def test_a_residual_stays_int8(lowered):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

        def forward(self, x):
            x = self.a(x)
            return self.b(x + torch.relu(self.b(x)))

    torch.manual_seed(3)
    made = lowered(Residual(), torch.randn(1, 3, 8, 8), 8, "static")
    kernels = executed(made.path)
    assert kernels["QLinearConv"] == 3 and kernels["QLinearAdd"] == 1 and kernels["Conv"] == 0
    assert len(stored_codes(made.path)) == 2, "b is called twice and stored once"
    check(made)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_a_linear_layer_called_three_times_is_stored_once_and_read_under_three_names(bits, activations, lowered):
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(16, 16)

        def forward(self, x):
            return self.a(torch.relu(self.a(torch.relu(self.a(x)))))

    torch.manual_seed(3)
    made = lowered(Again(), torch.randn(4, 16), bits, activations)
    assert len(stored_codes(made.path)) == 1
    products = [n for n in onnx.load(made.path).graph.node if n.op_type in ("MatMulInteger", "MatMulIntegerToFloat")]
    assert len({node.input[1] for node in products}) == len(products) == 3, "else EXACT_INT8 cannot load it"
    check(made)


@pytest.mark.parametrize(
    "module",
    [chain(), chain(nn.Hardswish()), chain(nn.Hardswish(), nn.SiLU())],
    ids=["alone", "HardSwish", "HardSwish and SiLU"],
)
def test_a_convolution_among_float_operations_is_float(module, lowered):
    made = lowered(module, torch.randn(1, 3, 12, 12), 8, "static")
    kernels = executed(made.path)
    assert kernels["QLinearConv"] == kernels["QuantizeLinear"] == kernels["DequantizeLinear"] == 0
    assert made.left() == dict.fromkeys(made.low_bit, LEFT_FLOAT)
    error = differs(made, reference(made))["output"]
    assert error <= FLOAT_ERROR


@pytest.mark.slow
def test_a_float_reader_in_the_middle_divides_the_chain(lowered):
    made = lowered(chain(nn.ReLU(), nn.Hardswish(), nn.ReLU()), torch.randn(1, 3, 12, 12), 8, "static")
    assert executed(made.path)["QLinearConv"] == 2
    assert set(made.left()) == {"0.weight", "2.weight"}
    check(made)


def test_a_dead_channel_keeps_its_bias(lowered):
    module = chain(nn.ReLU(), nn.ReLU())
    with torch.no_grad():
        module[0].weight[2] *= 1e-12  # in steps of its scale the bias has 13 digits
        module[0].bias[2] = 1.0
    made = lowered(module, torch.randn(1, 3, 12, 12), 8, "static")
    assert executed(made.path)["QLinearConv"] == 3
    found = stored_codes(made.path)
    assert not np.array_equal(found["0.weight"], made.low_bit["0.weight"].codes) and not found["0.weight"][2].any()
    assert np.array_equal(np.delete(found["0.weight"], 2, 0), np.delete(made.low_bit["0.weight"].codes, 2, 0))
    check(made)


# --- weights that are shared, copied, folded -----------------------------------------------------------------------


class Tied(nn.Module):
    """An embedding whose table is the output layer's weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(400, 64), nn.Linear(64, 400, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids):
        return self.output(torch.tanh(self.embedding(ids)))


@pytest.mark.slow
@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_a_tied_table_lies_in_the_file_once(bits, activations, lowered):
    torch.manual_seed(4)
    flat = FlatModule(Tied().eval(), (torch.randint(0, 400, (1, 7)),), {})
    name = "embedding.weight"
    with torch.no_grad():
        hidden = torch.tanh(flat.module.embedding(flat.example["ids"]))
        ranges = Range(float(hidden.min()), float(hidden.max())), Range(-9.0, 9.0)
    table = low_bit_of(
        flat.module.embedding.weight.detach().numpy(),
        bits,
        "linear",
        activations,
        *(ranges if activations == "static" else ()),
    )
    flat.module.embedding.weight.data = torch.from_numpy(table.value)
    made = lowered(flat.module, (flat.example["ids"],), 0)
    carried, path = write(flat, {name: table}, made.path)
    assert carried == (Carried(name, TABLE["onnx", "linear", bits, activations]),)
    assert list(stored_codes(path)) == [name]
    assert path.stat().st_size < 400 * 64 * bits / 8 + 6000  # scales 2 x 1600 bytes
    check(Made(flat, {name: table}, carried, path))


def test_untrained_copies_of_a_layer_share_their_codes_and_a_range_that_covers_both(lowered):
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
    module[2].load_state_dict(module[0].state_dict())
    made = lowered(module, 4 * torch.randn(3, 16), 8, "static")
    assert made.low_bit["0.weight"].inputs != made.low_bit["2.weight"].inputs
    assert [c.reason for c in made.carried] == ["", ""] and len(stored_codes(made.path)) == 1
    scales = {n: v for n, v in stored(made.path).items() if n.startswith("grid_") and n.endswith(".scale")}
    ranges = [made.low_bit[n].inputs for n in ("0.weight", "2.weight")]
    hull = Range(min(r.low for r in ranges), max(r.high for r in ranges))
    assert {float(v) for v in scales.values()} == {grid_of(hull).scale}


def test_a_weight_that_was_folded_into_another_is_named(lowered, as_exported):
    made = lowered(*as_exported("cnn"), 8, "float", fold=False)
    assert made.left() == {"stem.0.weight": NOT_FOUND, "depthwise.0.weight": NOT_FOUND}
    assert [c.stored and c.stored.name for c in made.carried] == [None, None, "int8 codes, Cast, Mul"]
    check(made)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Gemm <alpha=0.5> (x, w)",
        "y = Gemm <transA=1> (x, w)",
        "t = MatMul (x, w) y = MatMul (t, w)",
        "y = Mul (x, w)",
    ],
)
def test_what_is_no_linear_layer_reads_a_float_weight(nodes):
    random = np.random.default_rng(0)
    weight = low_bit_of(random.normal(size=(4, 4)).astype(np.float32), 8, "linear", "dynamic")
    inputs = {"x": random.normal(size=(4, 4)).astype(np.float32), "i": np.array([3, 0, 1, 1])}
    model = text_model(nodes, weight.value, x=(4, 4), y=(4, 4), more=", int64[4] i")
    expected = run_text(model, **inputs)
    assert carry(model, {"w": weight}) == (Carried("w", TABLE["onnx", "linear", 8, "dynamic"], LEFT_FLOAT),)
    assert np.abs(run_text(model, **inputs) - expected).max() <= 1e-6


def test_a_transpose_that_the_converter_left_is_seen_through():
    weight = low_bit_of(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), 4, "linear", "dynamic")
    for nodes in ("t = Transpose (w) y = MatMul (x, t)", "t = Transpose <perm = [1, 0]> (w) y = Gemm (x, t)"):
        model = text_model(nodes, weight.value, x=(2, 4), y=(2, 5))
        assert carry(model, {"w": weight})[0].reason == ""
        assert [n.op_type for n in model.graph].count("MatMulInteger") == 1
        found = run_text(model, 255 * np.eye(4, dtype=np.float32)[:2])
        assert np.allclose(found, 255 * weight.value.T[:2], rtol=1e-6, atol=0)


def test_a_weight_that_a_branch_reads_is_made_float_outside_of_it():
    weight = low_bit_of(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32), 2, "linear", "dynamic")
    nodes = (
        "y = If (c) <then_branch = t () => (float[4, 4] p) { p = MatMul (x, w) },"
        " else_branch = e () => (float[4, 4] q) { q = Sub (x, w) }>"
    )
    x = np.eye(4, dtype=np.float32)
    for condition in (True, False):
        model = text_model(nodes, weight.value.T, x=(4, 4), y=(4, 4), more=", bool c")
        expected = run_text(model, x, c=np.array(condition))
        assert carry(model, {"w": weight}) == (Carried("w", TABLE["onnx", "linear", 2, "dynamic"], LEFT_FLOAT),)
        assert np.array_equal(run_text(model, x, c=np.array(condition)), expected)


def test_without_low_bit_weights_nothing_changes():
    model = text_model("y = MatMul (x, w)", np.eye(3, dtype=np.float32), x=(3, 3), y=(3, 3))
    before = ir.to_proto(model).SerializeToString()
    assert carry(model, {}) == () and ir.to_proto(model).SerializeToString() == before


# --- sizes, versions, bytes ----------------------------------------------------------------------------------------


class Mostly(nn.Module):
    """A table and linear layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 128)
        self.layers = nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 256))

    def forward(self, ids):
        return self.layers(self.embedding(ids))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "activations", "least"), [(8, "static", 3.8), (8, "dynamic", 3.8), (4, "dynamic", 7), (2, "dynamic", 12)]
)
def test_files_are_really_small(bits, activations, least, lowered):
    torch.manual_seed(6)
    made = lowered(Mostly(), torch.randint(0, 1000, (1, 8)), bits, activations)
    whole = 4 * sum(p.numel() for p in made.flat.module.parameters())
    assert whole / made.path.stat().st_size > least


@pytest.mark.parametrize(("bits", "activations"), [(8, "static"), (2, "dynamic")])
def test_the_same_weights_give_the_same_bytes(bits, activations, lowered):
    made = lowered(*attention(), bits, activations)
    again, path = write(made.flat, made.low_bit, made.path.with_name("again.onnx"))
    assert again == made.carried and path.read_bytes() == made.path.read_bytes()


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_a_free_batch_axis(activations, lowered):
    torch.manual_seed(7)
    made = lowered(attention()[0], torch.randn(2, 6, 32), 8, activations, dynamic=[DynamicAxis("x", 0)])
    check(made)
    assert compute(made.path, {"x": np.zeros((5, 6, 32), np.float32)})["output"].shape == (5, 6, 32)


def test_operations_that_changed_their_meaning_are_rewritten_for_a_higher_opset(lowered):
    class Sampled(nn.Module):
        """GridSample's mode is "bilinear" up to opset 19, "linear" from 20 on."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image, grid):
            return torch.nn.functional.grid_sample(self.conv(image), grid, align_corners=False)

    torch.manual_seed(8)
    made = lowered(Sampled(), (torch.randn(1, 3, 8, 8), torch.rand(1, 5, 5, 2) * 2 - 1), 2, opset=18)
    assert {o.version for o in onnx.load(made.path).opset_import} == {25}
    check(made)


def test_a_higher_opset_than_is_needed_stays(lowered):
    made = lowered(nn.Linear(8, 4), torch.randn(2, 8), 4, opset=23)
    assert {o.domain: o.version for o in onnx.load(made.path).opset_import}[""] == 23
    check(made)


def test_a_range_of_no_values_is_no_trap():
    weight = LowBitWeight(np.zeros((3, 4), np.int8), np.zeros(3, np.float32), 8, "linear", "static", *[Range(0, 0)] * 2)
    model = text_model("y = MatMul (x, w)", weight.value.T, x=(3, 4), y=(3, 3))
    assert carry(model, {"w": weight})[0].reason == ""
    assert np.array_equal(run_text(model, np.ones((3, 4), np.float32)), np.zeros((3, 3)))
    assert replace(weight, bits=2).value.sum() == 0
