"""A real browser, end to end: Chromium runs real models, and what it tells is what the models compute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.agent import loop
from benchmarks.devices.browser import device as browser
from benchmarks.devices.browser import files as browser_files
from benchmarks.job import JobArtifact
from tests.benchmarks.devices.browser.browsing import PAGE, arrays, assert_parity, new_bench

rig = pytest.mark.browser


@pytest.fixture
def bench():
    return new_bench()


BOUNDARY = Path(__file__).with_name("boundary.py")


def onnx_file(path: Path, graph: onnx.GraphProto) -> Path:
    path.write_bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    return path


def number(name: str, kind: int = TensorProto.FLOAT, shape: tuple[int, ...] | None = (1,)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def endless(path: Path) -> Path:
    """A model whose loop has no end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [number("i", TensorProto.INT64, ()), number("go", TensorProto.BOOL, ()), number("v")],
        [number("on", TensorProto.BOOL, ()), number("w")],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    node = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    return onnx_file(path, helper.make_graph([node], "endless", [number("x")], [number("y")], [true]))


def divided_by_zero(path: Path) -> Path:
    """A model that loads and cannot compute."""
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["x", "zero"], ["y"])]
    ends = number("x", TensorProto.INT32), number("y", TensorProto.INT32)
    return onnx_file(path, helper.make_graph(nodes, "division", [ends[0]], [ends[1]]))


def too_large(path: Path) -> Path:
    """A model of a few bytes that wants nearly all of the 4 GiB that WebAssembly has."""
    shape = numpy_helper.from_array(np.array([32760, 32760], np.int64), "shape")
    nodes = [helper.make_node("Expand", ["x", "shape"], ["z"]), helper.make_node("ReduceSum", ["z"], ["y"])]
    return onnx_file(path, helper.make_graph(nodes, "large", [number("x")], [number("y", shape=None)], [shape]))


# --- models that run -----------------------------------------------------------------------------------------------


