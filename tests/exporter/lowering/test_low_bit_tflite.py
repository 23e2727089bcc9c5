"""Low-bit weights in TFLite files: the same codes, the same values in LiteRT, and a word on each that stays float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.compression.analysis.emulation import quantization_noise
from exporter.formats.tflite_file import operator_name, read
from exporter.low_bit.grid import range_of
from exporter.low_bit.weight import ACTIVATIONS, KINDS, LARGEST_CODE, LowBit, LowBitWeight, Range
from exporter.lowering import to_tflite
from exporter.lowering.low_bit_tflite import NOT_FOUND, carry
from exporter.lowering.representation import TABLE, Representation
from exporter.lowering.settings import TfliteSettings
from exporter.modules.weight_uses import watched_weights, weight_uses
from exporter.sources.source import arguments
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import trace


class Everything(nn.Module):
    """Each kind of layer, in each way that litert-torch writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(24, 16), nn.Embedding(9, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.packed = nn.MultiheadAttention(16, 2, batch_first=True)
        self.twice = nn.Linear(16, 16, bias=False)
        self.along = nn.Conv1d(16, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(16, 24, bias=False)
        self.head.weight = self.words.weight
        self.stem, self.grouped = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 8, 3, 1, 1, groups=2)
        self.depthwise, self.point = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 5, 1)

    def forward(self, ids: torch.Tensor, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        x = x + nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        x = self.packed(x, x, x, need_weights=False)[0]
        x = self.twice(torch.relu(self.twice(x)))
        picture = self.depthwise(self.grouped(torch.relu(self.stem(image))))
        return {"words": self.head(x[:, 0]), "along": self.along(x.mT), "picture": self.point(picture)}


@dataclass(frozen=True)
class Quantized:
    """A module with fake-quantized weights, their table, and the float file that litert-torch makes of it."""

    flat: FlatModule
    low_bit: LowBit
    content: bytes


def fake_quantized(module: nn.Module, example: Any, bits: int) -> tuple[FlatModule, dict[str, LowBitWeight]]:
    """Round every weight to a scale that clips some, with a channel of zeros, and calibrate on the example."""
    flat = FlatModule(module.eval(), *arguments(example))
    inputs: dict[str, Range] = {}
    outputs: dict[str, Range] = {}

    def widen(ranges, use, value):
        if use.kind != "embedding":
            now = range_of(value)
            old = ranges.get(use.name, now)
            ranges[use.name] = Range(min(old.low, now.low), max(old.high, now.high))

    low_bit = {}
    with torch.no_grad():
        parameters = dict(flat.module.named_parameters())
        for name, uses in weight_uses(flat).items():
            weight = parameters[name].numpy()
            rows = weight.reshape(len(weight), -1)
            scale = (np.abs(rows).mean(1) if bits == 2 else np.abs(rows).max(1) * 0.8 / LARGEST_CODE[bits]).astype("f4")
            codes = np.rint(rows / scale[:, None]).clip(-LARGEST_CODE[bits], LARGEST_CODE[bits])
            codes[1 % len(codes)], scale[1 % len(codes)] = 0, 0
            kind = "linear" if name == "words.weight" else uses[0].kind
            low_bit[name] = LowBitWeight(codes.astype(np.int8).reshape(weight.shape), scale, bits, kind)
            parameters[name].copy_(torch.from_numpy(low_bit[name].value))

        def before(use, value, weight):
            widen(inputs, use, value)
            return value, weight

        def after(use, output):
            widen(outputs, use, output)
            return output

        with watched_weights(flat.module, before, after):
            flat.compute(flat.example)
    return flat, {n: replace(w, inputs=inputs.get(n), outputs=outputs.get(n)) for n, w in low_bit.items()}


@pytest.fixture(scope="module")
def quantized(lower_here):
    """A module of a class of this file with weights of so many bits, converted once."""
    made: dict[tuple[type, int], Quantized] = {}

    def get(kind: type[nn.Module], example: Any, bits: int) -> Quantized:
        if (kind, bits) not in made:
            torch.manual_seed(0)
            flat, low_bit = fake_quantized(kind(), example(), bits)
            made[kind, bits] = Quantized(flat, low_bit, lower_here(flat.module, example(), "tflite").path.read_bytes())
        return made[kind, bits]

    return get


def everything() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 24, (2, 6)), torch.randn(1, 3, 12, 12)


