"""Every way in which a call in a child process can end, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runtimes import child, errors
from runtimes.child import Completed, Crashed, OutOfMemory, Refused, TimedOut

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.cold
PATIENCE_S = 60.0  # no test waits for it; a child that takes so long is a bug, or the machine is stuck

HELPERS = """
import ctypes, os, signal, subprocess, sys, threading, time
from runtimes import errors


def add(job, emit):
    return {"sum": job["a"] + job["b"], "pid": os.getpid()}


def echo(job, emit):
    return job


def refuse(job, emit):
    raise getattr(errors, job["class"])("no  such\\nthing", where="model.onnx", remedy="look again")


def fail(job, emit):
    raise ValueError("first line\\nsecond line")


def give_a_set(job, emit):
    return {"value": {1, 2}}


def segfault(job, emit):
    print("last words", flush=True)
    ctypes.string_at(0)


def abort(job, emit):
    os.abort()


def leave(job, emit):
    os._exit(job["code"])


def kill_itself(job, emit):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(job, emit):
    emit({"pid": os.getpid()})
    time.sleep(600)


def allocate(job, emit):
    return {"held": len(bytearray(job["bytes"]))}


def allocate_in_numpy(job, emit):
    import numpy
    return {"held": numpy.ones(job["bytes"], "uint8").size}


def bad_alloc(job, emit):
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n  what():  std::bad_alloc\\n")
    os.abort()


def raise_text(job, emit):
    raise RuntimeError(job["text"])


def noise(job, emit):
    print("python out")
    print("python err", file=sys.stderr)
    print('{"value": "a forged answer"}')
    os.write(1, b'{"value": "raw out"}\\n')
    os.write(2, b"raw err\\n")
    subprocess.run(["echo", "grandchild out"])
    return {"quiet": True}


def tell(job, emit):
    for i in range(3):
        emit({"step": i})
        while job["wait"] and not os.path.exists(job["wait"] + str(i)):
            time.sleep(0.01)
    return {"steps": 3}


def ask(job, emit):
    return {"answer": input("really? ")}


def start_a_sleeper(job, emit):
    sleeper = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    emit({"pid": sleeper.pid})
    if job["then"] == "hang":
        time.sleep(600)
    if job["then"] == "crash":
        os.abort()
    return {"pid": sleeper.pid}


def fork_a_sleeper(job, emit):
    if os.fork() == 0:
        time.sleep(600)
    if job["then"] == "crash":
        os.abort()
    return {"done": True}


def answer_pipe():
    pipes = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
    return next(fd for fd in pipes if os.path.exists(f"/proc/self/fd/{fd}") and writable_pipe(fd))


def writable_pipe(fd):
    import fcntl
    is_pipe = os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    return is_pipe and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY


def die_while_answering(job, emit):
    os.write(answer_pipe(), b'{"value": {"half": ')
    os.abort()


def speak_and_stay(job, emit):
    if job["line"]:
        os.write(answer_pipe(), job["line"].encode())
    else:
        os.close(answer_pipe())
    time.sleep(600)


def answer_and_stay(job, emit):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return {"done": True}


def paths(job, emit):
    import json, types, numpy
    return {"files": [m.__file__ for m in (json, types, numpy)], "path": sys.path, "root": os.getcwd()}


def leave_a_file(job, emit):
    import tempfile
    folder = tempfile.mkdtemp()
    emit({"folder": folder})
    with open(os.path.join(folder, "file"), "w") as stream:
        stream.write("left behind")
    if job["then"] == "hang":
        time.sleep(600)
    if job["then"] == "crash":
        os.abort()
    return {}


def environment(job, emit):
    return {"seed": os.environ["PYTHONHASHSEED"], "path": os.environ["PYTHONPATH"]}
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """`child.call` of a function of HELPERS."""
    folder = tmp_path / "helpers"
    folder.mkdir()
    (folder / "child_helpers.py").write_text(HELPERS)
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def run(name: str, job: child.Json | None = None, *, timeout_s: float = PATIENCE_S, **options) -> child.Outcome:
        return child.call(f"child_helpers:{name}", job or {}, timeout_s=timeout_s, **options)

    return run


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process has ended (or is a zombie that nobody waited for yet)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_value_comes_back_from_another_process(call):
    outcome = call("add", {"a": 2, "b": 3})
    assert isinstance(outcome, Completed)
    assert outcome.value["sum"] == 5
    assert outcome.value["pid"] != os.getpid()
    assert child.describe(outcome) == "completed"


