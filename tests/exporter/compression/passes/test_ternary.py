"""Ternary weights: the least-squares codes by hand and by brute force, the layers chosen, exactness, training."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.analysis.sensitivity import sensitivities
from exporter.compression.model import Model
from exporter.compression.passes import ternary
from exporter.compression.passes.ternary import Settings, straight_through
from exporter.compression.recipe import step
from exporter.low_bit.weight import Granularity
from exporter.modules.weight_uses import weight_uses
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context
from exporter.training.loop import TrainingSettings, train
from exporter.training.losses import label_loss
from runtimes.errors import BadInput


def test_the_gradient_passes_straight_through():
    weight = torch.tensor([[3.0, -2.0, 0.5, -0.25]], requires_grad=True)
    value = straight_through(weight)
    assert value.tolist() == [[2.5, -2.5, 0.0, 0.0]]
    (value * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]]


# --- on scikit-learn's digits --------------------------------------------------------------------------------------


def accuracy_of(outputs, split):
    (logits,) = outputs.values()
    return Score("accuracy", (logits.argmax(1) == split.labels).astype(float), {})


@cache
def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = data.data.astype(np.float32) / 16, data.target.astype(np.int64)
    splits = [Split({"x": x[a:b]}, y[a:b]) for a, b in ((0, 800), (800, 900), (900, 1797))]
    return Task("digits", "", tuple("0123456789"), *splits, accuracy_of)


@cache
def trained(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10))
    flat = FlatModule(module.eval(), (torch.zeros(1, 64),), {})
    context = Context(flat, digits(), seed=seed)
    train(flat, context, label_loss(context), TrainingSettings(8, 1e-2, 32), label="teacher")
    return flat


def accuracy(flat):
    split = digits().test
    with torch.no_grad():
        outputs = flat.compute({"input": torch.from_numpy(split.inputs["x"])})
    return accuracy_of({n: v.numpy() for n, v in outputs.items()}, split).correct.mean()


ALL = {"first_last_bits": 2, "epochs": 8, "learning_rate": 3e-3}


def run(flat, **chosen):
    return ternary.apply(Model(flat), Settings(**chosen), Context(flat, digits()))


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_compensation_regains_what_rounding_loses_and_training_more(seed):
    found = {m: accuracy(run(trained(seed), method=m, **ALL)[0].flat) for m in ("round", "compensate", "train")}
    assert accuracy(trained(seed)) > 0.85
    assert found["compensate"] > found["round"] + 0.03, found
    assert found["train"] > max(found["round"] + 0.1, found["compensate"]), found


@pytest.mark.parametrize("method", ["round", "compensate", "train"])
def test_every_weight_is_its_codes_times_its_scale_to_the_last_bit(method):
    flat = trained(0)
    before = [p.detach().clone() for p in flat.module.parameters()]
    model, report = run(flat, method=method, epochs=1, embedding_bits=4, layer_bits={"4": 4})
    parameters = dict(model.flat.module.named_parameters())
    assert {n: w.bits for n, w in model.low_bit.items()} == {"0.weight": 8, "2.weight": 2, "4.weight": 4}
    for name, weight in model.low_bit.items():
        assert parameters[name].detach().numpy().tobytes() == weight.value.tobytes()
        assert weight.activations == "dynamic" and weight.kind == "linear" and weight.codes.dtype == np.int8
    assert set(np.unique(model.low_bit["2.weight"].codes)) <= {-1, 0, 1}
    assert all(p.requires_grad for p in parameters.values()) and not model.flat.module.training
    assert all(torch.equal(a, b) for a, b in zip(before, flat.module.parameters(), strict=True))
    assert report.settings["method"] == method and report.notes[0] == "1 linear int8, 1 linear ternary, 1 linear int4"
    warned = any("without training, ternary weights cost" in note for note in report.notes)
    assert warned == (method != "train")


def test_training_is_of_the_ternary_weights_and_the_float_rest_alone():
    flat = trained(0)
    start = dict(run(flat, method="compensate")[0].flat.module.named_parameters())
    end = dict(run(flat, epochs=3, learning_rate=1e-2)[0].flat.module.named_parameters())
    same = {name for name in start if torch.equal(start[name], end[name])}
    assert same == {"0.weight", "4.weight"}


def test_it_repeats_byte_for_byte():
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        model, report = run(trained(0), epochs=2, sensitive_share=0.5, first_last_bits=2)
        states.append(([v.numpy().tobytes() for v in model.flat.module.state_dict().values()], report))
    assert states[0] == states[1]


def test_stopped_training_keeps_the_best_so_far():
    done = []
    context = Context(
        trained(0), digits(), progress=lambda *fact: done.append(fact), stopped=lambda: ("ternary", 30, 176) in done
    )
    model, report = ternary.apply(Model(context.teacher), Settings(**ALL), context)
    assert done[-1] == ("ternary", 30, 176) and ("error compensation", 3, 3) in done
    assert "30 steps, stopped by the user" in report.notes[-1]
    assert all(set(np.unique(w.codes)) <= {-1, 0, 1} for w in model.low_bit.values())
    rounded, _ = ternary.apply(Model(context.teacher), Settings(**ALL | {"method": "round"}), context)
    assert accuracy(model.flat) > accuracy(rounded.flat)


@pytest.mark.parametrize("method", ["round", "compensate", "train"])
def test_a_pruned_weight_stays_pruned(method):
    flat = trained(0).copy()
    with torch.no_grad():
        flat.module[2].weight[:, ::3] = 0.0
    model, _ = run(flat, method=method, epochs=2)
    assert (model.low_bit["2.weight"].codes[:, ::3] == 0).all()


def test_the_most_sensitive_layers_keep_more_bits():
    context = Context(trained(0), digits())
    layers = nn.Sequential(*trained(0).module, nn.Linear(10, 10), nn.Linear(10, 10))
    flat = FlatModule(layers.eval(), (torch.zeros(1, 64),), {})
    names = [layer.name for layer in sensitivities(Model(flat), context, (2,))]
    for first_last, candidates in ((2, names), (8, [n for n in names if n not in ("0.weight", "6.weight")])):
        chosen = Settings(method="round", first_last_bits=first_last, sensitive_share=0.5, sensitive_bits=4)
        layers, notes = ternary.choose_layers(Model(flat), chosen, context)
        kept = candidates[:2]  # of 5 and of 3: half, rounded to even
        assert {n for n, layer in layers.items() if layer.bits == 4} == set(kept)
        assert notes[-1] == f"most sensitive, int4: {', '.join(kept)}"


class Mixed(nn.Module):
    """An embedding, a convolution with batch normalization, a depthwise one, linear layers, one that is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.conv = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8))
        self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.dense, self.kept = nn.Linear(8, 8), nn.Linear(8, 8)
        self.output = nn.Linear(8, 20, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids)
        x = self.depthwise(self.conv(x.transpose(1, 2)).relu()).transpose(1, 2)
        return self.output(self.kept(self.dense(x).relu()))


