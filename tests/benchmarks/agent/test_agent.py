"""The agent as boards run it: packed, unpacked, started, followed, stopped; and whatever can befall a model in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.devices import Interrupted, Options, local
from benchmarks.devices.ssh import agent_zip
from benchmarks.job import Case, Job, JobArtifact
from benchmarks.peers.start import MOST_ZIP_BYTES
from benchmarks.results.events import EVENTS, OF_A_CASE
from benchmarks.results.record import Recorder
from benchmarks.results.result import ArtifactFacts
from runtimes.errors import BadInput
from runtimes.golden import Golden, write_golden
from runtimes.records import from_json


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A product with a 64 x 64 matrix, golden inputs for it, and a file that is no model."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("artifacts")
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [onnx.numpy_helper.from_array(weight, "w")])
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / "model.onnx")
    inputs = [{"x": np.full((1, 64), value, np.float32)} for value in (1.0, 2.0)]
    write_golden(Golden(tuple(inputs), tuple({"y": i["x"] @ weight} for i in inputs)), folder / "golden.npz")
    np.savez(folder / "data.npz", x=np.arange(5 * 64, dtype=np.float32).reshape(5, 64))
    (folder / "broken.onnx").write_bytes(b"no model")
    return {path.name: path for path in folder.iterdir()}


def job_of(*names: str, golden: str | None = "golden.npz", data: str | None = None, **settings) -> Job:
    artifacts = tuple(JobArtifact(name, "onnx", name, 10, "0", golden, data) for name in names)
    cases = tuple(Case(i, 1) for i in range(len(names)))
    return Job("test", artifacts, cases, **{"seconds": 0.05, "profile": False, **settings})


def told(job: Job, files: dict[str, Path]) -> list[dict]:
    events: list[dict] = []
    local.do(job, files, events.append, exclusive=False)
    return events


def named(events: list[dict], name: str, case: int | None = None) -> list[dict]:
    return [e for e in events if e["event"] == name and case in (None, e.get("case"))]


def runtime_that(tmp_path: Path, monkeypatch, code: str) -> None:
    """An onnxruntime that runs `code` when it is imported."""
    (tmp_path / "onnxruntime.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


# --- what is told --------------------------------------------------------------------------------------------------


def test_a_job_is_told_in_events(files):
    events = told(job_of("model.onnx", data="data.npz", profile=True, processes=2), files)
    assert events[0]["event"] == "device" and events[-1] == {"event": "end"}
    for event in events:  # raises for a field that is missing, extra or of another type
        from_json(EVENTS[event["event"]], {k: v for k, v in event.items() if k not in ("event", "case")})
        assert ("case" in event) == (event["event"] in OF_A_CASE)
    looks = [e["when"] for e in named(events, "condition")]
    assert (looks[0], looks[-1]) == ("before", "after")
    loaded = named(events, "loaded")
    assert len(loaded) == 2, "one a process"
    assert loaded[0]["runtime"] == "onnxruntime" and loaded[0]["inputs"] == "golden"
    assert all(loaded[0][key] > 0 for key in ("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns"))
    golden = [e for e in named(events, "outputs") if e["of"] == "golden"]
    assert [e["row"] for e in golden] == [0, 1], "told once, by the first process"
    data = [e for e in named(events, "outputs") if e["of"] == "data"]
    assert [e["row"] for e in data] == [0, 1, 2, 3, 4]
    blocks = named(events, "block")
    assert {b["process"] for b in blocks} == {0, 1} and len(blocks) >= 50
    assert [b["at_ns"] for b in blocks] == sorted(b["at_ns"] for b in blocks)
    assert all(b["runs"] == len(b["times_ns"]) for b in blocks)
    memory = named(events, "memory")[0]
    assert memory["baseline_bytes"] < memory["steady_bytes"] <= memory["peak_bytes"]
    assert named(events, "profile")[0]["operations"][0]["operation"] == "MatMul"
    assert named(events, "energy")[0]["inferences"] == sum(b["runs"] + (b["runs"] > 1) for b in blocks), (
        "the untimed too"
    )


def test_without_golden_values_inputs_are_random_and_it_says_so(files):
    events = told(job_of("model.onnx", golden=None), files)
    assert named(events, "loaded")[0]["inputs"] == "random"
    assert named(events, "outputs") == []


def test_a_batch_is_the_first_sample_again_and_again(files):
    small, large = (told(job_of("model.onnx", batch=batch, seconds=0.2), files) for batch in (1, 4096))
    medians = [np.median([t for b in named(events, "block") for t in b["times_ns"]]) for events in (small, large)]
    assert medians[1] > 10 * medians[0], "4,096 samples take more than one"


def test_sustained_is_one_block_a_second_and_the_count_of_all_runs(files):
    events = told(job_of("model.onnx", sustained_s=2.0), files)
    blocks = named(events, "block")
    assert len(blocks) in (2, 3) and all(len(b["times_ns"]) == 1000 < b["runs"] for b in blocks)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's")
def test_affinity_is_set_in_the_worker(files):
    allowed = sorted(os.sched_getaffinity(0))[:1]
    assert named(told(job_of("model.onnx", affinity=tuple(allowed)), files), "block")
    refused = named(told(job_of("model.onnx", affinity=(4095,)), files), "failed")[0]
    assert (refused["cause"], refused["detail"]) == ("refused", "--affinity: no such processors")


# --- what can befall a model ---------------------------------------------------------------------------------------


def test_a_model_that_is_none_is_refused_and_the_others_are_measured(files):
    events = told(job_of("model.onnx", "broken.onnx"), files)
    (failed,) = named(events, "failed")
    assert failed["case"] == 1 and failed["cause"] == "refused" and "onnxruntime cannot load it" in failed["detail"]
    assert len(named(events, "block", 0)) >= 25 and events[-1] == {"event": "end"}


def test_a_crash_of_the_runtime_is_a_result(files, tmp_path, monkeypatch):
    runtime_that(tmp_path, monkeypatch, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    events = told(job_of("model.onnx"), files)
    assert [(e["cause"], e["detail"]) for e in named(events, "failed")] == [("crashed", "crashed with SIGSEGV")]
    assert events[-1] == {"event": "end"}


def test_a_kill_for_memory_is_a_result(files, tmp_path, monkeypatch):
    runtime_that(tmp_path, monkeypatch, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert named(told(job_of("model.onnx"), files), "failed")[0]["cause"] == "out-of-memory"


def test_a_refused_allocation_is_a_result(files, tmp_path, monkeypatch):
    runtime_that(tmp_path, monkeypatch, "raise MemoryError\n")
    assert named(told(job_of("model.onnx"), files), "failed")[0]["cause"] == "out-of-memory"


def test_an_exception_of_the_runtime_is_a_line(files, tmp_path, monkeypatch):
    runtime_that(tmp_path, monkeypatch, "raise RuntimeError('kernel\\nmissing')\n")
    (failed,) = named(told(job_of("model.onnx"), files), "failed")
    assert (failed["cause"], failed["detail"]) == ("crashed", "RuntimeError: kernel missing")


def test_a_worker_that_leaves_is_a_result(files, tmp_path, monkeypatch):
    runtime_that(tmp_path, monkeypatch, "import os\nos._exit(7)\n")
    (failed,) = named(told(job_of("model.onnx"), files), "failed")
    assert (failed["cause"], failed["detail"]) == ("crashed", "ended with exit code 7 and no answer")


def test_a_hang_is_a_result(files, tmp_path, monkeypatch):
    runtime_that(tmp_path, monkeypatch, "import time\ntime.sleep(600)\n")
    (failed,) = named(told(job_of("model.onnx", timeout_s=1.0), files), "failed")
    assert (failed["cause"], failed["detail"]) == ("timed-out", "gave no answer within 1 s and was killed")


def test_what_the_runtime_prints_is_no_event(files, tmp_path, monkeypatch):
    real = f"import sys, os\nsys.path.remove({str(tmp_path)!r})\ndel sys.modules['onnxruntime']\n"
    noise = "print('{\"event\": \"end\"}')\nos.write(1, b'noise\\n')\nimport onnxruntime\n"
    runtime_that(tmp_path, monkeypatch, real + noise)
    events = told(job_of("model.onnx"), files)
    assert len(named(events, "end")) == 1 and named(events, "block")


@pytest.mark.device  # it needs a C compiler
def test_a_wall_clock_that_jumps_changes_nothing(files, tmp_path, monkeypatch):
    """The wall clock leaps by a day between any two readings; all durations come from the monotonic one."""
    source = tmp_path / "jump.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <time.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n"
        "int clock_gettime(clockid_t id, struct timespec *t) {\n"
        "  static long jumps; int code = syscall(SYS_clock_gettime, id, t);\n"
        "  if (id == CLOCK_REALTIME) t->tv_sec += (++jumps % 2 ? 86400 : -86400);\n  return code;\n}\n"
    )
    library = tmp_path / "jump.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    blocks = named(told(job_of("model.onnx"), files), "block")
    assert len(blocks) >= 25
    assert [b["at_ns"] for b in blocks] == sorted(b["at_ns"] for b in blocks)
    assert all(0 < time_ns < 10**9 for b in blocks for time_ns in b["times_ns"])


def test_too_little_memory_measures_one_after_the_other_and_says_so(files):
    huge = tuple(JobArtifact("model.onnx", "onnx", "model.onnx", 10**15, "0", None) for _ in range(2))
    events = told(Job("test", huge, (Case(0, 1), Case(1, 1)), seconds=0.05, profile=False), files)
    assert all("too little memory" in e["notes"][0] for e in named(events, "loaded"))
    order = [e["case"] for e in named(events, "block")]
    assert order == sorted(order) and set(order) == {0, 1}


# --- the agent itself ----------------------------------------------------------------------------------------------


def test_a_killed_agent_loses_nothing_it_told(files):
    events: list[dict] = []
    started: list[subprocess.Popen] = []

    def take(event: dict) -> None:
        events.append(event)
        if len(named(events, "block")) == 5:
            os.kill(started[0].pid, signal.SIGKILL)

    with pytest.raises(Interrupted, match="local: the agent was killed by SIGKILL; bench again") as caught:
        local.do(job_of("model.onnx", seconds=30.0), files, take, exclusive=False, on_start=started.append)
    assert caught.value.cause == "agent-killed"
    assert len(named(events, "block")) >= 5


def test_its_workers_leave_with_a_killed_agent(files, tmp_path, monkeypatch):
    runtime_that(
        tmp_path,
        monkeypatch,
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n",
    )
    started: list[subprocess.Popen] = []

    def take(event: dict) -> None:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(started[0].pid, signal.SIGKILL)

    with pytest.raises(Interrupted, match=r"^local: the agent was killed by SIGKILL; bench again$"):
        local.do(job_of("model.onnx"), files, take, exclusive=False, on_start=started.append)
    worker, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while not gone(worker):
        assert time.monotonic() < deadline, "the worker outlives its agent"
        time.sleep(0.01)


def test_two_benches_on_one_machine_are_one_too_many(files, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: list[str] = []

    def take(event: dict) -> None:
        if event["event"] == "device":
            with pytest.raises(
                BadInput, match=r"another bench runs here \(process \d+, since [-\d: ]+\); wait for it"
            ) as e:
                local.run("local", job_of("model.onnx"), files, Options(), lambda event: None)
            seen.append(str(e.value))

    local.run("local", job_of("model.onnx"), files, Options(), take)
    assert seen
    local.run("local", job_of("model.onnx"), files, Options(), lambda event: None)


# --- on a board ----------------------------------------------------------------------------------------------------


@pytest.fixture
def board(tmp_path, files):
    """The packed agent in a folder of its own, with a job's files, and a Python that knows nothing of this project.

    A function that runs its commands; numpy and onnxruntime lie in a folder, as if unpacked from wheels.
    """
    (tmp_path / "files").mkdir()
    for name, path in files.items():
        shutil.copy(path, tmp_path / "files" / name)
    (tmp_path / "agent.pyz").write_bytes(agent_zip.build(["onnx"]))
    (tmp_path / "libraries").mkdir()
    for entry in (
        Path(np.__file__).parents[1].glob("numpy*"),
        Path(onnxruntime.__file__).parents[1].glob("onnxruntime*"),
    ):
        for path in entry:
            (tmp_path / "libraries" / path.name).symlink_to(path)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)

    def command(word: str, *words: object) -> list[str]:
        site = ["--site", str(tmp_path / "libraries")]
        return [sys._base_executable, "-E", str(tmp_path / "agent.pyz"), word, *map(str, words), *site]

    def run(*words: object, **options) -> subprocess.CompletedProcess:
        return subprocess.run(command(*words), cwd="/", env=environment, capture_output=True, timeout=120, **options)

    run.folder, run.command = tmp_path, command
    return run


def test_the_packed_agent_does_a_job_alone(board):
    """Not a line of the rest of the project is there: what it needs is in the zip."""
    (board.folder / "job.json").write_text(json.dumps(asdict(job_of("model.onnx", data="data.npz", profile=True))))
    done = board("run", board.folder / "job.json", "--files", board.folder / "files")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    job = job_of("model.onnx", data="data.npz")
    recorder = Recorder("board", job, [ArtifactFacts("model.onnx", "onnx", 10, "0")], [None])
    for event in events:
        recorder.add(event)
    (result,) = recorder.results()
    assert result.statistics and result.statistics.inferences > 0 and recorder.ended
    assert str(Path(agent_zip.ROOT)) not in done.stderr.decode()


def test_it_is_started_followed_from_any_place_and_stopped(board):
    (board.folder / "job.json").write_text(json.dumps(asdict(job_of("model.onnx", seconds=0.3))))
    events, log = board.folder / "events.jsonl", board.folder / "agent.log"
    paths = ("--files", board.folder / "files", "--events", events, "--log", log)
    pid = json.loads(board("start", board.folder / "job.json", *paths).stdout)["pid"]
    other = json.loads(board("start", board.folder / "job.json", *paths).stdout)
    assert f"another bench runs here (process {pid}, since" in other["refused"]["what"]
    whole = board("follow", events, "--from", 0, "--pid", pid).stdout
    assert json.loads(whole.splitlines()[-1]) == {"event": "end"} and whole == events.read_bytes()
    assert board("follow", events, "--from", 100, "--pid", pid).stdout == whole[100:]

    (board.folder / "job.json").write_text(json.dumps(asdict(job_of("model.onnx", seconds=300.0))))
    pid = json.loads(board("start", board.folder / "job.json", *paths).stdout)["pid"]
    assert json.loads(board("stop", pid).stdout) == {"stopped": pid}
    assert gone(pid)
    assert json.loads(board("stop", pid).stdout) == {"stopped": pid}, "again does no harm"


def test_it_tells_what_the_board_has(board):
    facts = json.loads(board("facts").stdout)
    assert facts["python"] == list(sys.version_info[:2]) and facts["bits"] == 64
    assert facts["modules"]["numpy"] == np.__version__ and facts["modules"]["tflite_runtime"] is None


def test_it_finds_files_that_are_missing_or_changed(board):
    files = board.folder / "files"
    wanted = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in ("model.onnx", "golden.npz")}
    wanted["gone.onnx"] = "0" * 64
    with open(files / "golden.npz", "ab") as stream:
        stream.write(b"!")
    done = board("check", files, input=json.dumps(wanted).encode())
    assert json.loads(done.stdout) == ["golden.npz", "gone.onnx"]


def test_wheels_are_unpacked_whole_or_not_at_all(board):
    good, bad = board.folder / "good.whl", board.folder / "bad.whl"
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("thing/__init__.py", "value = 1\n")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("../escaped.py", "")
    refused = json.loads(board("unpack", good, bad, "--into", board.folder / "site").stdout)["refused"]
    assert refused["what"] == "'../escaped.py' leads out of its folder"
    assert not (board.folder / "site").exists() and not (board.folder / "escaped.py").exists()
    assert json.loads(board("unpack", good, "--into", board.folder / "site").stdout) == {"unpacked": 1}
    assert (board.folder / "site" / "thing" / "__init__.py").read_text() == "value = 1\n"


def test_the_same_files_make_the_same_zip_and_a_small_one():
    assert agent_zip.build(["onnx"]) == agent_zip.build(["onnx"])
    names = agent_zip.files_of(["tflite"])
    assert "runtimes/litert_runtime.py" in names and "runtimes/onnx_runtime.py" not in names
    for formats in (["onnx"], ["tflite"]):
        assert len(agent_zip.build(formats)) < MOST_ZIP_BYTES, "what travels: docstrings and comments hardly count"


def test_two_unpack_at_once(board):
    started = [subprocess.Popen(board.command("facts"), stdout=subprocess.PIPE) for _ in range(4)]
    assert all(json.loads(process.communicate(timeout=60)[0])["python"] for process in started)
    assert [path.name for path in board.folder.glob("agent.pyz*")].sort() == ["agent.pyz", "agent.pyz.d"].sort()
