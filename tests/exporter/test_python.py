"""`exporter.export` as a caller sees it: data of every kind, words or values, and a module that is left alone."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
import typing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import exporter
from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Split, Task
from exporter import pipeline
from exporter.sources.data import task_of_data
from exporter.stages.prepare import _own_copy
from runtimes.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 8)).astype(np.float32)
Y = np.arange(50) % 2


@pytest.mark.slow
def test_every_example_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    made = sorted(path.parent.name for path in tmp_path.glob("*/manifest.json"))
    assert made == ["own-task", "scored", "small", "small-fixed"]


# --- data ----------------------------------------------------------------------------------------------------------


def pair(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    return X[start:stop], Y[start:stop]


SPLITS = {"train": pair(0, 30), "calibration": pair(30, 40), "test": pair(40, 50)}
TASK = Task("mine", "", ("0", "1"), *(Split({"x": x}, y) for x, y in SPLITS.values()), partial(accuracy, ("0", "1")))
GIVEN = {
    "arrays": (X, Y),
    "float64 and words": (X.astype(float), np.where(Y == 1, "yes", "no")),
    "tensors": (torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)),
    "lists": (X.tolist(), Y.tolist()),
    "a mapping of inputs": ({"x": X}, Y),
    "a mapping with labels": {"x": X, "labels": Y},
    "a DataLoader": DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=16),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_labelled_data_become_three_splits_with_the_classes_in_proportion(given):
    task = task_of_data(given)
    assert [len(split) for split in task.splits.values()] == [30, 10, 10]
    assert all(split.labels.mean() == 0.5 for split in task.splits.values())
    assert all(split.inputs["x"].dtype == np.float32 for split in task.splits.values())
    label_of = {row.tobytes(): label for row, label in zip(X, Y, strict=True)}
    for split in task.splits.values():
        rows = zip(split.inputs["x"], split.labels, strict=True)
        assert all(task.classes[label] in (str(label_of[row.tobytes()]), NAMES[label]) for row, label in rows)


NAMES = ("no", "yes")


def test_splits_and_a_task_are_taken_as_they_are():
    task = task_of_data(SPLITS)
    assert [len(split) for split in task.splits.values()] == [30, 10, 10]
    assert np.array_equal(task.test.labels, Y[40:]) and np.array_equal(task.test.inputs["x"], X[40:])
    assert task_of_data(TASK) is TASK


@pytest.mark.parametrize("given", [X, torch.from_numpy(X), {"x": X}, DataLoader(TensorDataset(torch.from_numpy(X)), 7)])
def test_data_without_labels_calibrate_and_score_nothing(given):
    task = task_of_data(given)
    assert len(task.calibration) == len(task.train) == 50 and len(task.test) == 0 and not task.can_score
    assert np.array_equal(task.calibration.inputs["x"], X)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "data: int is no data; give a Task, (X, y), "),
        (object(), "data: object is no data; "),
        (np.array([object()]), "data: an array of object is no data; "),
        ((X, Y[:9]), "data: there are 50 in 'x', 9 in 'labels' samples; give one label a sample"),
        ((X[:4], Y[:4]), "data: 4 samples cannot be split; give 5 at least"),
        ((np.concatenate([X, X[:2]]), np.arange(52) % 2), "data: sample 50 is there before (2 are), "),
        ({"train": (X, Y)}, "data: this is no task: train; "),
        ((np.where(X > 2.0, np.nan, X), Y), "data: the train split holds NaN or infinity in 'x'; mend the data"),
        (X * np.nan, "data: the train split holds NaN or infinity in 'x'; mend the data"),
        (np.zeros_like(X), "data: calibration input 'x' is 0 throughout; give real samples"),
        ((X, Y + 0.5), "data: the labels are float64, float64, float64; give integers from 0, or words"),
        (DataLoader(TensorDataset(torch.zeros(0, 8)), 7), "data: the DataLoader is empty; give at least one batch"),
    ],
)
def test_what_no_task_can_be_made_of(given, says):
    with pytest.raises(BadInput) as caught:
        task_of_data(given)
    assert str(caught.value).startswith(says), str(caught.value)


@pytest.mark.slow
def test_a_word_names_a_task_and_a_task_of_ones_own_is_scored_in_this_process(tmp_path):
    model = nn.Sequential(nn.Linear(8, 2))
    bundle = exporter.export((model, torch.randn(1, 8)), "onnx", tmp_path / "out", quantize="int8", data=TASK)
    assert [row.accuracy.of_samples for row in bundle.manifest.ledger] == [10, 10]
    with pytest.raises(BadInput, match="no such task, folder or file"):
        exporter.export((model, torch.randn(1, 8)), "onnx", tmp_path / "no", data="nothing")


def test_a_drop_cannot_be_judged_by_what_has_no_labels(tmp_path):
    with pytest.raises(BadInput, match="no task to measure a drop with"):
        exporter.export(
            (nn.Linear(8, 2), torch.randn(1, 8)), "onnx", tmp_path / "o", quantize="int8", data=X, max_drop=0.1
        )
    assert list(tmp_path.iterdir()) == []


def test_samples_of_another_shape_are_told_what_to_be(tmp_path):
    with pytest.raises(BadInput) as caught:
        exporter.export((nn.Linear(8, 2), torch.randn(1, 8)), "onnx", tmp_path / "out", data=(X[:, :6], Y))
    assert str(caught.value) == (
        "data: input 'input' of the task has shape [6] a sample, the model takes [8]; "
        "give samples of shape [8], or --input-shape input=1,6"
    )


# --- keywords ------------------------------------------------------------------------------------------------------


@pytest.fixture
def options(monkeypatch):
    """The options that a call of `exporter.export` comes to."""

    def get(**given):
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, "export_with", lambda source, chosen, **rest: chosen)
            return exporter.export("minilm", **given)

    return get


def test_words_and_values_say_the_same(options):
    words = options(max_size="3MB", max_drop="1%", input_shape="x=1,3", dynamic=["x:0"], targets="onnx,tflite")
    values = options(
        max_size=3_000_000, max_drop=0.01, input_shape={"x": [1, 3]}, dynamic={"x": 0}, targets=["onnx", "tflite"]
    )
    assert words == values
    assert (words.max_size_bytes, words.max_drop) == (3_000_000, 0.01)
    assert (words.input_shapes, words.dynamic) == ({"x": (1, 3)}, (("x", 0),))


WRONG = {
    "source": 7, "targets": 7, "output": 7, "recipe": 7, "prune": 0.5, "low_rank": 3, "quantize": 8, "data": 7,
    "max_drop": [1], "max_size": 1.5, "min_speedup": "2", "measure": "no", "seed": 0.5, "input_shape": {"x": 3},
    "dynamic": {"x": "y"}, "opset": "20", "min_ios": True, "coreml_precision": 16, "atol": "1e-3", "task": 1,
    "weights": 1, "preprocessor": 1, "labels": 1, "image": 1, "tokenizer": 1, "sign": True,
    "trust_remote_code": 1, "strict": "yes", "force": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_is_bad_input_that_names_its_keyword(name):
    given = {"source": "minilm", name: WRONG[name]}
    with pytest.raises(BadInput) as caught:
        exporter.export(**given)
    assert str(caught.value).startswith(f"{name}: ") and "; give " in str(caught.value)


def test_every_keyword_is_named_and_typed():
    parameters = inspect.signature(exporter.export).parameters
    assert set(parameters) - {"on_stage", "on_progress"} == set(WRONG)
    for parameter in parameters.values():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert parameter.annotation not in ("Any", inspect.Parameter.empty)


def test_errors_and_what_a_task_is_made_of_are_at_hand_and_typed():
    assert set(exporter.__all__) >= {"BadInput", "NotInstalled", "ParityFailed", "LimitNotMet", "UnsupportedOperation"}
    for name in exporter.__all__:
        assert getattr(exporter, name).__name__ == name
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("exporter", "benchmarks", "runtimes"):
        assert (ROOT / package / "py.typed").is_file() and "py.typed" in packaged[package]
    assert typing.get_type_hints(importlib.import_module("runtimes.errors").PocketshipError.__init__)


# --- the caller's module -------------------------------------------------------------------------------------------


class Moody(nn.Module):
    """Computes otherwise in training, counts its calls, and is half in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.calls = nn.Linear(8, 2), nn.BatchNorm1d(2), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.norm(self.layer(x))


def test_the_caller_s_module_comes_back_as_it_was(tmp_path):
    model, example = Moody(), torch.randn(2, 8)
    model.train()
    model.layer.eval()
    model.register_forward_hook(lambda *_: None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    identities = [id(parameter) for parameter in model.parameters()]
    torch.manual_seed(7)
    exporter.export((model, example), "onnx", tmp_path / "out", quantize="int8", data=X, measure=False)
    assert torch.equal(torch.rand(3), torch.manual_seed(7) and torch.rand(3)), "the random numbers go on"
    assert model.training and model.norm.training and not model.layer.training
    assert model.calls == 0 and len(model._forward_hooks) == 1
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_module_on_another_device_stays_there():
    model = nn.Linear(2, 2, device="meta")
    with pytest.raises(BadInput, match="Linear cannot be copied"):
        _own_copy(model)
    assert model.weight.device.type == "meta"


def test_a_module_that_cannot_be_copied_is_bad_input():
    model = nn.Linear(2, 2)
    model.cache = model.weight * 2  # of a graph: not a leaf
    with pytest.raises(BadInput, match=r"Linear cannot be copied \(RuntimeError: Only Tensors created explicitly"):
        _own_copy(model)
