"""Fixtures: every task, loaded once."""

from __future__ import annotations

import functools

import pytest

from benchmarks.tasks import load_task
from benchmarks.tasks.task import Task


@pytest.fixture(scope="session")
def task_called():
    """A task by its name; do not change it."""

    @functools.cache
    def get(name: str) -> Task:
        return load_task(name)

    return get
