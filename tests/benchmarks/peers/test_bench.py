"""The comparison of benches: its models, its native programs, its arithmetic by hand, and a real round of it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.devices.ssh.agent_zip import build
from benchmarks.peers import bench, native, stacks, start
from benchmarks.peers.bench import Pairs, agreeing, benched
from benchmarks.peers.stacks import Shape, stack, stack_of
from benchmarks.peers.start import Start
from benchmarks.results.result import Block, Samples
from runtimes.errors import PocketshipError
from runtimes.golden import read_golden
from runtimes.session import open_session

TINY = Shape(4, 8)
ROOT = Path(__file__).resolve().parents[3]
SAID = """\
Session creation time cost: 0.0113 s
Total inference time cost: 0.0485 s
Runs:1000
Min Latency: 4.1e-05 s
P50 Latency: 4.7e-05 s
P90 Latency: 5.1e-05 s
"""


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    """The lock of benches is the user's: another test may hold it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tool(folder: Path, text: str, code: int = 0) -> str:
    """A program that stands in for onnxruntime's, notes its words, and says `text`."""
    path = folder / native.PERF_TEST
    path.write_text(f"#!/bin/sh\necho \"$@\" > '{folder}/words'\ncat <<'END'\n{text}END\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_stack_computes_what_its_golden_values_say(tmp_path):
    made = stack(tmp_path, 3, TINY)
    golden = read_golden(made.golden)
    session = open_session(made.path, 1)
    assert np.allclose(session.run(golden.inputs[0])["y"], golden.outputs[0]["y"], rtol=1e-4, atol=1e-5)
    assert np.array_equal(np.fromfile(made.raw, np.float32).reshape(4, 8), golden.inputs[0]["x"])
    assert made.layers == 3


def test_a_stack_gets_as_many_layers_as_the_time_asks_for(tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "timed_block", lambda run, runs, clock: [20_000, 30_000])  # of ten layers
    assert stack_of(tmp_path, 50e3, TINY, "s").layers == 25
    assert stack_of(tmp_path, 1.0, TINY, "s").layers == 1


def test_the_tool_s_median_is_read_and_it_is_asked_for_the_same_threads(tmp_path):
    made = stack(tmp_path, 1, TINY)
    assert native.perf_test_p50_ns(tool(tmp_path, SAID), made, threads=2, runs=70) == pytest.approx(47_000)
    words = (tmp_path / "words").read_text().split()
    assert words == ["-e", "cpu", "-m", "times", "-r", "70", "-x", "2", "-I", "-s", str(made.path)]


def test_a_tool_that_fails_or_says_something_else_ends_the_comparison(tmp_path):
    made = stack(tmp_path, 1, TINY)
    with pytest.raises(SystemExit, match="told no P50 Latency:\nnothing"):
        native.perf_test_p50_ns(tool(tmp_path, "nothing\n"), made, 1, 10)
    with pytest.raises(SystemExit, match="onnxruntime_perf_test failed with exit code 3"):
        native.perf_test_p50_ns(tool(tmp_path, SAID, code=3), made, 1, 10)


def test_the_tool_takes_turns_with_us_where_it_is_on_the_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(bench, "PAIR_S", 0.02)
    tool(tmp_path, SAID)
    ours_ns, tool_ns = bench.beside_tool(str(native.perf_test()), stack(tmp_path, 2, TINY), rounds=2)
    assert len(ours_ns) == 2 and min(ours_ns) > 0 and tool_ns == pytest.approx([47_000] * 2)
    assert "onnxruntime_perf_test: round 2 of 2" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert native.perf_test() is None
    with pytest.raises(SystemExit, match=r"(gcc|build\.sh) is not installed; apt install"):
        native.compile_loop(tmp_path)
    monkeypatch.setattr(native.importlib.metadata, "version", lambda name: "0.0.1")
    with pytest.raises(SystemExit, match=r"onnxruntime 0\.0\.1 has no libonnxruntime\.so here"):
        native.library()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    header = (native.HEADERS / "onnxruntime_c_api.h").is_file() or shutil.which("npm")
    assert shutil.which("gcc") and header, "no compiler, or no way to fetch the header: run tests/rigs/install.sh"
    return native.compile_loop(tmp_path_factory.mktemp("loop"))


@pytest.mark.device
def test_the_loop_in_c_times_every_run_and_ends_with_us(tmp_path, program, capfd):
    made = stack(tmp_path, 4, TINY)
    loop = native.Loop(program, made, threads=1)
    assert len(loop.times_ns(50)) == 50 and min(loop.times_ns(3)) > 0
    loop.close()
    lost = native.Loop(program, replace(made, raw=tmp_path / "none"), threads=1)
    with pytest.raises(SystemExit, match="the C loop ended with exit code 1"):
        lost.times_ns(1)
    lost.close()
    assert f"ort_loop: {tmp_path}/none: cannot be opened" in capfd.readouterr().err


@pytest.mark.device
@pytest.mark.parametrize("part", ["50us"])
def test_a_round_beside_the_loop_in_c(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "PAIR_S", 0.1)
    monkeypatch.setattr(bench, "perf_test", lambda: None)
    monkeypatch.setitem(bench.MODELS, part, (20e3, TINY))
    results = bench.bench_peers(1, [part])
    said = capsys.readouterr().out
    assert "## A model of about 50 us" in said and "| a loop in C | " in said
    assert "onnxruntime_perf_test is not to be had here" in said
    assert "| 50us: ours and a loop in C are apart, % | " in said
    found = results[part]
    assert len(found["ours"]) == len(found["loop"]) == 2  # pairs of processes
    assert all(len(ours) == len(loop) >= 25 for ours, loop in zip(found["ours"], found["loop"], strict=True))


def test_the_ratio_and_the_difference_are_of_the_same_rounds():
    drift = [1000.0, 9000.0, 2000.0]
    pairs = Pairs([[d + 30 for d in drift], [d + 10 for d in drift]], [drift, drift])
    assert pairs.more_us == pytest.approx(0.02)
    assert pairs.ratio.value == pytest.approx(np.sqrt(1.015 * 1.005))  # of the rounds in the middle


@pytest.mark.parametrize(("value", "reached"), [(1.0199, True), (0.981, True), (1.021, False), (0.97, False)])
def test_two_percent_either_way(value, reached):
    line = bench._apart("x", bench.Estimate(value, 0.0, 2.0))
    assert line.reached is reached and line.value == pytest.approx(abs(value - 1) * 100)


def with_process_medians(medians_ns: list[int]) -> SimpleNamespace:
    blocks = tuple(Block(i, 0, 1, (median_ns,)) for i, median_ns in enumerate(medians_ns))
    return SimpleNamespace(samples=Samples(None, None, None, None, False, (), True, blocks))


def test_the_share_of_pairs_that_agree():
    alike = [with_process_medians([100_000, 101_000, 102_000]), with_process_medians([100_500, 101_500, 101_000])]
    assert agreeing(alike) == 1.0
    assert agreeing([*alike, with_process_medians([150_000, 151_000, 152_000])]) == pytest.approx(1 / 3)


def test_a_bench_that_fails_ends_the_comparison(tmp_path):
    made = stack(tmp_path, 1, TINY)
    made.path.write_bytes(b"no model")
    with pytest.raises(PocketshipError, match=r"^a bench failed \(.*onnxruntime cannot load it.*; run the comparison"):
        benched([made], seconds=0.1, processes=1, seed=0)
    with pytest.raises(PocketshipError, match=r"^the agent's worker failed \(.*cannot load it.*; run it again"):
        start.agent(made)
    with pytest.raises(SystemExit, match=r"ort_first\.py failed with exit code 1"):
        start.bare(made)


def test_what_measuring_costs(capsys):
    results = bench.bench_peers(1, ["overhead"])
    found = results["overhead"]
    assert 0 < found["reading_ns"] < found["loop_ns"]
    assert "| harness: us an inference | " in capsys.readouterr().out


@pytest.mark.slow
def test_repeats_and_copies_in_one_short_round(monkeypatch, capsys):
    for name, value in (("REPEATS_A_ROUND", 2), ("BENCHES_A_ROUND", 2), ("SHORT_S", 0.05)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "Plan", replace_defaults(seconds=0.05, processes=2))
    for name in ("SMALL", "MIDDLE"):
        monkeypatch.setattr(bench, name, TINY)
    monkeypatch.setattr(stacks, "timed_block", lambda run, runs, clock: [500_000])
    results = bench.bench_peers(1, ["repeats", "alike"])
    said = capsys.readouterr().out
    assert "| 50 us | 2 | " in said and "| 5 ms: repeats that agree, % of pairs | " in said
    assert "An artifact of 40 equal layers beside its copy, and beside one of 42." in said
    assert "| A/A: no difference shown, % of benches | " in said and "| slowed by 5%: found slower" in said
    assert [len(results["alike"][name]) for name in ("its copy", "slowed")] == [2, 2]
    assert all(s["blocks"] >= 50 for s in results["repeats"]["50 us"])  # 25 a process


def replace_defaults(**values):
    """A plan of which only the defaults are asked."""
    return type("Plan", (), values)


def test_the_agent_s_start_beside_the_bare_runtime_s(tmp_path, capsys):
    found = start.starts(stack(tmp_path, 2, TINY), rounds=1)
    assert {name: len(runs) for name, runs in found.items()} == {"agent": 1, "bare": 1}
    ours, theirs = found["agent"][0], found["bare"][0]
    assert 10 << 20 < theirs.peak_bytes < 500 << 20 and 10 << 20 < ours.peak_bytes < 500 << 20
    assert ours.waiting_bytes > 1 << 20 and theirs.waiting_bytes == 0
    lines = start.print_starts(found)
    assert lines[0].value == len(build(["onnx"])) / 1024
    assert "| bare | " in capsys.readouterr().out


def test_the_start_s_figures_by_hand(capsys):
    found = {
        "agent": [Start(260, 66_000_000, 9_000_000), Start(300, 66_000_000, 9_000_000)],
        "bare": [Start(200, 60_000_000), Start(200, 60_000_000)],
    }
    lines = start.print_starts(found)
    assert (lines[1].value, lines[1].reached) == (pytest.approx(1.4), False)
    assert (lines[2].value, lines[2].reached) == (pytest.approx(6.0), False)
    assert "takes 9.0 MB more" in capsys.readouterr().out


def test_another_bench_that_runs_is_one_line(monkeypatch):
    def refuse(rounds: int, part: str, folder: Path) -> None:
        raise PocketshipError("another bench runs here", remedy="wait for it, or stop it")

    monkeypatch.setitem(bench.RUNS, "overhead", refuse)
    with pytest.raises(SystemExit, match=r"^another bench runs here; wait for it, or stop it$"):
        bench.bench_peers(1, ["overhead"])


def test_the_command_line_knows_the_parts(monkeypatch, tmp_path):
    from benchmarks.peers import __main__ as command

    monkeypatch.setattr(bench, "EMPTY_BLOCKS", 2)
    output = tmp_path / "found.json"
    words = ["peers", "bench", "--rounds", "1", "--models", "overhead", "--json", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    assert '"loop_ns"' in output.read_text()
    assert command.COMPARISONS["bench"][1] == bench.PARTS == tuple(bench.RUNS) == tuple(bench.TITLES)


def test_a_bound_inference_keeps_the_memory_that_it_computes_on(tmp_path):
    made = stack(tmp_path, 2, TINY)
    golden = read_golden(made.golden)
    call = open_session(made.path, 1).bind({"x": golden.inputs[0]["x"].copy()})  # which nobody else holds
    others = [np.full_like(golden.inputs[0]["x"], i) for i in range(100)]  # would lie where it was
    call()
    computed = call.args[0].get_outputs()[0].numpy()
    assert np.allclose(computed, golden.outputs[0]["y"], rtol=1e-4, atol=1e-5) and len(others) == 100
