"""`pocketship bench` on this machine, as a user types it; and benches of boards that fail in all the ways they can."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench as module
from benchmarks.bench import Board, Plan, bench, bench_artifacts, job_of
from benchmarks.commands.bench import raise_failures
from benchmarks.commands.bench_screen import print_csv, print_results, remarks
from benchmarks.devices import DEVICES, Interrupted, Options, kind_of, run_of
from benchmarks.fleet import read_fleet
from benchmarks.results.execution import latency_is_real
from benchmarks.results.result import Failure, read_results
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput, ParityFailed
from tests.benchmarks.synthetic import TOLD_FACTS

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--seconds", "0.1", "--processes", "1", "--history", "none")


@pytest.fixture(autouse=True)
def lock_of_its_own(tmp_path, monkeypatch):
    """Tests run side by side; benches of one user on one machine do not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bundle(exported) -> Path:
    return exported("two_inputs")


# --- as a user types it --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bundle_on_this_machine(pocketship, bundle, tmp_path):
    output = tmp_path / "results.json"
    done = pocketship("bench", bundle, "--threads", "1,2", "-o", output, *QUICK)
    assert done.returncode == 0, done.stderr
    results = read_results(output)
    assert [(r.artifact.format, r.settings.threads) for r in results] == [
        ("onnx", 1),
        ("onnx", 2),
        ("tflite", 1),
        ("tflite", 2),
        ("coreml", None),
    ]
    assert all(r.parity.verdict == "pass" and r.failure is None for r in results)
    assert all(r.statistics.blocks >= 25 and r.executed_by.kind == "physical" for r in results[:4])
    assert done.stdout.startswith("local: ") and "(physical)" in done.stdout.splitlines()[0]
    assert "against the first" in done.stdout and "bundle/model.onnx" in done.stdout
    if sys.platform != "darwin":
        coreml = results[4]
        assert coreml.statistics is None and coreml.device.executed == coreml.executed_by.kind == "off-device"
        assert "off-device: no latency" in done.stdout or "Core ML runs on Apple devices only" in done.stdout


def test_a_file_within_its_bundle_is_proven_and_a_copy_is_not(pocketship, bundle, tmp_path):
    copy = tmp_path / 'a file\'s "name",\nwith <b> all.onnx'
    copy.write_bytes((bundle / "model.onnx").read_bytes())
    done = pocketship("bench", bundle / "model.onnx", copy, "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    within, alone = json.loads(done.stdout)["results"]
    assert within["parity"]["verdict"] == "pass" and within["settings"]["inputs"] == "golden"
    assert alone["parity"] is None and alone["settings"]["inputs"] == "random"
    assert alone["artifact"]["name"] == copy.name and alone["artifact"]["sha256"] == within["artifact"]["sha256"]


def test_csv(pocketship, bundle):
    done = pocketship("bench", bundle, "--target", "onnx,tflite", "--csv", *QUICK)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["format"] for row in rows] == ["onnx", "tflite"]
    assert all(float(row["p50_low_ms"]) <= float(row["p50_ms"]) <= float(row["p50_high_ms"]) for row in rows)
    assert {row["parity"] for row in rows} == {"pass"} and {row["executed"] for row in rows} == {"physical"}


