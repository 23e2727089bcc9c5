"""The suite: what it exports, measures, skips and keeps when it is started again, and what it says of what failed."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.bench import Board, Done, Plan, bench_artifacts
from benchmarks.devices import Interrupted, Options
from benchmarks.results.history import select
from benchmarks.results.result import Failure, read_results, results_to_json
from exporter.commands.suite import app
from exporter.search.suite import (
    RECIPES,
    USUAL_RECIPES,
    Hooks,
    Outcome,
    Problem,
    Suite,
    chosen,
    raise_problems,
    run_suite,
)
from runtimes.errors import BadInput, ParityFailed, UnsupportedOperation
from runtimes.kernels import KernelTruth

SYNTHETIC = Path(__file__).resolve().parents[2] / "benchmarks" / "synthetic.py"
spec = importlib.util.spec_from_file_location("synthetic_results", SYNTHETIC)
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)


class World:
    """Exports that copy one bundle, and a device that answers at once; both keep what they were asked."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.exports: list[tuple[str, str | None]] = []
        self.targets: tuple[str, ...] = ()
        self.measured: list[tuple[str, str, tuple[int, ...]]] = []
        self.refuses: set[tuple[str, str | None]] = set()
        self.failures: dict[str, Failure] = {}
        self.error: Exception | None = None
        self.lines: list[str] = []
        self.done = 0

    def export(self, model, targets, output, *, quantize, measure, force):
        assert measure is False and force is True
        self.exports.append((model, quantize))
        self.targets = targets
        if (model, quantize) in self.refuses:
            raise UnsupportedOperation("aten.foo is not supported", where=model)
        shutil.copytree(self.bundle, output, dirs_exist_ok=True)

    def bench(self, artifacts, boards, on_event, on_done):
        (board,) = boards
        results = []
        for artifact in artifacts:
            facts = artifact.facts
            self.measured.append((facts.bundle, facts.format, board.plan.threads))
            for threads in board.plan.threads:
                settings = synthetic.settings_of(threads, seconds=board.plan.seconds, processes=board.plan.processes)
                self.done += 1
                one = synthetic.result(format=facts.format, settings=settings, id=f"r{self.done}", target=board.target)
                accuracy = one.accuracy if board.plan.task else None
                one = replace(one, artifact=facts, accuracy=accuracy, kernels=None)
                failure = self.failures.get(facts.format)
                results.append(replace(one, failure=failure) if failure else one)
        done = Done(board, tuple(results), self.error if isinstance(self.error, BadInput | Interrupted) else None)
        on_done(done)
        if isinstance(self.error, KeyboardInterrupt):
            raise self.error
        return (done,)

    def hooks(self) -> Hooks:
        truth = KernelTruth(0.0, 0.0, 1.0)
        return Hooks(self.lines.append, lambda *_: None, self.export, self.bench, lambda path: truth)


@pytest.fixture
def world(exported):
    return World(exported("mlp", "onnx,tflite"))


@pytest.fixture
def suite(tmp_path):
    board = Board("local", Plan(threads=(1,), seconds=0.5, processes=1), Options())
    return Suite(board, tmp_path / "out", ("digits", "rnet"), ("float32", "int8"), ("onnx", "tflite"))


def test_the_whole_matrix_is_exported_once_measured_once_and_reported(world, suite):
    outcome = run_suite(suite, world.hooks())
    assert world.exports == [("digits", None), ("digits", "int8"), ("rnet", None), ("rnet", "int8")]
    assert world.targets == ("onnx", "tflite")
    assert len(world.measured) == len(outcome.results) == 8 and outcome.problems == ()
    assert read_results(suite.output / "results.json") == outcome.results
    assert all(r.kernels == KernelTruth(0.0, 0.0, 1.0) for r in outcome.results)
    assert "pocketship suite on local" in (suite.output / "report.html").read_text()
    assert sorted(p.name for p in (suite.output / "bundles").iterdir()) == [
        *("digits-float32", "digits-int8", "rnet-float32", "rnet-int8"),
    ]
    raise_problems(outcome)


def test_started_again_it_does_nothing_again(world, suite):
    first = run_suite(suite, world.hooks())
    world.exports.clear(), world.measured.clear()
    assert run_suite(suite, world.hooks()) == first
    assert world.exports == world.measured == []
    assert "digits float32: exported before" in world.lines and "rnet int8: measured before" in world.lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"seconds": 1.0}, {"processes": 2}, {"seed": 3}, {"warmup_s": 2.0}, {"batch": 4}, {"sustained_s": 60.0}]
    + [{"affinity": (0,)}, {"precision": 0.01}],
)
def test_other_settings_are_another_measurement(world, suite, change):
    run_suite(suite, world.hooks())
    world.exports.clear(), world.measured.clear()
    board = replace(suite.board, plan=replace(suite.board.plan, **change))
    run_suite(replace(suite, board=board), world.hooks())
    assert world.exports == [] and len(world.measured) == 8


