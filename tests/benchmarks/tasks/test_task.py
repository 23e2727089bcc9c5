"""Splits: samples that two share, and parts with the classes in proportion."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tasks.task import Split, shared_samples, stratified


def test_a_shared_sample_is_seen_whatever_its_row():
    first = Split({"a": np.array([[1.0], [2.0]]), "b": np.array([1, 2])})
    second = Split({"b": np.array([9, 2, 2]), "a": np.array([[1.0], [2.0], [1.0]])})
    assert shared_samples(first, second) == [1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), st.integers(0, 5), st.data())
def test_parts_are_disjoint_and_have_the_classes_in_proportion(labels, seed, data):
    labels = np.array(labels)
    sizes = [data.draw(st.integers(1, len(labels) // 3)) for _ in range(3)]
    parts = list(stratified(labels, sizes, seed))
    assert [len(part) for part in parts] == sizes
    rows = np.concatenate(parts)
    assert len(set(rows.tolist())) == len(rows)
    for part in parts:
        for label in range(4):
            fair = (labels == label).mean() * len(part)
            assert abs((labels[part] == label).sum() - fair) <= 4  # one a class may shift the place of another's


def test_parts_are_drawn_by_the_seed():
    labels = np.arange(100) % 2
    first, again, other = (next(stratified(labels, [20], seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other
