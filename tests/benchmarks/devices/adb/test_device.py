"""Phones over adb: Debian's real client against the protocol double, whose shell is the arm64 root under qemu."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.agent.loop import LEAST_ROUNDS
from benchmarks.devices import Interrupted, Options, run_of
from benchmarks.devices.adb import device as adb
from benchmarks.devices.adb import link as adb_link
from benchmarks.job import Case
from runtimes.errors import BadInput, NotInstalled, PocketshipError
from tests.rigs.adbd import PROPERTIES, adb_server, emulated_phone
from tests.rigs.onnx_job import built, make_job

pytestmark = pytest.mark.device


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    """adb's server of this test process, with no phone but the tests' own."""
    with adb_server(tmp_path_factory.mktemp("adb")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(autouse=True)
def _disconnected(server):
    """No phone is left over from an earlier test."""
    subprocess.run(["adb", "disconnect"], check=True, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def runner():
    return built("linux-arm64")


@pytest.fixture(scope="module")
def shared_phone(tmp_path_factory, server):
    with emulated_phone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture
def phone(shared_phone):
    """A phone that is whole again after the test."""
    yield shared_phone
    shared_phone.tell("mend")
    shared_phone.tell("allow")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("models"))


def bench(phone, made, on_event=lambda event: None, **options):
    """Run a job; the events that were told, and the error that ended it."""
    events: list[dict] = []

    def take(event: dict) -> None:
        events.append(event)
        on_event(event)

    target = phone if isinstance(phone, str) else phone.target
    try:
        run_of(target)(target, made.job, made.files, Options(**options), take)
    except PocketshipError as error:
        return events, error
    return events, None


def of(events: list[dict], name: str) -> list[dict]:
    return [event for event in events if event["event"] == name]


def once(name: str, act):
    """A listener that acts at the first event of a name."""
    seen = []

    def listen(event: dict) -> None:
        if event["event"] == name and not seen:
            seen.append(event)
            act()

    return listen


# --- a whole bench ---------------------------------------------------------------------------------------------------


def test_a_bench_measures_and_proves_and_the_next_pushes_nothing(phone, models):
    events, error = bench(phone, models)
    assert error is None
    results = models.recorded(events)
    assert [r.parity.verdict for r in results] == ["pass", "pass"]
    assert all(r.failure is None and r.statistics.blocks >= LEAST_ROUNDS for r in results)
    assert {r.device.executed for r in results} == {"emulated"} and results[0].executed_by.kind == "emulated"
    assert events[0]["event"] == "device" and events[-1] == {"event": "end"} and len(of(events, "end")) == 1
    assert sorted(path.name for path in (phone.store / "jobs").iterdir()) == []
    before = phone.pushed()
    events, error = bench(phone, models.with_(id="the same again"))
    assert error is None and phone.pushed()[len(before) :] == ["job.json.part"]
    assert [r.parity.verdict for r in models.recorded(events)] == ["pass", "pass"]


def test_a_file_that_changed_on_the_phone_is_pushed_again(phone, models):
    bench(phone, models)
    name = models.job.artifacts[0].file
    stored = phone.store / "files" / name
    stored.write_bytes(stored.read_bytes()[:-1])
    before = phone.pushed()
    events, error = bench(phone, models)
    assert error is None and sorted(phone.pushed()[len(before) :]) == sorted([f"{name}.part", "job.json.part"])
    assert [r.parity.verdict for r in models.recorded(events)] == ["pass", "pass"]


def test_the_facts_are_those_of_the_phone(phone, models):
    facts = bench(phone, models)[0][0]["facts"]
    wanted = {"model": "Pocketship Double 1", "family": "phone", "cpu": "QEMU Cortex-A76", "architecture": "aarch64"}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["os"] == "Android 14 (API 34)" and facts["software"] == {"android": "14"}
    assert facts["cores"] >= 1 and facts["memory_bytes"] > 2**20


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({k: v for k, v in PROPERTIES.items() if k != "ro.kernel.qemu"}, ("phone", "physical", "")),
        ({**PROPERTIES, "ro.kernel.qemu": "", "ro.boot.qemu": "1"}, ("phone", "emulated", "Android's emulator (QEMU)")),
        ({"ro.product.model": "]: [odd ' \" $(x)"}, ("board", "physical", "")),
        ({}, ("board", "physical", "")),
    ],
    ids=["physical", "emulator", "odd", "no Android"],
)
def test_what_executed_is_told_by_the_phones_properties(tmp_path, properties, wanted):
    with emulated_phone(tmp_path / "phone", properties) as phone:
        facts = adb.look(adb_link.Phone(adb_link.pick(phone.target))).facts
    assert (facts["family"], facts["executed"], facts["emulator"]) == wanted


def test_a_name_with_spaces_quotes_and_a_newline_goes_through(phone, models, tmp_path):
    odd = tmp_path / "a 'b' \"c\"\n$(touch pwned) ;d"
    odd.mkdir()
    made = make_job(odd, ["wide"])
    named = made.with_(id="x'; touch /pwned; '", artifacts=(replace(made.job.artifacts[0], name=odd.name),))
    events, error = bench(phone, named)
    assert error is None and [r.parity.verdict for r in named.recorded(events)] == ["pass"]
    assert not any(phone.root.rglob("pwned*"))


STAND_IN = """
#include <errno.h>
#include <stdlib.h>
int *__errno(void) { return __errno_location(); }
void __libc_init(void *stack, void *unused, int (*main)(int, char **, char **), const void *structors) {
    long count = *(long *)stack;
    char **words = (char **)stack + 1;
    exit(main((int)count, words, words + count + 1));
}
"""


def test_the_android_binary_runs_with_a_stand_in_for_bionic(tmp_path, models, monkeypatch):
    """The very file that a phone gets, started by glibc's linker under Android's name; Android itself was never there.

    Of the functions that bionic.h declares, glibc lacks the two that the stand-in gives.
    """
    android = tmp_path / "runners" / "android-arm64"
    android.mkdir(parents=True)
    shutil.copy(built("android-arm64") / "runner", android)
    shutil.copy(built("linux-arm64") / "libonnxruntime.so", android)
    monkeypatch.setattr(adb, "RUNNERS", tmp_path / "runners")
    with emulated_phone(tmp_path / "phone") as phone:
        (phone.root / "system/bin").mkdir(parents=True)
        shutil.copy(phone.root / "lib/ld-linux-aarch64.so.1", phone.root / "system/bin/linker64")
        for name in ("libc.so", "libdl.so"):
            library = phone.root / "usr/lib/aarch64-linux-gnu" / name
            words = ["aarch64-linux-gnu-gcc", "-w", "-shared", "-fPIC", "-x", "c", f"-Wl,-soname,{name}", "-", "-o"]
            subprocess.run([*words, str(tmp_path / name)], input=STAND_IN, text=True, check=True)
            shutil.copy(tmp_path / name, library)
        events, error = bench(phone, models.with_(profile=True))
    assert error is None
    results = models.recorded(events)
    assert [(r.failure, r.parity.verdict) for r in results] == [(None, "pass")] * 2
    assert all(r.statistics.blocks >= LEAST_ROUNDS and r.memory.peak_bytes and r.profile for r in results)


# --- which phone -----------------------------------------------------------------------------------------------------


def test_without_a_phone_it_says_so(models):
    _, error = bench("adb", models)
    assert str(error) == "adb: no phone is connected; plug one in with USB debugging switched on"
    assert isinstance(error, BadInput)


def test_of_two_phones_one_must_be_named(phone, models, tmp_path):
    with emulated_phone(tmp_path / "other") as other:
        for serial in (phone.serial, other.serial):
            subprocess.run(["adb", "connect", serial], check=True, capture_output=True)
        _, error = bench("adb", models)
        assert re.fullmatch(
            r"adb: 2 phones are connected; give one of adb://127\.0\.0\.1:\d+, adb://127\.0\.0\.1:\d+", str(error)
        )
        _, error = bench("adb://nobody", models)
        assert str(error).startswith("adb://nobody: no such phone, there is 127.0.0.1:")
        assert str(error).endswith("; give one of them, or adb")
        subprocess.run(["adb", "disconnect", other.serial], check=True, capture_output=True)
    events, error = bench("adb", models)
    assert error is None and events[-1]["event"] == "end", "the only one left needs no name"


def test_a_phone_that_has_not_allowed_this_computer_is_refused(phone, models):
    phone.tell("forbid")
    _, error = bench(phone, models)
    assert str(error) == (
        f"{phone.target}: the phone has not allowed this computer to debug it; "
        "unlock it and accept its question about USB debugging"
    )


def client(folder: Path, monkeypatch, script: str) -> None:
    """Put a double of the adb client first on the path: for what the real one does only with real cables."""
    folder.mkdir(exist_ok=True)
    (folder / "adb").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("offline", "the phone is offline; unlock it, plug it in again, or run adb reconnect"),
        (
            "no permissions (user in plugdev group; are your udev rules wrong?)",
            "this user may not open the phone's USB device; "
            "apt install android-sdk-platform-tools-common, and plug the phone in again",
        ),
        ("recovery", "the phone is in state 'recovery'; start Android on it"),
    ],
)
def test_a_phone_that_is_not_ready_is_refused(models, tmp_path, monkeypatch, state, line):
    client(tmp_path / "bin", monkeypatch, f"printf 'List of devices attached\\nX1\\t%s\\n' {shlex.quote(state)}")
    _, error = bench("adb", models)
    assert str(error) == f"adb://X1: {line}"


def test_without_adb_it_says_what_to_install(models, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, error = bench("adb", models)
    assert str(error) == "adb is not installed; apt install adb, or install Android's platform-tools"
    assert isinstance(error, NotInstalled)


def test_a_link_lost_before_anything_was_told(models, tmp_path, monkeypatch):
    script = "case $1 in devices) printf 'List\\nX1\\tdevice\\n';; *) echo 'error: closed' >&2; exit 1;; esac"
    client(tmp_path / "bin", monkeypatch, script)
    events, error = bench("adb", models)
    assert events == [] and isinstance(error, Interrupted) and error.cause == "link-lost"
    assert str(error) == (
        "adb://X1: the link to the phone was lost (error: closed); check the cable or the network, and bench again"
    )


def test_an_adb_that_hangs_is_given_up(models, tmp_path, monkeypatch):
    client(tmp_path / "bin", monkeypatch, "sleep 60")
    monkeypatch.setattr(adb_link._adb, "__kwdefaults__", {"timeout_s": 0.2})
    _, error = bench("adb", models)
    assert str(error) == "devices: adb gave no answer within 0.2 s; check the cable or the network, and bench again"
    assert isinstance(error, Interrupted) and error.cause == "link-lost"


def test_an_answer_without_end_is_given_up(models, tmp_path, monkeypatch):
    client(tmp_path / "bin", monkeypatch, "exec yes")
    _, error = bench("adb", models)
    assert str(error) == "devices: an answer of more than 16,777,216 bytes is of no bench; do not trust this phone"
    assert isinstance(error, Interrupted) and error.cause == "malformed"


# --- what cannot be done ---------------------------------------------------------------------------------------------


def test_what_a_phone_cannot_run_is_refused_before_it_is_touched(phone, models, tmp_path):
    def asked(format: str, **options):
        artifact = replace(models.job.artifacts[0], format=format, name=f"m.{format}")
        events, error = bench(phone, models.with_(artifacts=(artifact,), cases=(Case(0, 1),)), **options)
        assert events == [] and isinstance(error, BadInput)
        return str(error)

    assert asked("coreml") == "m.coreml: Core ML does not run on Android; leave it out"
    assert asked("tflite") == (
        "m.tflite: no LiteRT library for Android can be had here; give --runner FILE, LiteRT's benchmark_model binary "
        "for the phone, or bench the ONNX file"
    )
    missing = tmp_path / "none"
    assert asked("tflite", runner=missing) == f"{missing}: no such file; give LiteRT's benchmark_model binary"


def test_a_runner_that_is_not_built_is_named(phone, models, tmp_path, monkeypatch):
    monkeypatch.setattr(adb, "RUNNERS", tmp_path)
    _, error = bench(phone, models)
    assert str(error) == (
        f"{phone.target}: no runner for linux-arm64 is built; run benchmarks/devices/adb/runner/build.sh linux-arm64"
    )


def test_a_processor_without_a_runner_is_refused(phone, models):
    uname = phone.root / "bin/uname"
    kept = uname.read_bytes()
    uname.unlink()
    uname.write_text("#!/bin/sh\necho armv7l\n")
    uname.chmod(0o755)
    try:
        _, error = bench(phone, models)
    finally:
        uname.write_bytes(kept)
    assert str(error) == f"{phone.target}: no runner is built for linux-armv7l; use a 64-bit ARM phone"


def test_a_phone_with_32_bit_programs_is_refused(tmp_path, models):
    with emulated_phone(tmp_path / "phone", {**PROPERTIES, "ro.product.cpu.abi": "armeabi-v7a"}) as phone:
        _, error = bench(phone, models)
    assert str(error) == f"{phone.target}: no runner is built for armeabi-v7a; use a 64-bit ARM phone"


# --- faults ----------------------------------------------------------------------------------------------------------


def mend(phone) -> None:
    """Let the phone answer again, and wait until adb has noticed: it takes a moment to give up the old link."""
    phone.tell("mend")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        subprocess.run(["adb", "connect", phone.serial], check=True, capture_output=True)
        state = subprocess.run(["adb", "-s", phone.serial, "shell", "true"], capture_output=True, timeout=30)
        if state.returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError("the phone did not come back")


def large_file(models, folder: Path):
    """The job with an artifact of 20 MB, which is no model: only its way to the phone counts."""
    path = folder / "large.onnx"
    path.write_bytes(os.urandom(20_000_000))
    key = hashlib.sha256(path.read_bytes()).hexdigest() + ".onnx"
    artifact = replace(models.job.artifacts[0], file=key, golden=None)
    made = models.with_(artifacts=(artifact,), cases=(Case(0, 1),))
    return replace(made, files={key: path}), key


def test_a_link_cut_while_files_are_pushed_is_told_and_the_next_bench_goes_on(phone, models, tmp_path):
    made, key = large_file(models, tmp_path)
    bench(phone, models)  # the runner is there already
    phone.tell("cut-after", 3_000_000)
    events, error = bench(phone, made)
    assert [e["event"] for e in events] == ["device"]
    assert isinstance(error, Interrupted) and error.cause == "link-lost"
    assert re.fullmatch(
        rf"{phone.target}: the link to the phone was lost.*; check the cable or the network, and bench again",
        str(error),
    )
    assert not (phone.store / "files" / key).exists(), "half a file never has a whole one's name"
    mend(phone)
    events, error = bench(phone, made)
    assert error is None and of(events, "failed")[0]["cause"] == "refused", "it came, and it is no model"
    assert (phone.store / "files" / key).stat().st_size == 20_000_000


def test_a_link_cut_during_a_run_loses_nothing_that_was_measured(phone, models):
    events, error = bench(phone, models.with_(seconds=5.0), once("block", lambda: phone.tell("cut")))
    assert isinstance(error, Interrupted) and error.cause == "link-lost"
    results = models.recorded(events)
    assert [r.parity.verdict for r in results] == ["pass", "pass"] and of(events, "block")
    assert of(events, "end") == []
    deadline = time.monotonic() + 30
    while phone.processes("-runner") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert phone.processes("-runner") == [], "a runner that nobody reads ends"
    mend(phone)
    assert bench(phone, models)[1] is None


def test_a_phone_that_falls_silent_is_given_up(phone, models, monkeypatch):
    monkeypatch.setattr(adb, "MARGIN_S", 0.0)
    made = models.with_(timeout_s=20.0, data_s=0.0, warmup_s=0.1)

    def stop() -> None:
        for pid in phone.processes("-runner"):
            os.kill(pid, signal.SIGSTOP)

    try:
        events, error = bench(phone, made, once("block", stop))
    finally:
        for pid in phone.processes("-runner"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert isinstance(error, Interrupted) and error.cause == "link-lost" and of(events, "block")
    assert str(error).startswith(f"{phone.target}: the phone told nothing for 20.1 s; ")


def test_a_full_phone_is_told(phone, models, tmp_path):
    made, _ = large_file(models, tmp_path)
    phone.tell("small", 5_000_000)
    try:
        events, error = bench(phone, made)
        left = list((phone.store / "files").iterdir())
    finally:
        phone.tell("large")
    assert [e["event"] for e in events] == ["device"]
    assert isinstance(error, Interrupted) and error.cause == "disk-full"
    assert str(error) == f"{phone.target}: the phone has no room left; free some of its storage"
    assert left == [], "nor is half a file left there"


def test_a_folder_that_may_not_be_written_is_told(phone, models):
    store = phone.store / "files"
    bench(phone, models)
    shutil.rmtree(store)
    store.write_text("a file in the folder's place")
    try:
        events, error = bench(phone, models)
    finally:
        store.unlink()
    assert type(error) is BadInput and [e["event"] for e in events] == ["device"]
    said = rf"{phone.target}: the phone does not take tall\.onnx \(.*remote .*\); look at its storage with adb .*"
    assert re.fullmatch(said, str(error))


def test_a_killed_runner_loses_nothing_that_was_measured(phone, models):
    def kill() -> None:
        os.kill(phone.processes("-runner")[0], signal.SIGKILL)

    events, error = bench(phone, models.with_(seconds=5.0), once("block", kill))
    assert isinstance(error, Interrupted) and error.cause == "agent-killed"
    assert str(error).startswith(f"{phone.target}: the runner on the phone ended with exit code 137")
    assert str(error).endswith("; keep the phone awake and its other apps closed, and bench again")
    assert [r.parity.verdict for r in models.recorded(events)] == ["pass", "pass"] and of(events, "block")
    assert phone.processes("-runner") == [], "its cases die with it"
    assert list((phone.store / "jobs").iterdir()) == []


def test_a_model_that_crashes_costs_its_own_case_alone(phone, models):
    def crash() -> None:
        os.kill(phone.processes("-runner")[1], signal.SIGSEGV)

    events, error = bench(phone, models, once("block", crash))
    assert error is None and events[-1]["event"] == "end"
    [failed] = of(events, "failed")
    assert (failed["cause"], failed["detail"]) == ("crashed", "crashed with SIGSEGV")
    whole = models.recorded(events)[1 - failed["case"]]
    assert whole.failure is None and whole.statistics.blocks >= LEAST_ROUNDS and whole.parity.verdict == "pass"


def test_of_two_benches_on_a_phone_the_second_is_refused(phone, models):
    running = threading.Event()
    first: list = []

    def long() -> None:
        first.extend(bench(phone, models.with_(seconds=6.0), once("block", running.set)))

    thread = threading.Thread(target=long)
    thread.start()
    assert running.wait(120)
    events, error = bench(phone, models.with_(id="the second"))
    thread.join()
    assert str(error) == f"{phone.target}: another bench is running on the phone; wait until it has ended"
    assert isinstance(error, BadInput) and [e["event"] for e in events] == ["device"]
    assert first[1] is None and first[0][-1]["event"] == "end", "and the first is not disturbed"


GARBAGE = r"""
printf 'WARNING: linker: unsupported flags DT_FLAGS_1=0x8000001\n\377\376\000 {"event": \n[1, 2]\n{"event": 3}\n'
printf '{"event":"end"}\n{"event":"progress","done":1,"total":9}\nno end of line'
"""


def with_runner(folder: Path, monkeypatch, script: str) -> None:
    """A script in the runner's place."""
    made = folder / "runners" / "linux-arm64"
    made.mkdir(parents=True)
    (made / "runner").write_text(f"#!/bin/sh\n{script}\n")
    (made / "libonnxruntime.so").write_bytes(b"")
    monkeypatch.setattr(adb, "RUNNERS", folder / "runners")


