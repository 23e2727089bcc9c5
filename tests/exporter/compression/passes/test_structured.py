"""Structured pruning: what goes first, that nothing else changes, the share that is left, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.tasks.task import Score, Split, Task
from exporter.compression.model import Model
from exporter.compression.passes.structured import Settings, apply, kept_units, removable
from exporter.compression.recipe import step
from exporter.families.digits import CompactConvolutionalTransformer
from exporter.modules.structure import Block
from exporter.modules.weight_uses import multiply_adds
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import trace
from exporter.training.context import Context
from runtimes.errors import BadInput
from tests.exporter.modules.upsampling import flat_upsampling


def images(samples=8, factor=1.0):
    split = Split({"image": factor * np.random.default_rng(0).normal(size=(samples, 3, 32, 32)).astype(np.float32)})
    return Task("noise", "", (), split, split, split, lambda o, s: Score("accuracy", np.zeros(1), {}))


def cct(convolutions=2):
    torch.manual_seed(0)
    module = CompactConvolutionalTransformer(layers=3, width=64, heads=4, kernel=7, convolutions=convolutions)
    return FlatModule(module.eval(), (torch.randn(1, 3, 32, 32),), {})


def pruned(flat, task=None, **settings):
    model, report = apply(Model(flat), Settings(**settings), Context(flat, task))
    return model.flat, report


def outputs(flat):
    with torch.no_grad():
        return next(iter(flat.compute(dict(flat.example)).values()))


def test_a_model_that_makes_images_larger_is_pruned_to_the_share_asked():
    flat = flat_upsampling()
    small, report = pruned(flat, flops=0.5, round_to=1)
    assert report.notes[0].endswith("50.0% were asked for")
    assert multiply_adds(small) / multiply_adds(flat) == pytest.approx(0.5, abs=0.05)
    assert outputs(small).shape == outputs(flat).shape and small.module[2].weight.shape[0] < 16


@pytest.mark.parametrize("importance", ["contribution", "weights"])
def test_a_neuron_that_nothing_listens_to_goes_first_and_is_not_missed(importance):
    flat = cct()
    silent = {0: (3, 17, 40), 1: (0, 1, 63), 2: (5, 6, 7)}
    with torch.no_grad():
        for i, neurons in silent.items():
            flat.module.layers[i].linear2.weight[:, neurons] = 0.0
    small, report = pruned(flat, images(), ratio=3 / 64, what=("neurons",), round_to=1, importance=importance)
    assert report.notes[2] == "removed 9 of 192 neurons"
    for i, neurons in silent.items():
        kept = [n for n in range(64) if n not in neurons]
        assert torch.equal(small.module.layers[i].linear1.weight, flat.module.layers[i].linear1.weight[kept])
    assert (outputs(small) - outputs(flat)).abs().max() <= 1e-6


def test_a_head_that_gives_nothing_goes_first_and_is_not_missed():
    flat = cct()
    with torch.no_grad():
        for i, head in enumerate((3, 0, 1)):
            flat.module.layers[i].self_attn.qkv.weight[128 + 16 * head : 128 + 16 * (head + 1)] = 0.0
    small, _ = pruned(flat, images(), ratio=0.25, what=("heads",), importance="activation")
    assert [layer.self_attn.qkv.out_features for layer in small.module.layers] == [144] * 3
    assert (outputs(small) - outputs(flat)).abs().max() <= 1e-6


@pytest.mark.parametrize("what", [("channels", "heads", "neurons"), ("heads", "neurons", "layers")])
def test_half_of_a_transformer_s_multiply_adds(what):
    flat = cct(convolutions=1) if "layers" in what else cct()
    small, report = pruned(flat, images(), flops=0.5, what=what, round_to=4)
    share = multiply_adds(small) / multiply_adds(flat)
    assert share == pytest.approx(0.5, rel=0.05)
    assert report.notes[0].endswith(f"{share:.1%}; 50.0% were asked for")
    assert outputs(small).shape == outputs(flat).shape
    assert trace(small, small.example).signature == trace(flat, flat.example).signature


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_share_of_a_cnn_s_multiply_adds(share):
    import timm

    torch.manual_seed(0)
    flat = FlatModule(timm.create_model("mobilenetv3_small_050").eval(), (torch.randn(1, 3, 32, 32),), {})
    small, _ = pruned(flat, flops=share)
    assert multiply_adds(small) / multiply_adds(flat) == pytest.approx(1 - share, rel=0.05)
    assert all(
        m.out_channels % 8 == 0 or m.kernel_size == (1, 1) for m in small.module.modules() if type(m) is nn.Conv2d
    )
    trace(small, small.example)


def test_blocks_of_the_least_influence_go():
    flat = cct()
    with torch.no_grad():  # norm1 is in the stream itself: with the branches silent, the middle block changes little
        for layer in (flat.module.layers[1].self_attn.proj, flat.module.layers[1].linear2):
            layer.weight.zero_()
    small, report = pruned(flat, images(), ratio=0.4, what=("layers",))
    assert report.notes[2:4] == ("removed the blocks layers.1", "importance: contribution")
    kept = [flat.module.layers[i].linear1.weight for i in (0, 2)]
    assert all(torch.equal(layer.linear1.weight, w) for layer, w in zip(small.module.layers, kept, strict=True))


def test_one_element_of_every_container_stays():
    flat = FlatModule(
        nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)]), (torch.ones(1, 2),), {}
    )
    blocks = [Block(container, i) for container in "01" for i in range(2)]
    assert removable(flat, blocks, (0.1, 0.3, 0.0, 0.2)) == (Block("1", 0), Block("0", 0))


@given(
    size=st.integers(1, 300), ratio=st.floats(0.01, 0.99), multiple=st.integers(1, 16), stagger=st.floats(0.01, 0.99)
)
def test_what_stays_is_a_multiple_near_the_ratio(size, ratio, multiple, stagger):
    kept = kept_units(size, ratio, multiple, stagger)
    assert 1 <= kept <= size
    assert kept % multiple == 0 or kept == size
    assert abs(kept - size * (1 - ratio)) <= multiple
    assert kept_units(size, min(0.99, ratio + 0.1), multiple, stagger) <= kept


def test_the_given_model_stays_and_the_pass_repeats_itself():
    flat = cct()
    before = [p.clone() for p in flat.parameters()]
    small, report = pruned(flat, images())
    again, _ = pruned(flat, images())
    assert all(torch.equal(a, b) for a, b in zip(flat.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters(), strict=True))
    assert report.name == "prune-structured" and report.settings["flops"] == 0.5
    assert "importance: contribution" in report.notes
    assert "importance: weights" in pruned(flat)[1].notes


def test_layers_that_are_left_out_keep_their_size():
    flat = cct()
    small, report = pruned(flat, ratio=0.5, what=("neurons", "layers"), layers_out=("layers.0*",), round_to=1)
    assert torch.equal(small.module.layers[0].linear1.weight, flat.module.layers[0].linear1.weight)
    assert len(small.module.layers) == 2 and small.module.layers[1].linear1.out_features == 32
    assert "left whole: layers.0.linear1, as asked" in report.notes


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"flops": 0.0}, "prune-structured: flops is 0.0; give a number in (0, 1)"),
        ({"flops": 1.0}, "prune-structured: flops is 1.0; give a number in (0, 1)"),
        ({"ratio": 1.5}, "prune-structured: ratio is 1.5; give a number in (0, 1), or null"),
        (
            {"what": ("channel",)},
            "prune-structured: what[0] is 'channel'; give some of channels, heads, neurons, layers",
        ),
        ({"what": ()}, "prune-structured: what is (); give some of channels"),
        (
            {"importance": "taylor"},
            "prune-structured: importance is 'taylor'; give one of auto, contribution, activation, weights",
        ),
        ({"round_to": 0}, "prune-structured: round_to is 0; give a whole number of 1 or more"),
        ({"samples": 0}, "prune-structured: samples is 0; give a whole number of 1 or more"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, line):
    with pytest.raises(BadInput) as refusal:
        step("prune-structured", settings, "recipe.yaml")
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"ratio": 0.9, "what": ("heads",)},
            "a ratio of 0.9 would empty layers.0.self_attn.qkv (4 heads); give a lower",
        ),
        (
            {"flops": 0.9, "what": ("heads",)},
            "of the multiply-adds 97.5% are left at the least, 10.0% were asked for; give flops of 0.02 or less, ",
        ),
        (
            {"what": ("neurons",), "round_to": 64},
            "there are no neurons to remove (left whole: layers.0.linear1, of 64 neur",
        ),
        (
            {"layers_out": ("body",)},
            "layers_out 'body' fits no layer; the layers are attention_pool, head, layers.0.linear1, ",
        ),
        (
            {"importance": "activation"},
            "the importance activation needs data; name a task with --data, or give weights",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused(settings, line):
    with pytest.raises(BadInput) as refusal:
        pruned(cct(), **settings)
    assert line in str(refusal.value)


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (images(0), "noise: the calibration split is empty; give samples"),
        (images(factor=np.float32("nan")), "the importance of tokenizer.0 is no finite number; clean the data"),
    ],
)
def test_data_of_no_use_is_refused(task, line):
    with pytest.raises(BadInput) as refusal:
        pruned(cct(), task)
    assert line in str(refusal.value)


def test_without_structure_there_is_nothing_to_remove(as_exported):
    module, example = as_exported("transformer")
    with pytest.raises(BadInput, match="there are no channels or heads or neurons to remove"):
        pruned(FlatModule(module, example, {}))


def test_it_computes_the_same_in_onnxruntime(lower_here, computes, as_exported):
    module, image = as_exported("cnn")
    small, _ = pruned(FlatModule(module, (image,), {}), round_to=1)
    assert small.module.depthwise[0].groups == small.module.stem[0].out_channels < 8
    lowered = lower_here(small.module, (image,), "onnx")
    computes(lowered.path, small.example, small.compute(dict(small.example)))


def test_it_says_whether_it_changed_the_model():
    flat = flat_upsampling()
    assert pruned(flat, ratio=0.5, round_to=1)[1].changed
    assert not pruned(flat, ratio=0.01, round_to=1)[1].changed, "a hundredth of 16 channels is none"
