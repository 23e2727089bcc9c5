"""Accuracy of artifacts: what runs, in which order, when it stops, and the one line where it cannot."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from typer.testing import CliRunner

import exporter.cli
from benchmarks.agent.samples import batch_of, run_samples
from benchmarks.evaluate import (
    Answers,
    accuracy_of,
    answers,
    as_reference,
    evaluate,
    joined,
    judged,
    on_the_same,
    order_of,
)
from benchmarks.results.stats import wilson
from benchmarks.results.words import samples_of
from benchmarks.tasks import TASKS
from benchmarks.tasks.scores import accuracy, nearest_class_mean
from benchmarks.tasks.task import Split, Task
from runtimes import child
from runtimes.errors import BadInput, ParityFailed
from runtimes.signature import ExecutedBy, Signature, TensorSpec

MODELS = Path(__file__).resolve().parent.parent / "models.py"
WEIGHT = np.array([[1, -1], [0.5, 2], [-1, 1]], np.float32)


def classes_of(x: np.ndarray) -> np.ndarray:
    return (x @ WEIGHT).argmax(axis=1)


def task_of(tests: int, gallery: int = 0, name: str = "x", shape: tuple[int, ...] = (3,)) -> Task:
    """Labels are what WEIGHT says, but for each fifth test sample."""
    generator = np.random.default_rng(1)

    def split(count: int) -> Split:
        x = generator.standard_normal((count, *shape)).astype(np.float32)
        return Split({name: x}, classes_of(x.reshape(count, -1)[:, :3]))

    test = split(tests)
    test.labels[::5] = 1 - test.labels[::5]
    known = split(gallery) if gallery else None
    score = partial(nearest_class_mean if gallery else accuracy, ("a", "b"))
    return Task("mine", "", ("a", "b"), split(4), split(4), test, score, known)


@pytest.fixture
def onnx_file(tmp_path):
    """`y = x @ WEIGHT` as an ONNX file, for a batch of any length (a name) or a fixed one."""

    def write(batch: int | str, name: str = "linear.onnx", reshape: list[int] | None = None) -> str:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["product" if reshape else "y"])]
        weights = [helper.make_tensor("w", TensorProto.FLOAT, WEIGHT.shape, WEIGHT.ravel())]
        if reshape:
            nodes.append(helper.make_node("Reshape", ["product", "shape"], ["y"]))
            weights.append(helper.make_tensor("shape", TensorProto.INT64, [len(reshape)], reshape))
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, reshape or [batch, 2])],
            weights,
        )
        path = tmp_path / name
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return write


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_an_artifact_is_scored_over_the_whole_test_split(batch, onnx_file):
    seen = []
    found = evaluate(onnx_file(batch), task_of(10), progress=lambda *done: seen.append(done))
    assert (found.artifact, found.task, found.metric) == ("linear.onnx", "mine", "accuracy")
    assert (found.value, found.samples, found.of_samples, found.others) == (0.8, 10, 10, {})
    assert (found.low, found.high) == wilson(8, 10)
    assert (found.executed_by.runtime, found.executed_by.kind) == ("onnxruntime", "physical")
    assert all(0 <= done < total == 10 for done, total in seen)


@pytest.mark.parametrize("batch", ["n", 4])
def test_every_sample_gets_its_own_answer(batch, onnx_file):
    task = task_of(10)
    given = answers(onnx_file(batch), task)
    assert sorted(given.rows.tolist()) == list(range(10)) and given.rows.tolist() != list(range(10))
    assert given.outputs["y"] == pytest.approx(task.test.inputs["x"][given.rows] @ WEIGHT, abs=1e-6)
    assert as_reference(given, task)["y"] == pytest.approx(task.test.inputs["x"] @ WEIGHT, abs=1e-6)


def test_a_limit_takes_a_random_part_that_is_always_the_same(onnx_file):
    task, file = task_of(40), onnx_file("n")
    given = answers(file, task, limit=7)
    assert len(set(given.rows.tolist())) == 7 and given.rows.tolist() != list(range(7))
    assert given.rows.tolist() == answers(file, task, limit=7).rows.tolist()
    assert np.isnan(as_reference(given, task, limit=7)["y"]).any(axis=1).sum() == 33
    with pytest.raises(BadInput) as caught:
        as_reference(given, task)
    assert str(caught.value) == (
        "--reference: the reference did 7 of 40 samples in its time; give more --seconds, or a lower --limit"
    )
    found = evaluate(file, task, limit=7)
    assert (found.samples, found.of_samples) == (7, 40)


def test_a_gallery_is_run_too(onnx_file):
    task = task_of(8, gallery=12)
    given = answers(onnx_file(5), task)
    assert given.gallery_outputs["y"] == pytest.approx(task.gallery.inputs["x"][given.gallery_rows] @ WEIGHT, abs=1e-6)
    assert given.outputs["y"] == pytest.approx(task.test.inputs["x"][given.rows] @ WEIGHT, abs=1e-6)
    reference = {"y": (task.test.inputs["x"] @ WEIGHT) * 3}
    found = evaluate(onnx_file(5), task, reference=reference)
    assert found.metric == "nearest-class-mean accuracy"
    assert found.others == {"cosine": pytest.approx(1.0), "gallery samples": 12.0}


@pytest.mark.parametrize("galleries", [0, 3, 30])
def test_test_split_and_gallery_are_dealt_evenly(galleries):
    order = order_of(task_of(10, gallery=galleries))
    assert sorted(order.tolist()) == list(range(10 + galleries)) and order[0] < 10
    for count in range(2, len(order)):
        tests = (order[:count] < 10).sum()
        assert abs(tests / 10 - (count - tests) / max(1, galleries)) <= 1 / 10 + 1 / max(1, galleries) or not galleries


class Slow:
    """A session that takes a second a run, by the clock that it is."""

    def __init__(self, batch: int | str, outputs: int = 2) -> None:
        self.now = 0.0
        spec = TensorSpec("x", "float32", (batch, 3))
        self.signature = Signature((spec,), (TensorSpec("y", "float32", (batch, outputs)),))
        self.executed_by = ExecutedBy("slow", "1", "emulated")

    def monotonic(self) -> float:
        return self.now

    def run(self, inputs):
        self.now += 1.0
        return {"y": inputs["x"] @ WEIGHT, "total": inputs["x"].sum()}

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("batch", "seconds", "done"), [("n", 3.5, 4), (2, 3.5, 8), (1, 100, 10), (3, 100, 10), (1, 0.1, 1)]
)
def test_it_stops_when_the_time_is_up(batch, seconds, done):
    slow = Slow(batch)
    x = task_of(10).test.inputs["x"]
    found = list(run_samples(slow, {"x": x}, seconds=seconds, clock=slow.monotonic))
    assert all(list(outputs) == ["y"] for _, outputs in found), "an output without a row a sample tells nothing"
    assert joined([outputs for _, outputs in found])["y"] == pytest.approx(x[:done] @ WEIGHT)
    assert [start for start, _ in found] == list(range(0, done, batch if isinstance(batch, int) else 1))


def test_one_of_test_split_and_gallery_is_always_done():
    slow = Slow("n")
    x = task_of(10).test.inputs["x"]
    assert len(list(run_samples(slow, {"x": x}, seconds=0.1, at_least=2, clock=slow.monotonic))) == 2


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            task_of(4, shape=(5,)),
            "linear.onnx on mine: x: input has shape [1, 5], the artifact takes ['n', 3]; give the task",
        ),
        (
            Task("two", "", ("a", "b"), *[Split({"a": np.ones((2, 3)), "b": np.ones((2, 3))})] * 3, score=accuracy),
            "linear.onnx on two: the task has the inputs a, b, the model takes x; give the task that",
        ),
        (
            Task("words", "", ("a", "b"), *[Split({"x": np.ones((2, 3), np.int64)})] * 3, score=accuracy),
            "linear.onnx on words: x: input is int64, the artifact takes float32; give the task",
        ),
        (
            Task("many", "", ("a", "b", "c"), *[task_of(4).test] * 3, score=partial(accuracy, ("a", "b", "c"))),
            "many: the task has 3 classes, and no output of the model has as many columns (y [2] a sample)",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
def test_a_task_of_another_model(task, message, onnx_file):
    with pytest.raises(BadInput) as caught:
        evaluate(onnx_file("n"), task)
    assert str(caught.value).startswith(message)


def test_an_output_without_a_row_a_sample(onnx_file):
    with pytest.raises(BadInput, match=r"no output has a row a sample \(y \[8\]\); export the model with a batch axis"):
        evaluate(onnx_file(4, reshape=[8]), task_of(4))


def test_inputs_without_a_common_batch():
    session = Slow(1)
    session.signature = Signature((TensorSpec("a", "float32", (1, 3)), TensorSpec("b", "float32", (2, 3))), ())
    with pytest.raises(
        BadInput, match=r"its inputs have no common batch axis \(a \[1, 3\], b \[2, 3\]\); export it with one"
    ):
        batch_of(session.signature)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "--limit: 0 is too little; give more than 0"),
        ({"seconds": -1.5}, "--seconds: -1.5 is too little"),
        ({"seconds": float("nan")}, "--seconds: nan is too little"),
    ],
)
def test_options_out_of_range(options, message, onnx_file):
    with pytest.raises(BadInput, match=message):
        evaluate(onnx_file("n"), task_of(4), **options)


def test_a_runtime_that_crashes(onnx_file, monkeypatch):
    monkeypatch.setattr(child, "call", lambda *words, **options: child.Crashed("crashed with SIGSEGV", ""))
    with pytest.raises(ParityFailed) as caught:
        evaluate(onnx_file("n"), task_of(4))
    assert str(caught.value) == (
        "linear.onnx: the runtime crashed with SIGSEGV; pocketship verify its bundle, or export it again"
    )


def test_an_artifact_that_is_missing(tmp_path):
    with pytest.raises(BadInput, match=r"no\.onnx: no such artifact; check the path"):
        evaluate(tmp_path / "no.onnx", task_of(4))


# --- The command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A task as a folder of arrays: inputs `x` of 3 numbers, unless given, and labels by WEIGHT, unless given."""

    def write(width: int = 3, classes: str = "ab", label=classes_of) -> str:
        generator = np.random.default_rng(3)
        place = tmp_path / "task"
        place.mkdir()
        for split, count in (("train", 5), ("calibration", 5), ("test", 11)):
            x = generator.standard_normal((count, width)).astype(np.float32)
            np.savez(place / f"{split}.npz", x=x, labels=label(x), classes=list(classes))
        return str(place)

    return write


