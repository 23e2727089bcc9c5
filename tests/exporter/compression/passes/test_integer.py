"""int8 and int4: the codes, which layers get which, what the module then holds, and training that repairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.analysis.emulation import emulated
from exporter.compression.model import Model
from exporter.compression.passes.integer import Settings, apply
from exporter.compression.recipe import step
from exporter.low_bit.weight import LowBitWeight
from exporter.tracing.flat_module import FlatModule
from exporter.training.batches import held_out_parts
from exporter.training.context import Context
from exporter.training.loop import TrainingSettings, train
from exporter.training.losses import label_loss, mean_loss
from runtimes.errors import BadInput
from tests.exporter.modules.upsampling import flat_upsampling


def score(outputs, split):
    return Score("accuracy", (outputs["output"].argmax(1) == split.labels).astype(float), {})


def task_of(inputs, labels=None, classes=("a", "b")):
    split = Split(inputs, labels)
    return Task("points", "", classes, split, split, split, score)


def flat_of(module, *args):
    return FlatModule(module.eval(), args, {})


def mlp(seed=0):
    torch.manual_seed(seed)
    return flat_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(2, 8))


def random_task(flat, samples=20):
    generator = np.random.default_rng(0)
    shapes = {name: value.shape[1:] for name, value in flat.example.items()}
    return task_of({n: generator.normal(size=(samples, *shape)).astype(np.float32) for n, shape in shapes.items()})


def quantized(flat, task=None, low_bit=None, **chosen):
    return apply(Model(flat, low_bit or {}), Settings(**chosen), Context(flat, task))


# --- which layers, and how -----------------------------------------------------------------------------------------


def choices(model):
    return {name: (w.kind, w.bits, w.activations) for name, w in model.low_bit.items()}


def test_without_data_linear_layers_take_their_ranges_as_they_go():
    model, report = quantized(mlp())
    assert choices(model) == {"0.weight": ("linear", 8, "dynamic"), "2.weight": ("linear", 8, "dynamic")}
    assert report.name == "quantize" and report.notes == ("2 linear int8 with dynamic activations",)
    assert report.settings["bits"] == 8


def test_with_data_the_ranges_are_calibrated():
    flat = mlp()
    model, report = quantized(flat, random_task(flat))
    assert {w.activations for w in model.low_bit.values()} == {"static"}
    first, last = model.low_bit["0.weight"], model.low_bit["2.weight"]
    assert first.inputs.low < 0 < first.inputs.high
    assert last.inputs.low == 0.0, "after a ReLU"
    assert last.inputs.high == pytest.approx(first.outputs.high)
    assert report.notes == (
        "2 linear int8 with static activations",
        "ranges by min-max of 20 calibration samples of points",
    )


def test_the_ranges_are_those_of_the_quantized_module():
    flat = mlp()
    task = random_task(flat)
    model, _ = quantized(flat, task, bits=4, activations="static", clip=False)
    inputs = torch.from_numpy(task.calibration.inputs["input"])
    low = float(model.flat.module[0](inputs).detach().min())
    assert model.low_bit["0.weight"].outputs.low == pytest.approx(low, rel=1e-6)
    assert float(flat.module[0](inputs).detach().min()) != pytest.approx(low, rel=1e-6)


class Outlier(nn.Module):
    """Two layers of ordinary values, and one with a value far beyond the others, which a norm takes away."""

    def __init__(self):
        super().__init__()
        self.first, self.wild, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.wild.bias.data[0] = 1000.0

    def forward(self, input):
        return self.last(self.wild(self.first(input).relu())[:, 1:].relu() @ torch.ones(15, 16))


def test_where_static_ranges_hurt_all_linear_layers_become_dynamic_in_auto_alone():
    torch.manual_seed(0)
    flat = flat_of(Outlier(), torch.randn(1, 8))
    task = random_task(flat)
    told = []
    model, report = apply(Model(flat), Settings(), Context(flat, task, progress=lambda *event: told.append(event)))
    assert {w.activations for w in model.low_bit.values()} == {"dynamic"}, "those that lose little each add up"
    ranged = {name: w.inputs is not None and w.outputs is not None for name, w in model.low_bit.items()}
    assert ranged == {"first.weight": True, "wild.weight": False, "last.weight": True}
    assert report.notes == (
        "3 linear int8 with dynamic activations",
        "ranges by min-max of 20 calibration samples of points",
        "2 dynamic layers keep theirs, for formats whose dynamic range is that of a whole tensor",
    )
    assert told == [("trying static activations", done, 3) for done in (1, 2, 3)]
    asked, _ = quantized(flat, task, activations="static")
    assert {w.activations for w in asked.low_bit.values()} == {"static"}


def test_four_bits_by_kind():
    torch.manual_seed(0)
    depthwise = nn.Conv2d(4, 4, 3, groups=4)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), depthwise, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model, report = quantized(flat_of(module, torch.randn(1, 3, 8, 8)), bits=4, conv_bits=4)
    assert choices(model) == {
        "0.weight": ("conv", 4, "float"),
        "1.weight": ("conv", 8, "float"),
        "4.weight": ("linear", 4, "dynamic"),
    }
    assert "grouped convolutions stay int8: 1.weight" in report.notes


def test_a_tied_embedding(as_exported):
    module, example = as_exported("transformer")
    model, report = quantized(flat_of(module, *example))
    assert choices(model) == {
        "embedding.weight": ("embedding", 8, "float"),
        "attention.in_proj_weight": ("linear", 8, "dynamic"),
        "attention.out_proj.weight": ("linear", 8, "dynamic"),
    }
    assert "of an embedding and a linear layer, whose activations stay float: embedding.weight" in report.notes
    assert model.flat.module.output.weight is model.flat.module.embedding.weight


def test_what_is_left_out_and_what_is_not_seen_is_named(as_exported):
    flat = mlp()
    model, report = quantized(flat, layers_out=("2",))
    assert list(model.low_bit) == ["0.weight"]
    assert "left out: 2.weight" in report.notes
    assert torch.equal(model.flat.module[2].weight, flat.module[2].weight)
    assert list(quantized(flat, layers_out=("0.w*",))[0].low_bit) == ["2.weight"]
    module, example = as_exported("recurrent")
    _, report = quantized(flat_of(module, example))
    names = (
        "lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.weight_ih_l0_reverse, lstm.weight_hh_l0_reverse, lstm.weight_ih_l1"
    )
    assert f"used in no linear layer, convolution or embedding, stay float: {names} and 5 more" in report.notes


def test_what_is_low_bit_already_stays(as_exported):
    flat = mlp()
    codes = np.ones((16, 8), np.int8)
    ternary = LowBitWeight(codes, np.full(16, 0.5, np.float32), 2, "linear", "dynamic")
    with torch.no_grad():
        flat.module[0].weight.copy_(torch.from_numpy(ternary.value))
    model, _ = quantized(flat, low_bit={"0.weight": ternary})
    assert model.low_bit["0.weight"] is ternary
    assert torch.equal(model.flat.module[0].weight, torch.full((16, 8), 0.5))
    assert model.low_bit["2.weight"].bits == 8


# --- the module ----------------------------------------------------------------------------------------------------


def test_the_module_holds_the_values_and_the_one_given_is_not_touched(as_exported):
    module, example = as_exported("cnn")
    flat = flat_of(module, example)
    before = {n: p.clone() for n, p in module.named_parameters()}
    model, report = quantized(flat, random_task(flat))
    parameters = dict(model.flat.module.named_parameters())
    assert len(model.low_bit) == sum(p.ndim > 1 for p in module.parameters())
    for name, weight in model.low_bit.items():
        assert np.array_equal(parameters[name].detach().numpy(), weight.value)
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())
    assert "folded 2 batch normalizations" in report.notes
    with torch.no_grad():
        want, got = flat.compute(dict(flat.example)), model.flat.compute(dict(flat.example))
        error = float((want["output"] - got["output"]).abs().max() / want["output"].abs().max())
    assert 0 < error < 0.02


def test_the_same_again_gives_the_same_bytes():
    flat = mlp()
    task = labelled_task()
    chosen = {"training_epochs": 1, "learning_rate": 0.01, "loss": "labels"}
    first, second = (quantized(flat, task, **chosen)[0] for _ in range(2))
    for name, weight in first.low_bit.items():
        assert weight.codes.tobytes() == second.low_bit[name].codes.tobytes()
        assert weight.scale.tobytes() == second.low_bit[name].scale.tobytes()


# --- training ------------------------------------------------------------------------------------------------------


def labelled_task(samples=400, seed=3):
    """Points inside and outside of a ball."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(samples, 8)).astype(np.float32)
    return task_of({"input": x}, (np.square(x).sum(1) > 7.3).astype(np.int64))


