"""Latency for the ledger: real artifacts, timed in turns by the agent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.agent.loop import LEAST_ROUNDS
from benchmarks.measure import NotTimed, Timed, measure, speedup
from runtimes.errors import BadInput, PocketshipError
from runtimes.golden import Golden, write_golden


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Products with matrices of 700 x 16 and 700 x 700, and golden inputs for them, made without the exporter."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("artifacts")

    def write(name: str, width: int) -> Path:
        weight = onnx.numpy_helper.from_array(np.ones((700, width), np.float32), "w")
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 700])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, width])
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        opset = helper.make_opsetid("", 20)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / name)
        return folder / name

    paths = {"small": write("small.onnx", 16), "large": write("large.onnx", 700)}
    inputs = {"x": np.ones((16, 700), np.float32)}
    write_golden(Golden((inputs,), ({"y": np.ones(1, np.float32)},)), folder / "golden.npz")
    return paths, folder / "golden.npz"


def test_real_artifacts_in_a_child(artifacts):
    (small, large), golden = artifacts[0].values(), artifacts[1]
    rounds: list[tuple[int, int]] = []
    slow, fast = measure([large, small], golden, seconds=0.2, on_round=lambda *r: rounds.append(r))
    assert isinstance(slow, Timed) and isinstance(fast, Timed)
    assert (slow.path, fast.path) == (str(large), str(small))
    assert slow.threads == 1 and slow.median_ns > 2 * fast.median_ns
    assert slow.samples.load_cold_ns > 0 and len(slow.samples.warmup_ns) >= 3
    assert len(slow.samples.blocks) == len(fast.samples.blocks) == rounds[-1][0] >= LEAST_ROUNDS
    assert speedup(slow, fast).low > 2.0


def test_the_same_real_artifact_twice(artifacts):
    twins = measure([artifacts[0]["large"]] * 2, artifacts[1], seconds=0.3, seed=1)
    ratio = speedup(*twins)
    assert ratio.low < 1.05 and ratio.high > 0.95, "nothing is said to be faster than itself"


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML can be timed here")
def test_core_ml_is_never_timed_off_macos(artifacts, tmp_path):
    package = tmp_path / "model.mlpackage"  # not even opened
    small = artifacts[0]["small"]
    refused, timed = measure([package, small], artifacts[1], seconds=0.05)
    assert refused == NotTimed(str(package), "not measured here (off-device)")
    assert isinstance(timed, Timed) and timed.path == str(small)
    assert measure([package], artifacts[1]) == (refused,)


def test_an_artifact_that_crashes_is_named(artifacts, tmp_path, monkeypatch):
    """A runtime that dies under the second artifact: numpy, which it needs, is replaced by what kills the process."""
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(PocketshipError, match=r"large\.onnx: crashed with SIGSEGV while it was timed"):
        measure([artifacts[0]["large"]], artifacts[1])


def test_an_artifact_that_is_none_is_refused(artifacts, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"broken\.onnx: .*onnxruntime cannot load it.* while it was timed"):
        measure([broken], artifacts[1])


def test_an_artifact_that_cannot_be_run_is_refused_as_ever(artifacts, tmp_path):
    with pytest.raises(BadInput, match="no such artifact"):
        measure([tmp_path / "gone.onnx"], artifacts[1])
