"""The comparison of compression with peers: what is reached and what is not, by hand; the peers' scripts are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.evaluate import Evaluation
from benchmarks.peers import compress
from benchmarks.peers.compress import FP32, MODELS, PEERS, Entry, Row, figures, print_rows
from benchmarks.results.stats import Estimate
from benchmarks.tasks import TASKS, load_task
from runtimes.errors import PocketshipError
from runtimes.signature import ExecutedBy

BY = ExecutedBy("onnxruntime", "1.0", "physical")


def row(who: str, size_bytes: int, value: float, speed: float | None = None, samples: int = 100) -> Row:
    found = Evaluation("f", "digits", "accuracy", value, value - 0.01, value + 0.01, samples, 100, {}, BY)
    ratio = Estimate(speed, speed - 0.1, speed + 0.1) if speed else None
    return Row(Entry(who, "onnx", Path("f")), size_bytes, found, None, ratio)


def test_each_figure_says_whether_it_is_reached():
    rows = [row(FP32, 1000, 0.99), row("pocketship int8", 250, 0.98, 2.5), row("pocketship ternary", 120, 0.98)]
    lines = {line.figure: line for line in figures(MODELS["digits"], rows)}
    assert (lines["onnx: int8 smaller"].value, lines["onnx: int8 smaller"].reached) == (4.0, True)
    assert lines["onnx: int8 points lost"].value == pytest.approx(1.0) and not lines["onnx: int8 points lost"].reached
    assert lines["onnx: int8 speed-up"].reached and lines["onnx: int8 speed-up"].limit == 2.0
    assert lines["onnx: ternary smaller"].value == pytest.approx(8.33, abs=0.01)
    assert not lines["onnx: ternary smaller"].reached and lines["onnx: ternary points lost"].reached


def test_accuracies_on_other_samples_are_not_compared():
    rows = [row(FP32, 1000, 0.99), row("pocketship int8", 250, 0.90, samples=50), row("Olive, dynamic int8", 300, 0.99)]
    found = [line.figure for line in figures(MODELS["digits"], rows)]
    assert found == ["onnx: int8 smaller"]


def test_only_digits_has_a_limit_for_what_ternary_weights_lose():
    rows = [row(FP32, 1000, 0.99), row("pocketship ternary", 90, 0.90)]
    assert [line.figure for line in figures(MODELS["minilm"], rows)] == ["onnx: ternary smaller"]


def test_a_pruned_model_must_be_faster():
    lines = figures(MODELS["digits"], [row(FP32, 1000, 0.99), row("pocketship half the FLOPs", 500, 0.98, 1.5)])
    (line,) = [line for line in lines if "half the FLOPs" in line.figure]
    assert (line.value, line.limit, line.reached) == (1.5, 1.6, False)


def test_a_cnn_must_only_not_be_slower():
    rows = [row(FP32, 1000, 0.99), row("pocketship int8", 250, 0.99, 1.0)]
    (line,) = [line for line in figures(MODELS["rnet"], rows) if "speed" in line.figure]
    assert (line.limit, line.reached) == (1.0, True)


def test_only_rows_of_equal_accuracy_are_held_against_each_other():
    rows = [row(FP32, 1000, 0.99), row("pocketship int8", 300, 0.99), row("pocketship ternary", 100, 0.50)]
    rows += [row("optimum, dynamic int8", 290, 0.99), row("Olive, dynamic int8", 50, 0.60)]
    (line,) = [line for line in figures(MODELS["digits"], rows) if "smallest" in line.figure]
    assert line.value == pytest.approx(300 / 290) and not line.reached


def test_what_gave_no_file_is_printed_with_its_cause(capsys):
    print_rows([row(FP32, 1000, 0.99)], [Entry("Olive, dynamic int8", "onnx", None, "olive is not installed")])
    assert "No file of Olive, dynamic int8 (onnx): olive is not installed" in capsys.readouterr().out


def test_a_peer_s_file_that_does_not_run_is_named_and_ours_of_fp32_must_run(tmp_path):
    broken, task = tmp_path / "model.onnx", load_task("italypower")
    broken.write_bytes(b"no model")
    failed = compress.evaluation(Entry("a peer", "onnx", broken), task, {})
    assert (
        isinstance(failed, Entry) and (failed.who, failed.path) == ("a peer", None) and "model.onnx" in failed.failure
    )
    with pytest.raises(PocketshipError, match=r"/model\.onnx: onnxruntime cannot load it: .*INVALID_PROTOBUF"):
        compress.evaluation(Entry(FP32, "onnx", broken), task, {})


def test_every_model_has_its_task_and_every_peer_its_script():
    assert {model.task for model in MODELS.values()} <= set(TASKS)
    scripts = Path(compress.__file__).parent / "bare"
    assert all((scripts / f"{one.script}.py").is_file() for one in PEERS)