def mixed():
    torch.manual_seed(0)
    return FlatModule(Mixed().eval(), (torch.arange(12).view(2, 6),), {})


def test_each_kind_of_layer_has_its_bits_and_activations():
    flat = mixed()
    rng = np.random.default_rng(0)
    splits = [Split({"ids": rng.integers(0, 20, (n, 6))}, None) for n in (20, 10, 4)]
    context = Context(flat, Task("ids", "", (), *splits, accuracy_of))
    model, report = ternary.apply(
        Model(flat), Settings(method="train", epochs=1, embedding_bits=4, layer_bits={"kept": 32}), context
    )
    assert {n: (w.kind, w.bits, w.activations) for n, w in model.low_bit.items()} == {
        "embedding.weight": ("embedding", 4, "float"),
        "conv.0.weight": ("conv", 2, "float"),
        "depthwise.weight": ("conv", 8, "float"),
        "dense.weight": ("linear", 2, "dynamic"),
    }
    assert isinstance(model.flat.module.conv[1], nn.Identity)
    assert report.notes[:2] == (
        "1 embedding int4, 1 conv ternary, 1 conv int8, 1 linear ternary",
        "left float: kept.weight",
    )
    assert "trained with the loss embedding" in report.notes[-1]
    again, _ = ternary.apply(model, Settings(method="round", layer_bits={"kept": 2}), context)
    assert set(again.low_bit) == set(weight_uses(flat))
    for name in model.low_bit:
        assert np.array_equal(again.low_bit[name].codes, model.low_bit[name].codes)
        assert torch.equal(*(dict(m.flat.module.named_parameters())[name] for m in (model, again)))


@pytest.mark.parametrize("method", ["round", "compensate", "train"])
def test_a_transposed_convolution_has_a_scale_for_each_output(method):
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.ConvTranspose2d(i, o, 2, 2) for i, o in ((3, 4), (4, 5), (5, 2))))
    flat = FlatModule(module.eval(), (torch.randn(1, 3, 2, 2),), {})
    splits = [Split({next(iter(flat.example)): torch.randn(4, 3, 2, 2).numpy()}, None) for _ in range(3)]
    context = Context(flat, Task("pictures", "", (), *splits, accuracy_of))
    model, report = ternary.apply(Model(flat), Settings(method=method, epochs=1), context)
    middle = model.low_bit["1.weight"]
    assert (middle.kind, middle.bits, middle.scale.shape, middle.activations) == ("conv_transpose", 2, (5,), "float")
    assert all(w.granularity == Granularity(axis=1) for w in model.low_bit.values())
    assert set(np.unique(middle.codes)) <= {-1, 0, 1}
    held = model.flat.module.get_parameter("1.weight").detach().numpy()
    assert held.tobytes() == (middle.codes * middle.scale.reshape(1, 5, 1, 1)).tobytes()
    assert ("no error compensation, just rounding: 1.weight" in report.notes) == (method != "round")


