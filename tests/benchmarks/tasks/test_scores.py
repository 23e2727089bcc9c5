"""Scores against values computed by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.tasks.scores import WITHOUT_CLASS, accuracy, nearest_class_mean, neighbour_overlap, score_outputs
from benchmarks.tasks.task import Split, Task
from runtimes.errors import BadInput


def split_of(*labels: int) -> Split:
    return Split({"x": np.zeros((len(labels), 1), np.float32)}, np.array(labels, np.int64))


def floats(*rows) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.fixture
def classification():
    return Task("mine", "", ("a", "b"), *[split_of(0, 1, 1)] * 3, score=partial(accuracy, ("a", "b")))


@pytest.fixture
def retrieval():
    parts = [split_of(0, 1, 1)] * 3
    return Task("mine", "", ("a", "b"), *parts, score=partial(nearest_class_mean, ("a", "b")), gallery=parts[0])


def test_accuracy_is_the_share_of_labels_with_the_largest_column(classification):
    found = score_outputs(classification, {"y": floats([2, 1], [2, 1], [-3, -2])})
    assert (found.metric, found.correct.tolist(), found.others) == ("accuracy", [1, 0, 1], {})


def test_a_row_that_is_not_finite_is_wrong(classification):
    rows = floats([np.nan, 0], [0, np.inf], [0, 1])  # the largest column of the first two is the label's
    assert score_outputs(classification, {"y": rows}).correct.tolist() == [0, 0, 1]


def test_some_rows_only_in_their_own_order(classification):
    reference = {"y": floats([1, 0], [0, 1], [1, 0])}
    found = score_outputs(classification, {"y": floats([0, 1], [1, 0])}, None, reference, rows=np.array([2, 0]))
    assert found.correct.tolist() == [1, 1]
    assert found.others == {"cosine": pytest.approx(0.5), "agreement": 0.5}


def test_the_output_is_found_by_its_columns_or_by_the_name_logits(classification):
    right, wrong = floats([1, 0], [0, 1], [0, 1]), floats([0, 1], [1, 0], [1, 0])
    others = {
        "box": np.zeros((3, 4), np.float32),
        "ids": np.zeros((3, 2), np.int64),
        "map": np.zeros((3, 2, 2), np.float32),
    }
    assert score_outputs(classification, {**others, "y": right}).correct.all()
    assert score_outputs(classification, {"y": wrong, "logits": right}).correct.all()
    del others["box"]
    with pytest.raises(BadInput) as caught:
        score_outputs(classification, others)
    assert str(caught.value) == (
        "mine: the task has 2 classes, and no output of the model has as many columns (ids [2], map [2, 2] a sample); "
        "give the task that belongs to the model"
    )
    with pytest.raises(BadInput, match=r'2 outputs of the model have as many columns .+; call the right one "logits"'):
        score_outputs(classification, {"y": wrong, "z": right})


def test_an_output_of_more_columns_than_classes_is_taken_where_none_has_as_many(classification):
    rows = floats([2, 1, 0], [0, 1, 3], [0, 1, 0])  # labels 0, 1, 1: the second row is of a class that the task lacks
    found = score_outputs(classification, {"one": floats([1], [1], [1]), "y": rows}, reference={"y": rows})
    assert found.correct.tolist() == [1, 0, 1]
    assert found.others == {WITHOUT_CLASS: 1.0, "cosine": pytest.approx(1.0), "agreement": 1.0}
    assert score_outputs(classification, {"box": np.zeros((3, 4), np.float32), "logits": rows}).correct.sum() == 2
    with pytest.raises(BadInput, match=r'2 outputs of the model have as many columns .+; call the right one "logits"'):
        score_outputs(classification, {"y": rows, "z": rows})


def test_the_nearest_class_mean_by_cosine(retrieval):
    gallery = floats([10, 0], [0, 1], [0, 5])  # unit means: [1, 0] and [0, 1], whatever the lengths
    outputs = floats([3, 2], [3, 2], [0.1, 0.2])
    found = score_outputs(retrieval, {"v": outputs}, {"v": gallery})
    assert (found.metric, found.correct.tolist()) == ("nearest-class-mean accuracy", [1, 0, 1])


def test_the_mean_is_of_unit_vectors(retrieval):
    # class b: unit vectors [0, 1] and [0.6, -0.8], their sum [0.6, 0.2]; of the raw ones it would be [60, -79]
    gallery = floats([-1, 0], [0, 1], [60, -80])
    found = score_outputs(retrieval, {"v": floats([-1, 0.1], [1, 0.3], [0, 1])}, {"v": gallery})
    assert found.correct.tolist() == [1, 1, 1]


def test_a_class_without_samples_is_never_the_nearest(retrieval):
    outputs = {"v": floats([-1, 0], [-1, 0], [1, 0])}
    found = score_outputs(retrieval, outputs, {"v": floats([1, 0])}, gallery_rows=np.array([1]))
    assert found.correct.tolist() == [0, 1, 1]


def test_a_vector_with_nan_is_wrong(retrieval):
    gallery = {"v": floats([1, 0], [0, 1], [0, 1])}
    assert score_outputs(retrieval, {"v": floats([np.nan, 1], [0, 1], [0, 1])}, gallery).correct.tolist() == [0, 1, 1]


def test_outputs_that_are_no_vector(retrieval):
    with pytest.raises(BadInput) as caught:
        score_outputs(retrieval, {"v": np.zeros((3, 2, 2), np.float32)}, {"v": np.zeros((3, 2, 2), np.float32)})
    assert str(caught.value) == (
        "mine: no output of the model is one vector a sample (v); give a model that turns a sample into one vector"
    )


def test_faithful_vectors(retrieval):
    gallery = {"v": floats([1, 0], [0, 1], [0, 1])}
    outputs, reference = {"v": floats([2, 0], [0, 1], [1, 1])}, {"v": floats([1, 0], [0, 3], [1, 0])}
    others = score_outputs(retrieval, outputs, gallery, reference).others
    assert others == {"cosine": pytest.approx((1 + 1 + 0.5**0.5) / 3)}, "no overlap@10 among three samples"


def test_a_reference_that_does_not_match(classification):
    outputs = {"y": floats([1, 0], [0, 1], [0, 1])}
    with pytest.raises(
        BadInput, match=r"the outputs are \[3, 2\], the reference's \[2, 2\]; give a reference of the same"
    ):
        score_outputs(classification, outputs, None, {"y": outputs["y"][:2]})
    with pytest.raises(BadInput, match="the reference holds NaN or infinity; give one that covers every sample"):
        score_outputs(classification, outputs, None, {"y": outputs["y"] * np.nan})


def test_samples_without_labels(classification, retrieval):
    bare = Split(classification.test.inputs)
    rows = floats([1, 0], [0, 1], [0, 1])
    with pytest.raises(BadInput, match="mine: the samples have no labels; give the split labels, one a sample"):
        score_outputs(replace(classification, test=bare), {"y": rows})
    with pytest.raises(BadInput, match="the samples have no labels"):
        score_outputs(replace(retrieval, gallery=bare), {"v": rows}, {"v": rows})


def test_neighbours_by_hand():
    line = np.array([[np.cos(a), np.sin(a)] for a in (0.0, 0.1, 0.3, 0.7)])  # nearest of each: 1, 0, 1, 2
    other = line[[0, 2, 1, 3]]  # nearest of each: 2, 2, 0, 1
    assert neighbour_overlap(line, line * 7, 1) == 1.0
    assert neighbour_overlap(line, other, 1) == 0.0
    assert neighbour_overlap(line, other, 3) == 1.0, "all the others, always"


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (13, 4), elements=st.floats(-5, 5)), st.integers(0, 100))
def test_neighbours_do_not_change_when_space_is_turned(rows, seed):
    rows = rows + np.random.default_rng(seed).standard_normal(rows.shape)  # no two equally near
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((4, 4)))[0]
    assert neighbour_overlap(rows, rows @ turn, 10) == 1.0
