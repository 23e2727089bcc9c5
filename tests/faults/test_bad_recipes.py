"""Recipes, data and limits that cannot be: one clear line on stderr, exit code 2 (or 4), and nothing left on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

MODEL = '''
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(1, 4)

class Collapsed(nn.Module):
    """Its words hardly change what it gives."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(50, 16), nn.Linear(16, 3)

    def forward(self, ids):
        return self.head(torch.linspace(-1, 1, 16) + 1e-4 * self.words(ids).mean(1))

def text():
    torch.manual_seed(0)
    return Collapsed(), torch.randint(0, 50, (1, 6))

def images():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), torch.randn(1, 1, 4, 4)
'''


def arrays(change=lambda splits: None) -> dict[str, dict[str, np.ndarray]]:
    """A small task of three classes; `change` damages it."""
    generator = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", 24), ("calibration", 12), ("test", 12)):
        values = generator.normal(size=(count, 4)).astype(np.float32)
        splits[name] = {"x": values, "labels": np.arange(count) % 3}
    change(splits)
    return splits


@pytest.fixture
def workplace(tmp_path: Path):
    """A folder with model.py, and data/ as `change` leaves it."""
    (tmp_path / "model.py").write_text(MODEL)

    def make(change=lambda splits: None) -> Path:
        (tmp_path / "data").mkdir()
        for name, split in arrays(change).items():
            np.savez(tmp_path / "data" / f"{name}.npz", **split)
        return tmp_path

    return make


def put(split: str, key: str, value):
    """A change of one array; None takes it away."""

    def change(splits) -> None:
        if value is None:
            del splits[split][key]
        else:
            splits[split][key] = value(splits[split][key]) if callable(value) else value

    return change


def of_all(key: str, value):
    """The same change in every split."""

    def change(splits) -> None:
        for name in splits:
            put(name, key, value)(splits)

    return change


def with_nan(values: np.ndarray) -> np.ndarray:
    values[1, 2] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            of_all("x", lambda x: np.tile(x, (1, 2))),
            "input 'input' of the task has shape [8] a sample, the model takes [4]",
            id="of another shape",
        ),
        pytest.param(
            put("calibration", "x", np.zeros((0, 4), np.float32)), "the calibration split is empty", id="empty"
        ),
        pytest.param(put("calibration", "x", np.ones_like), "calibration input 'x' is 1 throughout", id="constant"),
        pytest.param(put("calibration", "x", with_nan), "the calibration split holds NaN or infinity in 'x'", id="NaN"),
        pytest.param(put("train", "labels", None), "the train split has no labels", id="without labels"),
        pytest.param(
            of_all("labels", lambda labels: labels * 2),
            "the task has 5 classes, and no output of the model has as many columns",
            id="other classes",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused(change, says, workplace, refused):
    folder = workplace(change)
    before = sorted(folder.rglob("*"))
    words = ("--target", "onnx", "--quantize", "int8", "--data", "data", "-o", "new/bundle")
    assert says in refused("export", "model.py:make", *words, cwd=folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "words", "says"),
    [
        ("make", ("--quantize", "int3"), "--quantize: unknown precision 'int3'; give one of float16, int8"),
        ("make", ("--quantize", "ternary"), "--data"),
        ("images", ("--quantize", "int8-static"), "--data"),
        ("make", ("--prune", "1.5"), "sparsity is 1.5; give a number in [0, 1)"),
        ("make", ("--prune", "0.999"), "empty"),
        ("make", ("--quantize", "int8", "--data", "nothing"), "nothing: no such task, folder or file"),
        ("make", ("--max-drop", "1%"), "a limit is for a recipe; add --quantize"),
        (
            "make",
            ("--min-speedup", "2", "--no-measure", "--quantize", "int8"),
            "--no-measure: a limit needs measuring; leave one of them out",
        ),
        ("make", ("--quantize", "int8", "--max-drop", "1%"), "--max-drop: no task to measure a drop with; give --data"),
        ("make", ("--quantize", "int8", "--max-drop", "much"), "'much' is no percentage of 0 to 100; give it as 1%"),
        ("make", ("--quantize", "int8", "--max-size", "-1MB"), "'-1MB' is no size"),
        ("make", ("--quantize", "int8", "--min-speedup", "nan"), "nan is no speed-up"),
        ("make", ("--quantize", "int4", "--target", "coreml", "--min-ios", "16"), "need min ios 18, not 16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_words_that_cannot_be_are_refused(source, words, says, workplace, refused):
    folder = workplace()
    before = sorted(folder.rglob("*"))
    target = () if "--target" in words else ("--target", "onnx")
    assert says in refused("export", f"model.py:{source}", *target, *words, "-o", "new/bundle", cwd=folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max-size", "1kB"), "bytes are"),
        (("--min-speedup", "1000"), "onnx after quantize"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_limit_that_is_not_met_is_code_4_and_names_the_stage(words, says, workplace, refused):
    folder = workplace()
    before = sorted(folder.rglob("*"))
    line = refused(
        *("export", "model.py:make", "--target", "onnx", "--quantize", "int8", *words, "-o", "new/bundle"),
        cwd=folder,
        code=4,
    )
    assert "onnx after quantize: " in line and says in line and "nothing was written" in line
    assert sorted(folder.rglob("*")) == before


def test_outputs_that_hardly_change_with_the_input_are_the_original_s_own_fault(workplace, refused):
    folder = workplace()
    words = ("--target", "onnx", "--quantize", "int8", "-o", "new/bundle")
    line = refused("export", "model.py:text", *words, cwd=folder, code=3)
    assert "the original's own output 'output' hardly changes with the input (sensitivity " in line
    assert line.rstrip().endswith(
        "agreement would prove nothing; nothing was written; load trained weights with --weights, give real inputs "
        "with --data, or give --quantize int8-weights, whose activations are not rounded"
    )
    assert not (folder / "new").exists()
