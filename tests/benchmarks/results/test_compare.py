"""Old against new: what is called a regression, what lies inside the noise, and what is not compared at all."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.commands import report as report_cli
from benchmarks.report.comparison import comparison_table, comparisons_to_json, remarks
from benchmarks.results.compare import BETTER, SAME, WORSE, check_limit, check_matched, compare, parse_limit
from benchmarks.results.result import Block, Failure, Memory, Samples, read_results, results_to_json, write_results
from benchmarks.results.stats import NO_DIFFERENCE, Estimate, process_ratio_interval, ratio_interval
from runtimes.errors import BadInput, LimitNotMet
from runtimes.types import Accuracy

spec = importlib.util.spec_from_file_location("synthetic_results", Path(__file__).parents[1] / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
result, blocks_of = synthetic.result, synthetic.blocks_of


def at(median_ms: float, seed: int, **changed):
    """A result of the same artifact, measured another time."""
    return result(blocks=blocks_of(median_ms, seed=seed), id=f"r{seed}", **changed)


def latency_ratio(new, old) -> Estimate:
    """The ratio that is compared, of the blocks of two runs."""
    groups = [Samples(None, None, None, None, False, (), True, tuple(side)).process_medians_ns for side in (new, old)]
    return process_ratio_interval(*groups, paired=False)


def figures(old, new) -> dict:
    (found,) = compare([old], [new])
    return {figure.name: figure for figure in found.figures}


# --- Known distributions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "between"), [(1, 0.0), (5, 0.02)])
def test_the_same_shows_no_difference_95_times_in_100(processes, between):
    shape = {"processes": processes, "between": between, "blocks": 10}
    pairs = [(blocks_of(1.0, seed=2 * i, **shape), blocks_of(1.0, seed=2 * i + 1, **shape)) for i in range(100)]
    assert sum(not latency_ratio(a, b).differs_from_one for a, b in pairs) >= 95


def test_five_percent_slower_is_found_80_times_in_100():
    pairs = [(blocks_of(1.05, seed=2 * i), blocks_of(1.0, seed=2 * i + 1)) for i in range(100)]
    ratios = [latency_ratio(a, b) for a, b in pairs]
    assert sum(ratio.low > 1.0 for ratio in ratios) >= 80
    assert np.median([ratio.value for ratio in ratios]) == pytest.approx(1.05, rel=0.01)


@pytest.mark.slow
def test_processes_that_differ_are_noise_however_many_blocks_they_have():
    """Many blocks a process, alike within it: as blocks alone they would show a difference that is none."""
    shape = {"processes": 3, "between": 0.03, "spread": 0.002, "blocks": 60}
    pairs = [(blocks_of(1.0, seed=2 * i, **shape), blocks_of(1.0, seed=2 * i + 1, **shape)) for i in range(60)]
    nested = [latency_ratio(a, b).differs_from_one for a, b in pairs]
    flat = [ratio_interval(_medians(a), _medians(b), paired=False).differs_from_one for a, b in pairs]
    assert sum(nested) <= 3
    assert sum(flat) >= 20, "or the test is blind"


def _medians(blocks):
    return [np.median(block.times_ns) for block in blocks]


def test_blocks_that_are_all_alike_have_no_width():
    old = [Block(0, 0, 1, (100,))] * 3 + [Block(1, 0, 1, (100,))] * 5
    new = [Block(p, 0, 1, (150,)) for p in (0, 0, 1, 2, 2, 2)]
    ratio = latency_ratio(new, old)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


# --- Verdicts ------------------------------------------------------------------------------------------------------


def test_a_slower_and_a_faster_one():
    slower = figures(at(1.0, 1), at(1.2, 2))["latency"]
    assert slower.verdict == WORSE and slower.change == pytest.approx(0.2, abs=0.03)
    assert slower.said.startswith("1.") and "x (" in slower.said
    faster = figures(at(1.2, 1), at(1.0, 2))["latency"]
    assert faster.verdict == BETTER and faster.change < 0
    same = figures(at(1.0, 1), at(1.0, 2))["latency"]
    assert same.verdict == SAME and same.said.startswith(NO_DIFFERENCE)


@pytest.mark.parametrize("executed", ["emulated", "off-device"])
def test_no_latency_is_compared_that_is_not_of_hardware(executed):
    device = replace(synthetic.DESKTOP, executed=executed)
    old, new = at(1.0, 1), at(3.0, 2)
    found = figures(replace(old, device=device), replace(new, device=device))
    assert "latency" not in found and "size" in found


def test_a_block_of_no_time_is_not_divided_by():
    old = result(blocks=(Block(0, 0, 1, (0,)), Block(0, 1, 1, (5,))), id="a")
    assert "latency" not in figures(old, at(1.0, 2))


def test_size_memory_instructions():
    old = result(id="a", memory=Memory(None, None, 100_000_000), instructions=4_000_000.0)

    def changed(size=1.0, peak=1.0, instructions=1.0):
        artifact = replace(old.artifact, size_bytes=int(old.artifact.size_bytes * size))
        memory = Memory(None, None, int(1e8 * peak))
        found = figures(old, replace(old, id="b", artifact=artifact, memory=memory, instructions=4e6 * instructions))
        return found["size"].verdict, found["peak memory"].verdict, found["instructions"].verdict

    assert changed() == (SAME, SAME, SAME)
    assert changed(1.001, 1.04, 1.009) == (WORSE, SAME, SAME)
    assert changed(0.9, 1.06, 1.011) == (BETTER, WORSE, WORSE)
    assert changed(1.0, 0.9, 0.98) == (SAME, BETTER, BETTER)
    assert figures(old, replace(old, id="b", memory=None, instructions=None)).keys() == {"latency", "size", "accuracy"}


def test_two_megabytes_of_memory_are_noise_however_small_the_process():
    old = result(id="a", memory=Memory(None, None, 20_000_000))
    assert figures(old, replace(old, memory=Memory(None, None, 21_900_000)))["peak memory"].verdict == SAME
    assert figures(old, replace(old, memory=Memory(None, None, 22_100_000)))["peak memory"].verdict == WORSE


def test_accuracy_differs_where_wilson_s_intervals_lie_apart():
    old = result(accuracy=Accuracy("accuracy", 0.95, 0.93, 0.97, 500))

    def changed(value, low, high, metric="accuracy"):
        return figures(old, replace(old, accuracy=Accuracy(metric, value, low, high, 500))).get(metric)

    assert changed(0.93, 0.90, 0.95).verdict == SAME
    assert changed(0.90, 0.87, 0.92).verdict == WORSE and changed(0.90, 0.87, 0.92).change == pytest.approx(0.05)
    assert changed(0.99, 0.98, 1.00).verdict == BETTER
    assert changed(0.5, 0.4, 0.6, "recall") is None, "another metric is another thing"


def test_a_crash_and_a_wrong_output_are_worse_whatever_the_clock_says():
    fine = at(1.0, 1)
    crashed = replace(fine, samples=None, statistics=None, failure=Failure("crashed", "SIGSEGV"))
    wrong = replace(fine, parity=synthetic.parity_of(fine.executed_by, "fail"))
    assert figures(fine, crashed)["health"].said == "worked -> crashed"
    assert figures(fine, wrong)["health"].verdict == WORSE and "latency" not in figures(fine, wrong)
    assert figures(crashed, fine)["health"].verdict == BETTER
    assert figures(crashed, crashed)["health"].verdict == SAME
    with pytest.raises(LimitNotMet, match=r"health worked -> crashed; mend it, or raise --fail-over$"):
        check_limit(compare([fine], [crashed]), 0.5)


# --- Limits --------------------------------------------------------------------------------------------------------


def test_a_limit_is_broken_beyond_the_noise_and_beyond_the_limit():
    slower = compare([at(1.0, 1)], [at(1.08, 2)])
    assert slower[0].figures[0].verdict == WORSE
    check_limit(slower, None)
    check_limit(slower, 0.15)
    with pytest.raises(LimitNotMet) as caught:
        check_limit(slower, 0.05)
    assert str(caught.value).startswith(
        "1 worse beyond the noise and beyond 5%: digits-float32 onnx on Xeon Gold 6248, 1 thread: latency 1.1"
    )


def test_a_limit_inside_the_noise_is_kept():
    noisy = compare(
        [result(blocks=blocks_of(1.0, seed=4, blocks=5, spread=0.3))],
        [result(blocks=blocks_of(1.0, seed=1, blocks=5, spread=0.3))],
    )
    latency = noisy[0].figures[0]
    assert latency.change > 0.01 and latency.verdict == SAME, "or the test is blind"
    check_limit(noisy, 0.0)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0%", 0.0), (" .5 % ", 0.005), ("150%", 1.5)])
def test_percentages(text, share):
    assert parse_limit(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "five%", "-5%", "nan%", "1e3%", "%", ""])
def test_what_is_no_percentage(text):
    with pytest.raises(BadInput, match=r"^--fail-over: .* is no percentage; give it as 5%$"):
        parse_limit(text)


# --- Matching ------------------------------------------------------------------------------------------------------


def test_results_are_matched_by_artifact_device_and_threads():
    fleet = synthetic.fleet()
    found = compare(fleet, fleet)
    assert all(c.old is c.new for c in found) and len(found) == len(fleet)
    assert {f.verdict for c in found for f in c.figures} == {SAME}


def test_another_recipe_of_the_same_bundle_is_another_artifact():
    old = result()
    new = replace(old, artifact=replace(old.artifact, recipe=("prune",)))
    assert [c.reason for c in compare([old], [new])] == ["only in the old results", "only in the new results"]


def test_files_of_no_bundle_are_matched_by_name():
    one, other = result(name="a.onnx"), result(name="b.onnx")
    found = compare([one, other], [other])
    assert [(c.artifact, bool(c.figures), c.reason) for c in found] == [
        ("b.onnx", True, ""),
        ("a.onnx", False, "only in the old results"),
    ]


@pytest.mark.parametrize("change", [{"model": "Raspberry Pi 4"}, {"cpu": "Cortex-A72"}, {"executed": "emulated"}])
def test_other_hardware_is_not_compared(change):
    old = result(synthetic.PI_5)
    new = replace(old, device=replace(synthetic.PI_5, **change))
    found = compare([old], [new])
    assert all(not c.figures and c.reason.startswith("other hardware: the ") for c in found) and len(found) == 2
    with pytest.raises(BadInput, match=r"^a, b: nothing to compare \(.*other hardware.*\); bench both on the same dev"):
        check_matched(found, "a, b")


def test_other_settings_are_not_compared_and_named():
    old = result()
    new = replace(old, settings=replace(old.settings, batch=8, inputs="random"))
    assert [c.reason for c in compare([old], [new])] == [
        "other settings (batch None here, 8 there, inputs golden here, random there)",
        "other settings (batch 8 here, None there, inputs random here, golden there)",
    ]
    longer = replace(old, settings=replace(old.settings, seconds=9.0, processes=5, seed=3))
    assert compare([old], [longer])[0].figures, "how long was measured is no other thing"


def test_the_last_of_several_alike_is_taken():
    early = at(5.0, 1, started_at="2026-11-25T08:00:00+00:00")
    late = at(1.0, 2, started_at="2026-11-25T09:00:00+00:00")
    (found,) = compare([late, early], [at(1.0, 3)])
    assert found.old is late


def test_nothing_at_all_is_nothing_to_compare():
    with pytest.raises(BadInput, match=r"nothing to compare \(one of them holds no result\)"):
        check_matched(compare([], []), "a, b")


def test_what_else_differs_is_noted():
    old = result(synthetic.PI_5, conditions=synthetic.conditions_of(synthetic.PI_5))
    hot = tuple(replace(c, governor="powersave", throttled=("frequency capped",)) for c in old.conditions)
    new = replace(old, versions={**old.versions, "onnxruntime": "1.33.0"}, conditions=hot)
    (found,) = compare([old], [new])
    assert found.notes == (
        "the same file",
        "onnxruntime 1.32.0 -> 1.33.0",
        "governor ondemand -> governor powersave",
        "the new run was throttled",
        "one process on a side: how processes differ is not in its interval (bench --processes 5 tells)",
    )
    assert remarks([found])[0] == "all: the same file"


def test_hostile_names_make_no_second_line():
    found = compare(synthetic.hostile(), [])
    assert all("\n" not in line and len(line) < 700 for line in remarks(found))
    with pytest.raises(BadInput) as caught:
        check_matched(found, "a")
    assert "\n" not in str(caught.value)


# --- The command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    def save(name: str, *results) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(results_to_json(results)))
        return path

    return save


def command(*words: object):
    return CliRunner().invoke(report_cli.app, ["compare", *map(str, words)])


def test_the_table_says_what_is_worse(saved):
    done = command(saved("a.json", at(1.0, 1)), saved("b.json", at(1.2, 2)))
    assert done.exit_code == 0, done.exception
    head, row, *rest = done.stdout.splitlines()
    assert head.split() == ["artifact", "on", "latency", "size", "peak", "memory", "accuracy"]
    assert "WORSE 1." in row and "x (" in row and "the same" in row
    assert " ms -> " in row
    assert rest[0] == "all: the same file"


def test_exit_code_4_comes_after_the_table_and_only_beyond_the_limit(saved, tmp_path):
    a, b, report = saved("a.json", at(1.0, 1)), saved("b.json", at(1.2, 2)), tmp_path / "table.md"
    done = command(a, b, "--fail-over", "5%", "--output", report)
    assert isinstance(done.exception, LimitNotMet) and done.exception.exit_code == 4
    assert "WORSE" in done.stdout
    assert report.read_text().startswith("| artifact | on | latency | size | peak memory | accuracy |\n|---|---|---:|")
    assert "**1." in report.read_text()
    assert command(a, b, "--fail-over", "50%").exit_code == 0
    assert command(a, saved("c.json", at(1.0, 3)), "--fail-over", "0%").exit_code == 0


def test_json_has_the_figures_and_the_ids(saved):
    done = command(saved("a.json", at(1.0, 1)), saved("b.json", at(1.2, 2)), "--json")
    (found,) = json.loads(done.stdout)
    assert (found["old"], found["new"], found["threads"]) == ("r1", "r2", 1)
    assert [f["name"] for f in found["figures"]] == ["latency", "size", "peak memory", "accuracy"]
    assert found["figures"][0]["ratio"]["low"] > 1


def test_json_of_a_crash_is_json(saved):
    crashed = replace(at(1.0, 2), samples=None, statistics=None, failure=Failure("crashed", "SIGSEGV"))
    done = command(saved("a.json", at(1.0, 1)), saved("b.json", crashed), "--json")
    assert json.loads(done.stdout)[0]["figures"][0]["change"] is None
    assert comparisons_to_json(compare([at(1.0, 1)], [crashed]))[0]["figures"][0]["change"] == float("inf")


def test_a_table_of_nothing_is_empty():
    assert comparison_table(compare([result()], [])).rows == ()


def test_bad_input_is_one_line_and_exit_code_2(saved, tmp_path):
    good = saved("good.json", result())
    other = saved("other.json", result(synthetic.PI_5))
    (tmp_path / "text.json").write_text("{no")
    (tmp_path / "list.json").write_text("[]")
    old = results_to_json([result()])
    old["results"][0]["schema_version"] = 99
    (tmp_path / "old.json").write_text(json.dumps(old))
    for words, message in (
        ((tmp_path / "no.json", good), "no.json: cannot be read (No such file or directory); check the path"),
        ((good, tmp_path / "text.json"), "text.json: not JSON ("),
        ((good, tmp_path / "list.json"), "list.json: no file of results"),
        ((good, tmp_path / "old.json"), "results[0]: result version is 99, this pocketship reads 1"),
        ((good, other), "other hardware: the "),
        ((good, good, "--fail-over", "5"), "--fail-over: '5' is no percentage; give it as 5%"),
        ((good, good, "-o", tmp_path / "no" / "x.md"), "x.md: cannot be written; give a file in a folder that exists"),
        ((good, good, "-o", tmp_path), "cannot be written; give a file in a folder that exists"),
    ):
        done = command(*words)
        assert isinstance(done.exception, BadInput) and message in str(done.exception), (words, done.exception)
        assert done.exception.exit_code == 2 and done.stdout == ""


def test_results_of_outputs_that_were_no_numbers_can_be_read_again(tmp_path):
    """JSON has no infinity: bench writes null, and one wrong artifact must not make a file of results unreadable."""
    one = result(verdict="fail")
    one = replace(one, parity=replace(one.parity, max_abs_error=float("inf"), max_rel_error=float("nan"), cosine=0.0))
    write_results([one], tmp_path / "a.json")
    (found,) = read_results(tmp_path / "a.json")
    assert found.parity.max_abs_error == found.parity.max_rel_error == float("inf")
    assert replace(found, parity=None) == replace(one, parity=None)