@rig
def test_real_models_run_with_parity_and_their_results_are_whole(bench, exported):
    bundles = [exported(name, "onnx,tflite") for name in ("mlp", "transformer", "two_inputs")]
    for bundle in bundles:
        bench.add_bundle(bundle)
    bench.run(bench.job())
    cases = range(6)
    assert bench.of("failed") == []
    for case in cases:
        assert_parity(bench, case, bundles[case // 2] / "golden.npz")
        (loaded,) = bench.of("loaded", case)
        assert loaded["runtime"] == ("onnxruntime-web", "LiteRT.js")[case % 2] and loaded["inputs"] == "golden"
        assert min(loaded[k] for k in ("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns")) > 0
        assert any("the browser's clock has steps of" in note for note in loaded["notes"])
        assert len(bench.of("block", case)) >= loop.LEAST_ROUNDS
        (memory,) = bench.of("memory", case)
        assert memory["steady_bytes"] >= memory["baseline_bytes"] >= 2**20
        assert bench.of("energy", case)[0]["inferences"] == sum(b["runs"] for b in bench.of("block", case))
    told = [event for event in bench.events if event["event"] != "notice"]
    assert told[0]["event"] == "device" and told[-1] == {"event": "end"}
    facts = told[0]["facts"]
    assert (facts["executed"], facts["family"], facts["emulator"]) == ("browser", "desktop", "")
    assert facts["cores"] == os.cpu_count() and facts["cpu"] and facts["model"].startswith("Chrom")
    assert facts["software"]["cross-origin isolated"] == "yes"


@rig
def test_cases_take_turns_in_an_order_of_each_round(bench, exported):
    bundle = exported("mlp", "onnx,tflite")
    bench.add_bundle(bundle, "onnx", "onnx", "onnx")
    bench.run(bench.job())
    order = [event["case"] for event in bench.of("block")]
    rounds = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert all(sorted(turn) == [0, 1, 2] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1
    starts = [event["at_ns"] for event in bench.of("block")]
    assert starts == sorted(starts)


@rig
def test_short_inferences_are_timed_in_groups_and_the_notes_say_so(bench, exported):
    bench.add_bundle(exported("mlp", "onnx,tflite"), "onnx")
    bench.run(bench.job())
    blocks = bench.of("block")
    assert all(block["runs"] % len(block["times_ns"]) == 0 for block in blocks)
    assert all(block["runs"] // len(block["times_ns"]) > 1 for block in blocks), "an MLP is too quick for the clock"
    assert "a time is the mean of so many inferences in a row" in " ".join(bench.of("loaded")[0]["notes"])


@rig
def test_several_threads_and_several_processes(bench, exported):
    bundle = exported("cnn", "onnx,tflite")
    bench.add_bundle(bundle)
    bench.run(bench.job(threads=(1, 2), processes=2))
    assert bench.of("failed") == []
    for case in range(4):
        assert_parity(bench, case, bundle / "golden.npz")
        assert {block["process"] for block in bench.of("block", case)} == {0, 1}
        assert len(bench.of("loaded", case)) == len(bench.of("warm", case)) == 2


@rig
def test_a_task_s_samples_are_computed_here(bench, exported, tmp_path):
    bundle = exported("mlp", "onnx,tflite")  # it takes two samples at once: the last batch is filled up
    samples = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", anything=samples)
    bench.add_bundle(bundle, data=tmp_path / "data.npz")
    bench.run(bench.job())
    from runtimes.session import open_session

    for case, kind in enumerate(("onnx", "tflite")):
        session = open_session(bundle / f"model.{kind}")
        (spec,) = session.signature.inputs
        padded = np.concatenate([samples, samples[-1:]]).reshape(3, 2, 8)
        expected = np.concatenate([session.run({spec.name: part})["output"] for part in padded])[:5]
        events = [event for event in bench.of("outputs", case) if event["of"] == "data"]
        assert [(event["row"], event["rows"]) for event in events] == [(0, 2), (2, 2), (4, 1)]
        found = np.concatenate([arrays(event)["output"] for event in events])
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@rig
def test_sustained_each_case_runs_alone(bench, exported):
    bench.add_bundle(exported("cnn", "onnx,tflite"))
    bench.run(bench.job(sustained_s=2.5))
    order = [event["case"] for event in bench.of("block")]
    assert order == sorted(order) and order.count(0) >= 2 and order.count(1) >= 2
    assert all(len(block["times_ns"]) <= loop.MOST_RUNS_A_BLOCK for block in bench.of("block"))
    assert all(block["runs"] >= len(block["times_ns"]) for block in bench.of("block"))


@rig
def test_without_golden_values_inputs_are_random(bench, exported):
    bundle = exported("transformer", "onnx,tflite")
    for kind in ("onnx", "tflite"):
        bench.add(bundle / f"model.{kind}")
    bench.run(bench.job())
    assert [event["inputs"] for event in bench.of("loaded")] == ["random", "random"]
    assert bench.of("outputs") == bench.of("failed") == []


# --- models that do not --------------------------------------------------------------------------------------------


@rig
def test_a_model_that_fails_is_an_event_and_the_others_go_on(bench, exported, pocketship, tmp_path):
    done = pocketship("export", f"{BOUNDARY}:int8_output", "--target", "tflite", "-o", tmp_path / "b", "--quiet")
    assert done.returncode == 0, done.stderr
    (tmp_path / "garbage.onnx").write_bytes(b"garbage" * 100)
    (tmp_path / "garbage.tflite").write_bytes(b"garbage" * 100)
    bench.add(tmp_path / "b" / "model.tflite", tmp_path / "b" / "golden.npz")
    bench.add(tmp_path / "garbage.onnx")
    bench.add(tmp_path / "garbage.tflite")
    bench.add(endless(tmp_path / "endless.onnx"))
    bench.add(divided_by_zero(tmp_path / "zero.onnx"))
    bench.add(too_large(tmp_path / "large.onnx"))
    (tmp_path / "package.mlpackage").write_bytes(b"")
    bench.add(tmp_path / "package.mlpackage")
    bench.add_bundle(exported("cnn", "onnx,tflite"))
    bench.artifacts[6] = JobArtifact("package", "coreml", bench.artifacts[6].file, 1, "0" * 64)
    bench.run(bench.job(timeout_s=6.0))
    wanted = [
        ("refused", "int32 and uint8 only, and this model's inputs or outputs are INT8; export it with float"),
        ("refused", "Can't create a session"),
        ("refused", "Failed to load model from buffer"),
        ("timed-out", "gave no answer within 6 s and was ended"),
        ("crashed", "Integer division by zero"),
        ("out-of-memory", ""),
        ("refused", "a browser has no runtime for coreml files"),
    ]
    for case, (cause, words) in enumerate(wanted):
        (failed,) = bench.of("failed", case)
        assert failed["cause"] == cause and words in failed["detail"], failed
    for case in (7, 8):
        assert bench.of("failed", case) == []
        assert len(bench.of("block", case)) >= loop.LEAST_ROUNDS


@rig
def test_a_worker_that_dies_is_a_crash(bench, exported, tmp_path, monkeypatch):
    """The runtime's script replaced by one whose WebAssembly executes `unreachable`."""
    dist = Path(shutil.copytree(PAGE / "dist", tmp_path / "dist"))
    trap = "0,97,115,109,1,0,0,0,1,4,1,96,0,0,3,2,1,0,8,1,0,10,5,1,3,0,0,11"
    code = f"onmessage = () => new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([{trap}])))"
    (dist / "worker_onnx.js").write_text(code)
    monkeypatch.setattr(browser, "page_routes", lambda: browser_files.page_routes(dist))
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    bench.run(bench.job())
    (failed,) = bench.of("failed")
    assert (failed["case"], failed["cause"]) == (0, "crashed") and "unreachable" in failed["detail"]
    assert bench.of("block", 1)


@rig
def test_a_fixed_batch_is_no_other(bench, exported):
    bench.add_bundle(exported("cnn", "onnx,tflite"), "onnx")
    bench.run(bench.job(batch=4))
    (failed,) = bench.of("failed")
    assert failed["cause"] == "refused"
    assert failed["detail"].endswith("not 4 samples at once; export it with --dynamic image:0")


# --- the rules of measuring ----------------------------------------------------------------------------------------


@rig
def test_the_page_measures_by_the_rules_of_the_agent(bench, tmp_path):
    """The TypeScript of rules.ts and the Python of loop.py, on the same numbers."""
    generator = np.random.default_rng(0)
    series = [[int(v) for v in generator.lognormal(12, 0.3, n)] for n in (1, 2, 3, 25, 26, 100)]
    windows = [[100, 104, 105], [100, 100, 106], [1, 100, 101, 102], [100, 100]]
    script = tmp_path / "rules.mjs"
    subprocess.run(
        [PAGE / "node_modules/.bin/esbuild", PAGE / "src/rules.ts", "--format=esm", f"--outfile={script}"],
        check=True,
        capture_output=True,
    )
    asked = f"""
        import * as rules from {json.dumps(script.as_uri())};
        const [series, windows] = {json.dumps([series, windows])};
        console.log(JSON.stringify({{
            half_width: series.map(rules.halfWidth),
            block: series.map((times) => rules.timesABlock(times, 2, 1)),
            grouped: series.map((times) => rules.timesABlock(times, 2, 10)),
            stable: windows.map(rules.isStable),
            group: [[50, 5e3], [500000, 5e3], [499999, 5e3], [1e9, 1]].map(([run, step]) => rules.runsATime(run, step)),
            p90: series.map((times) => rules.quantile(times, 0.9)),
        }}));
    """
    (tmp_path / "ask.mjs").write_text(asked)
    told = json.loads(subprocess.run(["node", tmp_path / "ask.mjs"], check=True, capture_output=True, text=True).stdout)
    assert told["half_width"] == pytest.approx([loop.half_width(times) for times in series])
    assert told["block"] == [loop.runs_a_block(times, 2) for times in series]
    assert told["grouped"] == pytest.approx([max(1, loop.runs_a_block(times, 2) / 10) for times in series], abs=0.6)
    assert told["stable"] == [True, False, True, False]
    assert told["group"] == [10_000, 1, 2, 1]
    assert told["p90"] == pytest.approx([float(np.quantile(times, 0.9)) for times in series])