@pytest.fixture(params=[8, 4, 2])
def every_layer(request, quantized) -> Quantized:
    return quantized(Everything, everything, request.param)


def computing(low_bit: LowBit, activations: str) -> LowBit:
    """The same weights in layers of other activations; embeddings have none."""
    return {n: replace(w, activations=activations if w.kind != "embedding" else "float") for n, w in low_bit.items()}


def run(content: bytes, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    wanted = runner.get_input_details()
    return runner(**{name: inputs[name].numpy().astype(wanted[name]["dtype"]) for name in wanted})


CODE_BITS = {9: 8, 17: 4, 19: 2}
"""Bits by the number of the schema's type: INT8, INT4, INT2."""


def stored_codes(model, tensor) -> np.ndarray:
    """The integers of a tensor, unpacked by hand: the first in the lowest bits of a byte."""
    bits = CODE_BITS[tensor.type]
    fields = np.asarray(model.buffers[tensor.buffer].data, np.uint8)[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)
    codes = fields.astype(np.int16).ravel()[: np.prod(tensor.shape)]
    return np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes).reshape(tensor.shape)


LAYOUTS = {"stem.weight": (0, 2, 3, 1), "grouped.weight": (0, 2, 3, 1), "point.weight": (0, 2, 3, 1)}
LAYOUTS |= {"depthwise.weight": (1, 2, 3, 0), "along.weight": (0, 2, 3, 1)}


def as_litert_orders(name: str, weight: LowBitWeight) -> np.ndarray:
    """Codes in the order that TFLite's documentation gives for the operator."""
    codes = weight.codes[:, :, None] if name == "along.weight" else weight.codes
    if name == "positions.weight":
        codes = codes[:6]  # those looked up, which the converter has computed
    return codes.transpose(LAYOUTS[name]) if name in LAYOUTS else codes


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", LARGEST_CODE)
@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_every_combination_has_a_row(kind, bits, activations):
    row = TABLE["tflite", kind, bits, activations]
    is_float = kind == "conv_transpose" and (bits, activations) != (8, "static")
    assert isinstance(row, Representation) and len(row.why) > 20
    assert row.activations == ("float" if kind == "embedding" or is_float else activations)
    assert row.name.startswith(f"int{4 if kind == 'conv' and bits == 2 and activations != 'float' else bits}, ")


# --- what the file computes -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_alone_are_exact(every_layer):
    content, carried = carry(every_layer.content, computing(every_layer.low_bit, "float"))
    assert {c.name for c in carried} == set(every_layer.low_bit)
    assert all(c.stored.name.startswith("int") for c in carried)
    expected = every_layer.flat.compute(every_layer.flat.example)
    for name, got in run(content, every_layer.flat.example).items():
        want = expected[name].detach().numpy()
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), name


MARGIN = 2
"""LiteRT takes the range of a dynamic activation by the row, the emulation by the tensor; and noise is a sample."""


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_integer_layers_are_within_the_noise_of_their_rounding(activations, every_layer):
    low_bit = computing(every_layer.low_bit, activations)
    content, _ = carry(every_layer.content, low_bit)
    expected = every_layer.flat.compute(every_layer.flat.example)
    noise = quantization_noise(every_layer.flat, low_bit, [every_layer.flat.example])
    got = run(content, every_layer.flat.example)
    errors = {name: float(np.abs(got[name] - expected[name].detach().numpy()).max()) for name in got}
    assert all(0 < errors[name] <= MARGIN * noise[name] for name in noise), (errors, noise)
    assert all(noise[name] < 0.3 * float(expected[name].detach().abs().max()) for name in noise), (
        "or the test shows nothing"
    )


