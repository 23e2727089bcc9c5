"""Kernel truth of any format: found in a child, told in words, and a crash is a line of the report."""

from __future__ import annotations

import pytest

from exporter.inspection.kernels import KERNELS, find, in_words, kernels_of, to_json
from runtimes import child
from runtimes.kernels import KernelTruth
from runtimes.records import from_json
from runtimes.types import FORMATS


def test_every_format_has_its_module():
    assert tuple(KERNELS) == FORMATS
    assert all(callable(kernels) for kernels in KERNELS.values())


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.mlpackage"])
def test_an_fp32_artifact_has_no_low_bit_kernels(name, exported):
    found = kernels_of(exported("mlp") / name)
    assert isinstance(found, KernelTruth)
    assert (found.low_bit_share, found.dequantized_share, found.float_share) == (0.0, 0.0, 1.0)
    assert not found.time_share


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (child.Crashed("crashed with SIGSEGV", ""), "crashed with SIGSEGV"),
        (child.TimedOut(600.0), "did not end within 600 s and was killed"),
    ],
)
def test_a_kernel_that_crashes_is_told_not_raised(outcome, says, monkeypatch, tmp_path):
    monkeypatch.setattr(child, "call", lambda *words, **options: outcome)
    found = kernels_of(tmp_path / "model.tflite")
    assert found == says
    assert in_words(found) == [f"kernels: not found: {says}"] and to_json(found) == {"not_found": says}


def test_what_cannot_be_run_says_why(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"no model at all")
    assert "not a TFLite file; export the model again" in str(kernels_of(tmp_path / "model.tflite"))


def test_the_child_answers_in_json(exported):
    path = exported("mlp") / "model.mlpackage"
    assert from_json(KernelTruth, find({"path": str(path)}, lambda event: None)) == kernels_of(path)


def test_in_words():
    assert in_words(KernelTruth(0.9, 0.04, 0.06, 0.713, "how it was found")) == [
        "weights: 90.0% read as codes by low-bit kernels, 4.0% stored as codes and dequantized, 6.0% floating point",
        "time: 71% on low-bit kernels, with random inputs (how it was found)",
    ]
    assert in_words(KernelTruth(0.0, 1.0, 0.0))[1] == "time: not known"
    assert to_json(KernelTruth(0.0, 1.0, 0.0, None, "n")) == {
        "low_bit_share": 0.0,
        "dequantized_share": 1.0,
        "float_share": 0.0,
        "time_share": None,
        "note": "n",
    }


def test_inspect_prints_it(exported, pocketship):
    done = pocketship("inspect", exported("mlp") / "model.mlpackage")
    assert done.returncode == 0, done.stderr
    weights, time = done.stdout.splitlines()[4:6]
    assert weights.startswith("weights: 0.0% read as codes") and weights.endswith("100.0% floating point")
    assert time.startswith("time: not known (off-device: ")
