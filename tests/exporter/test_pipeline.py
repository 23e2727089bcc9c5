"""The whole export: what lies in a bundle, and the Python call."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

import exporter
from exporter.bundle.schema import manifest_schema
from exporter.stages.options import Options, default_name
from runtimes.errors import BadInput

MODELS = Path(__file__).resolve().parent.parent / "models.py"


def test_every_file_of_a_bundle_can_be_read_by_whom_the_umask_allows(exported):
    bundle = exported("two_inputs")
    allowed = stat.S_IMODE(bundle.stat().st_mode)
    for path in bundle.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (allowed if path.is_dir() else allowed & 0o666), path


def test_a_core_ml_package_holds_the_model_and_nothing_else(exported):
    package = exported("two_inputs") / "model.mlpackage"
    names = {p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()}
    data = "Data/com.apple.CoreML"
    assert names == {"Manifest.json", f"{data}/model.mlmodel", f"{data}/weights/weight.bin"}


@pytest.mark.slow
def test_no_temporary_file_is_left(tmp_path, pocketship):
    """coremltools keeps a copy of every package it saves until Python ends in peace."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = pocketship("export", f"{MODELS}:mlp", "-o", tmp_path / "out", "--quiet", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "temporary"]


def test_log_softmax_and_reciprocals_are_exact_in_every_format(exported, manifest_of):
    """As coremltools lowers them by itself, they are off by 2 % and 7 %."""
    for artifact in manifest_of(exported("inexact"))["artifacts"]:
        assert artifact["parity"]["max_rel_error"] < 1e-6, artifact["format"]


def test_the_python_call_takes_a_module_and_names_as_strings(tmp_path):
    stages = []
    module, example = nn.Linear(3, 2), torch.randn(1, 3)
    bundle = exporter.export((module, example), "onnx", str(tmp_path / "out"), on_stage=stages.append)
    assert bundle.path == tmp_path / "out" and (bundle.path / "model.onnx").is_file()
    assert [stage.name for stage in stages] == ["load", "trace", "onnx"]
    assert bundle.manifest.origin.kind == "module" and bundle.manifest.origin.parameters == 8
    assert [a.parity.verdict for a in bundle.manifest.artifacts] == ["pass"]
    with pytest.raises(BadInput, match="the output folder exists; add --force"):
        exporter.export((module, example), ["onnx"], tmp_path / "out")


def test_the_python_call_refuses_what_is_no_module(tmp_path):
    with pytest.raises(BadInput, match=r"dict is no torch\.nn\.Module; give \(module, example_inputs\)"):
        exporter.export(({}, torch.randn(1)), "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("minilm", "minilm"),
        ("timm:resnet18", "resnet18"),
        ("a/b/detector.py:small", "small"),
        ("models/bert/", "bert"),
        ("org/name", "name"),
        ("program.pt2", "program"),
    ],
)
def test_the_default_folder_is_named_after_the_source(source, name):
    assert default_name(source) == name


def test_a_missing_package_is_named_before_anything_starts(monkeypatch):
    from exporter.stages import options

    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None if name == "coremltools" else object())
    options.check_installed(Options(targets=("onnx", "tflite")))
    with pytest.raises(BadInput, match=r"coremltools not installed; pip install 'pocketship\[export\]'"):
        options.check_installed(Options())


def test_the_schema_refuses_an_unknown_field_at_any_depth(exported, manifest_of):
    manifest = manifest_of(exported("two_inputs"))
    validator = Draft202012Validator(manifest_schema())
    assert validator.is_valid(manifest)
    for record in (manifest, manifest["origin"], manifest["artifacts"][0], manifest["artifacts"][0]["parity"]):
        record["extra"] = 1
        assert not validator.is_valid(manifest)
        del record["extra"]