def command(*words: object):
    return CliRunner().invoke(exporter.cli.app, list(map(str, words)), env={"COLUMNS": "300"})


def mlp_classes(x: np.ndarray) -> np.ndarray:
    """What the exported module of tests/models.py computes in PyTorch."""
    spec = importlib.util.spec_from_file_location("models_of_the_tests", MODELS)
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    torch.manual_seed(0)
    with torch.no_grad():
        return models.mlp()[0](torch.from_numpy(x)).argmax(1).numpy()


def test_every_artifact_of_a_bundle_is_as_good_as_pytorch(exported, folder):
    """A bundle of batch 2, eleven samples: the last batch is half a batch."""
    bundle = exported("mlp")
    data = folder(8, "abcd", mlp_classes)
    done = command("eval", bundle, "--data", data, "--json", "--reference", bundle / "model.onnx")
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert [e["artifact"] for e in found] == [str(bundle / f"model.{s}") for s in ("onnx", "tflite", "mlpackage")]
    for entry in found:
        assert (entry["value"], entry["samples"], entry["of_samples"]) == (1.0, 11, 11)
        assert entry["others"] == {"cosine": pytest.approx(1.0), "agreement": 1.0}


def test_the_table(onnx_file, folder):
    file = onnx_file("n")
    done = command("eval", file, "--data", folder(), "--limit", 3)
    assert done.exit_code == 0, done.exception
    head, row, note, *_ = done.stdout.splitlines()
    assert re.split(r"  +", head.strip()) == ["file", "metric", "value", "95% interval", "samples", "computed by"]
    assert re.split(r"  +", row)[1:5] == ["accuracy", "100.00%", "43.85% to 100.00%", "3 of 11"]
    assert note.startswith(f"{file}: only 3 of 11 samples, drawn at random")


