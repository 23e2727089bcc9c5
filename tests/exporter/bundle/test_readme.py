"""The README inside a bundle: its code runs, its numbers are the manifest's."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from exporter.bundle.readme import bundle_readme
from runtimes.bundle import read_manifest
from runtimes.onnx_runtime import EXACT_INT8


def section(readme: str, file: str) -> str:
    """The code under "Load FILE"."""
    match = re.search(rf"## Load {re.escape(file)}\n\n```python\n(.*?)```", readme, re.DOTALL)
    assert match, readme
    return match[1]


@pytest.mark.parametrize("name", ["mlp", "transformer", "nested"])
@pytest.mark.parametrize("file", ["model.onnx", "model.tflite"])
def test_the_code_runs_as_it_stands(name, file, exported, tmp_path):
    bundle = exported(name)
    code = section((bundle / "README.md").read_text(), file)
    saved = tmp_path / "outputs.npz"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nnp.savez({str(saved)!r}, **outputs)"],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    golden, outputs = np.load(bundle / "golden.npz"), np.load(saved)
    expected = {key.split("/")[2]: golden[key] for key in golden if key.startswith("0/output/")}
    assert set(outputs) == set(expected)
    for output, value in expected.items():
        np.testing.assert_allclose(outputs[output], value, atol=1e-5 * np.abs(value).max(), rtol=0)


def test_the_code_for_int8_asks_for_exact_kernels(exported, monkeypatch):
    manifest = read_manifest(exported("mlp"))
    low_bit = replace(manifest.artifacts[0], representations={"weight": "int8"})
    assert low_bit.format == "onnx"
    code = section(bundle_readme(replace(manifest, artifacts=(low_bit,))), "model.onnx")
    monkeypatch.chdir(exported("mlp"))
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["options"].get_session_config_entry(EXACT_INT8[0]) == EXACT_INT8[1]
    assert names["session"].get_session_options().get_session_config_entry(EXACT_INT8[0]) == EXACT_INT8[1]
    assert "SessionOptions" not in section(bundle_readme(manifest), "model.onnx")


def test_the_code_for_core_ml_compiles(exported):
    code = section((exported("mlp") / "README.md").read_text(), "model.mlpackage")
    compile(code, "README.md", "exec")
    assert 'MLModel("model.mlpackage")' in code


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_the_table_is_the_manifest_s(name, exported, manifest_of):
    readme, manifest = (exported(name) / "README.md").read_text(), manifest_of(exported(name))
    rows = [line.strip("| ").split(" | ") for line in readme.splitlines() if line.startswith("| model.")]
    assert len(rows) == len(manifest["artifacts"]) == 3
    for row, artifact in zip(rows, manifest["artifacts"], strict=True):
        proof = artifact["parity"]
        by = proof["executed_by"]
        assert row[0] == artifact["path"]
        assert int(row[1].replace(",", "")) == artifact["size_bytes"]
        assert float(row[2]) == pytest.approx(proof["max_abs_error"], rel=0.05)
        assert float(row[3]) == pytest.approx(proof["cosine"], abs=1e-7)
        assert row[4] == f"{by['runtime']} {by['version']}, {by['kind']}"
    for role, word in (("inputs", "in"), ("outputs", "out")):
        for spec in manifest["signature"][role]:
            shape = ", ".join(map(str, spec["shape"]))
            assert f"- {word} `{spec['name']}: {spec['dtype']}[{shape}]`" in readme
    origin = manifest["origin"]
    assert readme.startswith(f"# {name}\n\nExported by pocketship from `{origin['source']}`: ")
    assert f"{origin['parameters']:,} parameters, weights {origin['weights']}." in readme
