"""LiteRT's benchmark_model: its text as TensorFlow's sources print it, and a script that prints it in a phone's shell.

The binary itself can be had from no registry that this is developed with, so it was never run here.
"""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.agent.loop import LEAST_ROUNDS
from benchmarks.devices import Options, run_of
from benchmarks.devices.adb.benchmark_model import NOTES, check, condition_of, events, invocation_of, script
from benchmarks.job import Case
from benchmarks.results.events import EVENTS, UNREADABLE
from runtimes.errors import BadInput, PocketshipError
from runtimes.records import from_json
from tests.rigs.adbd import adb_server, emulated_phone
from tests.rigs.onnx_job import make_job

NEW = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: #threads used for CPU inference: [4]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 3.57776
INFO: Initialized session in 6.527ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=26 first=23015 curr=19014 min=18789 max=23015 avg=19421.3 std=788 p5=18859 median=19256 p95=20180

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=52 first=19083 curr=19156 min=18737 max=20119 avg=19105.2 std=249 p5=18790 median=19077 p95=19588

INFO: Inference timings in us: Init: 6527, First inference: 23015, Warmup (avg): 19421.3, Inference (avg): 19105.2
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual \
memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=8.25 overall=12.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 14.625
"""
OLD = """\
STARTING!
Duplicate flags: num_threads
Initialized session in 0.495ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1000 first=612 curr=498 min=480 max=612 avg=500.4 std=9
Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=1 curr=512
Inference timings in us: Init: 495, First inference: 612, Warmup (avg): 500.4, Inference (avg): 1.23457e+06
Memory footprint delta from the start of the tool (MB): init=2 overall=3
"""
PROFILE = (
    "Profiling Info for Benchmark Initialization:\n"
    "============================== Summary by node type ==============================\n"
    "\t[Node type]\t[count]\t[avg ms]\t[avg %]\t[cdf %]\t[mem KB]\t[times called]\n"
    "\tModifyGraphWithDelegate\t1\t2.100\t80.0%\t80.0%\t1024.000\t1\n"
    "\nOperator-wise Profiling Info for Regular Benchmark Runs:\n"
    "============================== Run Order ==============================\n"
    "\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]\n"
    "\tCONV_2D\t1.2\t1.1\t50%\t50%\t0\t1\t[conv]:0\n"
    "Number of nodes executed: 17\n"
    "============================== Summary by node type ==============================\n"
    "\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]\n"
    "\t                 CONV_2D\t       15\t    17.250\t    90.312%\t    90.312%\t     0.000\t       15\n"
    "\tFully Connected (NC, QS8)\t        2\t     1.850\t     9.688%\t   100.000%\t     0.000\t        2\n"
    "\n"
    "Timings (microseconds): count=52 first=19083 curr=19156 min=18737 max=20119 avg=19105.2 std=249\n"
    "Memory (bytes): count=0\n17 nodes observed\n"
)


# --- its text --------------------------------------------------------------------------------------------------------


def test_the_newer_text_gives_median_and_memory():
    found = invocation_of(NEW)
    assert (found.init_us, found.first_us, found.inference.count) == (6527, 23015, 52)
    assert found.inference.typical_us == 19077, "of the inferences, not of the warm-up; the median, not the average"
    assert found.peak_mb == 14.625 and found.operations == ()


def test_the_older_text_gives_the_average():
    found = invocation_of(OLD)
    assert (found.init_us, found.first_us, found.inference.count) == (495, 612, 1)
    assert found.inference.typical_us == 1.23457e06 and found.peak_mb is None


def test_the_profile_is_that_of_the_regular_runs():
    assert invocation_of(NEW + PROFILE).operations == (
        ("CONV_2D", 15, 17.25),
        ("Fully Connected (NC, QS8)", 2, 1.85),
    )


@pytest.mark.parametrize("text", ["", "ERROR: Failed to load model", NEW[:400], OLD.replace("First", "Last")])
def test_a_text_without_timings_is_none(text):
    assert invocation_of(text) is None


def test_conditions_leave_out_sensors_that_are_off():
    lines = ["khz 1804800", "khz 2841600", "governor schedutil", "battery millidegrees 99000"]
    lines += ["cpu-0-0-usr millidegrees 48500", "cpu-0-1 usr millidegrees 255000", "cpu2 millidegrees ", ""]
    found = condition_of("during", lines)
    assert (found["frequencies_khz"], found["governor"], found["temperature_c"]) == (
        [1804800, 2841600],
        "schedutil",
        48.5,
    )
    nothing = condition_of("after", [])
    assert (nothing["frequencies_khz"], nothing["governor"], nothing["temperature_c"]) == ([], None, None)
    assert condition_of("after", ["governor a", "governor b"])["governor"] == "mixed"


ODD_LINES = (
    *("@pocketship", "@pocketship exit", "@pocketship exit x", "@pocketship exit ²", "@pocketship block"),
    *("@pocketship block 0", "@pocketship block 0 x", "@pocketship block 0 1e999", "@pocketship look during nan"),
    f"@pocketship block 0 1\n{OLD.replace('Init: 495', 'Init: 1e+e')}",
    f"@pocketship first 0 1\n{OLD.replace('Init: 495', 'Init: 1e999')}",
    "@pocketship look before 1\nkhz ²\ncpu millidegrees ³",
)


@pytest.mark.parametrize("text", ODD_LINES, ids=range(len(ODD_LINES)))
def test_lines_that_only_look_like_the_scripts_are_told_as_such(text):
    lines = [*f"{text}\n@pocketship exit 0\n@pocketship exit 0\n".splitlines(keepends=True)]
    for event in events(None, lines, "abc"):
        said = event.get(UNREADABLE, "which is none of benchmark_model's lines")
        assert "which is none of benchmark_model's lines" in said
        assert event.get("frequencies_khz", []) == []


# --- what it is asked ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A job whose two artifacts are called TFLite: nothing here reads them."""
    made = make_job(tmp_path_factory.mktemp("models"))
    artifacts = tuple(replace(artifact, format="tflite") for artifact in made.job.artifacts)
    return made.with_(artifacts=artifacts, cases=(Case(0, 1), Case(1, None)), seconds=2.5)