def test_a_small_embedding_stays_int8():
    torch.manual_seed(0)

    class Places(Mixed):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(2, 8)

        def forward(self, ids):
            return super().forward(ids) + self.places(ids * 0).sum()

    flat = FlatModule(Places().eval(), (torch.arange(12).view(2, 6),), {})
    for share, bits in ((0.05, 8), (0.005, 2)):  # it holds 16 of 568 weights
        chosen = Settings(method="round", embedding_bits=2, small_embedding_share=share)
        layers, _ = ternary.choose_layers(Model(flat), chosen, Context(flat))
        assert layers["embedding.weight"].bits == 2 and layers["places.weight"].bits == bits


def test_a_first_or_last_weight_may_be_too_large_to_keep():
    layers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 64))
    flat = FlatModule(layers.eval(), (torch.zeros(1, 4),), {})
    for share, last in ((1.0, 8), (0.6, 2)):  # it holds 2048 of 3200 weights
        chosen = Settings(method="round", first_last_share=share)
        found, _ = ternary.choose_layers(Model(flat), chosen, Context(flat))
        assert [layer.bits for layer in found.values()] == [8, 2, last]


def test_a_weight_that_cannot_be_compensated_is_named():
    flat = mixed()
    split = Split({"ids": np.arange(12).reshape(2, 6)}, None)
    context = Context(flat, Task("ids", "", (), split, split, split, accuracy_of))
    _, report = ternary.apply(Model(flat), Settings(method="compensate", embedding_bits=2), context)
    assert "no error compensation, just rounding: embedding.weight" in report.notes


def test_it_refuses_what_it_cannot_do():
    flat = trained(0)
    with pytest.raises(BadInput, match="ternary: method train needs data; name a task with --data, or give round"):
        ternary.apply(Model(flat), Settings(), Context(flat))
    with pytest.raises(BadInput, match=r"layer_bits 'head\*' fits no layer; the layers are 0.weight, 2.weight, 4.weig"):
        run(flat, layer_bits={"head*": 8})
    with pytest.raises(BadInput, match="none of 3 weights would be ternary; set first_last_bits to 2, or give layers"):
        run(flat, layer_bits={"2": 8})
    poisoned = Split({"x": np.full((4, 64), np.nan, np.float32)}, None)
    context = Context(flat, dataclasses.replace(digits(), calibration=poisoned))
    with pytest.raises(BadInput, match=r"ternary: 2\.weight meets NaN or infinity on calibration data; clean the data"):
        ternary.apply(Model(flat), Settings(), context)
    empty = dataclasses.replace(digits(), calibration=digits().calibration.rows(slice(0)))
    with pytest.raises(BadInput, match="digits: the calibration split is empty; give at least one sample"):
        ternary.apply(Model(flat), Settings(), Context(flat, empty))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("method", "gptq", "method is 'gptq'; give one of train, compensate, round"),
        ("first_last_bits", 3, "first_last_bits is 3; give one of 8, 4, 2"),
        ("first_last_share", -0.1, r"first_last_share is -0.1; give a number in \[0, 1\]"),
        ("small_embedding_share", 2.0, r"small_embedding_share is 2.0; give a number in \[0, 1\]"),
        ("embedding_bits", 32, "embedding_bits is 32; give one of 8, 4, 2"),
        ("sensitive_bits", 2, "sensitive_bits is 2; give one of 8, 4"),
        ("layer_bits", {"head": 16}, "layer_bits of 'head' is 16; give 2, 4, 8 or 32 by patterns"),
        ("activations", "static", "activations is 'static'; give one of dynamic, float"),
        ("sensitive_share", 1.0, r"sensitive_share is 1.0; give a number in \[0, 1\)"),
        ("samples", 0, "samples is 0; give a whole number of 1 or more"),
        ("damping", 0.0, "damping is 0.0; give a number above 0"),
        ("epochs", 0, "epochs is 0; give a whole number of 1 or more"),
        ("loss", "kl", "loss is 'kl'; give one of auto"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name, value, message):
    with pytest.raises(BadInput, match=message):
        step("ternary", {name: value}, "recipe.yaml")


def test_it_says_that_it_changed_the_model():
    assert ternary.apply(Model(trained(0)), Settings(method="round"), Context(trained(0)))[1].changed
