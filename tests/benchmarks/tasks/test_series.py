"""The tasks gunpoint, italypower and basicmotions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tasks import load_task, series
from benchmarks.tasks.series import read_ts
from runtimes.errors import BadInput


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [
        ("gunpoint", [38, 12, 150], (1, 150)),
        ("italypower", [51, 16, 1029], (1, 24)),
        ("basicmotions", [30, 10, 40], (6, 100)),
    ],
)
def test_train_and_calibration_are_the_archive_s_train_file(name, sizes, shape, task_called):
    task = task_called(name)
    assert [len(split) for split in task.splits.values()] == sizes
    assert all(split.inputs["series"].shape[1:] == shape for split in task.splits.values())


def test_we_read_what_aeon_reads(task_called):
    from aeon.datasets import load_basic_motions

    values, labels = load_basic_motions(split="test")
    task = task_called("basicmotions")
    assert (task.test.inputs["series"] == values.astype(np.float32)).all()
    assert [task.classes[i] for i in task.test.labels] == [label.lower() for label in labels]


def test_a_file_of_two_channels(tmp_path):
    file = tmp_path / "two.ts"
    file.write_text("#about\n@classLabel true b a\n@data\n1,2.5:3,4:a\n-1,0:0,1e-1:b\n")
    split = read_ts(file, ("b", "a"))
    assert split.inputs["series"].tolist() == [[[1, 2.5], [3, 4]], [[-1, 0], [0, np.float32(0.1)]]]
    assert split.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "text",
    ["@data\n1,2:c\n", "1,2:a\n", "@data\n1,x:a\n", "@data\n1,2:a\n1:a\n"],
    ids=("class", "head", "word", "length"),
)
def test_a_file_that_is_no_series(text, tmp_path):
    file = tmp_path / "wrong.ts"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"wrong\.ts: cannot read the series \(.+\); install aeon again"):
        read_ts(file, ("a",))


def test_without_aeon(monkeypatch):
    monkeypatch.setattr(series.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"gunpoint: aeon is not installed; pip install 'pocketship\[demo\]'"):
        load_task("gunpoint")
