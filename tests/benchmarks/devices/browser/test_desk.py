"""What is believed of a browser: every forged post is refused whole, and what was told before and after it counts."""

from __future__ import annotations

import json

import pytest

from benchmarks.devices.browser import desk as browser_desk
from benchmarks.devices.browser.desk import Denied, Left, family_of
from tests.benchmarks.devices.browser.desk import (
    DEVICE,
    FACTS,
    WHOLE,
    Time,
    array,
    block,
    data,
    desk_of,
    golden,
    job_with_files,
    loaded,
    post,
    taken,
    warm,
)

PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 7) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36"


@pytest.fixture
def desk(tmp_path):
    job, _ = job_with_files(tmp_path)
    desk = desk_of(job, Time())
    desk.check(desk.open_session(desk.token, "desktop"))
    return desk


def denied(call, *words) -> Denied:
    with pytest.raises(Denied) as caught:
        call(*words)
    return caught.value


def test_a_whole_job_is_believed_event_by_event_and_in_order(desk):
    assert desk.take(post(0, *WHOLE[:4])) == []
    parity = {"case": 0, "verdict": "pass", "max_rel_error": 0.0, "reason": ""}
    assert desk.take(post(1, *WHOLE[4:])) == [parity]
    assert taken(desk) == WHOLE


def test_wrong_outputs_are_passed_on_and_the_page_is_told(desk):
    (parity,) = desk.take(post(0, DEVICE, loaded(), golden(0), golden(1), golden(2, 5.0)))
    assert parity["verdict"] == "fail" and parity["max_rel_error"] == pytest.approx(0.25)
    assert taken(desk)[-1] == golden(2, 5.0)


def test_outputs_that_are_no_numbers_have_no_error_to_show(desk):
    (parity,) = desk.take(post(0, DEVICE, loaded(), golden(0), golden(1), golden(2, float("nan"))))
    assert parity == {"case": 0, "verdict": "fail", "max_rel_error": None, "reason": "output 'y' holds NaN or infinity"}


# --- token and session ---------------------------------------------------------------------------------------------


def test_the_token_opens_one_session_and_is_spent(tmp_path):
    desk = desk_of(job_with_files(tmp_path)[0])
    assert not desk.is_open and len(desk.token) >= 20
    for wrong in ("", "x", desk.token[:-1], desk.token + "x", "\xff" * 22):
        assert str(denied(desk.open_session, wrong, "")).startswith("This code is wrong.")
        assert denied(desk.check, wrong).status == 401, "no session is open: not even the empty one"
    session = desk.open_session(desk.token, "")
    assert desk.is_open and session != desk.token
    again = denied(desk.open_session, desk.token, "")
    assert again.status == 403 and str(again).startswith("This code was used already")
    desk.check(session)
    for wrong in ("", desk.token, session[:-1], "\xff"):
        assert str(denied(desk.check, wrong)) == "no such session"


def test_two_desks_have_different_tokens(tmp_path):
    job, _ = job_with_files(tmp_path)
    assert len({desk_of(job).token for _ in range(20)}) == 20


# --- facts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        (PHONE, "phone"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148", "phone"),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0", "desktop"),
        ("", "desktop"),
    ],
)
def test_the_family_is_that_of_the_user_agent_whatever_the_page_says(tmp_path, agent, family):
    desk = desk_of(job_with_files(tmp_path)[0])
    desk.open_session(desk.token, agent)
    lied = "phone" if family == "desktop" else "desktop"
    desk.take(post(0, {"event": "device", "facts": {**FACTS, "family": lied}}))
    (told,) = taken(desk)
    assert family_of(agent) == family
    assert told["facts"] == {**FACTS, "family": family}


def test_who_starts_the_browser_knows_the_machine_better(tmp_path):
    known = {"cpu": "a processor", "executed": "physical"}
    desk = desk_of(job_with_files(tmp_path)[0], facts=known)
    desk.open_session(desk.token, "")
    desk.take(post(0, DEVICE))
    assert taken(desk)[0]["facts"] == {**FACTS, "cpu": "a processor"}, "and it is a browser that executes all the same"


# --- posts that are refused ----------------------------------------------------------------------------------------

BEFORE = [DEVICE, loaded(), golden(0), warm(), block(5000)]

