"""Whole exports with a recipe: every format computes the compressed module, and bundle and ledger say what it cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from runtimes.bundle import read_manifest
from runtimes.golden import read_golden

TESTS = Path(__file__).resolve().parents[2]
FORMATS = ("onnx", "tflite", "coreml")


@pytest.fixture(scope="session")
def compressed(tmp_path_factory, pocketship):
    """The bundle of a model of tests/models.py after `words`, exported once."""
    bundles: dict[tuple[str, ...], Path] = {}

    def get(name: str, data: str | None, *words: str, recipe: str = "") -> Path:
        key = (name, str(data), recipe, *words)
        if key not in bundles:
            folder = tmp_path_factory.mktemp("compressed")
            if recipe:
                (folder / "recipe.yaml").write_text(recipe)
                words = (*words, "--recipe", str(folder / "recipe.yaml"))
            own = ("--data", f"{TESTS / 'data.py'}:{data}") if data else ()
            source = f"{TESTS / 'models.py'}:{name}"
            done = pocketship("export", source, *words, *own, "-o", folder / "bundle", "--quiet", timeout=550)
            assert done.returncode == 0, done.stderr
            bundles[key] = folder / "bundle"
        return bundles[key]

    return get


def check_bundle(bundle: Path, stages: list[str], computes, tolerance: float | None = 1e-5) -> None:
    """The files say what the passes did, and compute the golden values, past our own gate where they are exact."""
    manifest = read_manifest(bundle)
    assert [step.name for step in manifest.recipe] == stages[1:]
    assert {(a.format, a.path in {p.name for p in bundle.iterdir()}) for a in manifest.artifacts} == {
        (target, True) for target in FORMATS
    }
    for artifact in manifest.artifacts:
        assert artifact.parity.verdict == "pass" and not artifact.left_float
        if tolerance is None:
            continue
        golden = read_golden(bundle / artifact.golden)
        for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True):
            computes(bundle / artifact.path, inputs, outputs, tolerance)


def check_ledger(bundle: Path, stages: list[str]) -> None:
    """Every format has a row of every stage, the last of them the artifact's; the report shows them."""
    manifest = read_manifest(bundle)
    rows = {(row.format, row.stage) for row in manifest.ledger}
    assert rows == {(target, stage) for target in FORMATS for stage in stages}
    for artifact in manifest.artifacts:
        last = [row for row in manifest.ledger if row.format == artifact.format][-1]
        assert last.size_bytes == artifact.size_bytes == sum(last.waterfall.values())
    assert (bundle / "report.png").read_bytes().startswith(b"\x89PNG")
    assert all(stage in (bundle / "report.md").read_text() for stage in stages)


@pytest.mark.slow
def test_int8_with_calibrated_activations_in_all_formats(compressed, computes, pocketship):
    bundle = compressed("cnn", "images", "--quantize", "int8")
    check_bundle(bundle, ["original", "quantize"], computes, tolerance=None)
    check_ledger(bundle, ["original", "quantize"])
    manifest = read_manifest(bundle)
    by_format = {a.format: a for a in manifest.artifacts}
    assert by_format["coreml"].golden == "golden.npz" and not by_format["coreml"].noise
    assert by_format["onnx"].golden == "golden-onnx.npz" and by_format["tflite"].golden == "golden-tflite.npz"
    assert all(a.precision == "int8" and len(a.representations) == 3 for a in manifest.artifacts)
    rounded, exact = (read_golden(bundle / name).outputs for name in ("golden-onnx.npz", "golden.npz"))
    assert any(not np.array_equal(a["output"], b["output"]) for a, b in zip(rounded, exact, strict=True))
    done = pocketship("verify", bundle)
    assert done.returncode == 0 and done.stdout.count("pass") == 3, done.stdout + done.stderr


@pytest.mark.slow
def test_int4_weights_with_float_activations_are_exact_in_all_formats(compressed, computes):
    recipe = "passes: [{quantize: {bits: 4, activations: float, embedding_bits: 4}}]"
    bundle = compressed("transformer", None, recipe=recipe)
    check_bundle(bundle, ["original", "quantize"], computes)
    check_ledger(bundle, ["original", "quantize"])