def test_another_device_is_measured_and_the_first_one_s_results_stay(world, suite):
    run_suite(suite, world.hooks())
    other = replace(suite, board=replace(suite.board, target="ssh://pi@board"))
    outcome = run_suite(other, world.hooks())
    assert sorted(r.target for r in outcome.results) == ["local"] * 8 + ["ssh://pi@board"] * 8


def test_only_threads_that_are_missing_are_measured(world, suite):
    run_suite(suite, world.hooks())
    world.measured.clear()
    board = replace(suite.board, plan=replace(suite.board.plan, threads=(1, 2, 4)))
    outcome = run_suite(replace(suite, board=board), world.hooks())
    assert {threads for _, _, threads in world.measured} == {(2, 4)}
    assert len(outcome.results) == 24


def test_accuracy_that_is_wanted_now_is_measured_now(world, suite):
    run_suite(replace(suite, accuracy=False), world.hooks())
    world.measured.clear()
    outcome = run_suite(suite, world.hooks())
    assert len(world.measured) == 8 and len(outcome.results) == 8
    assert all(r.accuracy for r in outcome.results)


def test_a_bundle_that_was_damaged_is_exported_and_measured_anew(world, suite):
    run_suite(suite, world.hooks())
    world.exports.clear()
    with open(suite.output / "bundles" / "digits-int8" / "model.onnx", "ab") as file:
        file.write(b"!")
    (suite.output / "bundles" / "rnet-int8" / "manifest.json").unlink()
    run_suite(suite, world.hooks())
    assert world.exports == [("digits", "int8"), ("rnet", "int8")]


def test_a_format_that_a_bundle_lacks_is_exported_beside_those_it_has(world, suite):
    run_suite(suite, world.hooks())
    world.exports.clear()
    run_suite(replace(suite, targets=("coreml",), models=("digits",), recipes=("int8",)), world.hooks())
    assert world.exports == [("digits", "int8")] and world.targets == ("coreml", "onnx", "tflite")


def test_an_export_that_fails_is_a_problem_and_the_rest_goes_on(world, suite):
    world.refuses = {("digits", "int8")}
    outcome = run_suite(suite, world.hooks())
    assert len(outcome.results) == 6
    assert [(p.model, p.recipe) for p in outcome.problems] == [("digits", "int8")]
    with pytest.raises(BadInput) as caught:
        raise_problems(outcome)
    assert str(caught.value) == (
        "digits int8: digits: aten.foo is not supported; all else is measured; run the same suite again to try what "
        "may work then"
    )
    world.refuses, world.exports = set(), []
    assert len(run_suite(suite, world.hooks()).results) == 8 and world.exports == [("digits", "int8")]


def test_a_crash_is_a_row_and_is_not_tried_again(world, suite):
    world.failures = {"tflite": Failure("crashed", "crashed with SIGSEGV")}
    outcome = run_suite(suite, world.hooks())
    assert sum(r.failure is not None for r in outcome.results) == 4
    with pytest.raises(
        ParityFailed, match=r"^digits-float32/model\.tflite: crashed: crashed with SIGSEGV; digits-int8/"
    ):
        raise_problems(outcome)
    world.measured.clear()
    run_suite(suite, world.hooks())
    assert world.measured == []


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["link-lost", "agent-killed", "disk-full", "refused", "malformed", "interrupted"])
def test_what_was_the_device_s_fault_is_tried_again_in_its_place(world, suite, cause):
    world.failures = {"onnx": Failure(cause, "x")}
    with pytest.raises(
        BadInput, match=rf"^digits-float32/model\.onnx: {cause}: x; digits-int8/model\.onnx: {cause}: x; "
    ):
        raise_problems(run_suite(suite, world.hooks()))
    world.failures, world.measured = {}, []
    outcome = run_suite(suite, world.hooks())
    assert {format for _, format, _ in world.measured} == {"onnx"}
    assert len(outcome.results) == 8 and not any(r.failure for r in outcome.results)


def test_a_device_that_is_lost_is_a_problem_and_what_it_told_is_kept(world, suite):
    world.error = Interrupted("link-lost", "the link broke", where="ssh://pi@board")
    outcome = run_suite(suite, world.hooks())
    assert len(outcome.problems) == 4 and len(outcome.results) == 8
    with pytest.raises(BadInput, match=r"^digits float32: ssh://pi@board: the link broke; "):
        raise_problems(outcome)


def test_ctrl_c_keeps_what_was_measured(world, suite):
    world.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, world.hooks())
    assert len(read_results(suite.output / "results.json")) == 2


def test_results_are_in_the_history_too_and_a_broken_one_loses_nothing(world, suite, tmp_path):
    url = f"sqlite:///{tmp_path}/history.sqlite"
    outcome = run_suite(replace(suite, history=url), world.hooks())
    assert sorted(r.id for r in select(url)) == sorted(r.id for r in outcome.results)
    (tmp_path / "file").write_text("")
    broken = replace(suite, output=tmp_path / "second", history=f"sqlite:///{tmp_path}/file/h.sqlite")
    assert len(run_suite(broken, world.hooks()).results) == 8
    assert any(line.startswith("not in the history: ") for line in world.lines)


