"""The passes of a recipe in order: errors that name them, and what is not done again where nothing changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import exporter
from exporter.compression.recipe import Recipe, step
from exporter.lowering import child as lowering
from exporter.stages import compress
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput
from runtimes.golden import read_golden
from runtimes.verify import verify

RECIPE = Recipe((step("prune", {"sparsity": 0.5}, "test"), step("quantize", {"activations": "float"}, "test")))


@pytest.fixture
def model() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)), torch.randn(1, 8)


def failing_at(name: str, error: Exception, monkeypatch) -> None:
    """Let one pass raise."""
    apply = compress.apply

    def run(step, model, context):
        if step.name == name:
            raise error
        return apply(step, model, context)

    monkeypatch.setattr(compress, "apply", run)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("prune", BadInput("no layer", remedy="mend it"), "^pass prune: no layer; mend it$"),
        ("quantize", BadInput("no layer", where="fc1"), "^pass quantize after prune: fc1: no layer$"),
        ("quantize", ValueError("odd shape"), "^pass quantize after prune: ValueError: odd shape$"),
        ("quantize", MemoryError("full"), "^full$"),
    ],
)
def test_an_error_names_its_pass_and_those_before_it(name, error, message, model, tmp_path, monkeypatch):
    failing_at(name, error, monkeypatch)
    kind = RuntimeError if isinstance(error, ValueError) else type(error)
    with pytest.raises(kind, match=message):
        exporter.export(model, "onnx", tmp_path / "bundle", recipe=RECIPE, measure=False)
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_rounding_cannot_be_measured_is_said_to_be_judged_by_whole_outputs(model, tmp_path, monkeypatch):
    def unwatched(*words: object) -> None:
        raise RuntimeError("no mode\nhere")

    monkeypatch.setattr(compress, "rounding_errors", unwatched)
    told = []
    bundle = exporter.export(model, "onnx", tmp_path / "bundle", on_stage=told.append)
    said = [stage.detail for stage in told if "warning" in stage.detail]
    assert said == [
        "warning: what rounding changes in this model cannot be measured in float32 (RuntimeError: no mode here): "
        "each output is judged as a whole, not by its columns and channels"
    ]
    assert read_golden(bundle.path / "golden.npz").noise == {}


@pytest.mark.slow
def test_a_pass_that_changed_nothing_is_not_lowered_again(model, tmp_path, monkeypatch):
    """Ledger, recipe and files are as ever; the child of the target lowered the first two snapshots alone."""
    apply, told = compress.apply, []

    def run(step, model, context):
        after, report = apply(step, model, context)
        return (after, report) if step.name == "prune" else (model, replace(report, changed=False))

    monkeypatch.setattr(compress, "apply", run)
    bundle = exporter.export(model, "onnx,coreml", tmp_path / "bundle", recipe=RECIPE, on_stage=told.append)
    stages = [stage.name for stage in told]
    assert stages.count("onnx") == stages.count("coreml") == 2
    manifest = read_manifest(bundle.path)
    assert [s.name for s in manifest.recipe] == ["prune", "quantize"]
    rows = {row.stage: row for row in manifest.ledger if row.format == "onnx"}
    assert list(rows) == ["original", "prune", "quantize"]
    assert rows["quantize"].size_bytes == rows["prune"].size_bytes
    assert [a.precision for a in manifest.artifacts] == ["float32", "float32"]
    assert [check.fault for check in verify(bundle.path, manifest) if check.fault] == []


def test_the_child_lowers_nothing_for_a_message_that_says_nothing(tmp_path):
    from exporter.processes.messages import post

    post(tmp_path / "1.json", {"onnx": None})
    job = {"target": "onnx", "dry_run": False, "snapshots": [{"message": str(tmp_path / "1.json")}]}
    told: list = []
    assert lowering.lower(job, told.append) == {} and told == [{"unchanged": 0}]
