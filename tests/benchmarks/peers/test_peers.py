"""The comparison with peers: its arithmetic by hand, and one real round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import export, processes
from benchmarks.peers.export import COREML, HELP, LITERT, OPTIMUM, OURS, UNGATED, figures, help_commands
from benchmarks.peers.processes import Run

ROOT = Path(__file__).resolve().parents[3]


def rounds(**times: list[float]) -> list[Run]:
    names = {"ours": OURS, "ungated": UNGATED, "optimum": OPTIMUM, "litert": LITERT, "coreml": COREML}
    return [Run(names[name], wall, 0) for name, values in times.items() for wall in values]


def test_the_ratio_pairs_the_runs_of_one_round():
    runs = rounds(ours=[2.0, 9.0, 4.0], optimum=[1.0, 3.0, 4.0])
    assert processes.ratio(runs, [OURS], [OPTIMUM]) == 2.0  # of 2, 3 and 1
    assert processes.median_s(runs, OURS) == 4.0


def test_the_ratio_sums_commands_run_one_after_the_other():
    runs = rounds(ours=[6.0], optimum=[1.0], litert=[2.0], coreml=[3.0])
    assert processes.ratio(runs, [OURS], [OPTIMUM, LITERT, COREML]) == 1.0


def test_a_figure_that_is_not_reached_says_so(capsys):
    runs = rounds(ours=[30.0], ungated=[10.0], optimum=[10.0], litert=[1.0], coreml=[1.0])
    lines = figures(runs, {OURS: 1000, OPTIMUM: 500, LITERT: 100, COREML: 100}, weights_bytes=100)
    assert [line.reached for line in lines] == [False, False, False, True]
    assert lines[3].value == (1000 - 700) / 100
    processes.print_figures(lines)
    assert capsys.readouterr().out.count("NOT REACHED") == 3


def test_every_command_runs_once_a_round_in_changing_order():
    table = {str(n): [sys.executable, "-c", "pass"] for n in range(4)}
    runs = processes.interleave(table, rounds=3, watch_memory=False)
    orders = [[run.command for run in runs[i : i + 4]] for i in range(0, 12, 4)]
    assert all(sorted(order) == ["0", "1", "2", "3"] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_memory_counts_the_whole_process_tree():
    grandchild = "import time; block = bytearray(80 << 20); time.sleep(1)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{grandchild}'])"
    run = processes.measure("tree", [sys.executable, "-c", child], watch_memory=True)
    assert 80 << 20 < run.peak_bytes < 200 << 20


def test_a_command_that_fails_ends_the_benchmark_with_its_output():
    with pytest.raises(SystemExit, match=r"broken failed with exit code 3:\n.*the cause"):
        processes.measure(
            "broken", [sys.executable, "-c", "print('the cause'); raise SystemExit(3)"], watch_memory=False
        )


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--models", "gpt"]])
def test_bad_options_are_refused(words):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "export", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "--rounds is at least 1, --models are minilm, cnn" in done.stderr


@pytest.mark.slow
@pytest.mark.matrix(one_in=3)
@pytest.mark.parametrize("real", ["ours", "optimum", "litert", "coreml"])
def test_one_real_round(real, monkeypatch, capsys):
    """It prints every figure. In place of the other commands, which take as long, the shortest is run."""
    every, stand_in = export.commands, help_commands()[HELP]
    kept = {"ours": OURS, "optimum": OPTIMUM, "litert": LITERT, "coreml": COREML}[real]

    def commands(*given: object) -> dict[str, list[str]]:
        return {name: words if name == kept else stand_in for name, words in every(*given).items()}

    monkeypatch.setattr(export, "commands", commands)
    peaks = processes.memory_peaks({OURS: stand_in})
    assert 5 << 20 < peaks[OURS] < 500 << 20
    monkeypatch.setattr(export, "memory_peaks", lambda table: dict.fromkeys(table, peaks[OURS]))
    results = export.export_peers(1, ["cnn"])
    said = capsys.readouterr().out
    for name in (OURS, UNGATED, OPTIMUM, LITERT, COREML, HELP):
        assert f"| {name} |" in said
    assert said.count("reached") + said.count("NOT REACHED") >= 5
    times = {run["command"]: run["wall_s"] for run in results["cnn"]["runs"]}
    assert set(times) == {OURS, UNGATED, OPTIMUM, LITERT, COREML}
    assert max(times, key=times.get) == kept
