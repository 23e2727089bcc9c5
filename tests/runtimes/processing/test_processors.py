"""Image, audio, series and output processing against Pillow, torchvision, transformers, sentence-transformers, torch.

test_processing.py, beside this, compares the conformance files; here the references run beside our code, over random
sizes and options, and the cases themselves are looked at: whether every option occurs in them.
"""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from runtimes.errors import BadInput
from runtimes.processing import audio, image, postprocess, series
from runtimes.processing.preprocessor import CHOICES, Audio, Classes, Embedding, Image, Series

ROOT = Path(__file__).resolve().parents[3]
METHODS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
SOUND = Audio("i", 16_000, 3000, 400, 160, 512, 20, 50.0, 7600.0)


def pictures(count: int, largest: int = 60):
    """Pixels of random sizes, every third one of hard edges, and another size."""
    generator = np.random.default_rng(7)
    for number in range(count):
        h, w, height, width = (int(side) for side in generator.integers(1, largest, 4))
        pixels = generator.integers(0, 256, (h, w, 3), dtype=np.uint8)
        yield np.where(pixels > 127, 255, 0).astype(np.uint8) if number % 3 == 0 else pixels, width, height


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_resizing_gives_pillows_bytes_for_random_sizes(name):
    for pixels, width, height in pictures(150):
        want = (
            Pillow.fromarray(pixels).resize((width, len(pixels)), METHODS[name]).resize((width, height), METHODS[name])
        )
        found = image.resize(pixels, width, height, name)
        np.testing.assert_array_equal(found, np.asarray(want))
        np.testing.assert_array_equal(image.resize(pixels[:, :, 1], width, height, name), found[:, :, 1])


@pytest.mark.parametrize("name", METHODS)
def test_a_long_row_is_pillows(name):
    generator = np.random.default_rng(8)
    for n, m in generator.integers(1, 3000, (20, 2)):
        row = generator.integers(0, 256, (1, n), dtype=np.uint8)
        want = np.asarray(Pillow.fromarray(row).resize((m, 1), METHODS[name]))
        np.testing.assert_array_equal(image.resize(row, int(m), 1, name), want)


def test_greys_are_pillows():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, np.arange(256, dtype=np.uint8)), axis=-1)
    pixels = cube.reshape(len(levels) ** 2, -1, 3)
    np.testing.assert_array_equal(image.grayed(pixels)[:, :, 0], np.asarray(Pillow.fromarray(pixels).convert("L")))


