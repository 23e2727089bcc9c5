"""preprocessor.json of a source: the user's own, timm's, Hugging Face's, and what has no words for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.load import load
from exporter.sources.preprocessing import NotDescribed, fitted, of_image_processor, of_timm, of_tokenizer
from exporter.sources.source import SourceOptions
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Classes, Image, Preprocessor, Text, read_preprocessor, to_bytes
from runtimes.signature import Signature, TensorSpec

MODELS = Path(__file__).resolve().parents[2] / "models.py"
PICTURE = Preprocessor(
    (Image("image", 32, 32, resize="cover", shortest_edge=36, divisor=255.0),),
    (Classes("output", tuple("abcde"), "softmax", 0.3),),
)


@pytest.fixture
def written(tmp_path):
    def write(preprocessor: Preprocessor) -> Path:
        path = tmp_path / "preprocessor.json"
        path.write_bytes(to_bytes(preprocessor))
        return path

    return write


def test_the_users_own_comes_into_the_bundle_and_is_hashed(written, tmp_path, pocketship, manifest_of):
    bundle = tmp_path / "bundle"
    words = ("export", f"{MODELS}:cnn", "-t", "onnx", "--preprocessor", written(PICTURE), "-o", bundle)
    done = pocketship(*words)
    assert done.returncode == 0, done.stderr
    assert read_preprocessor(bundle / "preprocessor.json") == PICTURE
    assert "preprocessor.json" in [file["path"] for file in manifest_of(bundle)["files"]]
    assert pocketship("verify", bundle).returncode == 0


@pytest.mark.slow
def test_a_text_takes_its_tokenizer_along(tmp_path, pocketship):
    from exporter.families.minilm import model_folder

    text = Preprocessor((Text(12, "ids", "mask"),))
    (tmp_path / "preprocessor.json").write_bytes(to_bytes(text))
    words = ("export", f"{MODELS}:transformer", "-t", "onnx", "--preprocessor", tmp_path / "preprocessor.json", "-q")
    done = pocketship(*words, "-o", tmp_path / "bundle")
    assert done.returncode == 2 and "cannot read the tokenizer" in done.stderr and "lay it beside" in done.stderr
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    done = pocketship(*words, "-o", tmp_path / "bundle")
    assert done.returncode == 2 and "its model is None" in done.stderr
    (tmp_path / "tokenizer.json").write_bytes((model_folder() / "tokenizer.json").read_bytes())
    done = pocketship(*words, "-o", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("preprocessor", "said"),
    [
        (replace(PICTURE, inputs=(Image("picture", 32, 32),)), "the model has no input 'picture'"),
        (replace(PICTURE, inputs=(Image("image", 31, 32),)), "of shape [1, 3, 32, 31]"),
        (replace(PICTURE, outputs=(Classes("output", ("a", "b")),)), "there are 2 labels"),
    ],
)
def test_another_models_is_refused_and_nothing_is_written(preprocessor, said, written, tmp_path, refused):
    words = ("export", f"{MODELS}:cnn", "-t", "onnx", "--preprocessor", written(preprocessor), "-o", tmp_path / "b")
    assert said in refused(*words)
    assert not (tmp_path / "b").exists()


def test_a_broken_file_is_refused_before_the_model_is_loaded(tmp_path, refused):
    path = tmp_path / "preprocessor.json"
    path.write_text("{}")
    line = refused("export", tmp_path / "none.py:factory", "--preprocessor", path, "-o", tmp_path / "b")
    assert "schema version is None" in line


@pytest.mark.parametrize("name", ["digits", "rnet", "gunpoint", "basicmotions", "minilm"])
def test_the_zoo_says_how_its_inputs_are_made(name):
    source = load(name, SourceOptions())
    inputs = tuple(TensorSpec(key, "x", tuple(value.shape)) for key, value in source.kwargs.items())
    outputs = {k: tuple(v.shape) for k, v in source.module.eval()(**source.kwargs).items()}
    signature = Signature(inputs, tuple(TensorSpec(key, "float32", shape) for key, shape in outputs.items()))
    assert fitted(source.preprocessor, signature) == source.preprocessor


def test_the_number_of_tokens_is_the_models():
    text = Preprocessor((Text(128, "ids"),))
    signature = Signature((TensorSpec("ids", "int64", (1, 64)),), (TensorSpec("o", "float32", (1, 3)),))
    assert fitted(text, signature).inputs[0].max_tokens == 64
    free = Signature((TensorSpec("ids", "int64", (1, "tokens")),), signature.outputs)
    assert fitted(text, free).inputs[0].max_tokens == 128
    with pytest.raises(BadInput, match="no input 'ids'"):
        fitted(text, Signature((TensorSpec("x", "int64", (1, 64)),), signature.outputs))


TIMM = {
    "input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "mean": (0.5,) * 3, "std": (0.5,) * 3,
    "num_classes": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"crop_mode": "squash"}, "timm's crop mode 'squash' for 224x224"),
        ({"input_size": (3, 224, 192)}, "timm's crop mode None for 224x192"),
        ({"interpolation": "random"}, "timm's interpolation 'random'"),
    ],
    ids=str,
)
def test_what_timm_does_otherwise_is_not_described(other, says):
    assert of_timm(TIMM, trained=True).outputs == ()
    assert of_timm({**TIMM, "label_names": list("abcdefg")}, trained=False).outputs[0].labels == tuple("abcdefg")
    with pytest.raises(NotDescribed, match=f"^{says}$"):
        of_timm({**TIMM, **other}, trained=True)


VIT = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 8, "width": 8}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"image_processor_type": "DetrImageProcessor"}, "the image processor DetrImageProcessor"),
        ({"do_resize": False}, "how the ViTImageProcessor resizes"),
        ({"resample": 5}, "how the ViTImageProcessor resizes"),
        ({"size": {"longest_edge": 8}}, "how the ViTImageProcessor resizes"),
        (
            {"do_center_crop": True, "crop_size": {"height": 8, "width": 8}, "size": {"shortest_edge": 7}},
            "how the ViTImageProcessor crops",
        ),
    ],
    ids=str,
)
def test_what_a_processor_does_otherwise_is_not_described(other, says):
    (image,) = of_image_processor(VIT, []).inputs
    assert (image.divisor, image.mean, image.std) == (255.0, (0.0,), (1.0,))
    assert of_image_processor({**VIT, "rescale_factor": 0.5}, []).inputs[0].divisor == 2.0
    with pytest.raises(NotDescribed, match=f"^{says}$"):
        of_image_processor({**VIT, **other}, [])


def test_what_a_tokenizer_does_otherwise_is_not_described():
    with pytest.raises(NotDescribed, match="the tokenizer"):
        of_tokenizer(json.dumps({"model": {"type": "BPE"}}).encode(), ["input_ids"], [])
    with pytest.raises(NotDescribed, match="the input pixel_values"):
        of_tokenizer(b"", ["input_ids", "pixel_values"], [])
    with pytest.raises(NotDescribed, match="the input input_ids"):
        of_tokenizer(b"", ["attention_mask"], [])


@pytest.mark.slow
def test_a_source_that_is_not_described_says_so(pocketship, tmp_path):
    words = ("export", "timm:mobilenetv3_small_050", "-t", "onnx", "--input-shape", "x=1,3,96,96", "-o", tmp_path / "b")
    done = pocketship(*words)
    assert done.returncode == 0, done.stderr
    assert "no preprocessor.json: it has no words for this signature" in done.stderr + done.stdout
    assert not (tmp_path / "b" / "preprocessor.json").exists()
