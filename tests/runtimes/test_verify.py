"""`verify`: hashes first, then the parity of what is intact; and the same as `pocketship verify`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from exporter.bundle.writer import write_manifest
from runtimes.bundle import digest, read_manifest
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.processing.preprocessor import Preprocessor, Text, to_bytes
from runtimes.types import BundleFile
from runtimes.verify import Check, verify

ROOT = Path(__file__).resolve().parent.parent.parent
ARTIFACTS = ("model.onnx", "model.tflite", "model.mlpackage")


@pytest.fixture
def bundle(exported, copy_of) -> Path:
    """A copy of a bundle with all three formats and a tokenizer that says nothing."""
    folder = copy_of(exported("two_inputs"))
    (folder / "tokenizer.json").write_text('{"vocabulary": []}')
    manifest = read_manifest(folder)
    tokenizer = BundleFile("tokenizer.json", *digest(folder / "tokenizer.json"))
    write_manifest(replace(manifest, files=(*manifest.files, tokenizer)), folder)
    return folder


@pytest.fixture
def small(bundle) -> Path:
    """The same with the ONNX file alone, whose runtime starts fastest."""
    manifest = read_manifest(bundle)
    write_manifest(replace(manifest, artifacts=manifest.artifacts[:1]), bundle)
    (bundle / "model.tflite").unlink()
    shutil.rmtree(bundle / "model.mlpackage")
    return bundle


def checks_of(folder: Path) -> dict[str, Check]:
    return {check.path: check for check in verify(folder, read_manifest(folder))}


def faults(folder: Path) -> list[str]:
    return [check.fault for check in checks_of(folder).values() if check.fault]


def change_a_byte(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_good_bundle_passes_with_every_artifact_run_again(bundle):
    checks = checks_of(bundle)
    assert set(checks) == {*ARTIFACTS, "golden.npz", "README.md", "tokenizer.json"}
    assert all(check.intact and check.fault == check.not_run == "" for check in checks.values())
    for name, check in checks.items():
        assert check.is_artifact == (name in ARTIFACTS)
        assert (check.parity is not None and check.parity.verdict == "pass") == (name in ARTIFACTS)


@pytest.mark.parametrize(
    "name",
    [
        "model.onnx",
        "model.tflite",
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
        "model.mlpackage/Manifest.json",
    ],
)
def test_a_changed_byte_in_one_artifact_is_seen_and_the_others_are_still_run(bundle, name):
    change_a_byte(bundle / name, 100)
    checks = checks_of(bundle)
    damaged = name.split("/")[0]
    assert checks[damaged].fault.startswith(f"{damaged}: its bytes are not those of the manifest (sha256 ")
    assert (checks[damaged].intact, checks[damaged].parity) == (False, None)
    for other in set(ARTIFACTS) - {damaged}:
        assert checks[other].intact and checks[other].parity.verdict == "pass" and not checks[other].fault


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json"])
def test_a_changed_byte_in_another_file_is_seen(small, name):
    change_a_byte(small / name)
    (fault,) = faults(small)
    assert fault.startswith(f"{name}: its bytes are not those of the manifest")
    assert checks_of(small)["model.onnx"].parity.verdict == "pass"


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json", "golden.npz", "model.onnx"])
def test_a_missing_file_is_seen(small, name):
    (small / name).unlink()
    assert faults(small) == [f"{name}: missing, or not a regular file"]


def test_an_added_file_in_a_package_is_seen(bundle):
    (bundle / "model.mlpackage" / "more").touch()
    assert checks_of(bundle)["model.mlpackage"].fault.startswith("model.mlpackage: its bytes are not those")


def test_damaged_golden_values_prove_nothing_and_nothing_is_run(small):
    change_a_byte(small / "golden.npz", 200)
    checks = checks_of(small)
    assert checks["golden.npz"].fault.startswith("golden.npz: its bytes are not those of the manifest")
    assert checks["model.onnx"].intact and checks["model.onnx"].parity is None


def test_a_file_that_nobody_lists_is_seen_and_the_artifacts_are_still_run(small):
    (small / "LICENSE").symlink_to("/etc/hostname")
    (small / "more").touch()
    checks = checks_of(small)
    assert faults(small) == ["'LICENSE': a bundle holds no symbolic link", "'more': not in the manifest"]
    assert (checks["more"].is_artifact, checks["more"].intact, checks["more"].parity) == (False, False, None)
    assert checks["model.onnx"].parity.verdict == "pass"


def test_the_log_that_old_exports_left_is_no_fault(small):
    (small / "export.log").write_text("what the converters had to say")
    assert faults(small) == []


def test_the_bundles_own_tolerance_is_used(small):
    manifest, path = read_manifest(small), small / "golden.npz"
    golden = read_golden(path)  # on some processors this model is computed to the last bit: it is off by a millionth
    off = tuple({name: value + np.float32(1e-6) for name, value in outputs.items()} for outputs in golden.outputs)
    write_golden(Golden(golden.inputs, off), path)
    others = [file for file in manifest.files if file.path != path.name]
    files = (BundleFile(path.name, *digest(path)), *others)
    write_manifest(replace(manifest, files=files), small)
    assert faults(small) == []
    with_atol = {**manifest.settings, "atol": 1e-12}
    write_manifest(replace(manifest, files=files, settings=with_atol), small)
    assert faults(small) == ["model.onnx: its own settings.atol is not the manifest's"]
    change_onnx(small, lambda model: note(model, "settings", with_atol))
    change_parity(small, tolerance=0.0, max_abs_error=0.0)
    (fault,) = faults(small)
    assert fault.startswith("model.onnx: output '") and fault.endswith("allowed is 1e-12")


def change_onnx(folder: Path, change: Callable[[Any], None]) -> None:
    """Change model.onnx, and make the manifest agree with its new bytes."""
    import onnx

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    change(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    change_artifact(folder, **dict(zip(("size_bytes", "sha256"), digest(folder / "model.onnx"), strict=True)))


def note(model: Any, key: str, value: Any) -> None:
    """Change what an ONNX file says of itself."""
    (entry,) = [entry for entry in model.metadata_props if entry.key == "pocketship"]
    entry.value = json.dumps({**json.loads(entry.value), key: value})


def change_artifact(folder: Path, **changes: Any) -> None:
    manifest = read_manifest(folder)
    first, *others = manifest.artifacts
    write_manifest(replace(manifest, artifacts=(replace(first, **changes), *others)), folder)


def change_parity(folder: Path, **changes: Any) -> None:
    change_artifact(folder, parity=replace(read_manifest(folder).artifacts[0].parity, **changes))


def change_manifest(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write_manifest(replace(read_manifest(folder), **changes), folder)


def other_hash_of_the_weights(folder: Path) -> None:
    manifest = read_manifest(folder)
    write_manifest(replace(manifest, origin=replace(manifest.origin, weights_sha256="0" * 64)), folder)


def other_names(folder: Path) -> None:
    """The same in the model's signature, the artifact's and the golden values: only the file has the old name."""
    text = (folder / "manifest.json").read_text().replace('"name": "a"', '"name": "c"')
    (folder / "manifest.json").write_text(text)
    golden = read_golden(folder / "golden.npz")
    renamed = tuple({{"a": "c"}.get(name, name): value for name, value in each.items()} for each in golden.inputs)
    write_golden(Golden(renamed, golden.outputs), folder / "golden.npz")
    manifest = read_manifest(folder)
    files = tuple(BundleFile(file.path, *digest(folder / file.path)) for file in manifest.files)
    write_manifest(replace(manifest, files=files), folder)


def other_names_in_the_file_too(folder: Path) -> None:
    other_names(folder)
    signature = json.loads((folder / "manifest.json").read_text())["signature"]
    change_onnx(folder, lambda model: note(model, "signature", signature))


def external(location: str) -> Callable[[Path], None]:
    def move(model: Any) -> None:
        import onnx
        from onnx.external_data_helper import set_external_data

        tensor = model.graph.initializer[0]
        set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        assert tensor.data_location == onnx.TensorProto.EXTERNAL

    return lambda folder: change_onnx(folder, move)


def without_facts(model: Any) -> None:
    del model.metadata_props[:]


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "the hash of the weights": (other_hash_of_the_weights, "its own origin.weights_sha256 is not the manifest's"),
    "the name": (change_manifest(name="other"), "its own name is not the manifest's"),
    "the tools": (change_manifest(tool_versions={}), "its own tool_versions.ai-edge-litert is not the manifest's"),
    "a looser compute": (
        lambda folder: change_artifact(folder, compute="float16"),
        "it computes in float32, the manifest says float16",
    ),
    "another precision": (
        lambda folder: change_artifact(folder, precision="float16"),
        "its own precision is not the manifest's",
    ),
    "noise": (lambda folder: change_artifact(folder, noise={"left": 9.0}), "its own noise.left is not the manifest's"),
    "samples": (
        lambda folder: change_parity(folder, samples=1000),
        "the manifest says 1000 samples, golden.npz has 8",
    ),
    "a verdict": (
        lambda folder: change_parity(folder, verdict="fail", reason="it is off"),
        "it was never proven",
    ),
    "other names": (other_names, "its own signature.inputs is not the manifest's"),
    "other names everywhere": (other_names_in_the_file_too, "no value for input 'a'; the artifact is refused"),
    "a file without facts": (
        lambda folder: change_onnx(folder, without_facts),
        "it holds no facts of its own to hold the manifest against",
    ),
    "data outside": (
        external("../../weights.bin"),
        "it reads the file '../../weights.bin', which the manifest does not list",
    ),
    "data that nobody lists": (
        external("weights.bin"),
        "it reads the file 'weights.bin', which the manifest does not list",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_is_not_what_the_file_says_is_refused(small, lie):
    change, says = LIES[lie]
    change(small)
    check = checks_of(small)["model.onnx"]
    assert (check.intact, check.fault) == (True, f"model.onnx: {says}")


def test_a_package_that_points_elsewhere_is_refused_though_its_hash_is_the_manifests(bundle):
    manifest, package = read_manifest(bundle), bundle / "model.mlpackage"
    text = (package / "Manifest.json").read_text()
    (package / "Manifest.json").write_text(text.replace("com.apple.CoreML/model.mlmodel", "../../../elsewhere.mlmodel"))
    shutil.copyfile(package / "Data/com.apple.CoreML/model.mlmodel", bundle.parent / "elsewhere.mlmodel")
    (artifact,) = [artifact for artifact in manifest.artifacts if artifact.format == "coreml"]
    sealed = replace(artifact, **dict(zip(("size_bytes", "sha256"), digest(package), strict=True)))
    write_manifest(replace(manifest, artifacts=(sealed,)), bundle)
    fault = checks_of(bundle)["model.mlpackage"].fault
    assert fault.startswith("model.mlpackage: path '../../../elsewhere.mlmodel' leads out of the bundle")


def strict(text: str) -> Any:
    """JSON as other languages read it, without NaN and Infinity."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