def test_figures_that_are_no_number_are_null(onnx_file, folder, monkeypatch):
    monkeypatch.setattr("benchmarks.tasks.scores.faithfulness", lambda *words: {"cosine": float("nan")})
    file = onnx_file("n")
    done = command("eval", file, "--data", folder(), "--json", "--reference", file)
    assert json.loads(done.stdout)[0]["others"] == {"cosine": None}


def test_one_artifact_s_fault_does_not_lose_the_others(onnx_file, folder, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    done = command("eval", broken, onnx_file("n"), "--data", folder(), "--json")
    assert [entry["value"] for entry in json.loads(done.stdout)] == [1.0]
    assert isinstance(done.exception, BadInput) and "onnxruntime cannot load it" in str(done.exception)


def test_several_faults_in_one_line(folder, tmp_path):
    files = [tmp_path / f"{i}.onnx" for i in range(2)]
    for file in files:
        file.write_bytes(b"no model")
    done = command("eval", *files, "--data", folder())
    assert isinstance(done.exception, BadInput) and str(done.exception).count("onnxruntime cannot load it") == 2


def test_a_bundle_that_was_changed_is_not_measured(exported, copy_of, folder):
    bundle = copy_of(exported("mlp"))
    with open(bundle / "model.onnx", "ab") as file:
        file.write(b"!")
    done = command("eval", bundle, "--data", folder(8, "abcd", mlp_classes))
    assert isinstance(done.exception, ParityFailed)
    assert re.search(
        r"model\.onnx: has \d+ bytes, the manifest says \d+; do not ship it, export it again", str(done.exception)
    )


def test_paths_that_are_no_artifact(tmp_path, folder):
    data = folder()
    (tmp_path / "a.txt").write_text("")
    for path, message in (
        ("no", "no: no such bundle or artifact; check the path"),
        ("a.txt", "no runtime for a file ending"),
    ):
        done = command("eval", tmp_path / path, "--data", data)
        assert isinstance(done.exception, BadInput) and message in str(done.exception)


def test_an_unknown_task_is_one_line_and_exit_code_2(refused, onnx_file):
    assert refused("eval", onnx_file("n"), "--data", "digit") == (
        "pocketship: digit: no such task, folder or file; did you mean digits?"
    )


def test_the_list_of_tasks():
    done = command("tasks")
    *lines, following = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *TASKS] and following.startswith("next, score a bundle")
    assert json.loads(command("tasks", "--json").stdout)["faces"]["models"] == ["rnet"]


