"""Pictures, sounds and texts as they lie on a disk, made a task for one model."""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from benchmarks.tasks import load_task, raw_data
from benchmarks.tasks.raw_data import ModelInputs, inputs_of_bundle, is_raw, load_raw, save
from runtimes.errors import BadInput, NotInstalled
from runtimes.processing.preprocessor import Audio, Classes, Image, Preprocessor, Text
from runtimes.processing.tokenizers.wordpiece import WordPiece
from tests.runtimes.processing.tokenizers.test_wordpiece import TOKENIZER_JSON

GRAY = ModelInputs({"x": ("float32", (1, 1, 4, 4))})
RGB = ModelInputs({"x": ("float32", (1, 4, 6, 3))})
SOUND = ModelInputs({"x": ("float32", (1, 8))})
CLASSES = Classes("y", ("zebra", "ape"))


def write_picture(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write_sound(path: Path, values: list[int], rate: int = 8000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.array(values, "<i2").tobytes())


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Ten grey values: five of apes, darker than 100, and five of zebras."""
    for i in range(5):
        write_picture(tmp_path / "pictures" / "ape" / f"{i}.png", 10 * i)
        write_picture(tmp_path / "pictures" / "zebra" / f"{i}.jpg", 150 + 10 * i)
    (tmp_path / "pictures" / "ape" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_a_folder_a_class_of_pictures(pictures):
    task = load_raw(pictures, GRAY)
    assert task.classes == ("ape", "zebra") and task.description == "10 samples of 2 classes"
    assert [len(split) for split in task.splits.values()] == [6, 2, 2]
    for split in task.splits.values():
        assert split.inputs["x"].shape[1:] == (1, 4, 4)
        assert np.array_equal(split.inputs["x"].max(axis=(1, 2, 3)) > 100 / 255, split.labels == 1)
        assert split.inputs["x"].max() <= 1.0, "divided by 255"


def test_the_preprocessor_makes_the_pictures_and_orders_the_classes(pictures):
    made = Preprocessor((Image("x", 2, 2, divisor=1.0),), (CLASSES,))
    task = load_raw(pictures, ModelInputs({"x": ("float32", (1, 3, 2, 2))}, made))
    assert task.classes == ("zebra", "ape")
    x, labels = task.test.inputs["x"], task.test.labels
    assert x.shape == (2, 3, 2, 2) and x.max() > 1.0 and np.array_equal(x[:, 0, 0, 0] > 100, labels == 0)


def test_splits_that_lie_there_are_kept(tmp_path):
    for i, split in enumerate(("train", "calibration", "test")):
        write_picture(tmp_path / split / "0" / "a.png", 40 * i)
        write_picture(tmp_path / split / "10" / "b.png", 40 * i + 20)
        write_picture(tmp_path / split / "9" / "c.png", 40 * i + 30)
    task = load_raw(tmp_path, RGB)
    assert task.classes == ("0", "9", "10"), "numbers are in their order"
    assert task.test.inputs["x"].shape == (3, 4, 6, 3)
    assert np.allclose(sorted(task.test.inputs["x"][:, 0, 0, 0]), np.array([80, 100, 110]) / 255)


def test_repeated_samples_are_left_out_and_counted(pictures):
    write_picture(pictures / "ape" / "again.png", 0)
    assert load_raw(pictures, GRAY).description == "10 samples of 2 classes, 1 repeated ones left out"


def test_sounds_are_cut_and_padded_or_made_a_spectrogram(tmp_path):
    for i in range(5):
        write_sound(tmp_path / "hum" / f"{i}.wav", [16384, -16384 + i])
        write_sound(tmp_path / "buzz" / f"{i}.wav", [100 * i + 1, 100 * i + 3] * 10, channels=2)
    task = load_raw(tmp_path, SOUND)
    hum = next(x for s in task.splits.values() for x, label in zip(s.inputs["x"], s.labels, strict=True) if label)
    assert hum[0] == 0.5 and hum[1] == pytest.approx(-0.5, abs=1e-3) and not hum[2:].any()
    spectrogram = Audio("x", 8000, 64, 16, 8, 16, 4, 0.0, 4000.0)
    model = ModelInputs({"x": ("float32", (1, 4, spectrogram.frames))}, Preprocessor((spectrogram,)))
    assert load_raw(tmp_path, model).test.inputs["x"].shape == (2, 4, spectrogram.frames)
    write_sound(tmp_path / "hum" / "9.wav", [1, 2], rate=44100)
    with pytest.raises(BadInput, match=r"9\.wav: it has 44100 Hz; resample it to 8000 Hz"):
        load_raw(tmp_path, model)


TOKENS = ModelInputs(
    {"ids": ("int64", (1, 6)), "mask": ("int64", (1, 6))},
    Preprocessor((Text(6, ids="ids", mask="mask"),)),
    TOKENIZER_JSON,
)


def test_a_table_of_texts(tmp_path):
    path = tmp_path / "texts.csv"
    rows = "".join(f'"the {i}, dog",{"good" if i % 2 else "bad"}\n' for i in range(10))
    path.write_text("\ufeffText,label\n" + rows, encoding="utf-8")
    task = load_raw(path, TOKENS)
    assert task.classes == ("bad", "good") and set(task.test.inputs) == {"ids", "mask"}
    tokenizer = WordPiece.from_tokenizer_json(TOKENIZER_JSON, 6)
    known = {tokenizer.encode(f"the {i}, dog")[0].tobytes() for i in range(10)}
    assert {row.tobytes() for row in task.test.inputs["ids"]} <= known


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "its columns are a, b; name that of the texts `text` and that of their classes `label`"),
        ("text,label\n", "it has no rows; give at least five"),
        ("text,label\na,b,c\n", "row 2 has not 2 columns; put quotes around texts"),
        ('text,label\n"a,b\n', "cannot be read (unexpected end of data); write it as CSV in UTF-8"),
        ("", "its columns are none; "),
    ],
)
def test_a_table_that_is_none(tmp_path, content, says):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(BadInput) as caught:
        load_raw(tmp_path / "t.csv", TOKENS)
    assert str(caught.value).startswith(f"{tmp_path / 't.csv'}: {says}")


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_null_of_parquet_is_no_text(column, tmp_path, monkeypatch):
    """What pyarrow gives, which the tests lack: it would bring 170 MB."""
    columns = {"text": ["a", "b", "c"], "label": ["x", "y", "x"]}
    columns[column] = ["a", None, "c"]
    monkeypatch.setattr(raw_data, "_parquet", lambda path: columns)
    with pytest.raises(BadInput, match=f"t.parquet: row 2 has no {column}; leave it out, or fill it in"):
        load_raw(tmp_path / "t.parquet", TOKENS)


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, pictures):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(NotInstalled, match="pyarrow is not installed; pip install pyarrow"):
        load_raw(tmp_path / "t.parquet", TOKENS)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(NotInstalled, match="pillow is not installed; pip install pillow"):
        load_raw(pictures, GRAY)


def test_what_does_not_fit_the_model(pictures, tmp_path):
    says = r"nothing says how pictures become its inputs \(x float32\[1, 8\]\); give --preprocessor, or arrays"
    with pytest.raises(BadInput, match=says):
        load_raw(pictures, SOUND)
    (tmp_path / "t.csv").write_text("text,label\na,b\n")
    with pytest.raises(BadInput, match="nothing says how texts become its inputs"):
        load_raw(tmp_path / "t.csv", GRAY)
    (pictures / "ape" / "bad.png").write_bytes(b"\x89PNG no")
    with pytest.raises(BadInput, match=r"bad\.png: no picture \(.*\); leave it out"):
        load_raw(pictures, GRAY)
    (pictures / "ape" / "bad.png").unlink()
    write_sound(pictures / "ape" / "a.wav", [1])
    with pytest.raises(BadInput, match="it holds both pictures and sounds; give a folder with one folder a class"):
        load_raw(pictures, GRAY)
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(BadInput, match="it holds no picture and no sound"):
        load_raw(tmp_path / "empty", GRAY)


def test_a_folder_that_is_called_as_a_task_is_none(pictures, monkeypatch):
    pictures.rename(pictures.with_name("digits"))
    monkeypatch.chdir(pictures.parent)
    assert is_raw("./digits") and not is_raw("digits")


def test_what_is_raw(pictures, tmp_path):
    task = load_raw(pictures, GRAY)
    save(task, tmp_path / "arrays")
    assert is_raw(str(pictures)) and not is_raw(str(tmp_path / "arrays")) and not is_raw("digits") and not is_raw(task)
    again = load_task(str(tmp_path / "arrays"))
    assert again.classes == task.classes and np.array_equal(again.test.labels, task.test.labels)
    with pytest.raises(BadInput, match="pictures, sounds and texts are for one model; give arrays here"):
        load_task(str(pictures))


@pytest.mark.slow
def test_export_calibrates_and_scores_with_pictures_and_eval_takes_them_too(pocketship, tmp_path):
    factory = tmp_path / "model.py"
    factory.write_text(
        "import torch\n"
        "class Bright(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        light = x.mean(dim=(1, 2, 3))\n"
        "        return torch.stack([0.3 - light, light - 0.3], 1)\n"
        "def bright():\n"
        "    return Bright(), torch.rand(1, 1, 4, 4)\n"
    )
    for i in range(20):
        write_picture(tmp_path / "light" / ("dark" if i < 10 else "light") / f"{i}.png", 5 * i + (0 if i < 10 else 100))
    words = ("-t", "onnx", "--data", tmp_path / "light", "-o", tmp_path / "out")
    done = pocketship("export", f"{factory}:bright", *words)
    assert done.returncode == 0 and "20 samples of 2 classes" in done.stderr, done.stderr
    scored = pocketship("eval", tmp_path / "out", "--data", tmp_path / "light", "--json")
    (found,) = json.loads(scored.stdout)
    assert found["value"] == 1.0 and found["samples"] == 4


def test_a_file_alone_does_not_say_how(tmp_path):
    with pytest.raises(BadInput, match="does not say how pictures, sounds or texts become its inputs; give its bundle"):
        inputs_of_bundle(tmp_path / "model.onnx")