def test_the_script_takes_turns_and_quotes_what_it_is_given(made):
    text = script(made.job, "/tmp/a b/'model'", lambda artifact: f"/x/$(y)/{artifact.name}", "/tmp/lo ck")
    order = re.findall(r"@pocketship block (\d)", text)
    rounds = list(zip(*[iter(order)] * 2, strict=True))
    assert len(rounds) == LEAST_ROUNDS and {*map(frozenset, rounds)} == {frozenset("01")} and len(set(rounds)) == 2
    assert "--min_secs=0.1 --num_threads=1" in text and text.count("--num_threads") == LEAST_ROUNDS + 1
    assert "'--graph=/x/$(y)/tall.onnx'" in text and "'/tmp/lo ck'" in text and "\"'\"'model'\"'\"" in text
    assert "op_profiling" not in text
    assert "--enable_op_profiling=true" in script(replace(made.job, profile=True), "b", lambda artifact: "g", "l")
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0


def test_affinity_is_a_mask(made):
    assert " taskset 98 b " in script(replace(made.job, affinity=(3, 4, 7)), "b", lambda artifact: "g", "l")


@pytest.mark.parametrize(
    ("changes", "option"), [({"batch": 2}, "--batch"), ({"sustained_s": 60.0}, "--sustained"), ({}, "--data")]
)
def test_what_it_cannot_do_is_refused(made, changes, option):
    artifacts = tuple(replace(a, data=None if changes else "d.npz") for a in made.job.artifacts)
    with pytest.raises(BadInput) as caught:
        check(replace(made.job, artifacts=artifacts, **changes), "m.tflite")
    assert str(caught.value) == f"m.tflite: benchmark_model cannot do {option}; leave {option} out"
    check(made.job, "m.tflite")


# --- its events ------------------------------------------------------------------------------------------------------


def told(*parts: tuple[str, int, str]) -> list[dict]:
    """The events of invocations (kind and case, exit code, text)."""
    text = "".join(
        f"@pocketship {kind} {10 + i}.25\n{said}\n@pocketship exit {code}\n"
        for i, (kind, code, said) in enumerate(parts)
    )
    found = list(events(None, text.splitlines(keepends=True), "abc"))
    for event in found:  # raises for a field that is missing, extra or of another type
        fields = json.loads(json.dumps({k: v for k, v in event.items() if k not in ("event", "case")}))
        from_json(EVENTS[event["event"]], fields)
    return found


def test_an_invocation_is_a_block_of_one_honest_time():
    loaded, warm, memory, block = told(("first 1", 0, NEW), ("block 1", 0, NEW))
    assert (loaded["load_warm_ns"], loaded["first_inference_ns"]) == (6_527_000, 23_015_000)
    assert loaded["load_cold_ns"] is None and loaded["inputs"] == "random" and loaded["notes"] == list(NOTES)
    assert (warm["warmup_ns"], warm["stable"]) == ([], False)
    assert memory == {
        "event": "memory", "case": 1, "baseline_bytes": None, "steady_bytes": None, "peak_bytes": 15_335_424
    }  # fmt: skip
    assert (block["runs"], block["times_ns"], block["at_ns"]) == (52, [19_077_000], 1_000_000_000)


