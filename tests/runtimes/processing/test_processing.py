"""Pre- and post-processing against the conformance files, whose expected values independent references computed."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from runtimes.errors import BadInput
from runtimes.processing import audio, image, postprocess, series
from runtimes.processing.preprocessor import Audio, Classes, Embedding, Image, Series

CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
TYPES = {"u8": np.uint8, "f32": np.float32, "f64": np.float64, "i64": np.int64}
RECORDS = {"image": Image, "audio": Audio, "series": Series, "classes": Classes, "embedding": Embedding}
FILLED = {"classes": {"output": "o"}, "embedding": {"output": "o"}}


def cases(folder: Path = CONFORMANCE) -> list[dict[str, Any]]:
    content = (folder / "cases.bin").read_bytes()
    found = []
    for line in (folder / "cases.tsv").read_text(encoding="utf-8").splitlines():
        case: dict[str, Any] = dict(pair.split("=", 1) for pair in line.split("\t"))
        for key, value in case.items():
            if value.startswith("@"):
                kind, offset, shape = value[1:].split(":")
                lengths = tuple(map(int, shape.split("x")))
                array = np.frombuffer(content, TYPES[kind], int(np.prod(lengths)), int(offset))
                case[key] = array.reshape(lengths)
        found.append(case)
    return found


CASES = cases()


def options_of(case: dict[str, Any]) -> Any:
    """The record of a case's fields, each read as its default's type."""
    record = RECORDS[case["kind"]]
    given = {}
    for field in fields(record):
        text = case.get(field.name)
        if not isinstance(text, str) or field.name in ("name", "kind"):
            continue
        kind = str(field.type)
        if kind.startswith("Tuple"):
            convert = float if "float" in kind else int if "int" in kind else str
            given[field.name] = tuple(map(convert, filter(None, text.split(","))))
        elif "bool" in kind:
            given[field.name] = text == "true"
        elif "float" in kind:
            given[field.name] = float(text) if text else None
        elif "int" in kind:
            given[field.name] = int(text)
        else:
            given[field.name] = text
    return record(**{**({} if case["kind"] in FILLED else {"input": "i"}), **FILLED.get(case["kind"], {}), **given})


def test_there_are_cases_of_every_kind():
    counts = Counter(case["kind"] for case in CASES)
    assert counts == {"image": 83, "audio": 25, "series": 31, "classes": 29, "embedding": 21}


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "image"], ids=lambda c: c["case"])
def test_images(case):
    found = image.to_tensor(case["pixels"], options_of(case))
    assert found.shape == case["expected"].shape and found.dtype == np.float32
    np.testing.assert_array_almost_equal_nulp(found, case["expected"], nulp=1)


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "audio"], ids=lambda c: c["case"])
def test_sounds(case):
    options = options_of(case)
    np.testing.assert_allclose(audio.window(options), case["tables_window"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(audio.mel_filters(options), case["tables_filters"], rtol=1e-10, atol=1e-14)
    found = audio.to_tensor(case["sound"], options)
    assert found.shape == case["expected"].shape and found.dtype == np.float32
    assert np.all(np.abs(found - case["expected"]) <= 1e-5 * np.maximum(1, np.abs(case["expected"])))
    tables = np.frombuffer(audio.tables(options), "<f8")
    np.testing.assert_array_equal(tables[: options.frame], audio.window(options))
    np.testing.assert_array_equal(tables[options.frame :], audio.mel_filters(options).ravel())


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "series"], ids=lambda c: c["case"])
def test_series(case):
    np.testing.assert_array_equal(series.to_tensor(case["series"], options_of(case)), case["expected"])


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "classes"], ids=lambda c: c["case"])
def test_classes(case):
    found = postprocess.classes(case["values"], options_of(case))
    np.testing.assert_allclose(found.scores, case["expected"], atol=1e-6)
    assert (found.label or "") == case["label"]
    assert found.above == tuple(filter(None, case["above"].split(",")))


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "embedding"], ids=lambda c: c["case"])
def test_embeddings(case):
    found = postprocess.embedding(case["values"], options_of(case), case.get("mask"))
    np.testing.assert_allclose(found, case["expected"], atol=1e-6)


def test_the_files_are_what_their_generator_writes(tmp_path):
    """To the letter, but for the last bits of float arithmetic, which processors round differently."""
    spec = importlib.util.spec_from_file_location("conformance_cases", CONFORMANCE / "cases.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(tmp_path)
    assert (tmp_path / "cases.tsv").read_text() == (CONFORMANCE / "cases.tsv").read_text()
    for fresh, kept in zip(cases(tmp_path), CASES, strict=True):
        for key, array in kept.items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                rounding = 16 * np.finfo(np.float32).eps * np.abs(array).max(initial=0)
                np.testing.assert_allclose(fresh[key], array, rtol=0, atol=rounding, err_msg=f"{kept['case']}: {key}")
            elif isinstance(array, np.ndarray):
                np.testing.assert_array_equal(fresh[key], array)


def test_resizing_gives_pillows_bytes_for_many_sizes():
    generator = np.random.default_rng(0)
    methods = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
    for h, w in ((1, 1), (1, 9), (7, 5), (64, 48), (33, 100), (200, 3)):
        pixels = generator.integers(0, 256, (h, w, 3), dtype=np.uint8)
        for width, height in ((1, 1), (8, 8), (24, 24), (50, 31), (7, 64)):
            for name, method in methods.items():
                want = Pillow.fromarray(pixels).resize((width, h), method).resize((width, height), method)
                np.testing.assert_array_equal(image.resize(pixels, width, height, name), np.asarray(want))


def test_what_torchvision_and_timm_evaluate_with_is_the_same():
    import timm
    from timm.data import create_transform, resolve_data_config

    from exporter.sources.preprocessing import of_timm

    config = timm.create_model("mobilenetv3_small_100", pretrained=False).pretrained_cfg
    transform = create_transform(**resolve_data_config(config))
    (options,) = of_timm(config, trained=False).inputs
    for h, w in ((300, 400), (231, 229), (500, 256)):
        pixels = np.random.default_rng(h).integers(0, 256, (h, w, 3), dtype=np.uint8)
        want = transform(Pillow.fromarray(pixels)).numpy()
        np.testing.assert_array_almost_equal_nulp(image.to_tensor(pixels, options)[0], want, nulp=1)


@pytest.mark.parametrize("kind", ["ViTImageProcessor", "CLIPImageProcessor"])
def test_what_transformers_prepares_is_the_same_but_for_rounding(kind):
    import transformers

    from exporter.sources.preprocessing import of_image_processor

    sizes = {
        "ViTImageProcessor": {},
        "CLIPImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": {"height": 33, "width": 33}},
    }
    processor = getattr(transformers, kind)(**sizes[kind])
    (options,) = of_image_processor({**processor.to_dict(), "image_processor_type": kind}, []).inputs
    pixels = np.random.default_rng(1).integers(0, 256, (301, 402, 3), dtype=np.uint8)
    want = processor(Pillow.fromarray(pixels), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(image.to_tensor(pixels, options), want, rtol=0, atol=1e-6)


def test_whispers_features_are_the_same():
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(chunk_length=1)
    sound = (np.random.default_rng(0).standard_normal(12_345) * 0.1).astype(np.float32)
    want = extractor(sound, sampling_rate=16_000, return_tensors="np")["input_features"]
    options = Audio(
        "i", 16_000, 16_000, 400, 160, 400, 80, 0.0, 8000.0, mel_scale="slaney", mel_norm="slaney", log="log10",
        range=8.0, mean=-4.0, std=4.0, drop_last=True,
    )  # fmt: skip
    np.testing.assert_allclose(audio.to_tensor(sound, options), want, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: image.to_tensor(np.zeros((4, 4), np.uint8), Image("i", 2, 2)), "is no picture"),
        (lambda: image.to_tensor(np.zeros((4, 4, 3), np.float32), Image("i", 2, 2)), "is no picture"),
        (lambda: image.to_tensor(np.zeros((0, 4, 3), np.uint8), Image("i", 2, 2)), "is no picture"),
        (lambda: image.to_tensor(np.zeros((70_000, 1, 3), np.uint8), Image("i", 2, 2)), "too long"),
        (lambda: series.to_tensor(np.zeros((3, 5), np.float32), Series("i", 2, 5)), "no such series"),
        (lambda: series.to_tensor(np.zeros((2, 0), np.float32), Series("i", 2, 5)), "no such series"),
        (lambda: audio.to_tensor(np.zeros(5), Audio("i", 16, 9, 2, 2, 2, 2, 0.0, 8.0)), "no mono sound"),
        (lambda: postprocess.classes(np.zeros((1, 3)), Classes("o", ("a", "b"))), "3 values are no scores of 2"),
        (lambda: postprocess.embedding(np.zeros((1, 3)), Embedding("o", "mean")), "has no tokens"),
    ],
)
def test_what_cannot_be_processed_is_refused(call, said):
    with pytest.raises(BadInput, match=said):
        call()


def test_no_token_that_counts_gives_a_zero_vector():
    found = postprocess.embedding(np.ones((1, 2, 3)), Embedding("o", "mean", "m", True), np.zeros((1, 2), np.int64))
    assert json.dumps(found.tolist()) == "[0.0, 0.0, 0.0]"