def test_the_model_still_takes_and_gives_floats(every_layer):
    model = read(carry(every_layer.content, computing(every_layer.low_bit, "static"))[0])
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    assert [graph.tensors[i].type for i in graph.inputs] == [2, 0]  # int32 and float32
    assert [graph.tensors[i].type for i in graph.outputs] == [0, 0, 0]
    assert {entry.tensorIndex for entry in signature.outputs} == set(graph.outputs)
    assert sorted(entry.name for entry in signature.outputs) == [b"along", b"picture", b"words"]


@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_the_file_holds_the_same_codes_and_scales(activations, every_layer):
    low_bit = computing(every_layer.low_bit, activations)
    model = read(carry(every_layer.content, low_bit)[0])
    graph = model.subgraphs[0]
    stored = [t for t in graph.tensors if t.type in CODE_BITS and model.buffers[t.buffer].data is not None]
    assert len(stored) == len(low_bit)
    for name, weight in low_bit.items():
        codes = as_litert_orders(name, weight)
        same = [t for t in stored if tuple(t.shape) == codes.shape and np.array_equal(stored_codes(model, t), codes)]
        assert len(same) == 1, name
        scale = weight.scale[:6] if name == "positions.weight" else weight.scale
        factor = 16**-0.25 if name in ("query.weight", "key.weight") else 1.0  # attention's, which the converter folds
        there = same[0].quantization
        assert codes.shape[there.quantizedDimension] == len(scale)
        np.testing.assert_allclose(there.scale[scale > 0], (scale * factor)[scale > 0], rtol=2.4e-7, err_msg=name)
        assert (there.scale > 0).all() and not there.zeroPoint.any()


def test_each_weight_is_named_with_what_it_became(quantized):
    made = quantized(Everything, everything, 2)
    carried = {c.name: c for c in carry(made.content, computing(made.low_bit, "dynamic"))[1]}
    assert carried["twice.weight"].stored.name == carried["packed.in_proj_weight"].stored.name == "int2, dynamic"
    assert carried["words.weight"].stored.name == "int2, dynamic"
    assert carried["point.weight"].stored.name == "int4, dynamic"
    assert carried["depthwise.weight"].stored.name == "int4, DEQUANTIZE"
    assert {name: c.reason for name, c in carried.items() if c.reason} == {
        "positions.weight": "ADD takes no integer weights",
        "depthwise.weight": "DEPTHWISE_CONV_2D is faster in float",
        "stem.weight": "CONV_2D of 3 input channels is faster in float",
    }


def test_the_lowering_carries_the_program_s_own_table(lower_here, tmp_path):
    torch.manual_seed(0)
    example = torch.randn(2, 6)
    flat, low_bit = fake_quantized(nn.Sequential(nn.Linear(6, 5)), example, 8)
    program = lower_here(flat.module, example, "tflite").program
    metadata = {"pocketship": "{}"}
    carried = to_tflite.lower(replace(program, low_bit=low_bit), tmp_path / "model.tflite", TfliteSettings(), metadata)
    assert [(c.name, c.stored.name, c.reason) for c in carried] == [("0.weight", "int8, DEQUANTIZE", "")]
    content = (tmp_path / "model.tflite").read_bytes()
    assert ("DEQUANTIZE", 1) in operators(read(content)) and b"pocketship" in content
    want = flat.compute(flat.example)["output"].detach().numpy()
    np.testing.assert_allclose(run(content, flat.example)["output"], want, atol=1e-5 * np.abs(want).max())


