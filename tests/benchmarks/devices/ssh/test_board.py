"""The program that a board's Python runs, run by this machine's; and what a bench makes of odd answers."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.devices import Interrupted, Options, lines
from benchmarks.devices.ssh import bench as ssh_bench
from benchmarks.devices.ssh import board as ssh_board
from benchmarks.devices.ssh.answers import Facts, Probe, Started, Stopped, Unpacked
from benchmarks.devices.ssh.link import BOARD_PROGRAM, Done, answer_of, measure
from benchmarks.results.events import UNREADABLE
from runtimes.errors import BadInput
from tests.rigs.jobs import asked, matmul

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def board(home, *words: object, stdin: bytes = b"") -> list:
    """The JSON lines that a command prints, with `home` as the user's folder."""
    command = [sys.executable, "-I", "-S", "-c", BOARD_PROGRAM.read_text(), *map(str, words)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=True, env={"HOME": str(home)})
    assert done.stderr == b""
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(folder) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_any_python_3_can_read_it():
    tree = ast.parse(BOARD_PROGRAM.read_text(), feature_version=(3, 5))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr))]


def test_a_file_comes_whole(tmp_path):
    assert board(tmp_path, "put", tmp_path / "a/b", len(CONTENT), SHA256, "me", stdin=CONTENT) == [
        {"have": 0},
        {"done": True},
    ]
    assert (tmp_path / "a/b").read_bytes() == CONTENT and names(tmp_path / "a") == ["b"]


def test_a_file_of_no_bytes(tmp_path):
    assert board(tmp_path, "put", tmp_path / "b", 0, measure(b"")[1], "me") == [{"have": 0}, {"done": True}]


def test_a_file_that_was_cut_goes_on_and_is_not_seen_before_it_is_whole(tmp_path):
    words = ("put", tmp_path / "b", len(CONTENT), SHA256)
    assert board(tmp_path, *words, "me", stdin=CONTENT[:1000]) == [{"have": 0}]
    assert not (tmp_path / "b").exists()
    assert board(tmp_path, *words, "me", stdin=CONTENT[1000:]) == [{"have": 1000}, {"done": True}]
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert board(tmp_path, *words, "another")[0] == {"have": 0}, "nobody goes on with another's part"


def test_bytes_that_are_not_those_announced(tmp_path):
    told = board(tmp_path, "put", tmp_path / "b", len(CONTENT), SHA256, "me", stdin=CONTENT[::-1])
    assert told[1] == {"error": "its bytes changed on the way", "full": False}
    assert names(tmp_path) == []


@pytest.mark.parametrize(("path", "full"), [("/dev/full/x", False), ("/proc/nothing/x", False)])
def test_a_place_that_cannot_be_written(path, full, tmp_path):
    (told,) = board(tmp_path, "put", path, 1, SHA256, "me", stdin=b"a")
    assert told["full"] is full and told["error"]


def test_probe_says_what_is_there_and_sweeps_up_what_is_old(tmp_path):
    (told,) = board(tmp_path, "probe")
    folder = tmp_path / ".cache/pocketship"
    assert told["python"] == list(sys.version_info[:2]) and told["folder"] == str(folder)
    assert told["free_bytes"] > 0 and (told["busy"], told["error"], told["has"]) == ("", "", ["files", "jobs"])
    old, new = (folder / "files/a.x.part", folder / "jobs/old"), (folder / "files/b.x.part", folder / "jobs/new")
    kept = (folder / "files/whole.onnx", folder / "agent-1.pyz")
    for path in (*old, *new, *kept):
        path.mkdir() if path.parent.name == "jobs" else path.write_bytes(b"a")
    day_before = time.time() - ssh_board.LEFTOVER_S - 60
    for path in (*old, *kept):
        os.utime(path, (day_before, day_before))
    board(tmp_path, "probe")
    assert [path.exists() for path in (*old, *new, *kept)] == [False, False, True, True, True, True]


def test_probe_where_nothing_can_be_written(tmp_path):
    (tmp_path / ".cache").write_text("a file")
    assert board(tmp_path, "probe")[0]["error"] in ("Not a directory", "File exists")


def test_remove_follows_no_link(tmp_path):
    kept, link, folder = tmp_path / "kept", tmp_path / "link", tmp_path / "folder"
    for place in (kept, folder):
        place.mkdir()
        (place / "file").write_text("a")
    link.symlink_to(kept)
    assert board(tmp_path, "remove", link, folder, tmp_path / "missing") == []
    assert (kept / "file").exists() and names(tmp_path) == ["kept"]


def test_leave_takes_the_job_and_its_parts_alone(tmp_path):
    for name in ("jobs/mine/x", "jobs/other/x", "files/a.mine.part", "files/a.other.part", "files/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a")
    board(tmp_path, "leave", tmp_path, "mine")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["files/a", "files/a.other.part", "jobs/other/x"]