@pytest.mark.slow
@pytest.mark.matrix(one_in=2)
@pytest.mark.parametrize(
    ("stages", "recipe", "tolerance"),
    [
        (["prune"], "{prune: {sparsity: 0.5}}", 1e-5),
        (["prune"], "{prune: {sparsity: 0.6, schedule: cubic, epochs: 2, frequency: 1}}", 1e-5),
        (["prune-structured"], "{prune-structured: {flops: 0.4, round_to: 1}}", 1e-5),
        (["low-rank", "distill"], "{low-rank: {rank: 2, smallest_out: 4}}, {distill: {epochs: 2}}", 1e-5),
        (["quantize"], "{quantize: {training_epochs: 2}}", None),
        (["ternary"], "{ternary: {epochs: 2, activations: float, first_last_bits: 2}}", 1e-5),
        (["ternary"], "{ternary: {method: compensate, activations: dynamic, first_last_bits: 2}}", None),
        (["prune", "quantize"], "{prune: {sparsity: 0.5, pattern: '2:4'}}, {quantize: {bits: 8}}", None),
    ],
    ids=str,
)
def test_every_pass_reaches_all_formats(stages, recipe, tolerance, compressed, computes):
    measured = len(stages) > 1  # to measure costs as much as to export; what a stage's row says is the same of any pass
    words = () if measured else ("--no-measure",)
    bundle = compressed("mlp", "points", *words, recipe=f"passes: [{recipe}]")
    check_bundle(bundle, ["original", *stages], computes, tolerance)
    if measured:
        check_ledger(bundle, ["original", *stages])


@pytest.mark.slow
def test_the_command_prints_the_ledger_and_json_holds_it(compressed, pocketship, tmp_path):
    words = ("--quantize", "int8", "--target", "onnx", "--data", f"{TESTS / 'data.py'}:points")
    done = pocketship("export", f"{TESTS / 'models.py'}:mlp", *words, "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("onnx ")] == [
        ["onnx", "int8"],
        ["onnx", "original"],
        ["onnx", "quantize"],
    ]
    told = sorted(line.split()[0] for line in done.stderr.splitlines())
    assert told == ["load", "measure", "onnx", "onnx", "quantize", "trace"]
    ledger = json.loads((tmp_path / "b" / "manifest.json").read_text())["ledger"]
    assert [row["stage"] for row in ledger] == ["original", "quantize"]
    assert ledger[0]["accuracy"]["samples"] == 40 and ledger[1]["latency"]["threads"] == 1


def test_without_measuring_the_stages_are_proven_and_no_more(pocketship, tmp_path):
    words = ("--quantize", "int8", "--target", "onnx", "--data", f"{TESTS / 'data.py'}:points", "--no-measure")
    done = pocketship("export", f"{TESTS / 'models.py'}:mlp", *words, "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "b")
    assert [step.name for step in manifest.recipe] == ["quantize"] and manifest.ledger == ()
    assert [a.parity.verdict for a in manifest.artifacts] == ["pass"]
    assert not (tmp_path / "b" / "report.md").exists() and "measure" not in done.stderr


@pytest.mark.slow
def test_int8_without_data_quantizes_linear_layers_and_stores_convolutions_small(pocketship, tmp_path):
    """The stage's line and the manifest say that convolutions compute in float."""
    said = "; convolutions compute in float: calibrated ranges need --data"
    words = ("--quantize", "int8", "--target", "onnx,tflite", "--no-measure", "-o", tmp_path / "bundle")
    done = pocketship("export", f"{TESTS / 'models.py'}:cnn", *words)
    assert done.returncode == 0, done.stderr
    assert said in " ".join(done.stderr.split())
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.recipe[0].notes[0] == f"2 conv int8, 1 linear int8 with dynamic activations{said}"
    stored = {a.format: a.representations for a in manifest.artifacts}
    assert stored["onnx"]["head.weight"].startswith("int8 codes, MatMulInteger")
    assert stored["tflite"]["head.weight"].startswith("int8, dynamic")
    assert {kinds["stem.0.weight"] for kinds in stored.values()} == {"int8 codes, Cast, Mul", "int8, DEQUANTIZE"}


def test_a_task_of_some_of_the_model_s_classes_is_warned_of_and_calibrates(pocketship, tmp_path):
    words = ("--quantize", "int8", "--target", "onnx", "--no-measure", "-o", tmp_path / "bundle")
    data = ("--data", f"{TESTS / 'data.py'}:two_of_four")
    done = pocketship("export", f"{TESTS / 'models.py'}:mlp", *words, *data)
    assert done.returncode == 0, done.stderr
    said = "warning: the task has 2 classes and the model 4; label i is taken for the model's output i, and any of the"
    assert said in " ".join(done.stderr.split())
    assert "static" in read_manifest(tmp_path / "bundle").recipe[0].notes[0]