def test_a_normalization_is_not_folded_into_the_low_bit_weights_behind_it(tmp_path, computes):
    """Folded into one of them, its weight would leave no codes to store."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 16))
    with torch.no_grad():
        for norm in (module[0], module[3]):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    x = torch.randn(1, 7, 32)
    flat, low_bit = fake_quantized(module, x, 8)
    settings = TfliteSettings()
    program = to_tflite.prepare(replace(trace(flat, flat.example), low_bit=low_bit), settings)
    carried = to_tflite.lower(program, tmp_path / "model.tflite", settings, {})
    assert {(c.name, c.stored.name) for c in carried} == {(n, "int8, DEQUANTIZE") for n in ("1.weight", "4.weight")}
    with torch.no_grad():
        computes(tmp_path / "model.tflite", {"input": x}, {"output": flat.module(x)})


def test_the_same_table_gives_the_same_bytes(every_layer):
    low_bit = computing(every_layer.low_bit, "static")
    assert carry(every_layer.content, low_bit) == carry(every_layer.content, low_bit)


def test_a_file_without_low_bit_weights_stays_as_it_is():
    assert carry(b"any", {}) == (b"any", ())


def operators(model) -> list[tuple[str, int]]:
    """Each operator's name and version."""
    graph = model.subgraphs[0]
    return [(operator_name(model, o), model.operatorCodes[o.opcodeIndex].version) for o in graph.operators]


def test_runtimes_that_would_read_one_scale_for_all_channels_must_refuse_the_file(quantized):
    """TFLite 2.14 computes dynamic layers with the first scale alone, silently; it knows FULLY_CONNECTED up to 11."""
    made = quantized(Everything, everything, 8)
    versions = {
        activations: {
            version
            for name, version in operators(read(carry(made.content, computing(made.low_bit, activations))[0]))
            if name == "FULLY_CONNECTED"
        }
        for activations in ACTIVATIONS
    }
    assert versions["dynamic"] == {12}
    assert max(versions["static"] | versions["float"]) < 12


# --- sizes ----------------------------------------------------------------------------------------------------------


class MostlyWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(800, 256), nn.Linear(256, 1024), nn.Linear(1024, 256)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(self.words(ids))))


@pytest.mark.parametrize(("bits", "ratio"), [(8, 3.8), (4, 7), (2, 10)])
def test_a_file_of_weights_shrinks(bits, ratio, quantized):
    made = quantized(MostlyWeights, lambda: torch.randint(0, 800, (1, 8)), bits)
    for activations in ACTIVATIONS:
        content, carried = carry(made.content, computing(made.low_bit, activations))
        assert all(not c.reason for c in carried)
        assert len(made.content) / len(content) >= ratio, activations


# --- what cannot be carried, or not as asked ------------------------------------------------------------------------


class Awkward(nn.Module):
    """Rows that fill no whole bytes, a volume, a bias that dwarfs its weights, a sum of weights, one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.odd, self.volume = nn.Embedding(10, 5), nn.Conv3d(2, 4, 2)
        self.biased, self.folded, self.turned = nn.Linear(5, 6), nn.Linear(5, 4), nn.Linear(7, 5, bias=False)
        with torch.no_grad():
            self.biased.weight[2] *= 1e-12

    def forward(self, ids: torch.Tensor, cube: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.odd(ids)
        y = nn.functional.linear(x, self.folded.weight + self.biased.weight[:4])
        back = nn.functional.linear(self.turned(x.mT), self.turned.weight.mT)
        return {"biased": self.biased(x), "folded": y, "back": back, "volume": self.volume(cube)}


def awkward() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randint(0, 10, (1, 7)), torch.randn(1, 2, 4, 4, 4)


def test_what_an_operator_cannot_read_is_dequantized_and_said(quantized):
    made = quantized(Awkward, awkward, 4)
    unseen = {**made.low_bit, "folded.weight": replace(made.low_bit["biased.weight"], codes=np.eye(4, 5, dtype="i1"))}
    unseen["folded.weight"] = replace(unseen["folded.weight"], scale=np.ones(4, "f4"))
    content, carried = carry(made.content, computing(unseen, "static"))
    reasons = {c.name: (c.stored and c.stored.name, c.reason) for c in carried}
    assert reasons["odd.weight"] == (
        "int4, DEQUANTIZE",
        "EMBEDDING_LOOKUP reads rows of 5 codes wrongly, which fill no whole bytes",
    )
    assert reasons["volume.weight"] == ("int4, DEQUANTIZE", "CONV_3D takes no integer weights")
    assert reasons["biased.weight"] == (
        "int4, DEQUANTIZE",
        "the bias of channel 2 exceeds int32 at the scale of its weights",
    )
    assert reasons["turned.weight"] == (
        "int4, DEQUANTIZE",
        "FULLY_CONNECTED takes a scale for each output, and these weights have one for each input",
    )
    assert reasons["folded.weight"] == (None, NOT_FOUND)
    for name, want in made.flat.compute(made.flat.example).items():
        got = run(content, made.flat.example)[name]
        tolerance = 0.02 if name == "back" else 1e-5  # its weight's first use computes in int8
        assert np.abs(got - want.detach().numpy()).max() <= tolerance * float(want.detach().abs().max()), name


class LookedUpTwice(nn.Module):
    """One table, two lookups."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(24, 16)

    def forward(self, ids: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"first": self.words(ids), "second": self.words(others)}


