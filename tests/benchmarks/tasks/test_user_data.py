"""A user's own task: what is taken, and the one line for what is not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tasks import load_task
from benchmarks.tasks.task import Task
from runtimes.errors import BadInput


def good() -> dict[str, dict[str, np.ndarray]]:
    """Three splits of 4 samples with two inputs, two classes."""
    generator = np.random.default_rng(0)

    def split() -> dict[str, np.ndarray]:
        return {"a": generator.standard_normal((4, 3)), "b": np.arange(4), "labels": np.array([0, 1, 1, 0])}

    return {"train": split(), "calibration": split(), "test": split()}


@pytest.fixture
def folder(tmp_path):
    """Write splits as a folder of arrays."""

    def write(splits) -> str:
        place = tmp_path / "mine"
        place.mkdir()
        for name, arrays in splits.items():
            np.savez(place / f"{name}.npz", **arrays)
        return str(place)

    return write


def test_a_folder(folder):
    splits = good()
    task = load_task(folder(splits))
    assert (task.name, task.classes, task.gallery) == ("mine", ("0", "1"), None)
    assert task.train.inputs["a"].dtype == np.float32 and task.train.inputs["b"].dtype == np.int64
    assert (task.test.inputs["a"] == splits["test"]["a"].astype(np.float32)).all()
    assert task.calibration.labels.tolist() == [0, 1, 1, 0] and task.calibration.labels.dtype == np.int64
    outputs = {"y": np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)}
    assert task.score(outputs, task.test).correct.tolist() == [1, 1, 0, 0]


def test_labels_that_are_words(folder):
    splits = good()
    for split in splits.values():
        split["labels"] = np.array(["dog", "cat", "cat", "dog"])
    task = load_task(folder(splits))
    assert task.classes == ("cat", "dog") and task.test.labels.tolist() == [1, 0, 0, 1]


def test_classes_that_the_data_lacks(folder):
    splits = good()
    splits["train"]["classes"] = np.array(["cat", "dog", "hen"])
    task = load_task(folder(splits))
    assert task.classes == ("cat", "dog", "hen") and sorted(task.train.inputs) == ["a", "b"]


def with_(split: str, **arrays):
    """The good splits with these arrays in one of them; None removes an array."""
    splits = good()
    splits[split] = {key: value for key, value in {**splits[split], **arrays}.items() if value is not None}
    return splits


SHARED = good()["train"]["a"]
REFUSED = {
    "no labels": (with_("test", labels=None), "the test split has no labels; add an array `labels`, one a sample"),
    "too few labels": (
        with_("train", labels=np.array([0, 1, 0])),
        "the train split has 4 samples and labels of shape [3]; give one label a sample",
    ),
    "labels with an axis": (
        with_("test", labels=np.zeros((4, 1), int)),
        "the test split has 4 samples and labels of shape [4, 1]; give one label a sample",
    ),
    "labels of fractions": (
        with_("test", labels=np.ones(4)),
        "the labels are int64, int64, float64; give integers from 0, or words",
    ),
    "a negative label": (
        with_("test", labels=np.array([0, -1, 0, 0])),
        "label -1 of the test split is no class (0, 1); name every class in an array `classes`, or mend the labels",
    ),
    "a label without a class": (
        with_("train", classes=np.array(["cat"])),
        "label 1 of the train split is no class (cat); name every class",
    ),
    "a word without a class": (
        {
            name: {**split, "labels": np.array(["a", "b", "b", "z" if name == "test" else "a"])}
            for name, split in good().items()
        },
        "label z of the test split is no class (a, b); name every class",
    ),
    "other classes": (
        {name: {**split, "classes": ["a", "b"] if name == "test" else ["b", "a"]} for name, split in good().items()},
        "the splits name different classes; name the same, or in the train split only",
    ),
    "other inputs": (
        with_("calibration", a=None),
        "the calibration split has the inputs b int64[], train has a float32[3], b int64[]; give the same",
    ),
    "other shapes": (
        with_("test", a=np.ones((4, 2))),
        "the test split has the inputs a float32[2], b int64[], train has a float32[3], b int64[]; give the same",
    ),
    "too few rows": (
        with_("train", b=np.arange(3)),
        "the train split has 4 samples in one input and 3 in 'b'; give as many of each",
    ),
    "NaN": (
        with_("test", a=np.full((4, 3), np.nan)),
        "the test split holds NaN or infinity in 'a'; mend the data",
    ),
    "words": (with_("test", b=np.array(["x"] * 4)), "the test split holds <U1 in 'b'; give numbers"),
    "empty": (
        with_("test", a=np.ones((0, 3)), b=np.arange(0), labels=np.arange(0)),
        "the test split is empty; give at least one sample",
    ),
    "no inputs": (with_("train", a=None, b=None), "the train split has no inputs; add one array a model input"),
    "constant": (
        with_("calibration", a=np.full((4, 3), 2.5)),
        "calibration input 'a' is 2.5 throughout; give real samples",
    ),
    "in two splits": (
        {**good(), "test": {**good()["test"], "a": np.concatenate([good()["test"]["a"][:3], SHARED[3:]])}},
        "test sample 3 is also in the train split (1 are); keep each sample in one split",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_splits_that_cannot_be_used(fault, folder):
    splits, message = REFUSED[fault]
    place = folder(splits)
    with pytest.raises(BadInput) as caught:
        load_task(place)
    assert str(caught.value).startswith(f"{place}: {message}")


def test_a_folder_that_lacks_a_file(folder):
    splits = good()
    del splits["calibration"]
    place = folder(splits)
    with pytest.raises(BadInput) as caught:
        load_task(place)
    assert str(caught.value) == f"{place}: there is no calibration.npz; write it with numpy.savez"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip"])
def test_a_damaged_file(content, folder, tmp_path):
    place = folder(good())
    (tmp_path / "mine" / "test.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"test\.npz: cannot read the arrays \(.+\); write it with numpy\.savez"):
        load_task(place)


def test_nothing_is_unpickled(folder, tmp_path):
    place = folder(good())
    np.savez(tmp_path / "mine" / "test.npz", labels=np.array([{}], dtype=object))
    with pytest.raises(BadInput, match=r"cannot read the arrays .+allow_pickle=False"):
        load_task(place)


CODE = """
import numpy as np
from functools import partial
from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Split, Task