# --- Two artifacts beside each other -------------------------------------------------------------------------------


def test_two_artifacts_are_scored_on_the_samples_that_both_had_time_for():
    """The quick one is right on the first two samples only, the slow one had time for no others: they are equals."""
    labels = np.array([0, 1, 0, 1])
    split = Split({"x": np.arange(4.0, dtype=np.float32)[:, None]}, labels)
    task = Task("t", "", ("a", "b"), split, split, split, partial(accuracy, ("a", "b")))
    by = ExecutedBy("onnxruntime", "1", "physical")
    right, none = np.eye(2, dtype=np.float32), np.array([], np.int64)

    def given(rows: list[int], says: list[int]) -> Answers:
        return Answers(np.array(rows), {"y": right[says]}, none, {"y": right[:0]}, by)

    quick, slow = given([2, 1, 0, 3], [0, 1, 1, 0]), given([2, 1], [0, 1])
    assert judged("quick", task, quick).value == 0.5
    scored = [accuracy_of(judged("m", task, each)) for each in on_the_same([quick, slow])]
    assert [a.value for a in scored] == [1.0, 1.0]
    assert [(a.samples, a.of_samples) for a in scored] == [(2, 4), (2, 4)]
    assert samples_of(scored[0]) == "n=2 of 4: cut short"
    assert samples_of(accuracy_of(judged("quick", task, quick))) == "n=4"