@pytest.fixture(scope="module")
def learned():
    """Modules that have learned the task from three seeds, and the contexts to go on in."""
    cases = []
    for seed in range(3):
        flat = mlp(seed)
        context = Context(flat, labelled_task(), seed)
        train(flat, context, label_loss(context), TrainingSettings(15, 0.03), label="learn")
        cases.append((flat, context))
    return cases


def held_out_loss(model, context):
    with emulated(model.flat, model.low_bit):
        return mean_loss(model.flat, held_out_parts(context)[1], label_loss(context))


@pytest.mark.parametrize("bits, activations", [(4, "dynamic"), (4, "static"), (8, "static")])
def test_training_is_never_worse_than_rounding_and_mostly_better(bits, activations, learned):
    chosen = {"bits": bits, "activations": activations, "loss": "labels"}
    gains = []
    for flat, context in learned:
        rounded, _ = apply(Model(flat), Settings(**chosen), context)
        trained, report = apply(Model(flat), Settings(**chosen, training_epochs=5, learning_rate=0.01), context)
        gains.append(held_out_loss(rounded, context) - held_out_loss(trained, context))
        assert report.notes[-1].startswith("quantization-aware training: ")
        for name, weight in trained.low_bit.items():
            value = dict(trained.flat.module.named_parameters())[name].detach().numpy()
            assert np.array_equal(value, weight.value), "frozen to what the artifact holds"
            assert (weight.inputs, weight.outputs) == (rounded.low_bit[name].inputs, rounded.low_bit[name].outputs)
    assert min(gains) > -1e-6
    assert sum(gains) > 0.01


