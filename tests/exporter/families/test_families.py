"""The zoo's own models: digits, rnet, gunpoint, italypower, basicmotions; minilm is in test_sources.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks import load_task
from exporter.families import ZOO
from exporter.families.digits import CompactConvolutionalTransformer
from exporter.families.packaged import WEIGHTS
from exporter.families.rnet import RNet
from exporter.families.series import MIXERS, PatchMixer, Shape
from exporter.load import SourceOptions, load
from exporter.training import zoo
from exporter.training.loop import TrainingSettings

OURS = ("digits", "rnet", "gunpoint", "italypower", "basicmotions")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", OURS)
def test_a_model_comes_with_its_weights_and_real_inputs(name):
    source, task = load(name, SourceOptions()), load_task(ZOO[name].data)
    assert (source.name, source.kind, source.weights, source.license) == (name, "zoo", "pretrained", ZOO[name].license)
    (key,) = source.kwargs
    samples = source.samples({key: tuple(source.kwargs[key].shape)})
    assert len(samples) >= 3
    for i, sample in enumerate(samples):
        assert torch.equal(sample[key], torch.from_numpy(task.calibration.inputs[key][i : i + 1]))
    pairs = source.samples({key: (2, *source.kwargs[key].shape[1:])})
    assert torch.equal(pairs[1][key], torch.from_numpy(task.calibration.inputs[key][2:4]))
    outputs = source.module.eval()(**source.kwargs)
    assert [len(task.classes)] in [list(output.shape[1:]) for output in outputs.values()]


@pytest.mark.parametrize(
    ("name", "at_least"),
    [("digits", 0.98), ("rnet", 1.0), ("gunpoint", 0.95), ("italypower", 0.94), ("basicmotions", 1.0)],
)
def test_the_committed_weights_are_as_good_as_they_were(name, at_least):
    assert zoo.tested(name).correct.mean() >= at_least


def test_weights_are_small():
    sizes = {file.stem: file.stat().st_size for file in WEIGHTS.glob("*.safetensors")}
    assert set(sizes) == set(OURS)
    assert all(size < 2_000_000 for size in sizes.values())


# --- CCT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 283_723),
        ({"layers": 4}, 482_123),
        ({"layers": 7, "width": 256, "heads": 4, "ratio": 2, "convolutions": 1}, 3_760_139),
        ({"layers": 6, "width": 256, "heads": 4, "ratio": 2, "convolutions": 1}, 3_233_803),
    ],
    ids=("2/3x2", "4/3x2", "7/3x1", "6/3x1"),
)
def test_a_cct_has_as_many_parameters_as_the_published_one(options, parameters):
    assert count(CompactConvolutionalTransformer(**options)) == parameters


@torch.no_grad()
def test_a_cct_computes_what_its_formulas_say():
    """Once more with other functions of torch, and another attention, on the trained weights."""
    module = load("digits", SourceOptions()).module.eval()
    w = module.state_dict()
    image = torch.from_numpy(load_task("digits").test.inputs["image"][:3])
    x = image
    for i in (0, 3):
        x = nn.functional.max_pool2d(nn.functional.conv2d(x, w[f"tokenizer.{i}.weight"], padding=1).relu(), 3, 2, 1)
    x = x.reshape(3, 128, 64).transpose(1, 2) + w["positions"]

    def norm(x, name):
        return nn.functional.layer_norm(x, (128,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    for i in (0, 1):
        layer = f"layers.{i}"
        query, key, value = (
            part.reshape(3, 64, 2, 64).transpose(1, 2)
            for part in linear(norm(x, f"{layer}.pre_norm"), f"{layer}.self_attn.qkv").split(128, dim=2)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(3, 64, 128)
        x = norm(x + linear(attended, f"{layer}.self_attn.proj"), f"{layer}.norm1")
        x = x + linear(nn.functional.gelu(linear(x, f"{layer}.linear1")), f"{layer}.linear2")
    x = norm(x, "norm")
    pooled = torch.einsum("bt,btd->bd", linear(x, "attention_pool")[..., 0].softmax(1), x)
    assert torch.allclose(module(image)["logits"], linear(pooled, "head"), atol=1e-4)


# --- RNet -----------------------------------------------------------------------------------------------------------


def test_rnet_has_its_published_size_and_the_original_weights():
    module = RNet()
    assert count(module) == 100_178
    weights = load("rnet", SourceOptions()).module.state_dict()
    assert list(weights) == list(module.state_dict())
    assert hashlib.sha256(weights["dense4.weight"].numpy().tobytes()).hexdigest().startswith("69b7db3e5c9ad449")
    licence = (WEIGHTS / "rnet.LICENSE").read_text()
    assert licence.startswith("MIT License") and "Copyright (c) 2019 Timothy Esler" in licence


@torch.no_grad()
def test_rnet_reads_its_features_by_column_row_and_channel():
    module = load("rnet", SourceOptions()).module.eval()
    image = torch.from_numpy(load_task("faces").test.inputs["image"][:1])
    x = image
    for i, pool in ((1, True), (2, True), (3, False)):
        x = getattr(module, f"prelu{i}")(getattr(module, f"conv{i}")(x))
        x = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True) if pool else x
    order = [x[0, channel, row, column] for column in range(3) for row in range(3) for channel in range(64)]
    hidden = module.prelu4(module.dense4(torch.stack(order)[None]))
    found = module(image)
    assert torch.allclose(found["probabilities"], module.dense5_1(hidden).softmax(1), atol=1e-6)
    assert torch.allclose(found["box"], module.dense5_2(hidden), atol=1e-5)


# --- PatchMixer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_is_made_for_its_task(name):
    task, shape = load_task(name), MIXERS[name]
    assert task.train.inputs["series"].shape[1:] == (shape.channels, shape.steps)
    assert len(task.classes) == shape.classes and shape.steps % shape.patch == 0


@torch.no_grad()
def test_a_mixer_mixes_within_a_channel_and_sees_level_and_strength():
    torch.manual_seed(0)
    module = PatchMixer(Shape(channels=2, steps=12, classes=3, patch=4, width=8, blocks=1)).eval()
    features = {}
    module.norm.register_forward_hook(lambda layer, given, output: features.update(found=output))
    series = torch.randn(1, 2, 12)
    module(series)
    before = features["found"]
    assert before.shape == (1, 2, 3, 8)

    def changed(other: torch.Tensor) -> list[bool]:
        module(other)
        return [not torch.allclose(features["found"][0, c], before[0, c], atol=1e-5) for c in range(2)]

    assert changed(series.clone()) == [False, False]
    other = series.clone()
    other[0, 1, 0] += 1
    assert changed(other) == [False, True]
    assert changed(series + 1) == [True, True], "the level"
    assert changed(series * 3) == [True, True], "the strength"
    module.statistics.weight.zero_()
    module(series)
    before = features["found"]
    assert changed(series + 1) == changed(series * 3) == [False, False], "instance norm hides both"


# --- Training -------------------------------------------------------------------------------------------------------


def test_moved_digits_are_the_same_digits_elsewhere():
    images = load_task("digits").train.inputs["image"][:20]
    found = zoo.moved(images, np.random.default_rng(0))
    assert found.shape == images.shape and found.dtype == images.dtype
    assert (found == found[:, :1]).all(), "grey"
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, found, strict=True)]
    assert min(alike) > 0.4 and max(alike) < 0.999


def test_jittered_series_keep_their_shape():
    series = np.random.default_rng(0).standard_normal((50, 2, 100)).astype(np.float32)
    found = zoo.jittered(series, np.random.default_rng(0))
    assert found.dtype == series.dtype
    slopes = [(a * b).sum() / (a * a).sum() for a, b in zip(series, found, strict=True)]
    assert 0.88 < min(slopes) < 0.93 and 1.07 < max(slopes) < 1.12
    rest = found - series * np.array(slopes, np.float32)[:, None, None]
    assert rest.std() == pytest.approx(0.05, rel=0.1)


def test_training_learns_and_is_repeatable(monkeypatch):
    task = load_task("italypower")
    quick = replace(zoo.RECIPES["italypower"], copies=1, settings=TrainingSettings(epochs=6, learning_rate=2e-3))
    monkeypatch.setitem(zoo.RECIPES, "italypower", quick)
    first, again, other = (zoo.trained("italypower", task, seed, lambda *done: None) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    with torch.no_grad():
        found = first(torch.from_numpy(task.test.inputs["series"]))["logits"].argmax(1).numpy()
    assert (found == task.test.labels).mean() > 0.65  # of two classes


def test_the_command_prints_what_the_weights_reach(capsys):
    zoo.main(["--check", "rnet"])
    assert capsys.readouterr().out == "rnet: accuracy 100.00% (95.42% to 100.00%) of 80 test samples\n"


def test_the_command_writes_weights(capsys, monkeypatch, tmp_path):
    module = load("basicmotions", SourceOptions()).module
    monkeypatch.setattr(zoo, "trained", lambda name, task, seed, progress: progress(name, 50, 100) or module)
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    zoo.main(["basicmotions"])
    assert (tmp_path / "basicmotions.safetensors").read_bytes() == (WEIGHTS / "basicmotions.safetensors").read_bytes()
    printed = capsys.readouterr()
    assert printed.err == "basicmotions: step 50 of 100\n" and printed.out.startswith("basicmotions: accuracy 100.00%")


def test_the_command_trains_no_weights_of_others(capsys):
    with pytest.raises(SystemExit):
        zoo.main(["rnet"])
    assert "rnet is not trained here: it has weights of others, see --check" in capsys.readouterr().err
