"""Labels, pictures and tokenizers in words: what they mean for a model, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from exporter.sources.described import Described, described, of_factory, preprocessor_of
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Classes, Image, Preprocessor, Series
from runtimes.signature import Signature, TensorSpec
from tests.conftest import MODELS


def signature(*shape: int | str, classes: int = 3) -> Signature:
    return Signature((TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", (1, classes)),))


SCORES = {"y": np.array([[-2.0, 5.0, 0.5]])}
SHARES = {"y": np.array([[0.1, 0.7, 0.2]])}


def test_a_picture_is_laid_out_as_the_models_input():
    said = described(image="mean=0.5:0.25:0.125,std=2,interpolation=bicubic")
    [entry] = preprocessor_of(said, None, signature(1, 3, 20, 30), SCORES).inputs
    wanted = Image("x", 30, 20, interpolation="bicubic", divisor=255.0, mean=(0.5, 0.25, 0.125), std=(2.0,))
    assert entry == wanted
    [entry] = preprocessor_of(described(image={"divisor": 1}), None, signature(1, 20, 30, 1), SCORES).inputs
    assert entry == Image("x", 30, 20, channels="gray", layout="nhwc", divisor=1.0)
    free = signature(1, 3, "h", "w")
    [entry] = preprocessor_of(described(image={"size": (8, 6), "mean": 0.5}), None, free, SCORES).inputs
    assert (entry.width, entry.height, entry.mean) == (8, 6, (0.5,))


def test_scores_go_through_softmax_and_shares_as_they_are(tmp_path):
    (tmp_path / "labels.txt").write_text("a cat\n a dog \nc\u00f4te\n\n")
    said = described(labels=tmp_path / "labels.txt", image="size=8")
    for outputs, activation in ((SCORES, "softmax"), (SHARES, "none")):
        [result] = preprocessor_of(said, None, signature(1, 3, 8, 8), outputs).outputs
        assert result == Classes("y", ("a cat", "a dog", "c\u00f4te"), activation)


def test_labels_go_over_what_the_source_says_itself():
    own = Preprocessor((Series("x", 2, 5),), (Classes("y", ("1", "2", "3")),))
    made = preprocessor_of(described(labels=["a", "b", "c"]), own, signature(1, 2, 5), SCORES)
    assert made.inputs == own.inputs and made.outputs == (Classes("y", ("a", "b", "c"), "softmax"),)


def test_options_go_over_a_factory():
    factory = of_factory({"labels": ["a", "b", "c"], "image": {"size": 9}}, "f.py:f")
    assert described(image="size=8").over(factory) == Described(("a", "b", "c"), {"width": 8, "height": 8})


@pytest.mark.parametrize(
    ("labels", "image", "said"),
    [
        (None, "size", r"cannot read 'size'; write it as size=224,mean="),
        (None, "size=8x8x8", r"cannot read size '8x8x8'; write it as"),
        (None, "mean=a", r"cannot read mean 'a'; write it as"),
        (None, "mean=nan", r"cannot read mean 'nan'; write it as"),
        (None, "divisor=1e999", r"cannot read divisor '1e999'; write it as"),
        (None, "centre=1", r"unknown word 'centre'; it takes size, mean, std"),
        (None, "resize=bend", r"image: resize is 'bend', none of stretch, "),
        (None, "size=9", r"it makes 'x' of shape \[1, 3, 9, 9\], the model takes \[1, 3, 8, 8\]"),
        (None, "std=0", r"std"),
        (["a"], "size=8", r"no output has 1 values for the labels \(y \[1, 3\]\); give one label for each"),
        (["a", "b", 3], "size=8", r"the labels are no list of texts"),
        (["a", "b", "c"], None, r"nothing says how the model's input is made; add --image"),
        ("no file", None, r"--labels no file: cannot read it \(No such file"),
    ],
)
def test_what_does_not_fit_is_refused(labels, image, said):
    with pytest.raises(BadInput, match=said) as caught:
        preprocessor_of(described(labels, image), None, signature(1, 3, 8, 8), SCORES)
    assert "\n" not in str(caught.value) and caught.value.remedy


def test_a_series_is_no_picture():
    with pytest.raises(BadInput, match=r"no input is a picture \(x \[1, 3, 8\]\); say it in a file"):
        preprocessor_of(described(image="size=8"), None, signature(1, 3, 8), SCORES)


@pytest.mark.parametrize("value", [3, {"label": ["a"]}])
def test_a_factory_of_other_things_is_refused(value):
    with pytest.raises(BadInput, match=r"f.py:f: the third thing that the factory returned has .*; return a dict with"):
        of_factory(value, "f.py:f")


def test_an_empty_tokenizer_is_none(tmp_path):
    (tmp_path / "tokenizer.json").touch()
    with pytest.raises(BadInput, match="--tokenizer: there are no words for"):
        preprocessor_of(described(tokenizer=tmp_path / "tokenizer.json"), None, signature(1, 3, 8, 8), SCORES)


def test_empty_and_foreign_files_are_refused(tmp_path):
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "latin").write_bytes("c\u00f4te".encode("latin-1"))
    for name, said in (("empty", "the file is empty; write one label a line"), ("latin", "the file is not in UTF-8")):
        with pytest.raises(BadInput, match=said):
            described(labels=tmp_path / name)


def test_a_factory_and_options_reach_the_bundle(pocketship, refused, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join("abcde"))
    (tmp_path / "own.py").write_text(
        f"import sys; sys.path.insert(0, {str(MODELS.parent)!r})\nimport models\n"
        "def make():\n    module, inputs = models.cnn()\n"
        "    return module, inputs, {'image': {'mean': 0.5, 'std': 0.25}}\n"
    )
    words = ("export", tmp_path / "own.py:make", "--target", "onnx", "-o", tmp_path / "own")
    done = pocketship(*words, "--labels", tmp_path / "labels.txt")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "own" / "preprocessor.json").read_text())
    assert made["inputs"][0]["mean"] == [0.5] and made["outputs"][0]["labels"] == list("abcde")
    said = refused(*words, "--force", "--image", "size=7")
    assert "of shape [1, 3, 7, 7]" in said
    assert "give one of them" in refused(
        *words, "--force", "--image", "size=7", "--preprocessor", tmp_path / "own" / "preprocessor.json"
    )
