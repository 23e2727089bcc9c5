"""preprocessor.json: read strictly, written the same each time, checked against the model's signature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtimes.errors import BadInput
from runtimes.processing.preprocessor import (
    Audio,
    Classes,
    Embedding,
    Image,
    Preprocessor,
    Series,
    Text,
    Values,
    check_signature,
    made_by,
    parse_preprocessor,
    read_preprocessor,
    to_bytes,
)
from runtimes.signature import Signature, TensorSpec

IMAGE = {"kind": "image", "input": "image", "width": 8, "height": 6}
AUDIO = {
    "kind": "audio", "input": "mel", "sample_rate": 16000, "samples": 1600, "frame": 400, "hop": 160, "fft": 512,
    "mels": 20, "low_hz": 0.0, "high_hz": 8000.0,
}  # fmt: skip
SERIES = {"kind": "series", "input": "series", "channels": 2, "steps": 5}
TEXT = {"kind": "text", "max_tokens": 16, "ids": "ids", "mask": "mask"}
CLASSES = {"kind": "classes", "output": "logits", "labels": ["a", "b"]}


def written(*inputs: dict, outputs: tuple[dict, ...] = (), **other: object) -> bytes:
    return json.dumps({"schema_version": 1, "inputs": list(inputs), "outputs": list(outputs), **other}).encode()


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


EVERYTHING = Preprocessor(
    (
        Text(16, "ids", "mask", "types"),
        Image("image", 8, 6, resize="cover", shortest_edge=9, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), name="a"),
        Audio("mel", 16000, 1600, 400, 160, 512, 20, 0.0, 8000.0, range=8.0, name="b"),
        Series("series", 2, 5, scaling="standard", mean=(0.0, 1.0), std=(1.0, 2.0), name="c"),
    ),
    (Classes("logits", ("a", 'b "')), Embedding("hidden", "mean", "mask", True), Values("box")),
)


def test_what_is_written_is_what_is_read(tmp_path: Path):
    path = tmp_path / "preprocessor.json"
    path.write_bytes(to_bytes(EVERYTHING))
    assert read_preprocessor(path) == EVERYTHING
    assert to_bytes(read_preprocessor(path)) == path.read_bytes()


def test_defaults_are_those_of_the_documentation():
    image, audio = parse_preprocessor(written(IMAGE, {**AUDIO, "name": "b"})).inputs
    assert image == Image(
        "image", 8, 6, "rgb", "nchw", "stretch", 0, "bilinear", "even", (0, 0, 0), 1.0, (0.0,), (1.0,)
    )
    assert isinstance(audio, Audio)
    assert (audio.window, audio.centered, audio.padding, audio.power) == ("hann", True, "reflect", 2.0)
    assert (audio.mel_scale, audio.mel_norm, audio.log, audio.floor) == ("htk", "none", "log", 1e-10)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schema_version": NaN}', "not JSON"),
        (b"[]", "schema version is None"),
        (b'{"schema_version": 2, "inputs": []}', "schema version is 2"),
        (written(), "no entry in 'inputs'"),
        (b'{"schema_version": 1}', "'inputs' is no list"),
        (b'{"schema_version": 1, "inputs": [3]}', "'inputs' is no list"),
        (written(IMAGE, more=1), "unknown field 'more'"),
        (written({"kind": "video"}), "none of text, image, audio, series"),
        (written({"kind": []}), "none of text, image, audio, series"),
        (written(*[IMAGE] * 1001), "'inputs' has 1001 entries"),
        (written({**IMAGE, "widht": 3}), "unknown field 'widht'"),
        (written({"kind": "image", "input": "image", "width": 8}), "no field 'height'"),
        (written({**IMAGE, "width": "8"}), "'8' is not"),
        (written({**IMAGE, "width": 0}), "width and height"),
        (written({**IMAGE, "channels": "rgba"}), "channels is 'rgba'"),
        (written({**IMAGE, "resize": "cover", "shortest_edge": 7}), "shortest_edge"),
        (written({**IMAGE, "shortest_edge": 7}), "shortest_edge is for"),
        (written({**IMAGE, "interpolation": "area"}), "interpolation is 'area'"),
        (written({**IMAGE, "mean": [1.0, 2.0]}), "mean and std"),
        (written({**IMAGE, "std": [0.0]}), "above 0"),
        (written({**IMAGE, "divisor": 0.0}), "above 0"),
        (written({**IMAGE, "fill": [0, 0, 256]}), "fill"),
        (written({**AUDIO, "frame": 600}), "frame <= fft"),
        (written({**AUDIO, "hop": 0}), "0 < hop"),
        (written({**AUDIO, "samples": 200}), "too few"),
        (written({**AUDIO, "samples": 399, "centered": False}), "too few"),
        (written({**AUDIO, "high_hz": 8001.0}), "sample_rate / 2"),
        (written({**AUDIO, "power": 3.0}), "power"),
        (written({**AUDIO, "floor": 0.0}), "floor"),
        (written({**AUDIO, "range": 0.0}), "range"),
        (written({**AUDIO, "mels": 0}), "mels"),
        (written({**SERIES, "scaling": "standard", "mean": [0.0], "std": [1.0]}), "two values a channel"),
        (written({**SERIES, "mean": [0.0, 0.0]}), "takes no such values"),
        (written({**SERIES, "scaling": "minmax", "low": [0.0, 1.0], "high": [1.0, 1.0]}), "low is below high"),
        (written({**SERIES, "scaling": "standard", "mean": [0.0, 0.0], "std": [1.0, 0.0]}), "std is above 0"),
        (written({**SERIES, "epsilon": -1.0}), "epsilon"),
        (written({**SERIES, "steps": 0}), "steps"),
        (written({**TEXT, "mask": "ids"}), "different inputs"),
        (written({**TEXT, "max_tokens": 2}), "max_tokens"),
        (written({**TEXT, "tokenizer": "../tokenizer.json"}), "tokenizer is tokenizer.json"),
        (written(IMAGE, outputs=({**CLASSES, "labels": []},)), "no label"),
        (written(IMAGE, outputs=({**CLASSES, "labels": ["a", "a"]},)), "a label occurs twice"),
        (written(IMAGE, outputs=({**CLASSES, "activation": "tanh"},)), "activation is 'tanh'"),
        (written(IMAGE, IMAGE), "'image' occurs twice"),
        (written(IMAGE, outputs=(CLASSES, {**CLASSES, "name": "more"})), "output 'logits' occurs twice"),
        (written(IMAGE, outputs=({"kind": "box"},)), "none of classes, embedding, values"),
    ],
)
def test_what_the_documentation_does_not_say_is_refused(data: bytes, said: str):
    with pytest.raises(BadInput, match=said.replace("(", r"\(")) as refused:
        parse_preprocessor(data)
    assert refused.value.remedy


def test_a_file_that_is_missing_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="cannot read the preprocessor"):
        read_preprocessor(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("entry", "shapes"),
    [
        (Text(16, "ids", None, "types"), [("ids", (1, 16)), ("types", (1, 16))]),
        (Image("image", 8, 6), [("image", (1, 3, 6, 8))]),
        (Image("image", 8, 6, channels="gray", layout="nhwc"), [("image", (1, 6, 8, 1))]),
        (Audio("mel", 16000, 1600, 400, 160, 512, 20, 0.0, 8000.0), [("mel", (1, 20, 1 + (1600 + 400 - 400) // 160))]),
        (
            Audio(
                "mel", 16000, 1600, 400, 160, 512, 20, 0.0, 8000.0, centered=False, drop_last=True, layout="time_mel"
            ),
            [("mel", (1, (1600 - 400) // 160, 20))],
        ),
        (Series("series", 2, 5), [("series", (1, 2, 5))]),
    ],
)
def test_the_shapes_that_an_entry_makes(entry, shapes):
    assert made_by(entry) == shapes


LOGITS = spec("logits", 1, 2)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ((spec("picture", 1, 3, 6, 8),), (LOGITS,), "no input 'image'"),
        ((spec("image", 1, 3, 8, 6),), (LOGITS,), "of shape"),
        ((spec("image", 1, 3, 6, 8), spec("size", 2)), (LOGITS,), "nothing makes the model's input 'size'"),
        ((spec("image", 1, 3, 6, 8),), (spec("scores", 1, 2),), "no output 'logits'"),
        ((spec("image", 1, 3, 6, 8),), (spec("logits", 1, 3),), "2 labels"),
    ],
)
def test_another_model_is_refused(inputs, outputs, said):
    preprocessor = parse_preprocessor(written(IMAGE, outputs=(CLASSES,)))
    check_signature(preprocessor, Signature((spec("image", 1, 3, 6, 8),), (LOGITS,)))
    check_signature(preprocessor, Signature((spec("image", "batch", 3, 6, 8),), (LOGITS,)))
    with pytest.raises(BadInput, match=said):
        check_signature(preprocessor, Signature(inputs, outputs))


def test_an_input_is_made_once():
    twice = parse_preprocessor(written(IMAGE, {**IMAGE, "name": "again"}))
    with pytest.raises(BadInput, match="more than one entry"):
        check_signature(twice, Signature((spec("image", 1, 3, 6, 8),), (LOGITS,)))


def test_pooling_needs_tokens_and_a_mask_that_exists():
    pooled = {"kind": "embedding", "output": "hidden", "pooling": "mean", "mask": "mask"}
    inputs = (spec("ids", 1, 16), spec("mask", 1, 16))
    check_signature(
        parse_preprocessor(written(TEXT, outputs=(pooled,))), Signature(inputs, (spec("hidden", 1, 16, 4),))
    )
    with pytest.raises(BadInput, match="no tokens to pool"):
        check_signature(
            parse_preprocessor(written(TEXT, outputs=(pooled,))), Signature(inputs, (spec("hidden", 1, 4),))
        )
    with pytest.raises(BadInput, match="16 places for 9 tokens"):
        check_signature(
            parse_preprocessor(written(TEXT, outputs=(pooled,))), Signature(inputs, (spec("hidden", 1, 9, 4),))
        )
    with pytest.raises(BadInput, match="no input 'other' for a mask"):
        check_signature(
            parse_preprocessor(written(TEXT, outputs=({**pooled, "mask": "other"},))),
            Signature(inputs, (spec("hidden", 1, 16, 4),)),
        )


def test_a_spectrogram_may_have_an_axis_of_one_channel():
    audio = parse_preprocessor(written(AUDIO))
    frames = audio.inputs[0].frames
    for shape in ((1, 20, frames), (1, 1, 20, frames)):
        check_signature(audio, Signature((spec("mel", *shape),), (LOGITS,)))
    with pytest.raises(BadInput, match="of shape"):
        check_signature(audio, Signature((spec("mel", 1, 2, 20, frames),), (LOGITS,)))
