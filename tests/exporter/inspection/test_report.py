"""`inspect` reads signature, operations and tensors out of each format's file."""

from __future__ import annotations

import json

import pytest

from exporter.inspection.report import inspect, read
from runtimes.errors import BadInput, refusal_of

FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "coreml": "model.mlpackage"}
OPERATIONS = {
    "onnx": {"mlp": {"Gemm": 2, "Relu": 1}, "cnn": {"Conv": 2, "MaxPool": 1}},
    "tflite": {"mlp": {"FULLY_CONNECTED": 2}, "cnn": {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "MAX_POOL_2D": 1}},
    "coreml": {"mlp": {"linear": 2, "relu": 1}, "cnn": {"conv": 2, "max_pool": 1}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer", "nested"])
@pytest.mark.parametrize("target", FILES)
def test_a_report_agrees_with_the_manifest(name, target, exported, manifest_of):
    report = inspect(exported(name) / FILES[target])
    (artifact,) = [a for a in manifest_of(exported(name))["artifacts"] if a["format"] == target]
    assert report.format == target
    assert report.size_bytes == artifact["size_bytes"]
    for role in ("inputs", "outputs"):
        found = [[spec.name, spec.dtype, list(spec.shape)] for spec in getattr(report.signature, role)]
        assert sorted(found) == sorted([s["name"], s["dtype"], s["shape"]] for s in artifact["signature"][role])
    for operation, count in OPERATIONS[target].get(name, {}).items():
        assert report.operations[operation] == count
    counts = list(report.operations.values())
    assert counts == sorted(counts, reverse=True)
    assert json.loads(report.metadata["pocketship"])["name"] == name


@pytest.mark.parametrize("target", FILES)
def test_the_mlp_s_tensors_are_its_weights(target, exported):
    report = inspect(exported("mlp") / FILES[target])
    weights = [t for t in report.tensors if t.size_bytes >= 64]
    assert [sorted(t.shape) for t in weights] == [[8, 16], [4, 16], [16]]
    assert [t.size_bytes for t in weights] == [512, 256, 64]
    assert {t.dtype.lower() for t in weights} <= {"float32", "float"}
    assert all(t.name for t in report.tensors)


@pytest.mark.parametrize("target", FILES)
def test_tensors_add_up_to_the_file(target, lower_here):
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(200, 300), torch.nn.Linear(300, 200))
    report = inspect(lower_here(module, torch.randn(1, 200), target).path)
    total = sum(tensor.size_bytes for tensor in report.tensors)
    assert 4 * (200 * 300 * 2) <= total <= report.size_bytes <= 1.02 * total


def test_half_precision_shows(lower_here, as_exported):
    report = inspect(lower_here(*as_exported("transformer"), "coreml", coreml_precision="float16").path)
    assert {tensor.dtype for tensor in report.tensors} == {"float16"}
    assert report.tensors[0].size_bytes == 2 * 50 * 16


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("model.onnx", b"", "the file is empty"),
        ("model.onnx", b"\x08" * 999, "not a onnx file, or damaged"),
        ("model.tflite", b"", "not a TFLite file"),
        ("model.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 60, "not a tflite file, or damaged"),
        ("model.tflite", b"GGUF" * 20, "not a TFLite file"),
        ("model.bin", b"x", "no runtime for a file ending in '.bin'"),
    ],
)
def test_files_that_are_none(name, content, fault, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        inspect(tmp_path / name)
    assert fault in str(refusal.value) and str(tmp_path / name) in str(refusal.value)


def test_a_package_that_is_none(tmp_path):
    (tmp_path / "model.mlpackage").mkdir()
    with pytest.raises(BadInput, match="not a readable Core ML package"):
        inspect(tmp_path / "model.mlpackage")


def test_an_artifact_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="no such artifact; check the path"):
        inspect(tmp_path / "model.onnx")


def test_a_library_that_is_not_installed(exported, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(ModuleNotFoundError) as caught:  # the child's `main` words it
        read({"path": str(exported("mlp") / "model.onnx")}, print)
    assert str(refusal_of(caught.value)) == "onnx-ir is not installed; pip install 'pocketship[bench]'"


@pytest.mark.slow
def test_a_format_that_this_machine_cannot_read_is_left_out_and_it_says_so(exported, pocketship_without):
    done = pocketship_without("coremltools", "inspect", exported("mlp"))
    assert done.returncode == 0, done.stderr
    assert "model.onnx  onnx" in done.stdout and "model.tflite  tflite" in done.stdout
    assert done.stdout.count("not read: model.mlpackage: coremltools is not installed; ") == 1
    done = pocketship_without("coremltools", "inspect", exported("mlp"), "--json")
    assert [row.get("format", row.get("not_read", "")[:28]) for row in json.loads(done.stdout)] == [
        *("onnx", "tflite", "coremltools is not installed")
    ]
    done = pocketship_without("coremltools", "inspect", exported("mlp") / "model.mlpackage")
    assert done.returncode == 2 and "coremltools is not installed; " in done.stderr, done.stderr
