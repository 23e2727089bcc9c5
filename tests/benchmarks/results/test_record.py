"""Events into results: what was told counts, and what docs/results.md does not allow changes nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from benchmarks.agent.samples import encoded
from benchmarks.console import plain
from benchmarks.job import Case, Job, JobArtifact
from benchmarks.results.events import Array, Malformed
from benchmarks.results.execution import latency_is_real
from benchmarks.results.record import MOST_NOTICES, Proof, Recorder, decoded, with_kernels
from benchmarks.results.result import (
    CAUSES,
    ArtifactFacts,
    Block,
    Failure,
    Samples,
    read_results,
    result_from_json,
    result_schema,
    results_to_json,
    statistics_of,
)
from runtimes.errors import BadInput
from runtimes.golden import Golden
from runtimes.kernels import KernelTruth
from runtimes.records import from_json

ROOT = Path(__file__).resolve().parents[3]
MS = 1_000_000
FACTS = {
    "model": "Raspberry Pi 4 Model B Rev 1.5",
    "family": "raspberry-pi",
    "cpu": "Cortex-A72",
    "architecture": "aarch64",
    "cores": 4,
    "memory_bytes": 4 * 2**30,
    "os": "Debian",
    "executed": "emulated",
    "emulator": "qemu-aarch64",
    "software": {"python": "3.11.2"},
}
OPERATION = {"operation": "Conv", "calls": 1, "total_ns": 2, "runs": 1}
GOLDEN = Golden(
    tuple({"x": np.full(3, i, np.float32)} for i in range(2)), tuple({"y": np.full(2, i, np.float32)} for i in range(2))
)


def recorder(cases: int = 1, proof: Proof | None = None, clock: Callable[[], float] | None = None) -> Recorder:
    artifact = JobArtifact("model.onnx", "onnx", "a.onnx", 10, "ab", "golden.npz")
    job = Job("job", (artifact,), tuple(Case(0, n + 1) for n in range(cases)), processes=2)
    found = Recorder(
        "ssh://pi@board", job, [ArtifactFacts("model.onnx", "onnx", 10, "ab")], [proof], "kitchen", clock=clock
    )
    found.add({"event": "device", "facts": FACTS})
    return found


def loaded(case: int = 0, **fields) -> dict:
    times = dict.fromkeys(("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns"), 5 * MS)
    told = {"runtime": "onnxruntime", "version": "1.32.0", "inputs": "golden", "page_cache_dropped": True}
    return {
        "event": "loaded",
        "case": case,
        **told,
        **times,
        "versions": {"numpy": "2.4.0"},
        "notes": ["alone"],
        **fields,
    }


def block(case: int = 0, *times_ns: int, at_ns: int = 7, process: int = 0, runs: int | None = None) -> dict:
    runs = len(times_ns) if runs is None else runs
    return {
        "event": "block",
        "case": case,
        "process": process,
        "at_ns": at_ns,
        "runs": runs,
        "times_ns": list(times_ns),
    }


def outputs(value: float | list[float], row: int, of: str = "golden") -> dict:
    array = {"y": np.full(2, value, np.float32)}
    return {"event": "outputs", "case": 0, "of": of, "row": row, "rows": 1, "outputs": encoded(array)}


# --- what is kept --------------------------------------------------------------------------------------------------


def test_a_board_is_judged_by_columns_where_the_golden_values_say_what_rounding_does_to_them():
    wanted = ([0.0, 0.01], [640.0, 0.04])
    samples = tuple({"y": np.array(value, np.float32)} for value in wanted)
    verdicts = []
    for noise in ({"onnx": {"y": {0: np.zeros(2, np.float32)}}}, {"tflite": {}}, {}):
        found = recorder(proof=Proof(Golden(GOLDEN.inputs, samples, noise)))
        for event in (loaded(), outputs(wanted[0], 0), outputs([640.0, 0.05], 1), {"event": "end"}):
            found.add(event)
        (result,) = found.results()
        verdicts.append((result.parity.verdict, result.failure and result.failure.detail))
    assert verdicts[0] == ("fail", "output 'y' is off by 0.01 in its column 1, allowed is 7.63e-05 there")
    assert verdicts[1:] == [("pass", None)] * 2, "by the output as a whole"


def test_all_that_is_told_is_in_the_result():
    found = recorder(proof=Proof(GOLDEN))
    looks = [{"event": "condition", "at_ns": 1, "when": "before", "temperature_c": 50.5, "throttled": []}]
    looks.append({"event": "condition", "at_ns": 9, "when": "after", "frequencies_khz": [600000]})
    for event in (
        *looks,
        loaded(),
        outputs(0.0, 0),
        outputs(1.0, 1),
        {"event": "warm", "case": 0, "warmup_ns": [3 * MS, 2 * MS], "stable": True},
        block(0, 2 * MS, 3 * MS),
        loaded(load_cold_ns=1),
        {"event": "warm", "case": 0, "warmup_ns": [9], "stable": False},
        block(0, 4 * MS, 4 * MS, 9 * MS, process=1, at_ns=9),
        {"event": "memory", "case": 0, "baseline_bytes": 1, "steady_bytes": 2, "peak_bytes": 3},
        {"event": "memory", "case": 0, "baseline_bytes": 1, "steady_bytes": 2, "peak_bytes": 2},
        {"event": "energy", "case": 0, "joules": None, "inferences": 5, "source": "", "note": "no energy counter"},
        {"event": "profile", "case": 0, "operations": [{"operation": "Conv", "calls": 1, "total_ns": 2, "runs": 1}]},
        {"event": "instructions", "case": 0, "per_inference": 1234567},
        {"event": "progress", "done": 1, "total": 2},
        {"event": "notice", "text": "hello"},
        {"event": "end"},
    ):
        found.add(event)
    (result,) = found.results()
    assert result.failure is None and result.parity.verdict == "pass" and result.parity.samples == 2
    assert result.executed_by.kind == "emulated", "the runtime says physical, the machine knows better"
    assert (result.board, result.target) == ("kitchen", "ssh://pi@board")
    assert result.samples.load_cold_ns == 5 * MS, "of the first process"
    assert result.samples.warmup_ns == (9,) and result.samples.stable is False, "unstable once is unstable"
    assert [b.process for b in result.samples.blocks] == [0, 1]
    assert result.memory.peak_bytes == 3 and result.instructions == 1234567.0
    assert [look.when for look in result.conditions] == ["before", "after"]
    assert result.versions == {"python": "3.11.2", "numpy": "2.4.0"} and result.notes == ("alone",)
    assert result.settings.threads == 1 and result.settings.inputs == "golden" and result.settings.processes == 2
    assert result.statistics.inferences == 5 and result.statistics.min_ms == 2.0


def test_outputs_that_differ_fail_the_proof_and_it_says_how():
    found = recorder(proof=Proof(GOLDEN))
    for event in (loaded(), outputs(0.0, 0), outputs(1.5, 1), block(0, 2), {"event": "end"}):
        found.add(event)
    (result,) = found.results()
    assert result.parity.verdict == "fail" and result.failure.cause == "parity"
    assert "output 'y' is off by 0.5" in result.failure.detail


def test_golden_values_that_did_not_all_come_prove_nothing():
    found = recorder(proof=Proof(GOLDEN))
    for event in (loaded(), outputs(0.0, 0)):
        found.add(event)
    (result,) = found.results(Failure("link-lost", "gone"))
    assert result.parity is None and result.failure.cause == "link-lost"


def test_what_was_told_before_the_link_was_lost_counts():
    found = recorder(cases=2)
    found.add(loaded(0))
    found.add(block(0, 2 * MS, 2 * MS))
    found.add({"event": "failed", "case": 1, "cause": "crashed", "detail": "crashed with SIGSEGV"})
    first, second = found.results(Failure("link-lost", "the link broke"))
    assert first.statistics.p50_ms == 2.0 and first.failure.cause == "link-lost"
    assert second.failure.cause == "crashed" and second.samples is None, "its own end came first"


def test_before_the_device_said_what_it_is_there_is_no_result():
    job = Job("job", (), ())
    assert Recorder("local", job, [], []).results() == ()


def test_a_result_has_the_same_id_however_often_it_is_asked_for_and_no_other_has_it():
    found = recorder(cases=2)
    first, second = found.results()
    assert found.results()[0].id == first.id != second.id


def test_kernel_truth_goes_by_hash():
    (result,) = recorder().results()
    truth = KernelTruth(1.0, 0.0, 0.0)
    assert with_kernels([result], {"ab": truth})[0].kernels == truth
    assert with_kernels([result], {"cd": truth})[0].kernels is None


# --- what is refused -----------------------------------------------------------------------------------------------

BAD = [
    ("no event", {"no": "event"}),
    ("no event", {"event": "applause"}),
    ("3 is no event", {"event": 3}),
    ("None is no event", [1]),
    ("case 9 is none of the job's", {"event": "warm", "case": 9, "warmup_ns": [], "stable": True}),
    ("case -1 is none of the job's", {"event": "warm", "case": -1, "warmup_ns": [], "stable": True}),
    ("case True is none of the job's", {"event": "warm", "case": True, "warmup_ns": [], "stable": True}),
    ("'quantum' is none of", {"event": "device", "facts": {**FACTS, "executed": "quantum"}}),
    ("'toaster' is none of", {"event": "device", "facts": {**FACTS, "family": "toaster"}}),
    ("is not an object", {"event": "device", "facts": 3}),
    ("unknown field 'password'", {"event": "device", "facts": {**FACTS, "password": "x"}}),
    ("cores: 0 is not within 1 and 4,096", {"event": "device", "facts": {**FACTS, "cores": 0}}),
    ("a text of 10,000 characters, 300 at most", {"event": "device", "facts": {**FACTS, "model": "x" * 10_000}}),
    ("a text of 301 characters", {"event": "device", "facts": {**FACTS, "software": {"x" * 301: "1"}}}),
    ("101 entries are too many", {"event": "device", "facts": {**FACTS, "software": {f"{n}": "" for n in range(101)}}}),
    ("half a character", {"event": "device", "facts": {**FACTS, "os": "\ud800"}}),
    ("device: it comes a second time", {"event": "device", "facts": FACTS}),
    ("no field 'when'", {"event": "condition", "at_ns": 1}),
    ("'now' is none of before, during, after", {"event": "condition", "at_ns": 1, "when": "now"}),
    ("temperature_c: nan is not", {"event": "condition", "at_ns": 1, "when": "after", "temperature_c": math.nan}),
    ("temperature_c: inf is not", {"event": "condition", "at_ns": 1, "when": "after", "temperature_c": math.inf}),
    ("is not a number of 64 bits", {"event": "condition", "at_ns": 1, "when": "after", "temperature_c": 10**300}),
    ("is not a number of 64 bits", {"event": "condition", "at_ns": 1, "when": "after", "load": 10**400}),
    ("beyond all bounds (OverflowError)", {"event": "condition", "at_ns": 10**5000, "when": "after"}),
    ("load_cold_ns: -1 is not within 0 and", loaded(load_cold_ns=-1)),
    ("load_cold_ns: 9.22337e+18 is not within 0 and", loaded(load_cold_ns=2**63 - 1)),
    ("load_cold_ns: True is not int or null", loaded(load_cold_ns=True)),
    ("runtime: None is not str", loaded(runtime=None)),
    ("no field 'version'", {k: v for k, v in loaded().items() if k != "version"}),
    ("unknown field 'x'", loaded(x=1)),
    ("'wishes' is none of golden, random", loaded(inputs="wishes")),
    ("is not a list", loaded(notes="x")),
    ("a text of 10,001 characters", loaded(notes=["x" * 10_001])),
    ("is not str", loaded(versions={"numpy": 2})),
    ("case 0 is not loaded", block(0, 5)),
    ("case 0 is not loaded", outputs(0.0, 0)),
    ("done", {"event": "progress"}),
    ("done: 'x' is not float", {"event": "progress", "done": "x", "total": 1}),
    ("total: -1 is not within", {"event": "progress", "done": 1, "total": -1}),
    ("unknown field 'case'", {"event": "progress", "done": 1, "total": 1, "case": 0}),
    ("no field 'text'", {"event": "notice"}),
    ("text: 3 is not str", {"event": "notice", "text": 3}),
    ("'bored' is none of", {"event": "failed", "case": 0, "cause": "bored", "detail": ""}),
    ("detail: None is not str", {"event": "failed", "case": 0, "cause": "crashed", "detail": None}),
]
BAD_ONCE_LOADED = [
    ("it comes more often than the 2 processes asked for", loaded()),
    ("no list of nanoseconds", {"event": "warm", "case": 0, "warmup_ns": [1.5], "stable": True}),
    ("stable: 'yes' is not bool", {"event": "warm", "case": 0, "warmup_ns": [1], "stable": "yes"}),
    ("no list of nanoseconds", block(0, -5)),
    ("no list of nanoseconds", block(0, 2**63)),
    ("no list of nanoseconds", {**block(0, 1), "times_ns": "1"}),
    ("1,001 entries are too many", block(0, *[5] * 1001)),
    ("0 times of 1 runs", block(0, runs=1)),
    ("runs: 0 is not within 1 and", block(0)),
    ("2 times of 1 runs", block(0, 1, 1, runs=1)),
    ("process: '0' is not int", {**block(0, 1), "process": "0"}),
    ("process 25 of 2", block(0, 1, process=25)),
    ("it is from before the last one", block(0, 1, at_ns=6)),
    ("a median of 0 ns: the device's clock does not move", block(0, 0, 0, 5)),
    ("times of 9.2e+03 s, of which 3.02 s have passed", block(0, 9_200 * 10**9)),
    ("times of 9.2e+03 s, of which 3.02 s have passed", block(0, 1, at_ns=9_200 * 10**9)),
    ("times of 5e+03 s, of which", block(0, 10 * MS, runs=1_000_000)),
    ("times of 3.07 s, of which 3.02 s have passed", block(0, *[3 * MS] * 1000, at_ns=8)),
    ("times of 9e+03 s, of which", {"event": "warm", "case": 0, "warmup_ns": [9_000 * 10**9], "stable": True}),
    ("times of 9e+03 s, of which", {"event": "condition", "at_ns": 9_000 * 10**9, "when": "after"}),
    ("'guess' is none of golden, data", outputs(0.0, 2, of="guess")),
    ("row 1 comes after 2 others", outputs(0.0, 1)),
    ("row 2 comes after 2 others", outputs(0.0, 2)),
    ("2 golden samples, where one an event", {**outputs(0.0, 2), "rows": 2}),
    ("rows: 0 is not within 1 and", {**outputs(0.0, 2), "rows": 0}),
    ("data, of which there are none", outputs(0.0, 0, of="data")),
    ("'outputs': 3 is not an object".replace("'", ""), {**outputs(0.0, 2), "outputs": 3}),
    ("unknown field 'x'", {"event": "memory", "case": 0, "x": 1}),
    ("is not float", {"event": "energy", "case": 0, "joules": "many", "inferences": 1, "source": ""}),
    ("joules: inf is not", {"event": "energy", "case": 0, "joules": math.inf, "inferences": 1, "source": ""}),
    ("is not a list", {"event": "profile", "case": 0, "operations": {}}),
    ("times of 9e+03 s", {"event": "profile", "case": 0, "operations": [OPERATION | {"total_ns": 9_000 * 10**9}]}),
    ("nan is not within", {"event": "instructions", "case": 0, "per_inference": math.nan}),
]


@pytest.mark.parametrize(("says", "event"), BAD, ids=[f"{i}-{says}" for i, (says, _) in enumerate(BAD)])
def test_an_event_that_is_none_is_refused_and_changes_nothing(says, event):
    found = recorder()
    before = found.results()
    with pytest.raises(BadInput, match=re.escape(says)):
        found.add(event)
    after = found.results()
    assert after == before and not found.ended


@pytest.mark.parametrize(
    ("says", "event"), BAD_ONCE_LOADED, ids=[f"{i}-{s}" for i, (s, _) in enumerate(BAD_ONCE_LOADED)]
)
def test_what_cannot_be_true_of_a_case_is_refused_and_changes_nothing(says, event):
    clock = iter([0.0, *[1.0] * 100])
    found = recorder(proof=Proof(GOLDEN), clock=lambda: next(clock))
    for told in (loaded(), loaded(), outputs(0.0, 0), outputs(1.0, 1), block(0, 30 * MS, at_ns=7)):
        found.add(told)
    before = found.results()
    with pytest.raises(BadInput, match=re.escape(says)):
        found.add(event)
    assert found.results() == before and not found.ended
    found.add(block(0, 5, at_ns=8))


def test_a_malformed_event_costs_its_case_and_nothing_else():
    found = recorder(cases=3)
    said = [found.hear(event) for event in (loaded(0), loaded(1), block(0, 5), block(1, -1), block(1, 5), loaded(2))]
    assert said == [True, True, True, False, False, True], "what comes of it later is not heard"
    assert found.hear({"event": "end"})
    fine, spoiled, other = found.results()
    assert fine.failure is None and other.failure is None and fine.samples.blocks[0].times_ns == (5,)
    assert spoiled.failure == Failure("malformed", "it told times_ns: no list of nanoseconds")
    assert not latency_is_real(spoiled) and found.faults == "" and fine.notes == ("alone",)


def test_what_is_of_no_case_is_kept_among_the_faults_and_noted_in_every_result():
    found = recorder(cases=2)
    odd = [{"event": "progress"}, {"unreadable": "not JSON (x)"}, {"event": "end"}, loaded(1)]
    assert [found.hear(event) for event in odd] == [False, False, True, False]
    words = "it told progress: no field 'done', and 1 more that are no events"
    assert found.faults == words and found.results()[0].notes == (words,)
    assert found.results()[1].failure.detail == "it told loaded: it comes after the end"


def test_a_result_of_a_case_that_failed_is_a_lie_and_the_failure_stands():
    found = recorder()
    crash = {"event": "failed", "case": 0, "cause": "crashed", "detail": "crashed with SIGSEGV"}
    assert [found.hear(event) for event in (loaded(), crash, block(0, 5), crash)] == [True, True, False, False]
    assert found.results()[0].failure.cause == "crashed" and found.results()[0].statistics is None
    assert found.faults == "it told block: case 0 has failed, and 1 more that are no events"


def test_before_the_device_said_what_it_is_nothing_is_heard_of_cases():
    artifact = JobArtifact("model.onnx", "onnx", "a.onnx", 10, "ab")
    found = Recorder("local", Job("job", (artifact,), (Case(0, 1),)), [ArtifactFacts("a", "onnx", 10, "ab")], [None])
    assert found.hear({"event": "notice", "text": "it is put there"})
    assert not found.hear({"event": "end"}) and not found.ended
    assert found.faults == "it told end: it comes before the device said what it is"
    with pytest.raises(Malformed, match="device: no field 'facts'"):
        found.hear({"event": "device"})
    assert found.results() == ()


def test_a_flood_of_what_is_none_is_an_end():
    found = recorder()
    with pytest.raises(Malformed, match="None is no event"):
        for _ in range(200):
            found.hear({})
    found = recorder()
    for _ in range(MOST_NOTICES):
        assert found.hear({"event": "notice", "text": "spam"})
    assert not found.hear({"event": "notice", "text": "spam"})
    assert found.faults == "it told notice: more than 1,000 of them"


def test_samples_of_the_data_follow_each_other_and_are_alike():
    def told(row: int, shape: tuple[int, ...], rows: int = 1, name: str = "y") -> dict:
        array = {name: np.zeros(shape, np.float32)}
        return {"event": "outputs", "case": 0, "of": "data", "row": row, "rows": rows, "outputs": encoded(array)}

    artifact = JobArtifact("model.onnx", "onnx", "a.onnx", 10, "ab", None, "data.npz")
    job, facts = Job("job", (artifact,), (Case(0, 1),)), [ArtifactFacts("a", "onnx", 10, "ab")]
    found = Recorder("local", job, facts, [None], data_rows=3)
    for event in ({"event": "device", "facts": FACTS}, loaded(inputs="random"), told(0, (2, 4), 2)):
        found.add(event)
    for says, event in (
        ("row 0 comes after 2 others", told(0, (2, 4), 2)),
        ("row 2 comes after 2 others", told(2, (2, 4), 2)),
        ("not a row for each of 1 samples", told(2, (2, 4), 1)),
        ("not a row for each of 1 samples", {**told(2, (1, 4)), "outputs": {}}),
        ("other outputs than of the first samples", told(2, (1, 5))),
        ("other outputs than of the first samples", told(2, (1, 4), name="z")),
    ):
        with pytest.raises(BadInput, match=says):
            found.add(event)
    found.add(told(2, (1, 4)))
    assert [row for row, _ in found.answers(0)] == [0, 2]


@pytest.mark.parametrize(
    ("says", "value"),
    [
        ("'object' is no type of an output", Array("object", (1,), "")),
        ("not base64", Array("float32", (1,), "%%%")),
        (r"3 bytes are no float32 of shape \[1\]", Array("float32", (1,), "AAAA")),
    ],
)
def test_an_array_that_is_none(says, value):
    with pytest.raises(BadInput, match=says):
        decoded(value, "outputs.y")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int64", "bool", "float64"])
def test_arrays_survive_the_way(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    told = json.loads(json.dumps(encoded({"y": array})))["y"]
    back = decoded(from_json(Array, told), "y")
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_every_cause_is_documented():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for cause in CAUSES:
        assert cause in text, cause


# --- files of results ----------------------------------------------------------------------------------------------


def whole() -> list:
    found = recorder(proof=Proof(GOLDEN))
    for event in (loaded(), outputs(0.0, 0), outputs(1.0, 1), block(0, *range(1, 99)), {"event": "end"}):
        found.add(event)
    return list(found.results())


def test_results_survive_their_file_and_fit_their_schema(tmp_path):
    results, path = whole(), tmp_path / "results.json"
    path.write_text(json.dumps(plain(results_to_json(results))))
    assert list(read_results(path)) == results
    jsonschema.validate(json.loads(path.read_text()), result_schema())


def test_the_schema_is_the_one_in_docs():
    written = json.loads((ROOT / "docs" / "results.schema.json").read_text(encoding="utf-8"))
    assert written == result_schema(), "run: pocketship schema --results > docs/results.schema.json"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "not JSON"),
        ("[]", "no file of results"),
        ('{"results": [NaN]}', "not JSON (NaN is no JSON)"),
        ('{"results": [{"schema_version": 99}]}', "results[0]: result version is 99, this pocketship reads 1; bench"),
        ('{"results": [{"schema_version": 1}]}', "results[0]"),
        ('{"results": [3]}', "results[0]: result version is None"),
    ],
)
def test_a_file_that_is_none(tmp_path, text, says):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(says)) as caught:
        read_results(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"device": {**FACTS, "executed": "imagined"}}, "'imagined' is none of"),
        ({"device": {**FACTS, "family": "toaster"}}, "'toaster' is none of"),
        ({"failure": {"cause": "bored", "detail": ""}}, "'bored' is none of"),
        ({"surprise": 1}, "unknown field 'surprise'"),
    ],
)
def test_a_result_with_words_that_are_none(change, says):
    value = plain(results_to_json(whole()))["results"][0]
    with pytest.raises(BadInput, match=re.escape(says)):
        result_from_json({**value, **change}, "here")


@pytest.mark.parametrize(
    "block",
    [
        {"process": 0, "at_ns": 0, "runs": 1, "times_ns": [-5]},
        {"process": 0, "at_ns": 0, "runs": 0, "times_ns": []},
        {"process": 0, "at_ns": 0, "runs": 1, "times_ns": [5, 5]},
    ],
)
def test_times_that_are_none_are_refused_and_statistics_are_derived_anew(block):
    value = plain(results_to_json(whole()))["results"][0]
    samples = {**value["samples"], "blocks": [block]}
    with pytest.raises(BadInput, match=r"here\.samples: a block's times are none; bench again"):
        result_from_json({**value, "samples": samples}, "here")
    forged = result_from_json({**value, "statistics": {**value["statistics"], "p50_ms": 0.001}}, "here")
    assert forged == whole()[0] or forged.statistics == whole()[0].statistics


# --- statistics ----------------------------------------------------------------------------------------------------


def samples_of(*blocks: Block) -> Samples:
    return Samples(1, 1, 1, 1, True, (), True, blocks)


def test_statistics_are_those_of_all_inferences_and_the_median_of_blocks():
    generator = np.random.default_rng(0)
    blocks = [Block(i % 3, i, 40, tuple(generator.integers(10**6, 2 * 10**6, 40).tolist())) for i in range(75)]
    found = statistics_of(samples_of(*blocks))
    times = np.concatenate([b.times_ns for b in blocks]) / 1e6
    assert found.inferences == 3000 and found.blocks == 75
    assert found.min_ms == times.min()
    assert found.p90_ms == pytest.approx(np.quantile(times, 0.9)) and found.p99_ms == pytest.approx(
        np.quantile(times, 0.99)
    )
    assert found.low_ms <= found.p50_ms <= found.high_ms and found.p50_ms == pytest.approx(1.5, abs=0.05)
    assert found.per_second == pytest.approx(1000 / found.p50_ms) and found.slowdown is None
    assert statistics_of(samples_of()) is None


def test_sustained_compares_minute_one_with_the_last():
    second = 1_000_000_000
    throttled = [Block(0, i * second, 100, (MS if i < 90 else 2 * MS,) * 5) for i in range(300)]
    found = statistics_of(samples_of(*throttled), sustained_s=300.0)
    assert (found.minute_1_ms, found.last_minute_ms) == (1.0, 2.0) and found.inferences == 30_000
    assert found.slowdown == found.slowdown_low == 2.0
    short = statistics_of(samples_of(*throttled[:4]), sustained_s=4.0)
    assert short.slowdown == 1.0, "halves, where there are no two minutes"


def test_a_block_says_how_many_runs_it_had_in_all():
    assert statistics_of(samples_of(replace(Block(0, 0, 1, (5,)), runs=4000))).inferences == 4000