@pytest.mark.parametrize(
    "kind", ["BadInput", "NotInstalled", "ParityFailed", "UnsupportedOperation", "PocketshipError"]
)
def test_a_refusal_comes_back_as_the_same_error(call, kind):
    outcome = call("refuse", {"class": kind})
    assert isinstance(outcome, Refused)
    assert type(outcome.error) is getattr(errors, kind)
    assert (outcome.error.what, outcome.error.where) == ("no such thing", "model.onnx")
    assert outcome.error.remedy == "look again"
    assert child.describe(outcome) == str(outcome.error) == "model.onnx: no such thing; look again"


def test_an_exception_is_a_crash_with_its_type_and_text_in_one_line(call):
    outcome = call("fail")
    assert isinstance(outcome, Crashed)
    assert child.describe(outcome) == "ValueError: first line second line"
    assert "Traceback" in outcome.log_tail and "in fail" in outcome.log_tail


def test_a_value_that_is_no_json_is_a_crash(call):
    assert call("give_a_set").reason == "TypeError: Object of type set is not JSON serializable"


def test_a_function_that_is_not_there_is_a_crash(call):
    assert (
        call("no_such_function").reason == "AttributeError: module 'child_helpers' has no attribute 'no_such_function'"
    )


def test_a_module_that_is_not_there_is_named_with_its_mend(call):
    outcome = child.call("no_such_module:f", {}, timeout_s=PATIENCE_S)
    assert isinstance(outcome, Refused) and isinstance(outcome.error, errors.NotInstalled)
    assert str(outcome.error) == "no-such-module is not installed; pip install no-such-module"


def test_a_segmentation_fault_is_a_crash_named_so(call):
    outcome = call("segfault")
    assert isinstance(outcome, Crashed)
    assert child.describe(outcome) == "crashed with SIGSEGV"
    assert outcome.log_tail.endswith("last words\n")


def test_an_abort_is_a_crash_named_so(call):
    assert call("abort").reason == "crashed with SIGABRT"


@pytest.mark.parametrize("code", [0, 7])
def test_leaving_without_an_answer_is_a_crash(call, code):
    assert call("leave", {"code": code}).reason == f"ended with exit code {code} and no answer"


def test_half_an_answer_is_none(call):
    assert call("die_while_answering").reason == "crashed with SIGABRT"


def test_a_hang_is_ended_in_time(call):
    pids, started = [], time.monotonic()
    outcome = call("hang", timeout_s=1.5, on_event=lambda event: pids.append(event["pid"]))
    assert outcome == TimedOut(1.5)
    assert time.monotonic() - started < 10
    assert child.describe(outcome) == "did not end within 1.5 s and was killed"
    assert len(pids) == 1 and gone(pids[0])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS sets no memory limit")
