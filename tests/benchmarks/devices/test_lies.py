"""A board that lies: what it tells costs the case that it is of and nothing else, and no lie is an internal error."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.agent.samples import encoded
from benchmarks.bench import BenchArtifact, Board, Plan, bench
from benchmarks.commands.bench import raise_failures
from benchmarks.commands.bench_screen import BenchProgress, print_csv, print_results
from benchmarks.devices import Options, lines, local
from benchmarks.devices.adb import device as adb
from benchmarks.results.record import Proof
from benchmarks.results.result import ArtifactFacts, read_results, write_results
from runtimes.errors import BadInput, PocketshipError
from runtimes.golden import Golden, write_golden
from tests.benchmarks.synthetic import TOLD_FACTS

MS = 1_000_000
GOLDEN = Golden(
    tuple({"x": np.full(3, i, np.float32)} for i in range(2)), tuple({"y": np.full(2, i, np.float32)} for i in range(2))
)
DEVICE = {"event": "device", "facts": TOLD_FACTS}
END = {"event": "end"}
TELL = """
import pathlib, sys
sys.stdout.buffer.write(pathlib.Path(__file__).with_name("told").read_bytes())
"""


def loaded(case: int, **changed: Any) -> dict:
    times = dict.fromkeys(("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns"), MS)
    told = {"runtime": "onnxruntime", "version": "1", "inputs": "golden", "page_cache_dropped": False}
    return {"event": "loaded", "case": case, **told, **times, **changed}


def golden(case: int, sample: int, **changed: Any) -> dict:
    told = {"of": "golden", "row": sample, "rows": 1, "outputs": encoded(GOLDEN.outputs[sample])}
    return {"event": "outputs", "case": case, **told, **changed}


def block(case: int, *times_ns: int, **changed: Any) -> dict:
    told = {"process": 0, "at_ns": 5, "runs": len(times_ns), "times_ns": list(times_ns)}
    return {"event": "block", "case": case, **told, **changed}


def honest(case: int) -> list[dict]:
    """All that a board tells of a case which is well."""
    warm = {"event": "warm", "case": case, "warmup_ns": [MS], "stable": True}
    return [loaded(case), golden(case, 0), golden(case, 1), warm, block(case, MS, MS, MS)]


@pytest.fixture
def board_that_tells(tmp_path, monkeypatch):
    """The results of two cases, of which a board told these lines, and the error that the bench ends with."""
    agent = tmp_path / "agent.py"
    agent.write_text(TELL)
    monkeypatch.setattr(local, "AGENT", agent)
    write_golden(GOLDEN, tmp_path / "golden.npz")
    (tmp_path / "model.onnx").write_bytes(b"which nobody reads here")
    facts = ArtifactFacts("model.onnx", "onnx", 10, "ab")
    artifact = BenchArtifact(tmp_path / "model.onnx", facts, tmp_path / "golden.npz", Proof(GOLDEN))

    def get(told: Sequence[Any]) -> tuple[tuple, PocketshipError | None]:
        content = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in told)
        (tmp_path / "told").write_bytes(content)
        board, output = Board("local", Plan(threads=(1, 2)), Options()), tmp_path / "results.json"
        with BenchProgress([board], quiet=False) as progress:
            (done,) = bench([artifact], [board], progress.event, lambda part: write_results(part.results, output))
        written = [(r.id, r.samples, r.notes, r.failure) for r in read_results(output)]
        assert written == [(r.id, r.samples, r.notes, r.failure) for r in done.results], "-o is written"
        print_results(done.results)
        print_csv(done.results)
        try:
            raise_failures((done,))
        except PocketshipError as error:
            return done.results, error
        return done.results, None

    return get


def test_a_board_that_tells_the_truth(board_that_tells, capfd):
    results, error = board_that_tells([DEVICE, *honest(0), *honest(1), END])
    assert error is None and all(r.failure is None and r.parity.verdict == "pass" for r in results)
    assert "local: board, cpu, 1 cores, os (physical)" in capfd.readouterr().out


OF_A_CASE: dict[str, tuple[str, list[Any]]] = {
    "a time below zero": ("no list of nanoseconds", [block(0, -1)]),
    "no time at all": ("a median of 0 ns: the device's clock does not move", [block(0, 0, 0, 0)]),
    "9.2e12 ms": ("no list of nanoseconds", [block(0, 9_200_000_000_000 * MS)]),
    "a day": ("times of 8.64e+04 s, of which", [block(0, 86_400 * 10**9)]),
    "a day after the start": ("times of 8.64e+04 s, of which", [block(0, MS, at_ns=86_400 * 10**9)]),
    "a load of a day": ("times of 8.64e+04 s, of which", [loaded(0, load_cold_ns=86_400 * 10**9)]),
    "more samples than runs": ("2 times of 1 runs", [block(0, MS, MS, runs=1)]),
    "more samples than a block has": ("1,001 entries are too many", [block(0, *[5] * 1001)]),
    "more runs than there was time for": ("times of 5e+03 s, of which", [block(0, 10 * MS, runs=1_000_000)]),
    "words for times": ("no list of nanoseconds", [block(0, "1", "2")]),
    "a field too few": ("no field 'runs'", [{k: v for k, v in block(0, MS).items() if k != "runs"}]),
    "a field too many": ("unknown field 'x'", [block(0, MS, x=1)]),
    "a process that was not asked for": ("process 99 of 5", [block(0, MS, process=99)]),
    "doubled outputs": ("row 0 comes after 2 others", [golden(0, 0)]),
    "outputs of no golden sample": ("row 2 comes after 2 others", [golden(0, 1, row=2)]),
    "outputs of another size": (
        "8 bytes are no float32 of shape [9]",
        [golden(0, 1, row=2, outputs={"y": {**encoded(GOLDEN.outputs[0])["y"], "shape": [9]}})],
    ),
    "numbers beyond all squares": (
        "it holds numbers beyond 1e+140",
        [golden(0, 1, row=2, outputs=encoded({"y": np.full(2, 1e308)}))],
    ),
    "loaded again and again": ("more often than the 5 processes asked for", [loaded(0)] * 6),
    "a name of 10 kB": ("a text of 10,000 characters, 300 at most", [loaded(0, runtime="x" * 10_000)]),
    "an event that is none": ("'applause' is no event", [{"event": "applause", "case": 0}]),
    "infinitely many instructions": (
        "inf is not within",
        [b'{"event": "instructions", "case": 0, "per_inference": 1e999}\n'],
    ),
    "400 digits": (
        "is not a number of 64 bits",
        [b'{"event": "instructions", "case": 0, "per_inference": 1' + b"0" * 400 + b"}\n"],
    ),
    "half a character": ("half a character", [loaded(0, notes=["\ud800"])]),
    "a list of lists": ("is not str", [loaded(0, notes=[[[]]])]),
}


@pytest.mark.matrix(one_in=3)
@pytest.mark.parametrize(("says", "told"), OF_A_CASE.values(), ids=OF_A_CASE)
def test_a_lie_costs_its_case_and_nothing_else(board_that_tells, capfd, says, told):
    first, second = honest(0), honest(1)
    (spoiled, fine), error = board_that_tells([DEVICE, *first, *told, block(0, 1), *second, END])
    assert spoiled.failure.cause == "malformed" and says in spoiled.failure.detail
    assert spoiled.samples.blocks[0].times_ns == (MS, MS, MS), "what was told before"
    assert fine.failure is None and fine.parity.verdict == "pass" and fine.statistics.p50_ms == 1.0
    assert error.exit_code == 2 and str(error).startswith("model.onnx on local: it told ")
    assert str(error).endswith("; bench again, over ssh with --clean") and says in str(error)
    out = capfd.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith(("model.onnx", "local,board"))]
    assert "malformed" in rows[0] and rows[0].count("1 to 1") == 0, "no latency of a liar"


OF_NO_CASE: dict[str, tuple[str, list[Any]]] = {
    "progress of nothing": ("progress: no field 'done'", [{"event": "progress"}]),
    "progress in words": ("progress.done: 'x' is not float", [{"event": "progress", "done": "x", "total": "y"}]),
    "progress that is no number": (
        "a line: not JSON (NaN is no JSON)",
        [b'{"event": "progress", "done": NaN, "total": 1}\n'],
    ),
    "a notice without words": ("notice: no field 'text'", [{"event": "notice"}]),
    "a case that is none": ("block: case 7 is none of the job's", [block(7, MS)]),
    "a case below zero": ("block: case -1 is none of the job's", [block(-1, MS)]),
    "a case in words": ("block: case '0' is none of the job's", [block("0", MS)]),
    "no event": ("event: None is no event", [{}]),
    "a list": ("a line: no JSON object", [b"[]\n"]),
    "no JSON": ("a line: not JSON (Expecting value: line 1 column 1 (char 0))", [b"\x1b]52;c;eA==\x07\n"]),
    "bytes of no encoding": ("a line: not JSON ('utf-8' codec can't decode", [b'{"event": "\xff"}\n']),
    "a nesting without end": ("a line: not JSON (maximum recursion", [b"[" * 100_000 + b"\n"]),
    "digits without end": ("a line: not JSON (Exceeds the limit", [b"1" * 5000 + b"\n"]),
    "an empty line": ("a line: not JSON (Expecting value", [b"\n"]),
    "a condition of the future": (
        "condition: times of 8.64e+04 s",
        [{"event": "condition", "at_ns": 86_400 * 10**9, "when": "after"}],
    ),
    "another device": ("device: it comes a second time", [DEVICE]),
}


@pytest.mark.matrix(one_in=3)
@pytest.mark.parametrize(("says", "told"), OF_NO_CASE.values(), ids=OF_NO_CASE)
def test_a_lie_of_no_case_costs_none_and_is_told(board_that_tells, says, told):
    results, error = board_that_tells([DEVICE, *honest(0), *told, *honest(1), END])
    assert [(r.failure, r.parity.verdict, r.statistics.p50_ms) for r in results] == [(None, "pass", 1.0)] * 2
    assert error.exit_code == 2 and str(error).startswith(f"local: it told {says}")
    assert results[0].notes[-1].startswith(f"it told {says}")


def test_a_line_of_any_length_is_one_lie(board_that_tells, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_BYTES", 5_000)
    monkeypatch.setattr(lines, "LONGEST_OUTPUTS_BYTES", 100_000)
    long = [b"x" * 6_000 + b"\n", b"y" * 300_000 + b"\n"]
    results, error = board_that_tells([DEVICE, *honest(0), *long, *honest(1), END])
    assert [(r.failure, r.statistics.p50_ms) for r in results] == [(None, 1.0)] * 2
    assert str(error) == (
        "local: it told a line: 6,000 bytes are of no event, and 1 more that are no events; "
        "bench again, over ssh with --clean"
    )


def test_a_result_of_a_case_that_has_failed(board_that_tells):
    crash = {"event": "failed", "case": 0, "cause": "crashed", "detail": "crashed with SIGSEGV"}
    (crashed, fine), error = board_that_tells([DEVICE, loaded(0), crash, block(0, MS), *honest(1), END])
    assert crashed.failure.cause == "crashed" and crashed.statistics is None and fine.failure is None
    assert error.exit_code == 3 and "it told block: case 0 has failed" in str(error)


def test_golden_outputs_that_are_kept_back(board_that_tells):
    hiding = [event for event in honest(0) if event.get("row") != 1]
    (hides, fine), error = board_that_tells([DEVICE, *hiding, *honest(1), END])
    assert hides.failure.detail == "it told 1 of 2 golden outputs" and hides.parity is None and fine.failure is None
    assert error.exit_code == 2 and "it told 1 of 2 golden outputs; bench again" in str(error)


def test_events_after_the_end(board_that_tells):
    (first, second), error = board_that_tells([DEVICE, *honest(0), END, block(0, MS), loaded(1)])
    assert first.statistics.p50_ms == 1.0 and first.samples.blocks == first.samples.blocks[:1]
    assert second.statistics is None and "it comes after the end" in str(error) and error.exit_code == 2


def test_no_end(board_that_tells):
    results, error = board_that_tells([DEVICE, *honest(0), b'{"event": "end"}'])
    assert {r.failure.cause for r in results} == {"agent-killed"} and error.exit_code == 2


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (None, "device.facts: None is not an object"),
        ({**TOLD_FACTS, "model": "x" * 10_000}, "device.facts.model: a text of 10,000 characters"),
        ({**TOLD_FACTS, "memory_bytes": -1}, "device.facts.memory_bytes: -1 is not within"),
        ({**TOLD_FACTS, "executed": "of course"}, "device.facts.executed: 'of course' is none of physical"),
    ],
)
def test_who_does_not_say_what_it_is_has_no_results(board_that_tells, facts, says):
    results, error = board_that_tells([{"event": "device", "facts": facts}, *honest(0), END])
    assert results == () and error.exit_code == 2 and str(error).startswith(f"local: it told {says}")


def test_a_flood_is_an_end(board_that_tells):
    results, error = board_that_tells([DEVICE, *honest(0), *[{}] * 1000])
    assert {r.failure.cause for r in results} == {"malformed"} and error.exit_code == 2
    assert str(error).startswith("local: it told event: None is no event")


@pytest.mark.parametrize("refused", [3, {}, {"what": 3, "where": "", "remedy": ""}, [[]]])
def test_an_agent_that_refuses_in_no_words(board_that_tells, refused):
    results, error = board_that_tells([{"refused": refused}])
    assert results == () and isinstance(error, BadInput)
    assert str(error).startswith("the agent refuses and does not say why (refused")


def test_outputs_that_are_wrong_are_wrong_outputs(board_that_tells):
    told = [golden(0, i, outputs=encoded({"y": np.array([np.nan, 3e38], np.float32)})) for i in range(2)]
    (wrong, fine), error = board_that_tells([DEVICE, loaded(0), *told, *honest(1), END])
    assert wrong.failure.cause == "parity" and fine.failure is None and error.exit_code == 3


def test_a_phone_says_of_its_runners_cases_and_cores_what_can_be_true():
    cases = [3, 1]
    assert adb._of_whole_job({"event": "block", "case": 0}, cases) == {"event": "block", "case": 3}
    for case in (2, -1, "0", True, None, 1.0):
        assert adb._of_whole_job({"event": "block", "case": case}, cases) == {"event": "block", "case": None}
    said = "architecture aarch64\ncores \u00b2\nMemTotal: many kB\nlinker bionic\n"
    phone = SimpleNamespace(where="adb://x", shell=lambda command: SimpleNamespace(output=said))
    facts = adb.look(phone).facts
    assert (facts["cores"], facts["memory_bytes"]) == (None, None)


CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
HOSTILE = "\x1b]52;c;eA==\x07\x1b[2J\x9b31m\u202egnp\r\nlocal: all is well"


def test_what_a_board_says_of_itself_is_no_command_to_the_terminal(board_that_tells, capfd):
    facts = {name: HOSTILE if isinstance(value, str) else value for name, value in TOLD_FACTS.items()}
    facts |= {"family": "board", "executed": "physical", "software": {HOSTILE: HOSTILE}}
    told = [loaded(0, runtime=HOSTILE, version=HOSTILE, notes=[HOSTILE]), *honest(0)[1:]]
    notice = {"event": "notice", "text": HOSTILE}
    crash = {"event": "failed", "case": 1, "cause": "crashed", "detail": HOSTILE}
    _, error = board_that_tells([{**DEVICE, "facts": facts}, notice, *told, crash, {"event": HOSTILE}, END])
    out, err = capfd.readouterr()
    assert not CONTROLS.search(out) and not CONTROLS.search(err), (out, err)
    assert "52;c;eA==" in out and "52;c;eA==" in err and "52;c;eA==" in str(error)
    assert not any(line.startswith("local: all is well") for line in (out + err).splitlines())