def arrays(seed):
    generator = np.random.default_rng(seed)
    return {"x": generator.standard_normal((2, 3)), "labels": [0, 1]}

def splits():
    return {"train": arrays(0), "calibration": arrays(1), "test": arrays(2)}

def task():
    made = [Split({"x": arrays(i)["x"]}, np.array([0, 1])) for i in range(3)]
    return Task("theirs", "", ("a", "b"), *made, score=partial(accuracy, ("a", "b")))

def same():
    made = Split({"x": arrays(0)["x"]}, np.array([0, 1]))
    return Task("theirs", "", ("a", "b"), made, made, made, score=None)

def raises():
    return 1 / 0

def exits():
    raise SystemExit("no")

def number():
    return 3

def two():
    return {"train": arrays(0), "test": arrays(1)}

not_callable = 1
"""


@pytest.fixture
def file(tmp_path):
    place = tmp_path / "mine.py"
    place.write_text(CODE)
    return place


def test_a_function_that_returns_splits(file):
    task = load_task(f"{file}:splits")
    assert (task.name, len(task.test), task.classes) == ("splits", 2, ("0", "1"))
    assert task.train.inputs["x"].dtype == np.float32


def test_a_function_that_returns_a_task(file):
    task = load_task(f"{file}:task")
    assert isinstance(task, Task) and task.name == "theirs"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "{file}:23: the function raised ZeroDivisionError: division by zero; mend the function"),
        ("exits", "{file}:26: the function raised SystemExit: no; mend the function"),
        (
            "number",
            "{file}:number: this is no task: a value of type int; return a Task, or a dict of train, calibration, test",
        ),
        ("two", "{file}:two: this is no task: train, test; return a Task, or a dict of train, calibration, test"),
        ("same", "{file}:same: test sample 0 is also in the train split (2 are); keep each sample in one split"),
        ("absent", "{file}: there is no function 'absent'; check its name"),
        ("not_callable", "{file}: there is no function 'not_callable'; check its name"),
    ],
)
def test_functions_that_give_no_task(function, message, file):
    with pytest.raises(BadInput) as caught:
        load_task(f"{file}:{function}")
    assert str(caught.value) == message.format(file=file)


def test_files_that_are_no_task(tmp_path):
    with pytest.raises(BadInput, match=r"a\.py: the function is missing; give a\.py:FUNCTION"):
        load_task("a.py")
    with pytest.raises(BadInput, match=r"a\.py: no such file; check the path"):
        load_task("a.py:task")
    (tmp_path / "a.txt").write_text("1,2")
    with pytest.raises(
        BadInput, match=r"a\.txt: the file is no task; give a folder of train\.npz, calibration\.npz, test"
    ):
        load_task(str(tmp_path / "a.txt"))