def test_fit_is_pillows_pad_but_for_what_pillow_leaves_out():
    thin = 0
    for pixels, width, height in pictures(1500):
        picture, size = Pillow.fromarray(pixels), (width, height)
        options = Image("i", width, height, layout="nhwc", resize="fit", interpolation="nearest", fill=(9, 80, 230))
        found = image.to_tensor(pixels, options)[0]
        if 0 in ImageOps.contain(picture, size, 0).size:
            thin += 1
            inside = (found != np.float32(options.fill)).any(axis=2)
            assert inside.any(axis=0).sum() == 1 or inside.any(axis=1).sum() == 1
        else:
            np.testing.assert_array_equal(found, np.asarray(ImageOps.pad(picture, size, 0, color=options.fill)))
    assert thin > 10


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_torchvisions_transforms_are_the_same(name):
    from torchvision.transforms import v2 as transforms
    from torchvision.transforms.functional import normalize, to_tensor

    generator = np.random.default_rng(9)
    options = Image(
        "i", 29, 24, resize="cover", shortest_edge=32, interpolation=name, divisor=255.0,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    mode = getattr(transforms.InterpolationMode, name.upper())
    sized = transforms.Compose([transforms.Resize(32, mode), transforms.CenterCrop((24, 29))])
    for h, w in ((33, 66), (33, 90), (64, 71), (200, 43), (40, 40), (20, 31), (32, 32)):
        # one axis constant: the order of the two passes, in which versions of Pillow differ, is of no account
        line = generator.integers(0, 256, (1, w, 3) if h < w else (h, 1, 3), dtype=np.uint8)
        pixels = np.ascontiguousarray(np.broadcast_to(line, (h, w, 3)))
        want = normalize(to_tensor(sized(Pillow.fromarray(pixels))), options.mean, options.std).numpy()
        np.testing.assert_array_almost_equal_nulp(image.to_tensor(pixels, options)[0], want, nulp=1)


def test_channels_and_layouts_are_orders_of_the_same_numbers():
    (pixels, _, _) = next(pictures(1))
    nchw = image.to_tensor(pixels, Image("i", 7, 6))
    for channels, order in (("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])):
        for layout in ("nchw", "nhwc"):
            found = image.to_tensor(pixels, Image("i", 7, 6, channels=channels, layout=layout))
            want = nchw[:, order] if layout == "nchw" else nchw[:, order].transpose(0, 2, 3, 1)
            np.testing.assert_array_equal(found, want)
    gray = image.to_tensor(pixels, Image("i", 7, 6, channels="gray"))
    np.testing.assert_array_equal(
        image.to_tensor(pixels, Image("i", 7, 6, channels="gray3")), np.repeat(gray, 3, axis=1)
    )


# --- sounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["none", "slaney"])
@pytest.mark.parametrize(("rate", "fft", "mels", "low", "high"), [
    (16_000, 400, 80, 0.0, 8000.0), (48_000, 1024, 64, 50.0, 14_000.0), (22_050, 511, 40, 20.0, 11_025.0),
    (8000, 256, 13, 300.0, 3400.0),
])  # fmt: skip
def test_filters_are_those_of_transformers(scale, norm, rate, fft, mels, low, high):
    from transformers.audio_utils import mel_filter_bank

    options = replace(SOUND, sample_rate=rate, fft=fft, frame=fft, mels=mels, low_hz=low, high_hz=high)
    options = replace(options, mel_scale=scale, mel_norm=norm)
    want = mel_filter_bank(fft // 2 + 1, mels, low, high, rate, None if norm == "none" else norm, scale)
    np.testing.assert_allclose(audio.mel_filters(options), want.T, rtol=1e-9, atol=1e-13)


def test_claps_features_are_the_same():
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc", padding="pad")
    sound = (np.random.default_rng(3).standard_normal(30_000) * 0.1).astype(np.float32)
    want = extractor(sound, sampling_rate=48_000, return_tensors="np")["input_features"][:, 0]
    options = Audio(
        "i", 48_000, 48_000, 1024, 480, 1024, 64, extractor.frequency_min, 14_000.0,
        mel_scale="slaney", mel_norm="slaney", log="db", layout="time_mel",
    )  # fmt: skip
    found = audio.to_tensor(sound, options)
    assert found.shape == want.shape
    assert np.all(np.abs(found - want) <= 1e-5 * np.maximum(1, np.abs(want)))


@pytest.mark.parametrize(
    "changed", [{}, {"fft": 401}, {"frame": 399, "window": "hamming", "power": 1.0}, {"window": "ones"}]
)
def test_the_spectrogram_is_the_direct_sum_of_the_page(changed):
    options = replace(SOUND, centered=False, samples=900, mels=12, **changed)
    sound = (np.random.default_rng(4).standard_normal(900) * 0.2).astype(np.float32)
    bins = np.arange(options.fft // 2 + 1)[:, np.newaxis]
    rows = []
    for start in range(0, 900 - options.frame + 1, options.hop):
        frame = sound[start : start + options.frame].astype(np.float64) * audio.window(options)
        turns = 2 * np.pi * (np.arange(options.frame) * bins % options.fft) / options.fft
        power = (np.cos(turns) @ frame) ** 2 + (-np.sin(turns) @ frame) ** 2
        rows.append(np.log(np.maximum(audio.mel_filters(options) @ power ** (options.power / 2), options.floor)))
    found = audio.to_tensor(sound, options)[0].T
    assert found.shape == (options.frames, options.mels)
    np.testing.assert_allclose(found, np.array(rows), rtol=1e-5, atol=1e-5)


# --- series ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", CHOICES["series"]["keep"])
def test_instance_scaling_has_the_bits_of_sums_in_order(keep):
    generator = np.random.default_rng(5)
    for n in (1, 7, 8, 9, 60, 64, 65, 130, 300):
        wide = generator.standard_normal((2, n)) * 10.0 ** generator.integers(-6, 9, (2, n))
        half = n // 2
        wide[:, half : 2 * half] = wide[:, half : 2 * half] * 1e-9 - wide[:, :half][:, ::-1]  # cancels: the order shows
        values = wide.astype(np.float32)
        want = []
        for row in values.tolist():
            kept = row[-64:] if keep == "last" else row[:64]
            mean = in_order(kept) / len(kept)
            spread = math.sqrt(in_order([(x - mean) * (x - mean) for x in kept]) / len(kept) + 1e-5)
            filler = [2.5] * (64 - len(kept))
            scaled = [(x - mean) / spread for x in kept]
            want.append(filler + scaled if keep == "last" else scaled + filler)
        found = series.to_tensor(values, Series("i", 2, 64, keep=keep, pad=2.5, scaling="instance"))
        np.testing.assert_array_equal(found, np.array([want], np.float32))


def in_order(values: list[float]) -> float:
    """The sum from zero, one after the other; Python's own is compensated from 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 30.0, 2000.0])
def test_scores_are_torchs(scale):
    import torch

    values = (np.random.default_rng(6).standard_normal((1, 50)) * scale).astype(np.float32)
    labels = tuple(f"label {i}" for i in range(50))
    exact = torch.from_numpy(values).double()[0]
    for activation, want in (("none", exact), ("softmax", exact.softmax(0)), ("sigmoid", exact.sigmoid())):
        found = postprocess.classes(values, Classes("o", labels, activation, 0.02))
        assert found.scores.dtype == np.float32
        np.testing.assert_allclose(found.scores, want.float().numpy(), rtol=0, atol=1e-6)
        assert found.label == labels[int(np.argmax(want.float().numpy()))] and found.score == found.scores.max()
        above = [labels[i] for i in np.argsort(-found.scores, kind="stable") if found.scores[i] >= np.float32(0.02)]
        assert list(found.above) == above


def test_of_equal_scores_the_first_is_best_and_a_score_at_the_threshold_reaches_it():
    values = np.array([[0.1, 0.7, 0.3, 0.7]], np.float32)  # 0.7 in single is below 0.7 in double
    found = postprocess.classes(values, Classes("o", ("a", "b", "c", "d"), "none", 0.7))
    assert (found.label, found.above) == ("b", ("b", "d"))
    higher = postprocess.classes(values, Classes("o", ("a", "b", "c", "d"), "none", 0.71))
    assert (higher.label, higher.above) == (None, ()) and higher.score == np.float32(0.7)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_is_that_of_sentence_transformers(pooling, normalize):
    import torch
    from sentence_transformers.models import Pooling

    hidden = torch.from_numpy(np.random.default_rng(7).standard_normal((1, 9, 16)) - 2.0).float()
    for mask in ([1] * 9, [1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 1, 0, 0, 1]):
        given = {"token_embeddings": hidden.clone(), "attention_mask": torch.tensor([mask])}
        want = Pooling(16, pooling_mode=pooling)(given)["sentence_embedding"]
        want = torch.nn.functional.normalize(want, dim=1) if normalize else want
        options = Embedding("o", pooling, "mask", normalize)
        found = postprocess.embedding(hidden.numpy(), options, np.array([mask], np.int64))
        np.testing.assert_allclose(found, want[0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_where_no_token_counts_the_vector_is_zero(pooling):
    found = postprocess.embedding(
        np.ones((1, 2, 3), np.float32), Embedding("o", pooling, "m"), np.zeros((1, 2), np.int64)
    )
    np.testing.assert_array_equal(found, np.zeros(3, np.float32))


# --- refusals, the cases, the modules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: image.resize(np.zeros((2, 2), np.float32), 1, 1, "bilinear"), "is no picture"),
        (lambda: image.resize(np.zeros((2, 2, 2, 2), np.uint8), 1, 1, "bilinear"), "is no picture"),
        (lambda: image.resize(np.zeros((0, 2), np.uint8), 1, 1, "nearest"), "is no picture"),
        (lambda: image.resize(np.zeros((2, 2), np.uint8), 0, 1, "bilinear"), "0 x 1 is no size"),
        (lambda: image.resize(np.zeros((2, 2), np.uint8), 1, 1, "box"), "'box' is no interpolation; give one of"),
        (lambda: postprocess.classes(np.zeros((1, 0), np.float32), Classes("o", ())), "no row of scores"),
        (lambda: postprocess.classes(np.float32(1), Classes("o", ("a",))), "no row of scores"),
        (lambda: postprocess.classes(np.zeros((2, 1), np.float32), Classes("o", ("a", "b"))), "no row of scores"),
        (lambda: postprocess.classes(np.array([["a", "b"]]), Classes("o", ("a", "b"))), "no row of scores"),
        (lambda: postprocess.embedding(np.zeros((1, 0), np.float32), Embedding("o", normalize=True)), "no embedding"),
        (lambda: postprocess.embedding(np.zeros((1, 0, 3), np.float32), Embedding("o", "cls")), "no embedding"),
        (lambda: postprocess.embedding(np.array([["a"]]), Embedding("o")), "no embedding"),
        (lambda: postprocess.embedding(np.ones((2, 3, 3), np.float32), Embedding("o", "mean")), "2 samples"),
        (lambda: postprocess.embedding(np.ones((1, 3, 3)), Embedding("o", "mean"), np.ones((1, 2))), "a mask of 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_processed_is_refused(call, said):
    with pytest.raises(BadInput, match=said):
        call()


def test_every_word_that_a_field_may_hold_occurs_in_the_cases():
    lines = (ROOT / "tests" / "conformance" / "cases.tsv").read_text(encoding="utf-8").splitlines()
    cases = [dict(pair.split("=", 1) for pair in line.split("\t")) for line in lines]
    for kind, choices in CHOICES.items():
        for field, words in choices.items():
            assert {case[field] for case in cases if case["kind"] == kind} == set(words), f"{kind}: {field}"
    pairs = {(c["resize"], c["interpolation"]) for c in cases if c["kind"] == "image"}
    assert len(pairs) == len(CHOICES["image"]["resize"]) * len(CHOICES["image"]["interpolation"])
    assert len({case["case"] + case["kind"] for case in cases}) == len(cases)
    assert (ROOT / "tests" / "conformance" / "cases.bin").stat().st_size < 1_500_000


@pytest.mark.parametrize("module", ["image", "audio", "series", "postprocess"])
def test_a_processor_imports_what_a_generated_package_has(module):
    tree = ast.parse((ROOT / "runtimes" / "processing" / f"{module}.py").read_text(encoding="utf-8"))
    found = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("runtimes")
    }
    assert found <= {"runtimes.errors", "runtimes.processing.preprocessor"}