def test_garbage_between_the_events_is_no_event(phone, models, tmp_path, monkeypatch):
    with_runner(tmp_path, monkeypatch, GARBAGE)
    events, error = bench(phone, models)
    assert error is None
    assert events[1:] == [{"event": "progress", "done": 1, "total": 9}, {"event": "end"}]


def test_what_the_runner_said_last_is_told(phone, models, tmp_path, monkeypatch):
    with_runner(tmp_path, monkeypatch, "echo 'the last words' >&2; exit 7")
    _, error = bench(phone, models)
    assert "ended with exit code 7 (the last words); keep the phone awake" in str(error)


def test_a_line_without_an_end_is_malformed(phone, models, tmp_path, monkeypatch):
    monkeypatch.setattr(adb_link, "LONGEST_LINE_BYTES", 1000)
    with_runner(tmp_path, monkeypatch, "head -c 5000 /dev/zero")
    _, error = bench(phone, models)
    assert isinstance(error, Interrupted) and error.cause == "malformed"
    assert str(error) == "the phone's output: a line of 1000 bytes is of no bench"


def test_cases_keep_their_numbers_beside_benchmark_models(phone, models, tmp_path, monkeypatch):
    with_runner(tmp_path, monkeypatch, 'echo \'{"event":"failed","case":0,"cause":"refused","detail":"x"}\'')
    binary = tmp_path / "benchmark_model"
    binary.write_text("#!/bin/sh\necho 'no such model'; exit 1\n")
    first, second = models.job.artifacts
    made = models.with_(artifacts=(replace(first, format="tflite"), second))
    events, error = bench(phone, made, runner=binary)
    assert error is None
    assert [(e["case"], e["detail"]) for e in of(events, "failed")] == [
        (1, "x"),
        (0, "benchmark_model ended with exit code 1: no such model"),
    ]
    json.dumps(events)