@pytest.mark.slow
def test_accuracy_on_the_device_is_that_of_eval(pocketship, tmp_path):
    bundle = tmp_path / "digits"
    assert pocketship("export", "digits", "--target", "onnx", "-o", bundle, "--quiet").returncode == 0
    done = pocketship("bench", bundle, "--data", "digits", "--limit", "100", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    (found,) = (result["accuracy"] for result in json.loads(done.stdout)["results"])
    evaluated = json.loads(pocketship("eval", bundle, "--data", "digits", "--limit", "100", "--json").stdout)[0]
    assert (found["value"], found["samples"]) == (evaluated["value"], 100)
    assert (found["low"], found["high"]) == (evaluated["low"], evaluated["high"])


@pytest.mark.slow
def test_sustained(pocketship, bundle):
    done = pocketship("bench", bundle / "model.onnx", "--sustained", "4s", "--wide", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "minute 1 ms" in done.stdout and "slower" in done.stdout


def test_a_report_and_what_changed_since(pocketship, bundle, tmp_path):
    before, page = tmp_path / "before.json", tmp_path / "report.html"
    words = ("bench", bundle / "model.onnx", "--seconds", "0.1", "--processes", "2", "--history", "none")
    assert pocketship(*words, "-o", before).returncode == 0
    done = pocketship(*words, "--against", before, "--report", page)
    assert done.returncode == 0, done.stderr
    assert " -> " in done.stdout and "all: the same file" in done.stdout
    assert "model.onnx" in page.read_text(encoding="utf-8") and "<script" not in page.read_text(encoding="utf-8")


def test_what_is_kept_is_there_the_next_time(pocketship, bundle, tmp_path):
    history = f"sqlite:///{tmp_path}/history.sqlite"
    words = ("bench", bundle / "model.onnx", "--seconds", "0.1", "--processes", "1", "--history", history, "--quiet")
    assert pocketship(*words).returncode == 0 and pocketship(*words).returncode == 0
    done = pocketship("report", "--history", history, "-o", tmp_path / "report.html")
    assert done.returncode == 0 and done.stderr.startswith("2 results in "), done.stderr


def test_a_damaged_bundle_is_not_run(refused, copy_of, bundle):
    copy = copy_of(bundle)
    with open(copy / "model.onnx", "ab") as stream:
        stream.write(b"!")
    assert "the manifest says" in refused("bench", copy, code=3)


def test_a_bundle_with_a_file_that_nobody_lists_is_not_run(refused, copy_of, bundle):
    copy = copy_of(bundle)
    (copy / "weights.bin").symlink_to("/etc/hostname")
    for path in (copy, copy / "model.onnx"):
        assert "'weights.bin': a bundle holds no symbolic link" in refused("bench", path, code=3)


def test_golden_values_that_the_manifest_does_not_list_are_not_run(refused, copy_of, bundle):
    copy = copy_of(bundle)
    document = json.loads((copy / "manifest.json").read_text())
    document["files"] = [entry for entry in document["files"] if entry["path"] != "golden.npz"]
    (copy / "manifest.json").write_text(json.dumps(document))
    assert "artifacts[0].golden: 'golden.npz' is not among the files" in refused("bench", copy)


def test_golden_values_of_other_names_are_not_run(refused, copy_of, bundle):
    copy = copy_of(bundle)
    document = json.loads((copy / "manifest.json").read_text())
    for holder in (document, *document["artifacts"]):
        holder["signature"]["inputs"][0]["name"] = "other"
    (copy / "manifest.json").write_text(json.dumps(document))
    assert "model.onnx: its own signature.inputs is not the manifest's" in refused("bench", copy, code=3)


def test_outputs_that_are_not_pytorchs_are_exit_code_3_without_a_latency(pocketship, copy_of, bundle, tmp_path):
    """The golden outputs are changed, and the manifest with them: a wrong artifact whose file is intact."""
    copy = copy_of(bundle)
    golden = copy / "golden.npz"
    with np.load(golden) as arrays:
        changed = {k: arrays[k] + (1.0 if "/output/" in k else 0.0) for k in arrays.files}
    np.savez(golden, **{k: v.astype(np.float32) if "/output/" in k else v for k, v in changed.items()})
    manifest = json.loads((copy / "manifest.json").read_text())
    from runtimes.bundle import digest

    for entry in manifest["files"]:
        if entry["path"] == "golden.npz":
            entry["size_bytes"], entry["sha256"] = digest(golden)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = pocketship("bench", copy / "model.onnx", *QUICK)
    assert done.returncode == 3 and "is off by 1" in done.stderr.splitlines()[-1]
    assert "parity" in done.stdout and "p50" not in done.stdout


def test_ctrl_c_keeps_what_was_measured(bundle, tmp_path):
    output = tmp_path / "results.json"
    words = ["bench", bundle / "model.onnx", "--seconds", "100", "--warmup", "0.5", "-o", output, "--history", "none"]
    command = [sys.executable, "-P", "-m", "exporter", *map(str, words)]
    bar = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}  # as on a terminal: it tells how far the bench is
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **bar}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = threading.Timer(120.0, process.kill)
    deadline.start()
    lines = (re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", line) for line in process.stderr)
    assert any(line.startswith("local: warming up") for line in lines)
    assert any(line.startswith("local ━") for line in lines), "a first round was measured"
    deadline.cancel()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    (result,) = read_results(output)
    assert result.failure == Failure("interrupted", "stopped by the user") and result.statistics.blocks > 0
    assert list(tmp_path.glob("*.part")) == []


BAD = [
    ("no such bundle or artifact", ["gone"]),
    ("no runtime for a file ending in '.txt'", ["notes.txt"]),
    ("no such device", ["model.onnx", "--on", "moon"]),
    ("no such device", ["model.onnx", "--on", "ssh://"]),
    ("no such device", ["model.onnx", "--on", "local://x"]),
    ("no such device", ["model.onnx", "--on", "adb://"]),
    ("no list of numbers", ["model.onnx", "--threads", "1;2"]),
    ("no list of numbers", ["model.onnx", "--threads", ""]),
    ("no list of numbers", ["model.onnx", "--threads", "2,2"]),
    ("0 is too little", ["model.onnx", "--threads", "0"]),
    ("no list of numbers", ["model.onnx", "--affinity", "-1"]),
    ("--seconds: 0 is too little", ["model.onnx", "--seconds", "0"]),
    ("--seconds: nan is too little", ["model.onnx", "--seconds", "nan"]),
    ("--seconds: inf is too little or too much", ["model.onnx", "--seconds", "inf"]),
    ("--warmup: -1 is too little", ["model.onnx", "--warmup=-1"]),
    ("--batch: 0 is too little", ["model.onnx", "--batch", "0"]),
    ("--processes: 0 is too little", ["model.onnx", "--processes", "0"]),
    ("--timeout: 0 is too little", ["model.onnx", "--timeout", "0"]),
    ("--wait: -3 is too little", ["model.onnx", "--wait=-3"]),
    ("no percentage above 0", ["model.onnx", "--precision", "1"]),
    ("no percentage above 0", ["model.onnx", "--precision", "0%"]),
    ("no time of two seconds or more", ["model.onnx", "--sustained", "1s"]),
    ("no time of two seconds or more", ["model.onnx", "--sustained", "ten"]),
    ("there are no samples to limit", ["model.onnx", "--limit", "3"]),
    ("no such task, folder or file", ["model.onnx", "--data", "nothing"]),
    ("--json, --csv: give one of them", ["model.onnx", "--json", "--csv"]),
    ("--on, --fleet: give one of them", ["model.onnx", "--on", "local", "--fleet", "boards.yaml"]),
    ("cannot read the fleet", ["model.onnx", "--fleet", "gone.yaml"]),
    ("it would not show the address to open", ["model.onnx", "--on", "browser", "--open"]),
    ("'torch' is no format", ["model.onnx", "--target", "torch"]),
    ("cannot be written", ["model.onnx", "-o", "no/such/folder/x.json"]),
    ("cannot be written", ["model.onnx", "--report", "."]),
    ("cannot be read", ["model.onnx", "--against", "gone.json"]),
    ("it holds no result", ["model.onnx", "--against", "none.json"]),
    ("--seed: -1 is too little; give 0 or more", ["model.onnx", "--seed=-1"]),
    ("--affinity: no such processors", ["model.onnx", "--affinity", "4095", *QUICK]),
    ("not 5 samples at once; export it with --dynamic", ["model.onnx", "--batch", "5", *QUICK]),
    ("onnxruntime cannot load it", ["broken.onnx", *QUICK]),
    ("Core ML packages are benched on the Mac itself", ["model.mlpackage", "--on", "ssh://pi@board"]),
    ("over adb, .tflite needs --runner", ["model.tflite", "--on", "adb"]),
    ("no browser runs Core ML", ["model.mlpackage", "--on", "browser"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("says", "words"), BAD, ids=[" ".join(words) for _, words in BAD])
def test_bad_input_is_one_line(says, words, refused, exported, tmp_path):
    bundle = exported("two_inputs")
    for name in ("model.onnx", "model.tflite", "model.mlpackage"):
        (tmp_path / name).symlink_to(bundle / name)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "none.json").write_text('{"schema_version": 1, "results": []}')
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    before = sorted(p.name for p in tmp_path.iterdir())
    assert says in refused("bench", *words, cwd=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == [n for n in before if n != "cache"]


# --- several boards at once ----------------------------------------------------------------------------------------


def telling(*events: dict, error: Exception | None = None):
    """A device that tells these events, then fails."""

    def run(target, job, files, options, on_event):
        on_event({"event": "device", "facts": TOLD_FACTS})
        for event in events:
            on_event(event)
        if error:
            raise error
        on_event({"event": "end"})

    return run


LOADED = {
    "event": "loaded",
    "case": 0,
    "runtime": "r",
    "version": "1",
    "inputs": "random",
    "page_cache_dropped": False,
    **dict.fromkeys(("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns")),
}
BLOCK = {"event": "block", "case": 0, "process": 0, "at_ns": 0, "runs": 2, "times_ns": [5, 5]}


def boards_that(monkeypatch, **runs) -> list[Board]:
    """Boards by name, reached through functions instead of a network."""
    monkeypatch.setattr(module, "run_of", lambda target: runs[target.removeprefix("ssh://")])
    return [Board(f"ssh://{name}", Plan(), Options(), name) for name in runs]


def test_all_boards_are_measured_at_once_and_one_that_fails_costs_the_others_nothing(monkeypatch, bundle):
    meeting = threading.Barrier(2, timeout=30)

    def meets(target, job, files, options, on_event):
        meeting.wait()
        telling(LOADED, BLOCK)(target, job, files, options, on_event)

    lost = Interrupted("link-lost", "the link broke", where="ssh://c")
    boards = boards_that(
        monkeypatch,
        a=meets,
        b=meets,
        c=telling(LOADED, BLOCK, error=lost),
        d=telling(error=BadInput("no route to host", where="ssh://d")),
    )
    told: list[str] = []
    done = bench(bench_artifacts(bundle / "model.onnx"), boards, on_done=lambda part: told.append(part.board.name))
    assert [part.board.name for part in done] == ["a", "b", "c", "d"] and sorted(told) == ["a", "b", "c", "d"]
    assert [part.results[0].failure and part.results[0].failure.cause for part in done] == [
        None,
        None,
        "link-lost",
        "refused",
    ]
    assert all(part.results[0].statistics.inferences == 2 for part in done[:3])
    with pytest.raises(BadInput, match=r"ssh://c: the link broke; ssh://d: no route to host"):
        raise_failures(done)


def test_a_device_that_talks_nonsense_keeps_what_it_said_before(monkeypatch, bundle):
    (board,) = boards_that(monkeypatch, a=telling(LOADED, BLOCK, {**BLOCK, "times_ns": [-1]}, BLOCK))
    done = bench(bench_artifacts(bundle / "model.onnx"), [board])
    (result,) = done[0].results
    assert result.failure == Failure("malformed", "it told times_ns: no list of nanoseconds") and done[0].error is None
    assert result.statistics.inferences == 2, "what it said before, and no more"
    with pytest.raises(BadInput, match=r"model.onnx on a: it told times_ns: no list of nanoseconds; bench again"):
        raise_failures(done)


def test_a_fault_of_our_own_in_a_thread_is_not_lost(monkeypatch, bundle):
    boards = boards_that(monkeypatch, a=telling(error=ZeroDivisionError("ours")), b=telling())
    with pytest.raises(ZeroDivisionError, match="ours"):
        bench(bench_artifacts(bundle / "model.onnx"), boards)


def test_ctrl_c_stops_all_boards_and_keeps_what_they_told(monkeypatch, bundle):
    cleaned: list[str] = []
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))  # by then the bench waits for both
    both_told = threading.Barrier(2, action=interrupt.start)

    def endless(target, job, files, options, on_event):
        try:
            on_event({"event": "device", "facts": TOLD_FACTS})
            on_event(LOADED)
            on_event(BLOCK), on_event(BLOCK)
            both_told.wait(60)
            while True:
                on_event(BLOCK)
                time.sleep(0.01)
        finally:
            cleaned.append(target)

    boards = boards_that(monkeypatch, a=endless, b=endless)
    kept = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench(bench_artifacts(bundle / "model.onnx"), boards, on_done=kept.append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(cleaned) == ["ssh://a", "ssh://b"]
    assert len(kept) == 2 and all(part.results[0].failure.cause == "interrupted" for part in kept)
    assert all(part.results[0].statistics.inferences > 2 for part in kept)


@pytest.mark.parametrize("at", [0, 1], ids=["the first", "the last"])
def test_ctrl_c_while_boards_are_being_started_stops_those_that_were(monkeypatch, bundle, at):
    """Before it waits for them: what a board was given is taken away again."""
    told, cleaned = threading.Event(), []

    class Interrupting(threading.Thread):
        def start(self) -> None:
            super().start()
            if self is started[at]:
                assert told.wait(60)
                raise KeyboardInterrupt

        def __init__(self, *words, **options) -> None:
            super().__init__(*words, **options)
            started.append(self)

    def endless(target, job, files, options, on_event):
        try:
            on_event({"event": "device", "facts": TOLD_FACTS})
            told.set()
            while True:
                on_event({"event": "progress", "done": 1, "total": 2})
                time.sleep(0.01)
        finally:
            time.sleep(0.1)  # a board takes its time to be cleaned up
            cleaned.append(target)

    started: list[threading.Thread] = []
    boards = boards_that(monkeypatch, a=endless, b=endless)
    artifacts = bench_artifacts(bundle / "model.onnx")  # checked in a child, which takes a thread
    monkeypatch.setattr(module.threading, "Thread", Interrupting)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        bench(artifacts, boards, on_done=kept.append)
    assert sorted(cleaned) == ["ssh://a", "ssh://b"][: at + 1] and len(kept) == at + 1


def test_a_crash_of_the_model_is_exit_code_3_whatever_else_failed(monkeypatch, bundle):
    crash = {"event": "failed", "case": 0, "cause": "crashed", "detail": "crashed with SIGSEGV"}
    boards = boards_that(monkeypatch, a=telling(crash), b=telling(error=BadInput("no route to host", where="b")))
    with pytest.raises(
        ParityFailed, match=r"model.onnx on a: crashed with SIGSEGV; b: no route to host; do not ship it"
    ):
        raise_failures(bench(bench_artifacts(bundle / "model.onnx"), boards))


def test_formats_that_a_board_cannot_run_are_left_out_and_it_says_so(monkeypatch, bundle):
    notices: list[str] = []
    (board,) = boards_that(monkeypatch, a=telling())
    (done,) = bench(
        bench_artifacts(bundle),
        [board],
        on_event=lambda b, e: notices.append(e["text"]) if e["event"] == "notice" else None,
    )
    assert [r.artifact.format for r in done.results] == ["onnx", "tflite"]
    assert notices == [
        "model.mlpackage is left out: Core ML packages are benched on the Mac itself: run pocketship bench there"
    ]


def test_a_format_whose_runtime_this_machine_lacks_is_left_out_and_it_says_so(pocketship_without, bundle, tmp_path):
    quick = ("--seconds", "0.05", "--warmup", "0.05", "--processes", "1", "--history", "none")
    done = pocketship_without("coremltools", "bench", bundle, *quick, "-o", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("local: model.mlpackage is left out: coremltools is not installed; ") == 1
    assert [result.artifact.format for result in read_results(tmp_path / "r.json")] == ["onnx", "tflite"]
    done = pocketship_without("coremltools", "bench", bundle, *quick, "--target", "coreml")
    assert done.returncode == 2 and done.stderr.startswith("pocketship: local: coremltools is not installed; ")
    assert done.stderr.count("\n") == 1


def test_tflite_over_adb_needs_a_runner():
    board = Board("adb", Plan(), Options())
    assert set(module.unfit_on(board)) == {"coreml", "tflite"}
    assert set(module.unfit_on(replace(board, options=Options(runner=Path("benchmark_model"))))) == {"coreml"}


def test_a_latency_that_is_none_is_not_printed(monkeypatch, bundle, capsys):
    (board,) = boards_that(monkeypatch, a=telling(LOADED, BLOCK))
    (done,) = bench(bench_artifacts(bundle / "model.onnx"), [board])
    real = replace(done.results[0], parity=None)
    emulated = replace(real, device=replace(real.device, executed="emulated", emulator="qemu-arm"))
    assert latency_is_real(real) and not latency_is_real(emulated)
    print_results([emulated])
    print_csv([emulated])
    shown = capsys.readouterr().out
    assert "emulated in qemu-arm" in shown and "emulated: no latency" in shown and "5e-06" not in shown
    print_results([real])
    assert "5e-06" in capsys.readouterr().out


def test_what_a_reader_must_know_is_said(monkeypatch, bundle):
    (board,) = boards_that(
        monkeypatch,
        a=telling(
            {**LOADED, "inputs": "random", "notes": ["measured one after the other"]},
            {"event": "condition", "at_ns": 0, "when": "during", "throttled": ["under-voltage"]},
            {"event": "warm", "case": 0, "warmup_ns": [1], "stable": False},
            BLOCK,
        ),
    )
    (done,) = bench(bench_artifacts(bundle / "model.onnx"), [board])
    proof = read_manifest(bundle).artifacts[0].parity
    doubt = replace(proof, not_proven=("output 'y' column 3 never changes over the golden inputs",))
    assert "not proven: output 'y' column 3 never changes over the golden inputs" in remarks(
        replace(done.results[0], parity=doubt)
    )
    said = " ".join(remarks(replace(done.results[0], parity=None)))
    for words in ("random inputs", "measured one after the other", "under-voltage", "did not settle in 10 s"):
        assert words in said


def test_a_device_is_one_module_and_one_row():
    assert set(DEVICES) == {"local", "ssh", "adb", "browser"}
    words = {"local": "local", "ssh": "ssh://pi@board:22", "adb": "adb://R58M", "browser": "browser"}
    for kind, word in words.items():
        assert kind_of(word) == kind and callable(run_of(word))
    assert kind_of("adb") == "adb"


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_a_job_names_files_by_their_hash(bundle, tmp_path):
    job, files, _ = job_of(bench_artifacts(bundle / "model.onnx"), Plan(threads=(1, 2)), tmp_path)
    artifact = job.artifacts[0]
    assert artifact.file == f"{artifact.sha256}.onnx" and files[artifact.file] == bundle / "model.onnx"
    assert files[artifact.golden].name == "golden.npz" and artifact.golden.endswith(".npz")
    assert [(case.artifact, case.threads) for case in job.cases] == [(0, 1), (0, 2)]
    assert job_of(bench_artifacts(bundle / "model.onnx"), Plan(), tmp_path)[0].id != job.id


# --- fleets --------------------------------------------------------------------------------------------------------


def test_a_fleet(tmp_path):
    path = tmp_path / "boards.yaml"
    path.write_text(
        "boards:\n"
        "  kitchen: {target: 'ssh://pi@10.0.0.2', threads: [1, 4], identity: keys/pi}\n"
        "  desk: {target: local}\n"
    )
    kitchen, desk = read_fleet(path, Plan(seconds=5.0), Options(clean=True))
    assert (kitchen.name, kitchen.target, kitchen.plan.threads) == ("kitchen", "ssh://pi@10.0.0.2", (1, 4))
    assert kitchen.options.identity == tmp_path / "keys" / "pi" and kitchen.options.clean
    assert (desk.plan.threads, desk.plan.seconds, desk.options.identity) == ((1,), 5.0, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("boards: [", "cannot read the fleet (while parsing"),
        ("boards: {x: {target: &a local}, y: *a}", "cannot read the fleet (line 1: write it out, *names"),
        ("boards: {}", "it names no board"),
        ("- a", "the file: Input should be"),
        ("boards: {a: {}}", "boards.a.target: Field required"),
        ("boards: {a: {target: local, colour: red}}", "boards.a.colour: Extra inputs are not permitted"),
        ("boards: {a: {target: local, threads: [0]}}", "boards.a.threads.0: Input should be greater than 0"),
        ("boards: {a: {target: local, threads: 'x'}}", "boards.a.threads: Input should be a valid list"),
        ("boards: {a: {target: moon}}", "moon: no such device"),
        ("boards: {'a b': {target: local}}", "'a b' is no name for a board"),
        ("boards: !!python/object/apply:os.system ['true']", "cannot read the fleet (line 1: !tags are not read"),
    ],
)
def test_a_file_that_is_no_fleet(tmp_path, text, says):
    path = tmp_path / "boards.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_fleet(path, Plan(), Options())
    assert says in str(caught.value) and "\n" not in str(caught.value)
