"""A manifest that says something else than the file, its golden values or its runtime is found out, leaf by leaf."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from runtimes import child, evidence
from runtimes.errors import ParityFailed
from runtimes.facts import Facts
from runtimes.golden import Golden
from runtimes.signature import ExecutedBy, Signature, TensorSpec
from runtimes.types import RecipeStep
from tests.runtimes.manifests import MANIFEST as WITH_RECIPE

PLAIN = replace(
    WITH_RECIPE,
    recipe=(),
    ledger=(),
    settings={"opset": 20},
    artifacts=(replace(WITH_RECIPE.artifacts[0], precision="float32", noise={}, representations={}, left_float={}),),
)


def said_of(manifest: Any, **changes: Any) -> dict[str, Any]:
    """What an export writes into the file."""
    written, artifact = asdict(manifest), asdict(manifest.artifacts[0])
    said = {key: written[key] for key in evidence.SAME} | {
        "settings": written["settings"],
        "precision": artifact["precision"],
        "recipe": [{"pass": step.name, "settings": step.settings} for step in manifest.recipe],
    }
    if manifest.recipe:
        said |= {key: artifact[key] for key in evidence.OF_THE_ARTIFACT}
    return json.loads(json.dumps(said)) | changes


def facts(said: Any, **changes: Any) -> Facts:
    stored = ("float32", "int8")
    return replace(Facts(json.dumps(said), (), "float32", stored), **changes)


def faults(manifest: Any, found: Facts) -> list[str]:
    return list(evidence.of_facts(manifest, manifest.artifacts[0], found))


@pytest.mark.parametrize("manifest", [PLAIN, WITH_RECIPE])
def test_what_an_export_writes_into_the_file_is_what_it_writes_into_the_manifest(manifest):
    assert faults(manifest, facts(said_of(manifest))) == []


def artifact(manifest: Any, **changes: Any) -> Any:
    return replace(manifest, artifacts=(replace(manifest.artifacts[0], **changes),))


@pytest.mark.parametrize(
    ("manifest", "place"),
    [
        (replace(PLAIN, name="other"), "name"),
        (replace(PLAIN, origin=replace(PLAIN.origin, weights_sha256="0" * 64)), "origin.weights_sha256"),
        (replace(PLAIN, origin=replace(PLAIN.origin, license=None)), "origin.license"),
        (replace(PLAIN, signature=replace(PLAIN.signature, inputs=())), "signature.inputs"),
        (replace(PLAIN, tool_versions={"torch": "2.12"}), "tool_versions.torch"),
        (replace(PLAIN, settings={"opset": 21}), "settings.opset"),
        (replace(PLAIN, settings={"opset": 20, "atol": 0.5}), "settings.atol"),
        (replace(PLAIN, settings={"opset": True}), "settings.opset"),
        (artifact(PLAIN, precision="float16"), "precision"),
        (artifact(PLAIN, noise={"y": 1.0}), "noise.y"),
        (artifact(PLAIN, representations={"w": "int8"}), "representations.w"),
        (artifact(PLAIN, left_float={"w": "x"}), "left_float.w"),
    ],
)
def test_a_leaf_that_is_not_the_files_own_is_named(manifest, place):
    assert faults(manifest, facts(said_of(PLAIN))) == [f"its own {place} is not the manifest's"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"noise": {"y": 10.0}}, "noise.y"),
        ({"noise": {}}, "noise.y"),
        ({"representations": {"w": "int4"}}, "representations.w"),
        ({"left_float": {}}, "left_float.v"),
        ({"precision": "int4"}, "precision"),
    ],
)
def test_what_a_recipe_did_to_the_weights_is_the_files_own(changes, place):
    assert faults(artifact(WITH_RECIPE, **changes), facts(said_of(WITH_RECIPE))) == [
        f"its own {place} is not the manifest's"
    ]


def test_a_file_of_a_recipe_from_before_its_noise_was_written_is_believed():
    said = said_of(WITH_RECIPE)
    for key in evidence.OF_THE_ARTIFACT[1:]:
        del said[key]
    assert faults(artifact(WITH_RECIPE, noise={"y": 0.2}), facts(said)) == []


def test_an_update_is_noted_in_the_manifest_alone():
    updated = replace(
        WITH_RECIPE,
        settings={**WITH_RECIPE.settings, "update": 2},
        recipe=(*WITH_RECIPE.recipe, RecipeStep("task vector", {})),
    )
    assert faults(updated, facts(said_of(WITH_RECIPE))) == []


@pytest.mark.parametrize(
    ("recipe", "place"),
    [
        ((), "recipe"),
        ((RecipeStep("magnitude", {"bits": 8, "keep": ["head"]}),), "recipe[0]"),
        ((RecipeStep("integer", {"bits": 4, "keep": ["head"]}),), "recipe[0].settings.bits"),
        ((RecipeStep("integer", {"bits": 8}),), "recipe[0].settings.keep"),
        ((RecipeStep("integer", {"bits": 8, "keep": ["head"], "more": 1}),), "recipe[0].settings.more"),
    ],
)
def test_another_recipe_is_found(recipe, place):
    other = replace(WITH_RECIPE, recipe=recipe)
    assert faults(other, facts(said_of(WITH_RECIPE))) == [f"its own {place} is not the manifest's"]


def test_a_setting_that_the_pass_chose_is_the_manifests():
    chosen = replace(WITH_RECIPE, recipe=(RecipeStep("distill", {"loss": "soft", "steps": 3}),))
    asked = [{"pass": "distill", "settings": {"loss": "auto", "steps": 3}}]
    assert faults(chosen, facts(said_of(chosen, recipe=asked))) == []


@pytest.mark.parametrize("recipe", [None, {}, [3], [{}], [{"pass": "integer"}], [{"pass": "integer", "settings": []}]])
def test_a_recipe_of_another_form_is_refused(recipe):
    (fault,) = faults(WITH_RECIPE, facts(said_of(WITH_RECIPE, recipe=recipe)))
    assert fault.startswith("its own recipe") and fault.endswith(" is not the manifest's")


@pytest.mark.parametrize("text", [None, "", "[]", "{", "[" * 100_000, "x" * ((1 << 24) + 1)])
def test_a_file_that_says_nothing_is_refused(text):
    found = facts({}, metadata=text)
    assert faults(PLAIN, found) == ["it holds no facts of its own to hold the manifest against"]


def test_a_manifest_that_says_float16_of_a_float32_file_is_refused():
    loosened = artifact(PLAIN, compute="float16")
    assert faults(loosened, facts(said_of(PLAIN))) == ["it computes in float32, the manifest says float16"]
    assert faults(loosened, facts(said_of(PLAIN), compute=None)) == []


def test_low_bit_weights_that_are_not_there_are_found():
    found = facts(said_of(WITH_RECIPE), stored=("float32",))
    assert faults(WITH_RECIPE, found) == ["it holds no low-bit weights, the manifest says it does"]


@pytest.mark.parametrize("name", ["../weights.bin", "weights.bin", "/etc/hostname", "", "\x1b"])
def test_a_file_that_reads_what_the_manifest_does_not_list_is_refused(name):
    (fault,) = faults(PLAIN, facts(said_of(PLAIN), external=(name,)))
    assert fault == f"it reads the file {name!r}, which the manifest does not list"
    assert faults(PLAIN, facts(said_of(PLAIN), external=("README.md",))) == []


# --- golden values ----------------------------------------------------------------------------------------------------


def golden(count: int = 3, batch: int = 2, dtype: Any = np.float32) -> Golden:
    inputs = tuple({"x": np.full((batch, 4), i, dtype)} for i in range(count))
    return Golden(inputs, tuple({"y": np.full((batch, 2), i + 1.0, np.float32)} for i in range(count)))


def of_golden(values: Golden, **changes: Any) -> list[str]:
    changed = artifact(PLAIN, **changes)
    return list(evidence.of_golden(changed, changed.artifacts[0], values))


def test_golden_values_of_the_models_signature_are_right():
    assert of_golden(golden()) == []


def changed(values: Golden, role: str, name: str, array: Any) -> Golden:
    samples = [dict(sample) for sample in getattr(values, role)]
    samples[1] = {**samples[1], name: array} if array is not None else {}
    return replace(values, **{role: tuple(samples)})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (golden(4), "the manifest says 3 samples, golden.npz has 4"),
        (changed(golden(), "inputs", "z", np.zeros(1)), "sample 1 of golden.npz has other inputs than the model"),
        (changed(golden(), "outputs", "y", None), "sample 1 of golden.npz has other outputs than the model"),
        (
            changed(golden(), "inputs", "x", np.zeros((2, 5), np.float32)),
            "'x' of sample 1 in golden.npz is float32[2, 5], not float32[batch, 4]",
        ),
        (
            changed(golden(), "outputs", "y", np.zeros((3, 2), np.float32)),
            "'y' of sample 1 in golden.npz is float32[3, 2], not float32[batch, 2]",
        ),
        (golden(dtype=np.float64), "'x' of sample 0 in golden.npz is float64[2, 4], not float32[batch, 4]"),
    ],
)
def test_golden_values_of_another_signature_are_refused(values, says):
    assert of_golden(values) == [says]


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"tolerance": 1.0}, "its parity.tolerance is 1, its golden values allow 0.0003"),
        ({"max_abs_error": 1.0}, "its parity.max_abs_error is 1, its golden values allow 0.0003"),
        ({"sensitivity": 7.0}, "its parity.sensitivity is 7, its golden values allow 6"),
        (
            {"executed_by": ExecutedBy("onnxruntime", "1", "browser")},
            "no runtime 'onnxruntime' executes onnx browser",
        ),
        ({"executed_by": ExecutedBy("Core ML", "15", "physical")}, "no runtime 'Core ML' executes onnx physical"),
    ],
)
def test_figures_that_nothing_which_passed_can_have_are_refused(figures, says):
    assert of_golden(golden(), parity=replace(PLAIN.artifacts[0].parity, **figures)) == [says]


def test_the_evaluator_of_core_ml_is_no_device():
    by = {"runtime": "pocketship MIL evaluator on numpy", "version": "2"}
    coreml = {"format": "coreml", "path": "model.mlpackage"}
    parity = PLAIN.artifacts[0].parity
    assert of_golden(golden(), **coreml, parity=replace(parity, executed_by=ExecutedBy(**by, kind="off-device"))) == []
    (fault,) = of_golden(golden(), **coreml, parity=replace(parity, executed_by=ExecutedBy(**by, kind="physical")))
    assert fault == "no runtime 'pocketship MIL evaluator on numpy' executes coreml physical"


# --- the runtime's signature ------------------------------------------------------------------------------------------


def spec(name: str, *shape: Any, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Signature((spec("x", "n", 4),), (spec("y", "m", 2),)), None),
        (Signature((spec("z", "n", 4),), (spec("y", "m", 2),)), "its inputs are z instead of x"),
        (Signature((spec("x", 4),), (spec("y", "m", 2),)), "its input x has 1 axes instead of 2"),
        (
            Signature((spec("x", "n", 5),), (spec("y", "m", 2),)),
            "its input x is float32[batch, 5], the manifest says float32[batch, 4]",
        ),
        (
            Signature((spec("x", "n", 4),), (spec("y", 3, 2),)),
            "its output y is float32[3, 2], the manifest says float32[batch, 2]",
        ),
        (
            Signature((spec("x", "n", 4, dtype="float16"),), (spec("y", "m", 2),)),
            "its input x is float16[batch, 4], the manifest says float32[batch, 4]",
        ),
    ],
)
def test_what_the_runtime_finds_is_what_the_manifest_says(found, says):
    assert list(evidence.of_runtime(PLAIN, PLAIN.artifacts[0], found)) == ([says] if says else [])


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (child.TimedOut(3.0), "reading it did not end within 3 s and was killed"),
        (child.Refused(ParityFailed("is damaged", where="x")), "is damaged"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(monkeypatch, tmp_path, outcome, says):
    monkeypatch.setattr(child, "call", lambda *words, **options: outcome)
    with pytest.raises(ParityFailed) as caught:
        evidence.facts_of(tmp_path / "model.onnx")
    assert str(caught.value) == f"model.onnx: {says}; the artifact is refused"