@pytest.mark.parametrize(
    ("code", "text", "cause", "detail"),
    [
        (1, "ERROR: a\nERROR: no op X\n\n", "refused", "benchmark_model ended with exit code 1: ERROR: no op X"),
        (127, "", "refused", "benchmark_model ended with exit code 127: it printed nothing"),
        (0, "odd", "refused", "benchmark_model printed no timings: odd"),
        (124, "", "timed-out", "benchmark_model gave no answer in time and was killed"),
        (
            *(137, "", "out-of-memory"),
            "benchmark_model was killed by the system (SIGKILL), as it does when memory runs out",
        ),
        (139, "", "crashed", "benchmark_model crashed with SIGSEGV"),
        (255, "", "crashed", "benchmark_model crashed with signal 127"),
    ],
)
def test_an_end_that_is_none_is_told_with_its_cause(code, text, cause, detail):
    assert told(("block 0", code, text)) == [{"event": "failed", "case": 0, "cause": cause, "detail": detail}]


# --- in a phone's shell ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phone")
    with adb_server(folder / "adb") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with emulated_phone(folder / "phone") as running:
            yield running


def bench(phone, made, binary: Path, script: str) -> tuple[list[dict], PocketshipError | None]:
    """Run a job with a script in benchmark_model's place."""
    binary.write_text(f"#!/bin/sh\n{script}\n")
    found: list[dict] = []
    try:
        run_of(phone.target)(phone.target, made.job, made.files, Options(runner=binary), found.append)
    except PocketshipError as error:
        return found, error
    return found, None


def printing(text: str) -> str:
    return f"cat <<'END'\n{text}END"


@pytest.mark.device
def test_a_bench_of_the_double_is_a_result_without_parity(phone, made, tmp_path):
    found, error = bench(phone, made.with_(profile=True), tmp_path / "bm", printing(NEW + PROFILE))
    assert error is None
    results = made.recorded(found)
    for result in results:
        assert result.failure is None and result.parity is None and result.statistics.p50_ms == 19.077
        assert result.executed_by.runtime == "LiteRT benchmark_model" and result.samples.stable is False
        assert result.statistics.blocks == LEAST_ROUNDS and result.statistics.inferences == 52 * LEAST_ROUNDS
        assert result.notes == NOTES and result.profile[0].operation == "CONV_2D"
        assert [c.when for c in result.conditions] == ["before", *["during"] * (LEAST_ROUNDS // 5), "after"]
    at = [b.at_ns for b in results[0].samples.blocks]
    assert at == sorted(at) and at[0] < at[-1]
    assert [e for e in found if e["event"] == "progress"][-1] == {"event": "progress", "done": 25, "total": 25}


@pytest.mark.device
def test_a_case_that_crashes_late_keeps_its_blocks_and_the_other_goes_on(phone, made, tmp_path):
    script = 'echo "$*" >>/data/runs; case "$*" in *num_threads=1*) '
    script += "[ $(grep -c num_threads=1 /data/runs) -gt 4 ] && kill -SEGV $$;; esac\n" + printing(NEW)
    found, error = bench(phone, made, tmp_path / "bm", script)
    assert error is None
    results = made.recorded(found)
    assert (results[0].failure.cause, results[0].failure.detail) == ("crashed", "benchmark_model crashed with SIGSEGV")
    assert results[0].statistics.blocks == 3 and results[1].statistics.blocks == LEAST_ROUNDS
    assert len([e for e in found if e["event"] == "failed"]) == 1, "it is not tried again"


@pytest.mark.device
def test_one_that_hangs_is_killed_in_time(phone, made, tmp_path):
    found, error = bench(phone, made.with_(timeout_s=0.5), tmp_path / "bm", "sleep 600")
    assert error is None
    assert [(e["case"], e["cause"]) for e in found if e["event"] == "failed"] == [(0, "timed-out"), (1, "timed-out")]


@pytest.mark.device
def test_a_phone_that_another_bench_holds_is_refused(phone, made, tmp_path):
    lock = phone.store / "lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found, error = bench(phone, made, tmp_path / "bm", printing(NEW))
    assert str(error) == f"{phone.target}: another bench is running on the phone; wait until it has ended"
    assert isinstance(error, BadInput) and [e["event"] for e in found] == ["device"]
