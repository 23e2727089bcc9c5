"""`init` writes a file that exports as it stands."""

from __future__ import annotations

import json

import pytest

from exporter.commands import own_model


@pytest.mark.slow
def test_what_it_writes_exports_and_calibrates(pocketship, tmp_path):
    file = tmp_path / "my own.py"
    done = pocketship("init", file)
    assert done.returncode == 0 and f"next, export it: pocketship export '{file}:model'" in " ".join(
        done.stdout.split()
    ), done
    assert "THIS_FILE" not in file.read_text()
    words = ("--quantize", "int8", "--data", f"{file}:task", "--target", "onnx", "-o", tmp_path / "small")
    done = pocketship("export", f"{file}:model", *words)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "small" / "preprocessor.json").read_text())
    assert made["outputs"][0]["labels"] == own_model.LABELS


def test_the_splits_share_no_sample_and_their_labels_can_be_learnt():
    splits = own_model.task()
    rows = [row.tobytes() for split in splits.values() for row in split["image"]]
    assert len(set(rows)) == len(rows)
    test = splits["test"]
    brighter = test["image"][..., 16:].mean((1, 2, 3)) > test["image"][..., :16].mean((1, 2, 3))
    assert (brighter == test["labels"]).mean() > 0.95


def test_what_is_there_is_kept(refused, tmp_path):
    (tmp_path / "model.py").write_text("mine")
    said = refused("init", tmp_path / "model.py")
    assert said.endswith("model.py: the file exists; choose another name, or add --force")
    assert (tmp_path / "model.py").read_text() == "mine"
    assert "write it as model.txt.py" in refused("init", tmp_path / "model.txt")
    assert "No such file" in refused("init", tmp_path / "none" / "model.py")