def test_tail(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff0123456789")
    assert board(tmp_path, "tail", tmp_path / "log", 4) == ["6789"]
    assert board(tmp_path, "tail", tmp_path / "log", 99) == ["\ufffd0123456789"]
    assert board(tmp_path, "tail", tmp_path / "missing", 4) == [""]


def test_running(tmp_path):
    job, events = tmp_path / "job.json", tmp_path / "events.jsonl"
    assert board(tmp_path, "running", job, events) == [0]
    forks = "import os, time; os.write(1, b'%d\\n' % os.fork()); time.sleep(60)"
    sleeper = subprocess.Popen([sys.executable, "-c", forks, "start", str(job)], stdout=subprocess.PIPE, text=True)
    child = max(int(sleeper.stdout.readline()) for _ in range(2))
    try:
        assert board(tmp_path, "running", job, events) == [sleeper.pid]
    finally:
        os.kill(child, signal.SIGKILL)
        sleeper.kill()
        sleeper.communicate()
    events.touch()
    assert board(tmp_path, "running", job, events) == [ssh_board.GONE]
    with pytest.raises(ProcessLookupError):
        os.kill(ssh_board.GONE, 0)


# --- A bench whose board answers oddly -------------------------------------------------------------------------------


def bench_of(chunks: list[bytes | None], tmp_path) -> tuple[ssh_bench.Bench, list]:
    """A bench whose agent's events come in these chunks, where None is a minute without any, and what it tells."""

    async def stream(words):
        for chunk in chunks:
            if chunk is None:
                await asyncio.sleep(60)
            yield chunk

    link = SimpleNamespace(address=SimpleNamespace(target="ssh://board"), stream=stream)
    told: list = []
    bench = asked(matmul(tmp_path / "a.onnx", 2))
    return ssh_bench.Bench(link, bench.job, bench.files, Options(), told.append), told


def test_events_come_in_any_pieces_and_are_counted_in_bytes(tmp_path):
    lines = "".join(json.dumps({"event": "x", "n": n}) + "\n" for n in range(3)) + '{"event": "ü"}\n{"event": "e'
    content = lines.encode()
    bench, told = bench_of([content[at : at + 7] for at in range(0, len(content), 7)], tmp_path)
    asyncio.run(bench._follow())
    assert told == [{"event": "x", "n": n} for n in range(3)] + [{"event": "ü"}]
    assert bench._offset == content.rindex(b"\n") + 1, "half an event is read again"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage\n", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[]\n", "no JSON object"),
        (b"x" * 300 + b"\n", "300 bytes are of no event"),
    ],
)
def test_what_is_no_event_is_passed_on_as_such(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_BYTES", 256)
    bench, told = bench_of([b'{"event": "first"}\n', content, b'{"event": "end"}\n'], tmp_path)
    asyncio.run(bench._follow())
    assert told == [{"event": "first"}, {UNREADABLE: message}, {"event": "end"}] and bench._ended


def test_an_agent_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_bench, "MARGIN_S", -120.0)  # of the 120 s that data may take
    bench, told = bench_of([b'{"event": "first"}\n', None], tmp_path)
    bench._job = replace(bench._job, timeout_s=0.2)
    with pytest.raises(Interrupted, match=r"ssh://board: the agent told nothing for 0.2 s; bench again") as silent:
        asyncio.run(bench._follow())
    assert silent.value.cause == "timed-out" and told == [{"event": "first"}]


ODD_ANSWERS = (
    "3",
    "[]",
    "{}",
    "null",
    '{"pid": "1"}',
    '{"python": []}',
    "[" * 10**5,
    "garbage",
    '{"refused": 1}',
    "[1]",
)


@pytest.mark.parametrize("answer", ODD_ANSWERS, ids=range(len(ODD_ANSWERS)))
def test_an_answer_that_is_none_is_one_line(answer):
    said = ("it answers what it was not asked", "python3 there says", "the agent refuses and does not say why")
    for kind in (Probe, Facts, Started, Stopped, Unpacked, dict[str, int]):
        if (answer, kind) != ("{}", dict[str, int]):
            with pytest.raises(BadInput) as error:
                answer_of(Done(0, answer.encode(), ""), kind, "ssh://board")
            assert str(error.value).startswith(tuple(f"ssh://board: {words}" for words in said))


def test_a_version_of_python_that_is_none():
    probe = {"python": [3], "folder": "/", "free_bytes": 0, "busy": "", "error": "", "has": []}
    with pytest.raises(BadInput, match="it does not say its Python's version"):
        answer_of(Done(0, json.dumps(probe).encode(), ""), Probe, "ssh://board")


A, B, C = ("a" * 64, "b" * 64, "c" * 64)
AB, ABC = f"site-{'a' * 12}-{'b' * 12}", f"site-{'a' * 12}-{'b' * 12}-{'c' * 12}"


@pytest.mark.parametrize(
    ("wanted", "has", "found"),
    [
        ([], [ABC], ("", False)),
        ([B, A], ["files", "jobs"], (AB, False)),
        ([B, A], ["files", AB], (AB, True)),
        ([B], [ABC], (ABC, True)),
        ([A, C], [AB], (f"site-{'a' * 12}-{'c' * 12}", False)),
        ([A], [f"{AB}.part"], (f"site-{'a' * 12}", False)),
    ],
)
def test_the_folder_of_wheels_is_one_that_holds_them_all(wanted, has, found):
    assert ssh_bench.site_of(wanted, has) == found


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (Done(1, b"", "Traceback\n  at\nKeyError: 1\n"), "KeyError: 1"),
        (Done(1, b"words\n", ""), "words"),
        (Done(3, b"", " \n"), "exit code 3 and no word"),
    ],
)
def test_the_last_line_of_what_a_program_said(done, line):
    assert done.last_line == line