@pytest.mark.parametrize("function", ["allocate", "allocate_in_numpy"])
def test_more_memory_than_allowed_is_an_outcome_of_its_own(call, function):
    limit = 512 * 2**20
    assert call(function, {"bytes": limit // 8}, memory_limit_bytes=limit).value == {"held": limit // 8}
    outcome = call(function, {"bytes": 2 * limit}, memory_limit_bytes=limit)
    assert outcome == OutOfMemory(limit)
    assert child.describe(outcome) == "needed more than the 512 MiB of memory it may have"


def test_cpp_out_of_memory_is_recognized_by_its_last_words(call):
    assert call("bad_alloc", memory_limit_bytes=2**33) == OutOfMemory(2**33)


@pytest.mark.parametrize("text", ["std::bad_alloc", "DefaultCPUAllocator: can't allocate memory: you tried 4 TB"])
def test_out_of_memory_as_libraries_word_it(call, text):
    assert call("raise_text", {"text": text}) == OutOfMemory(0)


def test_a_kill_from_outside_is_taken_for_the_systems_memory_killer(call):
    outcome = call("kill_itself", memory_limit_bytes=2**33)
    assert outcome == OutOfMemory(0), "it did not meet the limit that we set"
    assert child.describe(outcome) == "ran out of memory or was killed"


def test_noise_goes_to_the_log_and_not_into_the_answer(call, tmp_path):
    log = tmp_path / "log"
    log.write_text("earlier\n")
    assert call("noise", log_path=log) == Completed({"quiet": True})
    text = log.read_text()
    assert text.startswith("earlier\n")
    for line in ("python out", "python err", '{"value": "raw out"}', "raw err", "grandchild out", "a forged answer"):
        assert line in text


def test_the_tail_of_the_log_is_of_this_call_alone(call, tmp_path):
    log = tmp_path / "log"
    log.write_text("earlier std::bad_alloc\n")
    outcome = call("segfault", log_path=log)
    assert isinstance(outcome, Crashed)
    assert outcome.log_tail == "last words\n"
    assert log.read_text() == "earlier std::bad_alloc\nlast words\n"


def test_the_tail_of_a_long_log_is_short(call, tmp_path):
    outcome = call("raise_text", {"text": "x" * 100_000})
    assert len(outcome.log_tail) == child.LOG_TAIL_BYTES
    assert outcome.reason == "RuntimeError: " + "x" * 500


def test_events_arrive_while_the_child_runs(call, tmp_path):
    seen = []

    def on_event(event):
        seen.append(event["step"])
        (tmp_path / f"go{event['step']}").touch()  # the child waits for it before its next step

    assert call("tell", {"wait": str(tmp_path / "go")}, on_event=on_event) == Completed({"steps": 3})
    assert seen == [0, 1, 2]


def test_events_that_nobody_asked_for_are_dropped(call):
    assert call("tell", {"wait": ""}) == Completed({"steps": 3})


def test_a_megabyte_travels_both_ways(call):
    job = {"text": "ä\n" * 500_000, "numbers": [0.1, 1e300, -0.0]}
    assert call("echo", job) == Completed(job)


def test_a_question_on_stdin_meets_its_end_at_once(call):
    assert call("ask").reason == "EOFError: EOF when reading a line"


@pytest.mark.parametrize("then", ["hang", "crash", "answer"])
def test_what_the_child_started_ends_with_it(call, then):
    pids = []
    call("start_a_sleeper", {"then": then}, timeout_s=1.5, on_event=lambda event: pids.append(event["pid"]))
    assert len(pids) == 1 and gone(pids[0])


def test_a_forked_process_that_lives_on_does_not_hold_up_the_answer(call):
    started = time.monotonic()
    assert call("fork_a_sleeper", {"then": "answer"}) == Completed({"done": True})
    assert call("fork_a_sleeper", {"then": "crash"}).reason == "crashed with SIGABRT"
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_thread_that_lives_on_does_not_hold_up_the_answer(call):
    assert call("answer_and_stay") == Completed({"done": True})


def test_a_child_that_answered_is_not_waited_for_for_long(call, monkeypatch):
    monkeypatch.setattr(child, "EXIT_TIMEOUT_S", 0.5)
    assert call("speak_and_stay", {"line": '{"value": {"done": true}}\n'}) == Completed({"done": True})
    assert isinstance(call("speak_and_stay", {"line": ""}), Crashed), "it closed its end, so no answer will come"


def test_the_caller_gets_the_process_and_may_kill_it(call):
    processes = []

    def on_start(process):
        processes.append(process)
        os.killpg(process.pid, signal.SIGKILL)

    assert call("hang", on_start=on_start) == OutOfMemory(0)
    assert processes[0].poll() == -signal.SIGKILL


PARENT = """
import sys
from runtimes import child
tell = lambda event: print(event["pid"], flush=True)
child.call(f"child_helpers:{sys.argv[1]}", {"then": "hang"}, timeout_s=600, on_event=tell, on_start=tell_child)
"""


@pytest.mark.parametrize("function", ["hang", "start_a_sleeper"])
def test_a_child_whose_parent_was_killed_leaves_with_all_that_it_started(call, function):
    script = PARENT.replace("tell_child", "lambda process: print(process.pid, flush=True)")
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen(
        [sys.executable, "-c", script, function], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]  # of the child, of what it started (or itself again)
    assert all(psutil.pid_exists(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert all(gone(pid) for pid in pids)


def test_files_in_the_users_folder_are_not_imported(call, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "types", "numpy", "runtimes", "queue"):
        (here / f"{name}.py").write_text("raise SystemExit('imported from the folder of the user')")
    monkeypatch.chdir(here)
    outcome = call("paths")
    assert isinstance(outcome, Completed), outcome
    assert outcome.value["root"] == str(here)
    assert str(here) not in outcome.value["path"] and "" not in outcome.value["path"]
    assert not any(file.startswith(str(here)) for file in outcome.value["files"])


@pytest.mark.parametrize("then", ["answer", "crash", "hang"])
def test_temporary_files_lie_where_told_and_go_with_the_child(call, tmp_path, then):
    folders, scratch = [], tmp_path / "scratch"
    scratch.mkdir()
    call(
        "leave_a_file",
        {"then": then},
        timeout_s=1.5,
        scratch=scratch,
        on_event=lambda event: folders.append(Path(event["folder"])),
    )
    assert len(folders) == 1 and scratch in folders[0].parents
    assert list(scratch.iterdir()) == []


def test_the_childs_environment(call):
    value = call("environment").value
    assert value["seed"] == "0"
    assert value["path"] == os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])


def test_without_a_python_path_ours_is_the_only_one(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert child._environment("/scratch")["PYTHONPATH"] == str(ROOT)
