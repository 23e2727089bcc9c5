"""What agrees and is not proven: a warning in the tables and the manifest, and exit code 3 with --strict."""

from __future__ import annotations

import json

import pytest

from runtimes.bundle import read_manifest

LINE = "output 'output' (all 4 of its columns) change too little to tell them from a constant"


@pytest.fixture(scope="module")
def doubtful(once, pocketship):
    """A bundle that may be off by as much as its outputs change, and what was printed when it was exported."""
    from tests.conftest import MODELS

    def make(folder):
        done = pocketship("export", f"{MODELS}:mlp", "-t", "onnx", "--atol", "5", "-o", folder / "bundle")
        assert done.returncode == 0, done.stderr
        (folder / "said").write_text(done.stdout)

    return once("doubtful mlp", make)


def test_export_warns_and_the_manifest_says_it(doubtful):
    assert f"\nwarning: not proven: {LINE} (model.onnx)\n" in (doubtful / "said").read_text()
    (artifact,) = read_manifest(doubtful / "bundle").artifacts
    assert artifact.parity.verdict == "pass" and LINE in artifact.parity.not_proven


def test_verify_warns_and_strictly_refuses(doubtful, pocketship, refused):
    bundle = doubtful / "bundle"
    done = pocketship("verify", bundle)
    assert done.returncode == 0 and f"warning: not proven: {LINE} (model.onnx)" in done.stdout
    done = pocketship("verify", bundle, "--json")
    assert LINE in next(c for c in json.loads(done.stdout)["checks"] if c["is_artifact"])["parity"]["not_proven"]
    line = refused("verify", bundle, "--strict", code=3)
    assert line.startswith(f"pocketship: {bundle}: not proven: model.onnx: output 'output' ")
    assert LINE in line and line.endswith("; export it with inputs that move it, or leave out --strict")


def test_what_is_proven_is_so_strictly(exported, pocketship):
    done = pocketship("verify", exported("two_inputs"), "--strict")
    assert done.returncode == 0 and "not proven" not in done.stdout


def test_a_strict_export_writes_nothing(refused, tmp_path):
    from tests.conftest import MODELS

    words = ("export", f"{MODELS}:mlp", "-t", "onnx", "--atol", "5", "--strict", "-o", tmp_path / "bundle")
    line = refused(*words, code=3)
    assert line.startswith("pocketship: model.onnx: not proven: output 'output' ") and LINE in line
    assert line.endswith("; nothing was written; give inputs that move it (--data, the example), or leave out --strict")
    assert list(tmp_path.iterdir()) == []