FORGED = {
    "physical": ([{"event": "device", "facts": {**FACTS, "executed": "physical"}}], "facts.executed"),
    "emulated by a Pi": ([{"event": "device", "facts": {**FACTS, "emulator": "qemu"}}], "facts.emulator"),
    "a second device": ([DEVICE], "device comes first, and once"),
    "another sha": ([{**block(6000), "sha256": "1" * 64}], "sha256: Extra inputs are not permitted"),
    "no such event": ([{"event": "condition", "at_ns": 0}], "does not match any of the expected tags"),
    "no event": ([{"case": 0}], "Unable to extract tag"),
    "a field whose name is for the terminal": (
        [{**block(6000), "\x1b]0;x\x07": 1}],
        "events.1.block.\ufffd]0;x\ufffd: Extra inputs",
    ),
    "an event whose name is": ([{"event": "\x1b[2J" * 1000}], "\ufffd[2J\ufffd[2J"),
    "a field missing": ([{k: v for k, v in block(6000).items() if k != "runs"}], "runs: Field required"),
    "no such case": ([block(6000, 2)], "case 2 of a job of 2"),
    "a negative case": ([block(6000, -1)], "case: Input should be greater than or equal to 0"),
    "a negative time": ([block(6000, times_ns=[10, -1])], "times_ns.1: Input should be greater"),
    "no time at all": ([block(6000, times_ns=[])], "times_ns: List should have at least 1 item"),
    "an inference of nothing": ([block(6000, times_ns=[0, 1])], "times_ns.0: Input should be greater"),
    "half a nanosecond": ([block(6000, times_ns=[0.5, 1])], "times_ns.0: Input should be a valid integer"),
    "a number in words": ([block(6000, runs="2")], "runs: Input should be a valid integer"),
    "true for one": ([block(6000, process=True)], "process: Input should be a valid integer"),
    "NaN": ([block(6000, times_ns=[float("nan")])], "times_ns.0"),
    "infinity": ([block(float("inf"))], "at_ns"),
    "beyond 64 bits": ([block(10**40)], "at_ns"),
    "more times than runs": ([block(6000, times_ns=[1, 1, 1])], "3 times of 2 runs"),
    "too many times": ([block(6000, runs=2000, times_ns=[1] * 1001)], "at most 1000 items"),
    "a block in the past": ([block(4999)], "a block at 4999 ns after one at 5500 ns"),
    "a block in the future": ([block(10**12)], "times of 1e+03 s in a session of 2 s"),
    "longer than there was": ([block(6000, times_ns=[10**10, 1])], "times of 10 s in a session of 2 s"),
    "a load of an hour": ([loaded(1, load_cold_ns=3600 * 10**9)], "in a session of 2 s"),
    "a warm-up of an hour": ([loaded(1), {**warm(1), "warmup_ns": [3600 * 10**9]}], "in a session of 2 s"),
    "another process": ([block(6000, process=1)], "a block of process 1, which is not warm"),
    "a block of a model not loaded": ([block(6000, 1)], "block of case 1, which is not loaded"),
    "a block of a model not warm": ([loaded(1), block(6000, 1)], "a block of process 0, which is not warm"),
    "loaded twice in one process": ([loaded(0)], "loaded 2 times in 1 processes"),
    "another runtime": ([loaded(1, runtime="onnxruntime-web")], "onnxruntime-web for a file of tflite"),
    "random instead of golden": ([loaded(1, inputs="golden")], "inputs golden of case 1"),
    "a cold page cache": ([loaded(1, page_cache_dropped=True)], "page_cache_dropped"),
    "a failure of our own": ([{"event": "failed", "case": 0, "cause": "link-lost", "detail": ""}], "cause"),
    "colours for the terminal": ([{"event": "failed", "case": 0, "cause": "crashed", "detail": "\x1b[2J"}], "detail"),
    "text from right to left": ([{"event": "failed", "case": 0, "cause": "crashed", "detail": "\u202e"}], "detail"),
    "a novel": ([{"event": "failed", "case": 0, "cause": "crashed", "detail": "x" * 501}], "at most 500 characters"),
    "energy": ([{"event": "energy", "case": 0, "joules": 1.0, "inferences": 1, "source": "", "note": ""}], "joules"),
    "golden rows out of order": ([golden(2)], "golden row 2 where 1 of 3 is the next"),
    "a golden row too many": ([golden(1), golden(2), golden(3)], "golden row 3 where 3 of 3 is the next"),
    "golden rows at once": ([golden(1, rows=2)], "2 golden samples in one event"),
    "data too many": ([data(0, 6)], "data row 0 where 0 of 5 is the next"),
    "data of another length": ([data(0, 2, outputs={"y": array([[1.0]])})], "has shape [1, 1] of 2 rows"),
    "no outputs": ([golden(1, outputs={})], "outputs: Dictionary should have at least 1 item"),
    "no numbers": ([golden(1, outputs={"y": {**array([1.0]), "dtype": "object"}})], "outputs of type 'object'"),
    "fewer bytes": ([golden(1, outputs={"y": {**array([1.0]), "shape": [2]}})], "4 bytes of float32 [2], which has 8"),
    "a huge shape": ([golden(1, outputs={"y": {**array([1.0]), "shape": [10**9] * 9}})], "4 bytes of float32"),
    "no base64": ([golden(1, outputs={"y": {**array([1.0]), "data": "????"}})], "outputs that are no base64"),
    "something after the end": ([{"event": "end"}, block(6000)], "block after end"),
    "something after a failure": (
        [{"event": "failed", "case": 0, "cause": "crashed", "detail": ""}, block(6000)],
        "block of case 0, which has failed",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_post_is_refused_whole_and_nothing_is_lost(desk, name):
    events, words = FORGED[name]
    desk.take(post(0, *BEFORE))
    refused = denied(desk.take, post(1, block(5500), *events))
    assert refused.status == 422 and words in str(refused), str(refused)
    assert "\n" not in str(refused) and str(refused).isprintable()
    desk.take(post(1, block(5000), golden(1), golden(2)))
    assert taken(desk) == [*BEFORE, block(5000), golden(1), golden(2)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'{"number":0}',
        b'{"number":0,"events":{}}',
        b'{"number":-1,"events":[]}',
        b'{"number":0,"events":[],"more":1}',
        b'{"number":NaN,"events":[]}',
        b"[" * 100_000,
        b'{"number":0,"events":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"number":0,"events":[' + b",".join([b'{"event":"end"}'] * 10_001) + b"]}",
        b'{"number":' + b"9" * 5000 + b',"events":[]}',
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_garbage_is_refused(desk, body):
    assert denied(desk.take, body).status == 422
    desk.take(post(0, DEVICE))
    assert taken(desk) == [DEVICE]


@pytest.mark.parametrize("first", [block(), loaded(), {"event": "end"}, {"event": "progress", "done": 0, "total": 1}])
def test_device_comes_first(desk, first):
    assert str(denied(desk.take, post(0, first))) == "device comes first, and once"


def test_a_post_that_comes_twice_is_taken_once_and_none_may_be_missing(desk):
    assert desk.take(post(0, DEVICE, *WHOLE[1:5])) == desk.take(post(0, DEVICE, *WHOLE[1:5])) != []
    assert taken(desk) == WHOLE[:5]
    skipped = denied(desk.take, post(2, block()))
    assert (skipped.status, str(skipped)) == (409, "post 2 came where 1 was the next")


def test_a_session_may_post_only_so_much(desk, monkeypatch):
    monkeypatch.setattr(browser_desk, "MOST_POSTS", 2)
    desk.take(post(0, DEVICE))
    denied(desk.take, b"garbage")
    too_much = denied(desk.take, post(1))
    assert too_much.status == 413 and str(too_much).startswith("more than 2 posts or")


def test_the_bytes_of_a_session_are_counted(desk, monkeypatch):
    monkeypatch.setattr(browser_desk, "MOST_TOTAL_BYTES", 500)
    desk.take(post(0, DEVICE))
    assert "500 bytes in one session" in str(denied(desk.take, post(1) + b" " * 300))


# --- leaving, silence, notices -------------------------------------------------------------------------------------


def test_a_page_may_leave_and_say_why(desk):
    for bad in (b"", b"{}", b'{"reason":1}', json.dumps({"reason": "\x07"}).encode(), b'{"reason":"x","more":1}'):
        assert denied(desk.leave, bad).status == 422
    desk.leave(b'{"reason":"closed"}')
    assert taken(desk) == [Left("closed")]


def test_leaving_after_the_end_is_no_loss(desk):
    desk.take(post(0, DEVICE, {"event": "end"}))
    desk.leave(b'{"reason":"closed"}')
    assert taken(desk) == [DEVICE, {"event": "end"}]


def test_only_the_browser_with_the_session_breaks_the_silence(tmp_path):
    clock = Time()
    desk = desk_of(job_with_files(tmp_path)[0], clock)
    clock.now_s += 7
    denied(desk.open_session, "wrong", "")
    assert desk.silent_s() == 7
    desk.open_session(desk.token, "")
    assert desk.silent_s() == 0
    clock.now_s += 5
    denied(desk.check, "wrong")
    desk.note("1.2.3.4", 401, "no such session")
    assert desk.silent_s() == 5
    desk.take(post(0))
    assert desk.silent_s() == 0


def test_the_first_ten_refusals_are_told(desk):
    for _ in range(30):
        desk.note("1.2.3.4", 403, "why")
    texts = [message["text"] for message in taken(desk)]
    assert texts[0] == "refused a request from 1.2.3.4: 403 why"
    assert len(texts) == 10 and texts[-1].endswith("(further ones are not shown)")