def two_of_ids() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(24)[None], torch.tensor([[3, 0, 1]])


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_row_scales_are_looked_up_beside_the_codes(bits, quantized):
    """No zero point of eight bytes a row, every row by its own scale, for each lookup of the table."""
    made = quantized(LookedUpTwice, two_of_ids, bits)
    low_bit = {"words.weight": replace(made.low_bit["words.weight"], kind="embedding")}
    content, _ = carry(made.content, low_bit)
    model = read(content)
    (graph,) = model.subgraphs
    lookups = [o for o in graph.operators if operator_name(model, o) == "EMBEDDING_LOOKUP"]
    tables = {o.inputs[1]: graph.tensors[o.inputs[1]] for o in lookups}
    assert len(lookups) == 4 and sorted(t.name for t in tables.values())[-1] == b"words.weight"
    (codes,) = (t for t in tables.values() if t.type in CODE_BITS)
    (scales,) = (t for t in tables.values() if t is not codes)
    assert (codes.quantization.scale.tolist(), codes.quantization.zeroPoint.tolist()) == ([1.0], [0])
    assert tuple(scales.shape) == (24, 1)
    for name, want in made.flat.compute(made.flat.example).items():
        assert np.array_equal(run(content, made.flat.example)[name], want.detach().numpy()), name


def test_names_are_the_model_s_or_numbers(every_layer):
    """The converter's own, a path of modules each, take more than the codes of a small layer."""
    (graph,) = read(carry(every_layer.content, every_layer.low_bit)[0]).subgraphs
    inside = [t.name.decode() for i, t in enumerate(graph.tensors) if i not in {*graph.inputs, *graph.outputs}]
    assert {n for n in inside if not n.isdecimal()} <= set(every_layer.low_bit)
    assert "stem.weight" in inside


def test_a_ternary_convolution_is_not_int2_for_a_reason(quantized, monkeypatch, tmp_path):
    """LiteRT gives NaN, or crashes: if it does no longer, the table can change."""
    from runtimes.compare import Limits
    from runtimes.errors import ParityFailed
    from runtimes.golden import Golden, write_golden
    from runtimes.parity import prove

    made = quantized(Everything, everything, 2)
    low_bit = {"point.weight": replace(made.low_bit["point.weight"], activations="dynamic")}
    monkeypatch.setitem(TABLE, ("tflite", "conv", 2, "dynamic"), Representation("int2, dynamic", 2, "", "dynamic"))
    (tmp_path / "model.tflite").write_bytes(carry(made.content, low_bit)[0])
    outputs = {n: v.detach().numpy() for n, v in made.flat.compute(made.flat.example).items()}
    write_golden(Golden(({n: v.numpy() for n, v in made.flat.example.items()},), (outputs,)), tmp_path / "golden.npz")
    try:
        _, parity = prove(tmp_path / "model.tflite", tmp_path / "golden.npz", Limits(atol=0.3))
    except ParityFailed:
        return
    assert parity.verdict == "fail"
