"""The gate itself: what it runs, with which limits, and what it makes of each outcome."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from runtimes import child, parity
from runtimes.compare import RELATIVE_TOLERANCE, Limits
from runtimes.errors import BadInput, NotInstalled, ParityFailed
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.signature import ExecutedBy, Signature, TensorSpec
from runtimes.types import Parity

SIGNATURE = Signature((TensorSpec("x", "float32", ("batch",)),), (TensorSpec("y", "float32", (2,)),))
PARITY = Parity(0.0, 0.0, 1.0, None, 1.0, 1e-4, 2, ExecutedBy("onnxruntime", "1", "physical"), "pass")


@pytest.fixture
def artifact(tmp_path) -> Path:
    """A file that no runtime will see, beside golden values."""
    x, y = np.zeros(3, "float32"), np.zeros(2, "float32")
    write_golden(Golden(({"x": x}, {"x": x + 1}), ({"y": y}, {"y": y + 1})), tmp_path / "golden.npz")
    (tmp_path / "model.onnx").write_bytes(bytes(1000))
    return tmp_path / "model.onnx"


@pytest.fixture
def calls(monkeypatch):
    """Child calls are noted instead of made, and end with `calls.outcome`."""

    class Calls(list):
        outcome: child.Outcome = child.Completed({"signature": asdict(SIGNATURE), "parity": asdict(PARITY)})

        def take(self, function, job, **options):
            self.append((function, job, options))
            return self.outcome

    noted = Calls()
    monkeypatch.setattr(child, "call", noted.take)
    return noted


def prove(artifact: Path, **options):
    return parity.prove(artifact, artifact.parent / "golden.npz", **options)


def as_lists(value):
    """What JSON makes of tuples."""
    if isinstance(value, dict):
        return {k: as_lists(v) for k, v in value.items()}
    return [as_lists(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_signature_and_parity_come_back_as_values(artifact, calls):
    calls.outcome = child.Completed(as_lists(calls.outcome.value))
    assert prove(artifact) == (SIGNATURE, PARITY)


@pytest.mark.parametrize("compute", RELATIVE_TOLERANCE)
def test_the_tolerance_is_that_of_the_arithmetic(artifact, calls, compute):
    calls.outcome = child.Completed(as_lists(calls.outcome.value))
    prove(artifact, limits=Limits(RELATIVE_TOLERANCE[compute], 0.25, {"y": 0.5}))
    ((function, job, options),) = calls
    assert function == "runtimes.parity:run_and_compare"
    assert job["limits"] == {"rtol": RELATIVE_TOLERANCE[compute], "atol": 0.25, "noise": {"y": 0.5}}
    assert options["timeout_s"] == parity.TIMEOUT_S


def test_memory_grows_with_the_artifact_unless_it_is_given(artifact, calls, tmp_path):
    calls.outcome = child.Completed(as_lists(calls.outcome.value))
    prove(artifact)
    prove(artifact, memory_limit_bytes=7)
    assert [options["memory_limit_bytes"] for _, _, options in calls] == [parity.MEMORY_FLOOR_BYTES + 12 * 1000, 7]


def test_size_of_a_file_and_of_a_package(tmp_path):
    (tmp_path / "p" / "sub").mkdir(parents=True)
    (tmp_path / "p" / "a").write_bytes(b"abc")
    (tmp_path / "p" / "sub" / "b").write_bytes(b"de")
    assert (parity.size_bytes(tmp_path / "p" / "a"), parity.size_bytes(tmp_path / "p")) == (3, 5)


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (child.Crashed("crashed with SIGSEGV", "tail"), "the runtime crashed with SIGSEGV"),
        (child.TimedOut(600.0), "the runtime did not end within 600 s and was killed"),
        (child.OutOfMemory(2**30), "the runtime needed more than the 1024 MiB of memory it may have"),
        (child.Refused(BadInput("cannot load it", where="/tmp/secret/model.onnx")), "cannot load it"),
        (child.Refused(ParityFailed("a value is NaN")), "a value is NaN"),
    ],
)
def test_whatever_is_no_comparison_is_a_failed_gate_that_names_the_artifact(artifact, calls, outcome, says):
    calls.outcome = outcome
    with pytest.raises(ParityFailed) as caught:
        prove(artifact)
    assert str(caught.value) == f"model.onnx: {says}; the artifact is refused"
    assert caught.value.exit_code == 3


def test_a_runtime_that_is_not_installed_is_no_fault_of_the_artifact(artifact, calls):
    missing = NotInstalled("onnxruntime is not installed", remedy="pip install it")
    calls.outcome = child.Refused(missing)
    with pytest.raises(NotInstalled) as caught:
        prove(artifact)
    assert caught.value is missing


def test_golden_values_that_cannot_be_read_are_refused_before_anything_runs(artifact, calls):
    (artifact.parent / "golden.npz").write_bytes(b"")
    with pytest.raises(BadInput, match="cannot read the golden values"):
        prove(artifact)
    assert calls == []


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.mlpackage"])
def test_the_childs_side_compares_all_samples(exported, name, tmp_path):
    bundle = exported("two_inputs")
    golden = read_golden(bundle / "golden.npz")  # on some processors this model is computed to the last bit
    off = tuple({key: value + np.float32(1e-6) for key, value in outputs.items()} for outputs in golden.outputs)
    write_golden(Golden(golden.inputs, off), tmp_path / "golden.npz")
    job = {
        "artifact": str(bundle / name),
        "golden": str(tmp_path / "golden.npz"),
        "limits": {"rtol": 1e-4, "atol": None, "noise": {}},
    }
    value = parity.run_and_compare(job, lambda event: None)
    assert value["parity"]["verdict"] == "pass"
    assert value["parity"]["samples"] == 8
    assert value["parity"]["sensitivity"] > 0.1
    assert {spec["name"] for spec in value["signature"]["inputs"]} == {"a", "b"}
    value = parity.run_and_compare({**job, "limits": {"rtol": 0.0, "atol": 1e-12, "noise": {}}}, lambda event: None)
    assert value["parity"]["verdict"] == "fail", "and with no tolerance a millionth fails"