def test_training_against_the_teacher_needs_no_labels():
    flat = mlp()
    context = Context(flat, task_of(labelled_task().train.inputs))
    error = {}
    for epochs in (0, 5):
        chosen = Settings(bits=4, activations="float", training_epochs=epochs, learning_rate=3e-3)
        model, _ = apply(Model(flat), chosen, context)
        inputs = {"input": torch.from_numpy(context.task.train.inputs["input"])}
        with torch.no_grad():
            want, got = (m.compute(inputs)["output"].log_softmax(-1) for m in (flat, model.flat))
        error[epochs] = float((want.exp() * (want - got)).sum(-1).mean())
    assert 0 < error[5] < 0.9 * error[0]


def test_training_leaves_the_weights_of_earlier_passes():
    flat = mlp()
    ternary = LowBitWeight(np.ones((16, 8), np.int8), np.full(16, 0.5, np.float32), 2, "linear")
    with torch.no_grad():
        flat.module[0].weight.copy_(torch.from_numpy(ternary.value))
    chosen = Settings(training_epochs=1, learning_rate=0.1, loss="labels")
    model, _ = apply(Model(flat, {"0.weight": ternary}), chosen, Context(flat, labelled_task()))
    assert torch.equal(model.flat.module[0].weight, torch.full((16, 8), 0.5))
    assert model.flat.module[0].weight.requires_grad
    assert not torch.equal(model.flat.module[0].bias, flat.module[0].bias)


