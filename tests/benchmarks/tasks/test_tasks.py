"""What holds for every task, and how a task is found, split and fitted to a model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.agent.samples import named_for
from benchmarks.tasks import TASKS, load_task
from benchmarks.tasks.task import shared_samples
from benchmarks.tasks.user_data import check
from runtimes.errors import BadInput


@pytest.mark.parametrize("name", TASKS)
def test_no_sample_is_in_two_splits(name, task_called):
    task = task_called(name)
    for first, second in itertools.combinations(task.splits.values(), 2):
        assert shared_samples(first, second) == []


@pytest.mark.parametrize("name", TASKS)
def test_a_task_meets_what_a_user_s_own_must_meet(name, task_called):
    task = task_called(name)
    check(task, name)
    assert (task.name, task.description) == (name, TASKS[name].description)
    for split in task.splits.values():
        assert split.labels.dtype == np.int64
        assert set(split.labels.tolist()) == set(range(len(task.classes))), "every class in every split"
        assert {array.dtype.name for array in split.inputs.values()} <= {"float32", "int64"}


@pytest.mark.parametrize("name", ["digits", "sentences"])
def test_a_task_is_always_the_same(name, task_called):
    again = load_task(name)
    for first, second in zip(task_called(name).splits.values(), again.splits.values(), strict=True):
        assert (first.labels == second.labels).all()
        assert all((first.inputs[key] == second.inputs[key]).all() for key in first.inputs)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("digit", "digit: no such task, folder or file; did you mean digits?"),
        ("/no/folder", "/no/folder: no such task, folder or file; give digits, faces, "),
    ],
)
def test_an_unknown_task(word, message):
    with pytest.raises(BadInput) as caught:
        load_task(word)
    assert str(caught.value).startswith(message)


def test_inputs_are_named_for_the_model():
    one, two = np.zeros(1), np.ones(1)
    assert named_for({"image": one}, ["x"]) == {"x": one}
    assert named_for({"a": one, "b": two}, ["b"]) == {"b": two}
    assert list(named_for({"a": one, "b": two}, ["b", "a"])) == ["b", "a"]
    with pytest.raises(BadInput, match="the task has the inputs a, b, the model takes x; give the task that belongs"):
        named_for({"a": one, "b": two}, ["x"])
    with pytest.raises(BadInput, match="the task has the inputs x, the model takes a, b"):
        named_for({"x": one}, ["a", "b"])
