"""The native runner on this machine against the real onnxruntime, and its Android build as far as it can be checked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.agent.loop import LEAST_ROUNDS
from benchmarks.devices.adb.tensor_files import unpack
from benchmarks.job import Case
from benchmarks.results.events import Array
from benchmarks.results.record import decoded
from runtimes.errors import BadInput
from runtimes.records import from_json
from tests.rigs.onnx_job import BUILD, Made, answer, built, make_job

pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def runner() -> Path:
    """The folder of the runner for this machine."""
    return built("linux-x64")


class Bench:
    """Runs the runner in a folder of its own."""

    def __init__(self, runner: Path, folder: Path) -> None:
        self.binary, self.library, self.folder = runner / "runner", runner / "libonnxruntime.so", folder

    def lay_out(self, made: Made) -> None:
        """Write the job and its files, as adb/device.py puts them on a phone."""
        for key, path in made.files.items():
            if path.suffix == ".npz":
                unpack(path, self.folder / f"{key}.safetensors")
            else:
                shutil.copy(path, self.folder / key)
        (self.folder / "job.json").write_text(json.dumps(asdict(made.job)))

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [self.binary, self.folder, "--library", self.library, *words]
        return subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, made: Made, *words: object) -> list[dict]:
        """The events of a job that the runner does."""
        self.lay_out(made)
        process = self.start(*words)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, (process.returncode, errors)
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def bench(runner, tmp_path):
    return Bench(runner, tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("models"))


def of(events: list[dict], name: str, case: int | None = None) -> list[dict]:
    return [e for e in events if e["event"] == name and (case is None or e["case"] == case)]


# --- what is measured ------------------------------------------------------------------------------------------------


def test_a_job_gives_every_event_and_equals_numpy(bench, models):
    events = bench.run(models.with_(profile=True))
    results = models.recorded(events)
    assert [r.parity.verdict for r in results] == ["pass", "pass"]
    assert all(r.failure is None and r.executed_by.runtime == "onnxruntime" for r in results)
    assert all(r.parity.samples == 3 and r.parity.sensitivity > 100 * r.parity.max_abs_error for r in results)
    assert events[0]["event"] == "condition" and events[0]["when"] == "before"
    assert [e["event"] for e in events[-2:]] == ["condition", "end"]
    for result in results:
        assert result.statistics.blocks >= LEAST_ROUNDS and result.statistics.min_ms > 0
        assert result.samples.load_cold_ns > 0 and result.samples.load_warm_ns > 0 and result.samples.import_ns > 0
        assert result.samples.first_inference_ns >= min(result.samples.times_ns)
        assert 0 < result.memory.baseline_bytes < result.memory.steady_bytes <= result.memory.peak_bytes
        assert {o.operation for o in result.profile} >= {"Cast", "Add"}
        assert all(o.calls == o.runs == 20 for o in result.profile), "the first inference is left out"
    assert list(bench.folder.glob("profile*")) == []


def test_a_flipped_weight_fails_the_proof(bench, models):
    file = models.job.artifacts[0].file
    bench.lay_out(models)
    content = bytearray((bench.folder / file).read_bytes())
    where = content.rindex(b"w", 0, len(content) - 100) + 40  # inside of the weights, far from the graph's names
    content[where + 3 - where % 4] ^= 0x40
    damaged = bench.folder / "damaged.onnx"
    damaged.write_bytes(content)
    changed = replace(models, files={**models.files, file: damaged})
    results = changed.recorded(bench.run(changed))
    assert [r.parity.verdict for r in results] == ["fail", "pass"]


def test_cases_take_turns_in_orders_that_the_seed_gives(bench, models):
    def rounds(seed: int) -> list[tuple[int, ...]]:
        made = models.with_(cases=(Case(0, 1), Case(1, 1), Case(0, 2)), seed=seed, seconds=0.01)
        order = [e["case"] for e in of(bench.run(made), "block")]
        return list(zip(*[iter(order)] * 3, strict=True))

    found = rounds(1)
    assert all(sorted(turn) == [0, 1, 2] for turn in found)
    assert len(set(found)) > 3, "shuffled"
    assert rounds(1)[:LEAST_ROUNDS] == found[:LEAST_ROUNDS] != rounds(2)[:LEAST_ROUNDS]


def test_blocks_follow_each_other_and_hold_what_they_say(bench, models):
    events = bench.run(models)
    blocks = of(events, "block")
    assert all(len(b["times_ns"]) == b["runs"] and min(b["times_ns"]) > 0 for b in blocks)
    ends = [b["at_ns"] + sum(b["times_ns"]) for b in blocks]
    assert all(end <= later["at_ns"] for end, later in zip(ends, blocks[1:], strict=False)), "one runs at a time"
    for case in (0, 1):
        spent = sum(sum(b["times_ns"]) for b in blocks if b["case"] == case)
        assert len(of(events, "block", case)) >= LEAST_ROUNDS and spent > 0
    progress = of(events, "progress")
    assert progress[-1]["done"] == progress[-1]["total"] == len(of(events, "block", 0))


def test_processes_share_the_seconds_and_load_is_told_once(bench, models):
    made = models.with_(processes=2)
    events = bench.run(made)
    assert Counter(b["process"] for b in of(events, "block", 0)).keys() == {0, 1}
    assert len(of(events, "loaded")) == 2 and len(of(events, "outputs")) == 6
    assert len(of(events, "warm", 1)) == 2 and len(of(events, "memory", 1)) == 2
    assert len(of(events, "energy", 0)) == 1
    told = sum(b["runs"] + (b["runs"] > 1) for b in of(events, "block", 0))
    assert of(events, "energy", 0)[0]["inferences"] == told


def test_precision_asks_for_more_rounds(bench, models):
    rough = len(of(bench.run(models.with_(seconds=0.001)), "block", 0))
    fine = len(of(bench.run(models.with_(seconds=0.001, precision=1e-9)), "block", 0))
    assert LEAST_ROUNDS <= rough < fine and fine >= 2 * LEAST_ROUNDS, (
        "out of reach: ten times the seconds, or as many rounds"
    )


def test_sustained_runs_each_case_alone_a_block_a_second(bench, models):
    events = bench.run(models.with_(sustained_s=1.5))
    assert [b["case"] for b in of(events, "block")] == [0, 0, 1, 1]
    first = of(events, "block")[0]
    assert first["runs"] > len(first["times_ns"]) == 1000
    assert of(events, "energy", 0)[0]["inferences"] == sum(b["runs"] for b in of(events, "block", 0))
    names = [(e["event"], e.get("case")) for e in events if e["event"] in ("loaded", "block")]
    assert names.index(("loaded", 1)) > names.index(("block", 0)) + 1


def test_a_batch_repeats_the_first_row(bench, models):
    events = bench.run(models.with_(batch=7))
    assert len(of(events, "block", 0)) >= LEAST_ROUNDS
    fixed = replace(models.job.artifacts[0], golden=None)
    made = replace(models, job=replace(models.job, artifacts=(fixed, *models.job.artifacts[1:]), batch=3))
    loaded = of(bench.run(made), "loaded", 0)[0]
    assert loaded["inputs"] == "random" and "free axes" in loaded["notes"][0]


def test_data_is_answered_in_order_by_every_case(bench, models, tmp_path):
    generator = np.random.default_rng(5)
    samples = {
        "x": generator.normal(size=(9, 40)).astype(np.float32),
        "number": generator.integers(-9, 9, (9, 1), dtype=np.int64),
    }
    np.savez(tmp_path / "data.npz", **samples)
    artifact = replace(models.job.artifacts[0], data="data.npz")
    made = replace(
        models,
        job=replace(models.job, artifacts=(artifact, models.job.artifacts[1]), cases=(Case(0, 1), Case(0, 2))),
        files={**models.files, "data.npz": tmp_path / "data.npz"},
    )
    told = [e for e in of(bench.run(made), "outputs") if e["of"] == "data"]
    assert [(e["case"], e["row"], e["rows"]) for e in told] == [(case, row, 1) for case in (0, 1) for row in range(9)]
    weights = weights_of(models)
    for event in told:
        row = event["row"]
        expected = answer({name: array[row : row + 1] for name, array in samples.items()}, weights)
        np.testing.assert_allclose(decoded(from_json(Array, event["outputs"]["y"]), ""), expected, rtol=1e-5, atol=1e-5)


def test_data_stops_when_its_time_is_up_but_not_before_two(bench, models, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((9, 40), np.float32), number=np.zeros((9, 1), np.int64))
    artifact = replace(models.job.artifacts[0], data="data.npz")
    made = replace(models, files={**models.files, "data.npz": tmp_path / "data.npz"})
    events = bench.run(made.with_(artifacts=(artifact,), cases=(Case(0, 1),), data_s=0.0))
    assert [e["row"] for e in of(events, "outputs") if e["of"] == "data"] == [0, 1] and of(events, "failed") == []


def weights_of(models: Made) -> np.ndarray:
    import onnx

    return onnx.numpy_helper.to_array(onnx.load(models.files[models.job.artifacts[0].file]).graph.initializer[0])


def test_too_little_memory_measures_one_by_one_and_says_so(bench, models):
    huge = tuple(replace(artifact, size_bytes=10**13) for artifact in models.job.artifacts)
    events = bench.run(models.with_(artifacts=huge))
    assert "one by one instead of in turns" in of(events, "loaded", 0)[0]["notes"][0]
    order = [e["case"] for e in of(events, "block")]
    assert order == sorted(order) and set(order) == {0, 1}


# --- the machine -----------------------------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{value}\n")


PHONE = {
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 1804800,
    "devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
    "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": 1804800,
    "devices/system/cpu/cpu0/cpufreq/scaling_max_freq": 1804800,
    "devices/system/cpu/cpu4/cpufreq/scaling_cur_freq": 1401600,
    "devices/system/cpu/cpu4/cpufreq/scaling_governor": "schedutil",
    "devices/system/cpu/cpu4/cpufreq/cpuinfo_max_freq": 2841600,
    "devices/system/cpu/cpu4/cpufreq/scaling_max_freq": 2016000,
    "class/thermal/thermal_zone0/type": "battery",
    "class/thermal/thermal_zone0/temp": 99000,
    "class/thermal/thermal_zone1/type": "cpu-1-0-usr",
    "class/thermal/thermal_zone1/temp": 61500,
    "class/thermal/thermal_zone2/type": "cpu-1-1-usr",
    "class/thermal/thermal_zone2/temp": 255000,  # a sensor that is off
    "class/thermal/thermal_zone3/type": "gpu",
    "class/thermal/thermal_zone3/temp": 80000,
    "class/thermal/cooling_device0/type": "thermal-cpufreq-0",
    "class/thermal/cooling_device0/cur_state": 3,
    "class/thermal/cooling_device1/type": "backlight",
    "class/thermal/cooling_device1/cur_state": 9,
}


def test_conditions_are_those_of_the_phone(bench, models, tmp_path):
    write(tmp_path / "sys", PHONE)
    condition = bench.run(models, "--sys", tmp_path / "sys")[0]
    assert condition["frequencies_khz"] == [1804800, 1401600] and condition["governor"] == "schedutil"
    assert condition["temperature_c"] == 61.5
    assert condition["throttled"] == ["cpu4 capped at 2016000 of 2841600 kHz", "thermal-cpufreq-0 at 3"]


def test_what_the_phone_does_not_tell_is_null(bench, models, tmp_path):
    condition = bench.run(models, "--sys", tmp_path / "nothing")[0]
    assert [condition[key] for key in ("governor", "temperature_c", "throttled")] == [None, None, None]
    assert condition["frequencies_khz"] == []


BATTERY = {"charge_counter": 3_000_000, "voltage_now": 4_000_000, "status": "Discharging"}


def test_energy_is_the_charge_that_the_battery_lost(bench, models, tmp_path):
    write(tmp_path / "sys/class/power_supply/battery", BATTERY)
    made = models.with_(cases=(Case(0, 1),), sustained_s=2.5)
    bench.lay_out(made)
    process = bench.start("--sys", tmp_path / "sys")
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "block" and len(of(events, "block")) == 1:  # 0.5 mAh at a mean of 3.9 V
            write(tmp_path / "sys/class/power_supply/battery", {"charge_counter": 2_999_500, "voltage_now": 3_800_000})
    assert process.wait() == 0
    energy = of(events, "energy", 0)[0]
    assert energy["joules"] == pytest.approx(500 * 3.6e-3 * 3.9) and energy["note"] == ""


@pytest.mark.parametrize(
    ("changes", "cases", "note"),
    [
        ({}, 2, "artifacts took turns, and a battery's counter is too slow to tell them apart"),
        ({}, 1, "the battery's counter did not move"),
        ({"status": "Charging"}, 1, "the battery was not discharging"),
        (None, 1, "there is no battery that tells its charge"),
    ],
)
def test_energy_is_unknown_where_it_is(bench, models, tmp_path, changes, cases, note):
    if changes is not None:
        write(tmp_path / "sys/class/power_supply/battery", {**BATTERY, **changes})
    events = bench.run(models.with_(cases=models.job.cases[:cases]), "--sys", tmp_path / "sys")
    assert {(e["joules"], e["note"]) for e in of(events, "energy")} == {(None, note)}


# --- faults ----------------------------------------------------------------------------------------------------------


def failed(events: list[dict]) -> list[tuple[int, str, str]]:
    return [(e["case"], e["cause"], e["detail"]) for e in of(events, "failed")]


def test_a_file_that_is_no_model_is_refused_and_the_other_is_measured(bench, models, tmp_path):
    (tmp_path / "noise").write_bytes(b"\x00\xff" * 500)
    made = replace(models, files={**models.files, models.job.artifacts[0].file: tmp_path / "noise"})
    events = bench.run(made)
    [(case, cause, detail)] = failed(events)
    assert (case, cause) == (0, "refused") and detail.startswith("onnxruntime cannot load it: ")
    assert len(of(events, "block", 1)) >= LEAST_ROUNDS and events[-1]["event"] == "end"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"affinity": (1000,)}, "it cannot be pinned to the cores asked for"),
        ({"affinity": (4000,)}, "it cannot be pinned to the cores asked for"),
    ],
)
def test_what_cannot_be_set_is_refused(bench, models, changes, detail):
    assert failed(bench.run(models.with_(**changes))) == [(0, "refused", detail), (1, "refused", detail)]


def test_affinity_pins_the_threads(bench, models):
    bench.lay_out(models.with_(affinity=(0,), sustained_s=1.0))
    process = bench.start()
    allowed = set()
    for line in process.stdout:
        if json.loads(line)["event"] == "warm":
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            allowed |= {tuple(os.sched_getaffinity(int(child))) for child in children}
    assert process.wait() == 0 and allowed == {(0,)}


def golden_with(models: Made, folder: Path, **arrays: np.ndarray) -> Made:
    np.savez(folder / "odd.npz", **{f"0/input/{name}": array for name, array in arrays.items()})
    artifact = replace(models.job.artifacts[0], golden="odd.npz")
    job = replace(models.job, artifacts=(artifact,), cases=(Case(0, 1),))
    return replace(models, job=job, files={**models.files, "odd.npz": folder / "odd.npz"})


@pytest.mark.parametrize(
    ("arrays", "detail"),
    [
        ({"x": np.zeros((1, 40), np.float32)}, "no value for input number"),
        (
            {"x": np.zeros((1, 41), np.float32), "number": np.zeros((1, 1), np.int64)},
            "input x has shape [1, 41], the artifact takes [?, 40]",
        ),
        (
            {"x": np.zeros((1, 40), np.float64), "number": np.zeros((1, 1), np.int64)},
            "input x is float64, the artifact takes float32",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(bench, models, tmp_path, arrays, detail):
    assert failed(bench.run(golden_with(models, tmp_path, **arrays))) == [(0, "refused", detail)]


def test_a_batch_without_rows_is_refused(bench, models, tmp_path):
    made = golden_with(models, tmp_path, x=np.zeros((0, 40), np.float32), number=np.zeros((1, 1), np.int64))
    detail = "input x has no rows to make a batch of"
    assert failed(bench.run(made.with_(batch=2))) == [(0, "refused", detail)]


def test_data_for_another_model_is_refused_after_the_measurement(bench, models, tmp_path):
    np.savez(tmp_path / "data.npz", other=np.zeros((2, 40)), more=np.zeros((2, 40)))
    artifact = replace(models.job.artifacts[0], data="data.npz")
    made = replace(models, files={**models.files, "data.npz": tmp_path / "data.npz"})
    events = bench.run(made.with_(artifacts=(artifact,), cases=(Case(0, 1),)))
    assert failed(events) == [(0, "refused", "the data has no rows for its first input")]
    assert len(of(events, "block", 0)) >= LEAST_ROUNDS


LIBRARIES = {
    "abort();": ("crashed", "crashed with SIGABRT"),
    "*(volatile int *)0 = 1;": ("crashed", "crashed with SIGSEGV"),
    "raise(SIGUSR1);": ("crashed", "crashed with signal 10"),
    "_exit(3);": ("crashed", "ended with exit code 3 and no answer"),
    "raise(SIGKILL);": ("out-of-memory", "killed by the system (SIGKILL), as it does when memory runs out"),
    "pause();": ("timed-out", "gave no answer within 1 s and was killed"),
}


@pytest.mark.parametrize("code", LIBRARIES)
def test_a_runtime_that_dies_is_a_failure_of_its_case(bench, models, tmp_path, code):
    headers = "".join(f"#include <{name}.h>\n" for name in ("signal", "stdlib", "unistd"))
    source = f"{headers}void *OrtGetApiBase(void) {{ {code} return 0; }}"
    bench.library = library_of(source, tmp_path)
    timeout_s = 0.5 if LIBRARIES[code][0] == "timed-out" else 60.0
    events = bench.run(models.with_(timeout_s=timeout_s, warmup_s=0.1, cases=(Case(0, 1),)))
    assert failed(events) == [(0, *LIBRARIES[code])]
    assert events[-1]["event"] == "end"


def library_of(source: str, folder: Path) -> Path:
    library = folder / "libfake.so"
    words = ["gcc", "-w", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(words, input=source, text=True, check=True)
    return library


def test_a_library_that_is_missing_or_none_or_too_old_is_refused(bench, models, tmp_path):
    made = models.with_(cases=(Case(0, 1),))
    bench.library = tmp_path / "none.so"
    assert "onnxruntime's library cannot be loaded" in failed(bench.run(made))[0][2]
    bench.library = library_of("int nothing;", tmp_path)
    assert failed(bench.run(made)) == [(0, "refused", f"{bench.library} is no onnxruntime")]
    bench.library = library_of(
        'static void *api(unsigned v) { return 0; } static const char *version(void) { return "1.2.3"; }'
        "static struct { void *api, *version; } base = { api, version }; void *OrtGetApiBase(void) { return &base; }",
        tmp_path,
    )
    assert failed(bench.run(made)) == [(0, "refused", "onnxruntime 1.2.3 is too old")]


def test_a_case_killed_in_its_turns_keeps_its_blocks(bench, models):
    bench.lay_out(models.with_(seconds=1.0))
    process = bench.start()
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if len(of(events, "block")) == 5 and not of(events, "failed") and events[-1]["event"] == "block":
            child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            os.kill(int(child), signal.SIGSEGV)
    assert process.wait() == 0
    assert failed(events) == [(0, "crashed", "crashed with SIGSEGV")]
    results = models.recorded(events)
    assert results[0].statistics.blocks >= 1 and results[0].parity.verdict == "pass"
    assert results[1].statistics.blocks >= LEAST_ROUNDS and results[1].failure is None


def test_cases_that_die_while_they_wait_are_told(bench, models):
    bench.lay_out(models.with_(seconds=1.0))
    process = bench.start()
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if len(of(events, "progress")) == 5 and events[-1]["event"] == "progress":
            process.send_signal(signal.SIGSTOP)  # one of them at least does not run now
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGSEGV)
                while Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    time.sleep(0.01)
            process.send_signal(signal.SIGCONT)
    assert process.wait() == 0 and events[-1]["event"] == "end"
    assert sorted(failed(events)) == [(case, "crashed", "crashed with SIGSEGV") for case in (0, 1)]


def test_nobody_who_reads_ends_the_runner_and_its_cases(bench, models):
    bench.lay_out(models.with_(sustained_s=30.0))
    process = bench.start()
    for line in process.stdout:
        if json.loads(line)["event"] == "block":
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.stdout.close()
    assert process.wait(timeout=20) == 74
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)
    process.stderr.close()


def test_a_case_that_hangs_ends_with_the_runner(bench, models, tmp_path):
    bench.library = library_of("#include <unistd.h>\nvoid *OrtGetApiBase(void) { pause(); return 0; }", tmp_path)
    bench.lay_out(models)
    process = bench.start()
    assert json.loads(process.stdout.readline())["event"] == "condition"
    children: list[str] = []
    while not children or bench.library.name not in Path(f"/proc/{children[0]}/maps").read_text():
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{children[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{children[0]}").exists()


def test_two_benches_on_one_machine_are_one_too_many(bench, models, tmp_path):
    bench.lay_out(models.with_(sustained_s=30.0))
    first = bench.start("--lock", tmp_path / "lock")
    assert json.loads(first.stdout.readline())["event"] == "condition"
    second = bench.start("--lock", tmp_path / "lock")
    output, errors = second.communicate(timeout=30)
    assert (second.returncode, output, errors) == (75, "", "runner: another bench is running here\n")
    first.kill()
    first.communicate()
    deadline = time.monotonic() + 10  # the lock goes with the last of the first bench's processes
    while True:
        third = bench.start("--lock", tmp_path / "lock")
        told = third.stdout.readline()
        third.kill()
        third.communicate()
        if told or time.monotonic() > deadline:
            break
    assert json.loads(told)["event"] == "condition"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "job.json cannot be read"),
        ("", "job.json is no JSON"),
        ('{"schema_version": 1,}', "job.json is no JSON"),
        ('{"schema_version": 1} x', "job.json is no JSON"),
        ('{"schema_version": 01}', "job.json is no JSON"),
        ('{"schema_version": 1.}', "job.json is no JSON"),
        ('{"a": "\\ud800"}', "job.json is no JSON"),
        ('{"a": "line\nend"}', "job.json is no JSON"),
        ("[" * 100, "job.json is no JSON"),
        ('{"schema_version": 2}', "the job is of another version"),
        ('{"schema_version": 1}', "the job has no cases"),
        ('{"schema_version": 1, "artifacts": [], "cases": [{"artifact": 0}]}', "a case names no artifact of the job"),
        (
            '{"schema_version": 1, "artifacts": [{"format": "tflite"}], "cases": [{"artifact": 0}]}',
            "this runner runs ONNX files alone",
        ),
        (
            '{"schema_version": 1, "artifacts": [{"format": "onnx", "file": "../x"}], "cases": [{"artifact": 0}]}',
            "an artifact has no name that is one of a file",
        ),
        (
            '{"schema_version": 1, "artifacts": [{}], "cases": [{"artifact": 0, "threads": -1}]}',
            "a case has no such number of threads",
        ),
        (
            json.dumps({"schema_version": 1, "artifacts": [], "cases": [], "affinity": [0] * 300}),
            "too many cores to pin to",
        ),
        (json.dumps({"schema_version": 1, "artifacts": [], "cases": [{}] * 300}), "the job has too many cases"),
    ],
)
def test_a_job_that_is_none_is_refused(bench, text, fault):
    if text is not None:
        (bench.folder / "job.json").write_text(text)
    output, errors = bench.start().communicate(timeout=30)
    assert (output, errors) == ("", f"runner: {fault}\n")


@pytest.mark.parametrize("words", [["--library"], ["--nothing", "x"], ["--library", "x", "--files"]])
def test_wrong_arguments_are_refused(runner, words):
    done = subprocess.run([str(runner / "runner"), "folder", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 64 and done.stderr.startswith("runner: give JOB_FOLDER --library FILE")


def test_strings_of_any_kind_pass_through_the_job(bench, models):
    name = 'a "quoted" \\ name\n\t\u00e9 \u20ac \U0001f600'
    named = tuple(replace(artifact, name=name) for artifact in models.job.artifacts)
    assert failed(bench.run(models.with_(artifacts=named))) == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "its inputs are cut off"),
        (b"\xff" * 7 + b"\x7f{}", "its inputs are cut off"),
        ((2).to_bytes(8, "little") + b"[]", "its inputs have no header"),
        (b"header", "its inputs are cut off"),
    ],
)
def test_inputs_that_are_damaged_are_refused(bench, models, content, fault):
    check_damaged(bench, models, content, fault)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
    ],
)
def test_tensors_that_do_not_fit_their_file_are_refused(bench, models, entry):
    header = json.dumps({"0/input/x": entry}).encode()
    check_damaged(bench, models, len(header).to_bytes(8, "little") + header + bytes(8), "its inputs are damaged")


def check_damaged(bench: Bench, models: Made, content: bytes, fault: str) -> None:
    made = models.with_(cases=(Case(0, 1),))
    bench.lay_out(made)
    path = bench.folder / f"{made.job.artifacts[0].golden}.safetensors"
    path.write_bytes(content)
    output, _ = bench.start().communicate(timeout=30)
    events = [json.loads(line) for line in output.splitlines()]
    assert failed(events) == [(0, "refused", f"{fault} ({path})")]


def test_an_npz_that_is_damaged_or_holds_no_numbers_is_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(BadInput, match=r"bad\.npz: cannot read its inputs \(.*\); export the bundle again"):
        unpack(tmp_path / "bad.npz", tmp_path / "out")
    np.savez(tmp_path / "words.npz", x=np.array(["a"]))
    with pytest.raises(BadInput, match=r"words\.npz: x is <U1, which no artifact takes"):
        unpack(tmp_path / "words.npz", tmp_path / "out")


# --- the Android build -----------------------------------------------------------------------------------------------


def test_the_android_build_is_what_androids_linker_takes():
    """Nothing here can run Android; test_adb.py runs this very binary with a stand-in for bionic."""
    binary = built("android-arm64") / "runner"
    header = subprocess.run(["readelf", "-Wl", str(binary)], capture_output=True, text=True, check=True).stdout
    dynamic = subprocess.run(["readelf", "-Wd", str(binary)], capture_output=True, text=True, check=True).stdout
    assert "[Requesting program interpreter: /system/bin/linker64]" in header
    assert sorted(line.split("[")[1] for line in dynamic.splitlines() if "(NEEDED)" in line) == [
        "libc.so]",
        "libdl.so]",
    ]
    loads = [line.split()[-1] for line in header.splitlines() if line.split()[:1] == ["LOAD"]]
    assert set(loads) == {"0x4000"}, "pages of 16 KB, which Android 15 may have"


def test_the_build_names_a_target_that_is_none():
    done = subprocess.run([str(BUILD), "windows"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "build.sh: no such target: windows; give android-arm64, linux-arm64 or linux-x64\n"
