"""float16 weights: which become so, by what rounding, what stays float32 and is named, and what each format stores."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from exporter.compression.model import Model
from exporter.compression.passes import integer
from exporter.compression.passes.float16 import Settings, apply
from exporter.compression.recipe import QUANTIZE, read_recipe, recipe_of
from exporter.formats import tflite_file
from exporter.inspection.stored import stored_constants
from exporter.lowering.low_bit_tflite import ROUNDED_TWICE
from exporter.lowering.target import TARGETS
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import load_program, save_program, trace
from exporter.training.context import Context
from runtimes.errors import BadInput


class Everything(nn.Module):
    """Weights in each use that converters treat in a way of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(24, 16)
        self.places = nn.Parameter(torch.randn(1, 6, 16))
        self.packed = nn.MultiheadAttention(16, 2, batch_first=True)  # 1 / sqrt(8) is folded, and is no power of two
        self.recurrent = nn.GRU(16, 8, batch_first=True, bidirectional=True)  # ONNX has all gates in one, in its order
        self.along = nn.Conv1d(16, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(16, 24, bias=False)
        self.head.weight = self.words.weight
        self.stem, self.norm = nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.up = nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.ConvTranspose2d(12, 5, 2, 2)

    def forward(self, ids: torch.Tensor, image: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.words(ids) + self.places
        x = self.packed(x, x, x, need_weights=False)[0] + x
        x = self.recurrent(x)[0]
        picture = self.up(self.depthwise(torch.relu(self.norm(self.stem(image)))))
        return {"words": self.head(x[:, 0]), "along": self.along(x.mT), "picture": picture}


RECURRENT = [f"recurrent.weight_{part}h_l0{way}" for part in "ih" for way in ("", "_reverse")]
WEIGHTS = {
    **dict.fromkeys(("words.weight",), "embedding"),
    **dict.fromkeys(("places", *RECURRENT), "other"),
    **dict.fromkeys(("packed.in_proj_weight", "packed.out_proj.weight"), "linear"),
    **dict.fromkeys(("along.weight", "stem.weight", "depthwise.weight"), "conv"),
    "up.weight": "conv_transpose",
}


def everything() -> FlatModule:
    torch.manual_seed(0)
    module = Everything().eval()
    nn.init.uniform_(module.norm.running_var, 0.5, 1.5)
    return FlatModule(module, (torch.randint(0, 24, (2, 6)), torch.randn(1, 3, 12, 12)), {})


def rounded(flat: FlatModule, low_bit=None, **chosen):
    return apply(Model(flat, low_bit or {}), Settings(**chosen), Context(flat, None))


def linear(weight: torch.Tensor, bias: float = 0.1234567) -> FlatModule:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.fill_(bias)
    return FlatModule(
        nn.Sequential(layer, nn.Linear(weight.shape[0], 2)).eval(), (torch.randn(1, weight.shape[1]),), {}
    )


# --- the pass ------------------------------------------------------------------------------------------------------


def test_weights_are_rounded_as_numpy_rounds_them_and_biases_are_not():
    flat = linear(torch.randn(5, 7))
    before = {name: value.numpy().copy() for name, value in flat.module.state_dict().items()}
    model, report = rounded(flat)
    after = {name: value.numpy() for name, value in model.flat.module.state_dict().items()}
    for name in ("0.weight", "1.weight"):
        assert (after[name] == before[name].astype(np.float16).astype(np.float32)).all()
        assert not np.array_equal(after[name], before[name])
        assert model.low_bit[name].codes.dtype == np.float16 and (model.low_bit[name].value == after[name]).all()
    for name in ("0.bias", "1.bias"):
        assert np.array_equal(after[name], before[name])
    assert all(np.array_equal(value, flat.module.state_dict()[name]) for name, value in before.items())
    assert report.changed
    assert report.notes == ("2 linear float16", "of one axis, stay float32 (7 values): 0.bias, 1.bias")


def test_every_weight_of_two_axes_or_more_whatever_uses_it():
    model, _ = rounded(everything())
    assert {name: weight.kind for name, weight in model.low_bit.items()} == WEIGHTS
    assert "norm.weight" not in dict(model.flat.module.named_parameters())  # it is in the stem's weight by now
    assert {weight.bits for weight in model.low_bit.values()} == {16}


@pytest.mark.parametrize("value", [65520.0, -1e30, 3e-8, 1e-6])
def test_what_float16_cannot_hold_stays_and_is_named(value):
    model, report = rounded(linear(torch.full((3, 3), value * 1.0001)))
    assert set(model.low_bit) == {"1.weight"}
    assert "beyond what float16 holds, stay float32: 0.weight" in report.notes
    assert torch.equal(model.flat.module[0].weight, torch.full((3, 3), value * 1.0001))


def test_a_few_tiny_values_among_others_are_no_matter():
    weight = torch.randn(8, 8)
    weight[0, 0] = 1e-9
    model, _ = rounded(linear(weight))
    assert "0.weight" in model.low_bit


def test_layers_are_left_out_by_pattern():
    model, report = rounded(linear(torch.randn(3, 3)), layers_out=("0",))
    assert set(model.low_bit) == {"1.weight"} and "left out, stay float32: 0.weight" in report.notes
    with pytest.raises(BadInput, match=r"layers_out 'nothing\*' fits no layer"):
        rounded(linear(torch.randn(3, 3)), layers_out=("nothing*",))


def test_nothing_to_round_is_said():
    with pytest.raises(BadInput, match="there is no weight to round; it must have two or more axes, not be left out"):
        rounded(linear(torch.randn(3, 3)), layers_out=("*",))


def test_after_integers_it_takes_the_rest():
    flat = everything()
    integers, _ = integer.apply(Model(flat), integer.Settings(activations="float"), Context(flat, None))
    model, report = apply(integers, Settings(), Context(flat, None))
    kept = {name: weight for name, weight in model.low_bit.items() if weight.bits == 8}
    assert kept.keys() == integers.low_bit.keys() and all(kept[n] is w for n, w in integers.low_bit.items())
    assert {name for name, weight in model.low_bit.items() if weight.bits == 16} == {*("places", *RECURRENT)}
    assert report.notes[0] == "5 other float16"


def test_it_is_a_word_of_quantize_and_the_last_of_a_recipe(tmp_path):
    assert [step.name for step in recipe_of(None, "0.5", None, "float16").steps] == ["prune", "float16"]
    assert next(iter(QUANTIZE)) == "float16"
    file = tmp_path / "recipe.yaml"
    file.write_text("passes: [float16, quantize]\n")
    with pytest.raises(BadInput, match="quantize cannot follow float16: it would undo it; put quantize first"):
        read_recipe(file)


# --- the files -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """The rounded model, and its file and what is carried, by format and settings; each is made once."""
    made = {}
    model, _ = rounded(everything())

    def get(target: str, **chosen):
        key = (target, *chosen.items())
        if key not in made:
            folder = tmp_path_factory.mktemp(target)
            save_program(replace(trace(model.flat, model.flat.example, []), low_bit=model.low_bit), folder / "p.pt2")
            road, settings = importlib.import_module(TARGETS[target].module), TARGETS[target].settings(**chosen)
            path = folder / TARGETS[target].file_name
            carried = road.lower(road.prepare(load_program(folder / "p.pt2"), settings), path, settings, {})
            made[key] = path, carried
        return model, *made[key]

    return get


HOW = {"onnx": "float16, Cast", "tflite": "float16, DEQUANTIZE", "coreml": "float16"}


@pytest.mark.slow
@pytest.mark.parametrize("target", HOW)
def test_each_format_stores_every_weight_in_float16_and_computes_the_same(target, lowered, computes):
    model, path, carried = lowered(target)
    assert {row.name: row.stored.name for row in carried if row.stored} == dict.fromkeys(WEIGHTS, HOW[target])
    halves = [constant for constant, _ in stored_constants(path) if constant.dtype == "float16"]
    assert sum(c.size_bytes for c in halves) == 2 * sum(weight.codes.size for weight in model.low_bit.values())
    computes(path, model.flat.example, model.flat.compute(model.flat.example), 1e-5)


def test_core_ml_that_computes_in_float16_has_such_weights_anyway(lowered, computes):
    model, path, carried = lowered("coreml", coreml_precision="float16")
    assert {row.stored.name for row in carried} == {"float16"}
    computes(path, model.flat.example, model.flat.compute(model.flat.example), 1e-2)


class Scaled(nn.Module):
    """A weight that litert-torch multiplies by a number, in front of what may hinder multiplying the output."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layer, self.activation = nn.Linear(8, 8), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layer(x) * 0.3)


@pytest.mark.parametrize(
    ("activation", "stored", "reason"),
    [(nn.Identity(), "float16, DEQUANTIZE", ""), (nn.ReLU6(), "", ROUNDED_TWICE)],
    ids=["plain", "fused"],
)
def test_a_number_that_the_converter_multiplies_a_weight_by_is_not_rounded(
    activation, stored, reason, tmp_path, computes
):
    torch.manual_seed(0)
    flat = FlatModule(Scaled(activation).eval(), (torch.randn(4, 8),), {})
    model, _ = rounded(flat)
    save_program(replace(trace(model.flat, model.flat.example, []), low_bit=model.low_bit), tmp_path / "p.pt2")
    road, settings = importlib.import_module(TARGETS["tflite"].module), TARGETS["tflite"].settings()
    (carried,) = road.lower(
        road.prepare(load_program(tmp_path / "p.pt2"), settings), tmp_path / "m.tflite", settings, {}
    )
    assert (carried.stored.name if carried.stored else "", carried.reason) == (stored, reason)
    computes(tmp_path / "m.tflite", model.flat.example, model.flat.compute(model.flat.example), 1e-6)
    file = tflite_file.read((tmp_path / "m.tflite").read_bytes())
    used = {tensor.buffer for graph in file.subgraphs for tensor in graph.tensors} | {m.buffer for m in file.metadata}
    assert [i for i, buffer in enumerate(file.buffers) if buffer.data is not None and i not in used] == []


@pytest.mark.slow
def test_a_bundle_says_so_and_verifies(pocketship, manifest_of, tmp_path):
    words = ("tests/models.py:cnn", "--quantize", "float16", "--no-measure", "-o", tmp_path / "half")
    done = pocketship("export", *words)
    assert done.returncode == 0, done.stderr
    artifacts = manifest_of(tmp_path / "half")["artifacts"]
    assert [(a["precision"], a["compute"], a["left_float"]) for a in artifacts] == [("float16", "float32", {})] * 3
    done = pocketship("verify", tmp_path / "half")
    assert done.returncode == 0, done.stdout + done.stderr