def test_two_suites_in_one_folder(world, suite):
    suite.output.mkdir()
    with open(suite.output / ".suite.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match=r"out: another suite is writing this folder; wait for it, or give another"):
            run_suite(suite, world.hooks())


def test_results_that_cannot_be_read_are_not_written_over(world, suite):
    suite.output.mkdir()
    (suite.output / "results.json").write_text("{half")
    with pytest.raises(BadInput, match=r"results\.json: not JSON"):
        run_suite(suite, world.hooks())
    assert (suite.output / "results.json").read_text() == "{half" and world.exports == []


def test_a_folder_that_cannot_be_written(world, suite, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"file/out.*: cannot write \(Not a directory\); give -o a folder you may write"):
        run_suite(replace(suite, output=tmp_path / "file" / "out"), world.hooks())


def test_a_device_that_runs_none_of_the_formats(world, suite):
    board = replace(suite.board, target="browser")
    with pytest.raises(BadInput, match=r"^--targets: no browser runs Core ML; give onnx or tflite$"):
        run_suite(replace(suite, board=board, targets=("coreml",)), world.hooks())
    outcome = run_suite(replace(suite, board=board, targets=("coreml", "onnx"), models=("digits",)), world.hooks())
    assert {r.artifact.format for r in outcome.results} == {"onnx"}


def test_many_problems_stay_one_line():
    problems = tuple(Problem("digits", f"r{i}", BadInput("no")) for i in range(9))
    with pytest.raises(BadInput, match=r"^digits r0: no; .*digits r5: no; and 3 more; all else is measured"):
        raise_problems(Outcome((), problems))
    with pytest.raises(ParityFailed, match=r"^digits r0: no; .*digits r5: no; and 4 more; all else is measured"):
        raise_problems(Outcome((), (*problems, Problem("rnet", "int8", ParityFailed("0.3 off")))))


@pytest.mark.parametrize(
    ("words", "names"),
    [("int8", ("int8",)), ("int8, float32,int8", ("int8", "float32")), ("all", USUAL_RECIPES)],
)
def test_names_of_a_list(words, names):
    assert chosen(words, RECIPES, USUAL_RECIPES, "--recipes") == names


@pytest.mark.parametrize("words", ["int9", "", "int8,,int4"])
def test_what_is_no_recipe(words):
    with pytest.raises(BadInput, match=r"^--recipes: no '.*'; give all, or some of float32, float16, int8, "):
        chosen(words, RECIPES, USUAL_RECIPES, "--recipes")


def command(*words: object):
    return CliRunner().invoke(app, list(map(str, words)))


def test_the_command_checks_everything_first(tmp_path):
    for words, message in (
        (("--on", "telnet://x"), "telnet://x: no such device"),
        (("--models", "gpt"), "--models: no 'gpt'; give all, or some of minilm, digits"),
        (("--recipes", "int3"), "--recipes: no 'int3'"),
        (("--targets", "elf"), "unknown target 'elf'"),
        (("--seconds", "0"), "--seconds: 0 is too little"),
        (("--limit", "0"), "--limit: 0 is too little"),
        (("--threads", "x"), "--threads: 'x' is no list of numbers"),
        (("--history", "what"), "--history what: no database URL"),
    ):
        done = command("--output", tmp_path / "out", *words)
        assert isinstance(done.exception, BadInput) and message in str(done.exception), (words, done.exception)
        assert not (tmp_path / "out").exists()


def test_for_real_on_this_machine(tmp_path):
    """One model through export and bench, both real; the second run does neither."""
    folder = tmp_path / "out"
    words = ("--models", "rnet", "--recipes", "float32", "--targets", "onnx", "--output", folder, "--history", "none")
    quick = ("--seconds", "0.05", "--processes", "1", "--limit", "20")
    done = command(*words, *quick)
    assert done.exit_code == 0, (done.exception, done.stderr)
    assert "rnet float32: 1 result on local" in done.stderr
    assert "float32 onnx" in done.stdout and "pass" in done.stdout and "report.html has it all" in done.stdout
    (one,) = read_results(folder / "results.json")
    assert one.parity.verdict == "pass" and one.accuracy.samples > 5 and one.statistics.p50_ms > 0
    assert (one.artifact.bundle, one.artifact.precision, one.settings.inputs) == ("rnet-float32", "float32", "golden")
    assert one.kernels.float_share == 1.0
    assert bench_artifacts(folder / "bundles" / "rnet-float32")[0].facts == one.artifact
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.name != "report.html"}
    assert folder / "bundles" / "rnet-float32" / "model.onnx" in before and folder / "results.json" in before
    again = command(*words, *quick, "--json")
    assert "rnet float32: exported before" in again.stderr and "measured before" in again.stderr
    assert json.loads(again.stdout)["results"][0]["id"] == one.id == results_to_json([one])["results"][0]["id"]
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in before} == before, "nothing was written again"