PARITY_SCHEMA = {
    "type": "object",
    "required": ["max_abs_error", "max_rel_error", "cosine", "snr_db", "sensitivity", "tolerance", "samples"],
    "properties": {
        **{name: {"type": ["number", "null"]} for name in ("max_abs_error", "max_rel_error", "snr_db")},
        **{name: {"type": "number"} for name in ("cosine", "sensitivity", "tolerance")},
        "samples": {"type": "integer"},
        "verdict": {"enum": ["pass", "fail"]},
        "reason": {"type": "string"},
        "not_proven": {"type": "array", "items": {"type": "string"}},
        "nearest_error": {"type": ["number", "null"]},
        "executed_by": {"type": "object", "required": ["runtime", "version", "kind"]},
    },
    "additionalProperties": False,
}
OUTPUT_SCHEMA = {
    "type": "object",
    "required": ["path", "checks"],
    "properties": {
        "path": {"type": "string"},
        "checks": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["path", "is_artifact", "intact", "parity", "fault", "not_run"],
                "properties": {
                    "path": {"type": "string"},
                    "is_artifact": {"type": "boolean"},
                    "intact": {"type": "boolean"},
                    "parity": {"anyOf": [PARITY_SCHEMA, {"type": "null"}]},
                    "fault": {"type": "string"},
                    "not_run": {"type": "string"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


def test_the_command_on_a_good_bundle(pocketship, bundle):
    done = pocketship("verify", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert rows["golden.npz"] == ["ok", "-"]
    assert rows["model.onnx"][:2] == ["ok", "pass:"] and "onnxruntime" in rows["model.onnx"]
    assert rows["model.mlpackage"][:2] == ["ok", "pass:"]


def test_the_command_as_json(pocketship, bundle):
    done = pocketship("verify", bundle, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    output = strict(done.stdout)
    jsonschema.validate(output, OUTPUT_SCHEMA)
    assert output["path"] == str(bundle)
    assert [c["path"] for c in output["checks"]] == ["README.md", "golden.npz", "tokenizer.json", *ARTIFACTS]
    assert all(c["intact"] and not c["fault"] for c in output["checks"])


def test_the_command_quietly(pocketship, small):
    done = pocketship("verify", small, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_names_every_damaged_file_in_one_line(refused, small):
    change_a_byte(small / "README.md")
    (small / "model.onnx").unlink()
    line = refused("verify", small, code=3)
    assert line.startswith(f"pocketship: {small}: README.md: its bytes are not those of the manifest (sha256 ")
    assert line.endswith("; model.onnx: missing, or not a regular file; do not ship it, export it again")


def test_the_command_prints_the_table_and_the_json_of_a_damaged_bundle_too(pocketship, small):
    change_a_byte(small / "model.onnx")
    done = pocketship("verify", small)
    assert done.returncode == 3
    assert [line.split()[1:4] for line in done.stdout.splitlines() if line.startswith("model.onnx")] == [
        ["CHANGED", "not", "run"]
    ]
    assert len(done.stderr.splitlines()) == 1
    done = pocketship("verify", small, "--json")
    assert done.returncode == 3
    output = strict(done.stdout)
    jsonschema.validate(output, OUTPUT_SCHEMA)
    (check,) = [c for c in output["checks"] if c["path"] == "model.onnx"]
    assert (check["intact"], check["parity"]) == (False, None) and check["fault"]


def test_errors_without_a_number_are_null_in_json(pocketship, small):
    """An output that is not finite has no error that a number could tell."""
    from runtimes.golden import read_golden, write_golden

    golden = read_golden(small / "golden.npz")
    for outputs in golden.outputs:
        outputs["left"] = np.full_like(outputs["left"], np.nan)
    write_golden(golden, small / "golden.npz")
    manifest = read_manifest(small)
    files = tuple(BundleFile(file.path, *digest(small / file.path)) for file in manifest.files)
    write_manifest(replace(manifest, files=files), small)
    done = pocketship("verify", small, "--json")
    assert done.returncode == 3
    output = strict(done.stdout)
    jsonschema.validate(output, OUTPUT_SCHEMA)
    (parity,) = [c["parity"] for c in output["checks"] if c["path"] == "model.onnx"]
    assert (parity["verdict"], parity["max_abs_error"]) == ("fail", None)
    assert parity["reason"] == "PyTorch's own output 'left' is not finite"


def no_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "no bundle here (No such file or directory)"


def a_file(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.write_text("text")
    return "no bundle here (Not a directory)"


def cut_manifest(folder: Path) -> str:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])
    return "not JSON ("


def evil_path(folder: Path) -> str:
    document = json.loads((folder / "manifest.json").read_text())
    document["files"][0]["path"] = "../../etc/passwd"
    (folder / "manifest.json").write_text(json.dumps(document))
    return "path '../../etc/passwd' leads out of the bundle"


@pytest.mark.parametrize("spoil", [no_manifest, a_file, cut_manifest, evil_path])
def test_the_command_refuses_what_is_no_bundle(refused, small, spoil: Callable[[Path], str]):
    says = spoil(small)
    line = refused("verify", small)
    assert line.startswith(f"pocketship: {small}/manifest.json: {says}")


def test_a_runtime_that_this_machine_lacks_is_no_damage(pocketship_without, bundle):
    done = pocketship_without("onnxruntime", "verify", bundle, "--json")
    assert done.returncode == 0 and done.stderr == ""
    checks = {check["path"]: check for check in strict(done.stdout)["checks"]}
    assert checks["model.onnx"]["intact"] and checks["model.onnx"]["parity"] is None
    assert checks["model.onnx"]["not_run"] == ("onnxruntime is not installed; pip install 'pocketship[onnxruntime]'")
    assert checks["model.tflite"]["parity"]["verdict"] == "pass"


def test_a_preprocessor_that_is_not_this_models_is_refused(small):
    content = to_bytes(Preprocessor((Text(12, "ids", "mask"),)))
    (small / "preprocessor.json").write_bytes(content)
    manifest = read_manifest(small)
    listed = BundleFile("preprocessor.json", *digest(small / "preprocessor.json"))
    write_manifest(replace(manifest, files=(*manifest.files, listed)), small)
    assert faults(small) == ["preprocessor.json: the model has no input 'ids'"]