def test_transposed_convolutions_have_a_scale_for_each_output():
    model, report = quantized(flat_upsampling(), activations="float")
    axes = {name: weight.granularity.axis for name, weight in model.low_bit.items()}
    assert axes == {"0.weight": 0, "2.weight": 1, "5.weight": 0, "7.weight": 0}  # in groups of one, they lie along 0
    assert not any("stay float" in note for note in report.notes)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"bits": 3}, "quantize: bits is 3; give one of 8, 4"),
        ({"embedding_bits": 2}, "quantize: embedding_bits is 2; give one of 8, 4"),
        ({"conv_bits": 16}, "quantize: conv_bits is 16; give one of 8, 4"),
        ({"activations": "int8"}, "quantize: activations is 'int8'; give one of auto, float, dynamic, static"),
        ({"calibration": "mse"}, "quantize: calibration is 'mse'; give one of min-max, percentile, entropy"),
        ({"loss": "mse"}, "quantize: loss is 'mse'; give one of teacher, labels"),
        ({"percentile": 40.0}, "quantize: percentile is 40.0; give a number in [50, 100]"),
        ({"percentile": float("nan")}, "quantize: percentile is nan; give a number in [50, 100]"),
        ({"samples": 0}, "quantize: samples is 0; give a whole number of 1 or more"),
        ({"training_epochs": -1}, "quantize: training_epochs is -1; give a whole number of 0 or more"),
        ({"training_epochs": 1, "learning_rate": 2.0}, "quantize: learning_rate is 2.0; give a number in (0, 1)"),
    ],
)
def test_a_setting_out_of_its_range(chosen, message):
    with pytest.raises(BadInput) as error:
        step("quantize", chosen, "recipe.yaml")
    assert message in str(error.value)


def refusal(flat, task=None, **chosen):
    with pytest.raises(BadInput) as error:
        quantized(flat, task, **chosen)
    return str(error.value)


@pytest.mark.parametrize(
    ("activations", "says"),
    [
        ("auto", " with dynamic activations; convolutions compute in float: calibrated ranges need --data"),
        ("dynamic", " with dynamic activations; convolutions compute in float: dynamic ranges would make them slower"),
        ("float", ""),
    ],
)
def test_without_data_convolutions_have_int8_weights_and_the_stage_says_that_they_compute_in_float(activations, says):
    flat = flat_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)), torch.randn(1, 3, 8, 8))
    model, report = quantized(flat, activations=activations)
    linear = "float" if activations == "float" else "dynamic"
    assert choices(model) == {"0.weight": ("conv", 8, "float"), "2.weight": ("linear", 8, linear)}
    assert report.notes[0] == f"1 conv int8, 1 linear int8{says}"


def test_static_ranges_without_data():
    assert refusal(mlp(), activations="static") == (
        "quantize: static activations need calibration data; name a task with --data"
    )


def test_nothing_to_quantize():
    assert "quantize: there is no weight to quantize; " in refusal(flat_of(nn.ReLU(), torch.randn(1, 3)))
    assert "quantize: there is no weight to quantize; " in refusal(mlp(), layers_out=("*",))


def test_a_pattern_that_fits_no_layer():
    assert refusal(mlp(), layers_out=("0", "classifier.*")) == (
        "quantize: layers_out 'classifier.*' fits no layer; the layers are 0.weight, 2.weight"
    )


def test_training_without_data():
    assert "training needs data" in refusal(mlp(), training_epochs=1, loss="labels")


def test_it_says_that_it_changed_the_model():
    """Also where every weight is a code already; one that would quantize nothing is refused."""
    flat = mlp()
    with torch.no_grad():
        flat.module[0].weight.fill_(127.0)
        flat.module[2].weight.fill_(127.0)
    model, report = quantized(flat, activations="float")
    assert report.changed and torch.equal(model.flat.module[0].weight, flat.module[0].weight)
