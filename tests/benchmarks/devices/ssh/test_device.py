"""Benches over real ssh on emulated Raspberry Pis: what is computed, what is put there, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest

from benchmarks.devices import DEVICES, Interrupted, run_of
from benchmarks.devices.ssh import bench as ssh_bench
from benchmarks.devices.ssh import link as ssh_link
from benchmarks.results.compare import INSTRUCTION_NOISE
from benchmarks.results.events import UNREADABLE
from runtimes.errors import BadInput
from tests.rigs.jobs import asked, matmul
from tests.rigs.pi import MODELS

pytestmark = pytest.mark.device

HOSTILE = "two words; $(touch bad)\n'quoted' \"twice\".onnx"
XNNPACK = "Created TensorFlow Lite XNNPACK delegate"


def place_of(pi, job) -> Path:
    """Where a job lies while it is done."""
    return pi.home / ".cache/pocketship/jobs" / job.id


def bench_with_log(pi, asked_of, **options) -> str:
    """Let a board do a job to its end and return the agent's log, which is gone afterwards."""
    logs = []

    def keep() -> None:
        logs.append((place_of(pi, asked_of.job) / "agent.log").read_text(errors="replace"))

    asked_of.on(pi, lambda event: event["event"] == "end" and keep(), **options)
    assert asked_of.events[0]["event"] in ("progress", "notice", "device") and asked_of.events[-1]["event"] == "end"
    return "".join(logs)


def test_ssh_is_a_device():
    assert DEVICES["ssh"] == "benchmarks.devices.ssh.device"
    assert run_of("ssh://pi@board").__module__ == "benchmarks.devices.ssh.device"


@pytest.fixture(scope="session")
def mlp(exported):
    """The bundle of a tiny model, as ONNX and TFLite."""
    return exported("mlp", "onnx,tflite")


def test_a_whole_bench_on_a_raspberry_pi_4(boards, mlp, tmp_path):
    """Parity and the delegate's kernels; a file's name is the user's, hashes go to the board."""
    pi = boards("4", own="as it comes")
    hostile = tmp_path / HOSTILE
    shutil.copy(mlp / "model.onnx", hostile)
    first = asked(hostile, mlp / "model.tflite", golden=mlp / "golden.npz")
    assert XNNPACK in bench_with_log(pi, first)
    for result in first.results():
        assert result.failure is None
        assert result.parity.verdict == "pass" and result.parity.max_abs_error < 1e-5
        assert result.statistics.inferences >= 25 and result.memory.peak_bytes > 20e6
        assert (result.device.model, result.device.cpu) == (MODELS["4"].name, "Cortex-A72")
        assert (result.device.executed, result.device.emulator) == ("emulated", "qemu-aarch64")
        assert result.device.family == "raspberry-pi" and result.executed_by.kind == "emulated"
    assert [r.executed_by.runtime for r in first.results()] == ["onnxruntime", "LiteRT"]
    assert first.pushed_bytes > 30e6, "the runtimes' wheels"
    wide = matmul(tmp_path / "wide.onnx", 256)
    for pushed_bytes in (wide.stat().st_size, 0):
        second = asked(hostile, wide, cases=[])
        second.on(pi)
        assert second.pushed_bytes == pushed_bytes, "what is there is not pushed again"
    assert not (pi.home / "bad").exists() and not place_of(pi, first.job).exists()


def test_instructions_are_counted(boards, mlp, tmp_path):
    """By an emulator that is asked to, and is many times slower for it."""
    pi = boards("4", counts=True)
    wide = matmul(tmp_path / "wide.onnx", 256)
    bench = asked(mlp / "model.onnx", wide, wide, golden=None)
    bench.on(pi)
    small, one, other = (result.instructions for result in bench.results())
    assert one == pytest.approx(other, rel=INSTRUCTION_NOISE), "the same file twice"
    assert one > 4 * 256 * 256 / 16 and one > 2 * small, "16 products an instruction at most"


@pytest.mark.matrix(one_in=3)
@pytest.mark.parametrize("name", ["3", "5"])
def test_the_other_raspberry_pis(name, boards, mlp):
    pi = boards(name)
    bench = asked(mlp / "model.tflite", golden=mlp / "golden.npz")
    assert XNNPACK in bench_with_log(pi, bench, clean=True)
    assert (pi.home / ".cache").is_dir() and not (pi.home / ".cache/pocketship").exists(), "as --clean says"
    (result,) = bench.results()
    assert result.failure is None and result.parity.verdict == "pass"
    assert result.device.model == MODELS[name].name
    assert result.device.cpu == {"3": "Cortex-A53", "5": "Cortex-A76"}[name]
    assert result.instructions is None, "nobody asked this board to count"


def test_a_model_that_the_runtime_cannot_bear_is_its_own_result(pi, mlp, tmp_path):
    """A file in whose head four bytes are lost, on which LiteRT crashes, beside one that is whole."""
    content = bytearray((mlp / "model.tflite").read_bytes())
    content[20:24] = bytes(4)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(content)
    bench = asked(broken, mlp / "model.tflite", golden=mlp / "golden.npz")
    bench.on(pi)
    crashed, whole = bench.results()
    assert (crashed.failure.cause, crashed.failure.detail) == ("crashed", "crashed with SIGSEGV")
    assert whole.failure is None and whole.parity.verdict == "pass"


def test_a_link_that_is_cut_in_a_run_loses_nothing_and_tells_nothing_twice(pi, mlp, proxy_of):
    """Cut three times, each as soon as the link that took the place of the last one has told something."""
    proxy = proxy_of(pi)
    kept, cuts = [], []

    def cut(event) -> None:
        if event["event"] in ("device", "loaded", "block") and len(cuts) < 3 and proxy.connections == len(cuts) + 1:
            cuts.append(event["event"])
            proxy.cut()
        if event["event"] == "end":
            lines = (place_of(pi, bench.job) / "events.jsonl").read_text().splitlines()
            kept.extend(json.loads(line) for line in lines)

    bench = asked(mlp / "model.onnx", golden=mlp / "golden.npz")
    bench.on(pi, cut, target=proxy.target(pi))
    told = [e for e in bench.events if e["event"] != "notice" and e.get("what") != "push"]
    assert told == kept and len(cuts) == 3 and cuts[0] == "device"
    assert [n["text"].split(": ")[1].split(" (")[0] for n in bench.told("notice")] == [
        "the link dropped",
        "connected again",
    ] * 3
    assert proxy.connections == 4
    assert bench.results()[0].failure is None


# --- With wheels that stand still: nothing is computed ---------------------------------------------------------------


def test_a_link_that_is_cut_in_a_push_goes_on_where_it_was(pi, still, proxy_of, tmp_path):
    """And bytes that change on the board later are put there anew, those of that file alone."""
    large, small = tmp_path / "large.onnx", matmul(tmp_path / "small.onnx", 3)
    large.write_bytes(bytes(range(256)) * 32768)
    proxy = proxy_of(pi, cut_after=7_500_000)
    bench = asked(large, small, cases=[])
    bench.on(pi, target=proxy.target(pi), wheels=still)
    assert proxy.cut_after is None and proxy.connections == 2
    kept = [pi.home / ".cache/pocketship/files" / artifact.file for artifact in bench.job.artifacts]
    assert [path.read_bytes() for path in kept] == [large.read_bytes(), small.read_bytes()]
    on_its_way = 4_000_000  # lost with the link: what the sockets and both ends of ssh hold
    assert proxy.sent_bytes < large.stat().st_size + on_its_way, "not from its beginning again"
    assert not list(kept[0].parent.glob("*.part"))
    content = small.read_bytes()
    kept[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = asked(large, small, cases=[])
    again.on(pi, wheels=still)
    assert again.pushed_bytes == len(content) and kept[1].read_bytes() == content


def test_a_link_that_does_not_come_back(pi, still, proxy_of, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_link, "RECONNECT_DELAYS_S", (0.01, 0.01))
    proxy = proxy_of(pi)
    bench = asked(matmul(tmp_path / "a.onnx", 2))
    with pytest.raises(Interrupted, match=r"the link was lost: no board answers .*check its power and network") as lost:
        bench.on(pi, lambda e: proxy.refuse() if e["event"] == "device" else None, proxy.target(pi), wheels=still)
    assert lost.value.cause == "link-lost" and bench.told("device")
    pi.kill("start")


def test_a_link_that_drops_over_and_over(pi, still, proxy_of, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_link, "MOST_DROPS", 1)
    proxy = proxy_of(pi)
    bench = asked(matmul(tmp_path / "a.onnx", 2))
    with pytest.raises(Interrupted, match="the link dropped 2 times"):
        bench.on(
            pi,
            lambda e: proxy.cut() if "notice" not in e["event"] or "connected again" in e["text"] else None,
            proxy.target(pi),
            wheels=still,
        )
    pi.kill("start")


@pytest.mark.parametrize("cases", [[], [0]], ids=["which ends at once", "which works on"])
def test_a_link_that_drops_while_the_agent_starts_does_not_start_two(cases, pi, still, tmp_path, monkeypatch):
    started = []
    ask = ssh_bench.Bench._ask_agent

    async def lose_the_answer(self, kind, *words, stdin=b""):
        answer = await ask(self, kind, *words, stdin=stdin)
        if words[0] == "start":
            started.append(answer.pid)
            if len(started) == 1:
                raise ssh_link.Dropped("as if")
        return answer

    monkeypatch.setattr(ssh_bench.Bench, "_ask_agent", lose_the_answer)
    bench = asked(matmul(tmp_path / "a.onnx", 2), cases=cases)

    def stop(event) -> None:
        if cases and event["event"] == "device":
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        bench.on(pi, stop, wheels=still)
    assert len(started) == len(bench.told("device")) == 1 and len(bench.told("end")) == 1 - len(cases)


def test_an_agent_that_is_killed(pi, still, tmp_path):
    def kill(event) -> None:
        if event["event"] == "device":
            pi.kill("start")

    bench = asked(matmul(tmp_path / "a.onnx", 2))
    with pytest.raises(Interrupted, match="the agent ended before its job was done; look for the killer") as killed:
        bench.on(pi, kill, wheels=still)
    assert killed.value.cause == "agent-killed" and len(bench.told("device")) == 1
    assert not place_of(pi, bench.job).exists()


def test_two_benches_on_one_board(pi, still, tmp_path):
    """The second is told of the first before it puts anything there; also where both look before either begins."""
    file = matmul(tmp_path / "a.onnx", 2)
    blind = tmp_path / "blind.py"
    looks = 'holder(folder / "bench.lock")'
    program = ssh_link.BOARD_PROGRAM.read_text()
    assert looks in program
    blind.write_text(program.replace(looks, '""'))
    refused = []

    def attempt() -> None:
        for looking, path in ((ssh_link.BOARD_PROGRAM, matmul(tmp_path / "b.onnx", 3)), (blind, file)):
            bench = asked(path)
            with pytest.raises(BadInput) as error, pytest.MonkeyPatch.context() as patch:
                patch.setattr(ssh_link, "BOARD_PROGRAM", looking)
                bench.on(pi, wheels=still)
            refused.append((str(error.value), bench.events))

    def second(event) -> None:
        if event["event"] == "device":
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(file).on(pi, second, wheels=still)
    assert len(refused) == 2
    for message, events in refused:
        holder = r"another bench runs (there|here) \(process \d+, since 20[\d-]+ [\d:]+\); wait for it, or stop it"
        assert re.fullmatch(rf"{pi.target}: {holder}", message), message
        assert events == []


def test_ctrl_c_leaves_nothing_running(pi, still, tmp_path):
    bench = asked(matmul(tmp_path / "a.onnx", 2))
    with pytest.raises(KeyboardInterrupt):
        bench.on(pi, lambda e: signal.raise_signal(signal.SIGINT) if e["event"] == "device" else None, wheels=still)
    assert not pi.processes("agent-")
    assert not place_of(pi, bench.job).exists()


def test_ctrl_c_before_the_agent_has_said_its_number_leaves_nothing_running(pi, still, tmp_path, monkeypatch):
    ask = ssh_bench.Bench._ask_agent

    async def interrupted(self, kind, *words, stdin=b""):
        answer = await ask(self, kind, *words, stdin=stdin)
        if words[0] == "start":
            assert pi.processes("agent-")
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return answer

    monkeypatch.setattr(ssh_bench.Bench, "_ask_agent", interrupted)
    bench = asked(matmul(tmp_path / "a.onnx", 2))
    with pytest.raises(KeyboardInterrupt):
        bench.on(pi, wheels=still)
    assert not pi.processes("agent-") and not place_of(pi, bench.job).exists()


def test_events_that_are_none(pi, still, tmp_path):
    bench = asked(matmul(tmp_path / "a.onnx", 2))

    def forge(event) -> None:
        if event.get("event") == "device":
            with open(place_of(pi, bench.job) / "events.jsonl", "a") as events:
                events.write("garbage\n")
        if UNREADABLE in event:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.on(pi, forge, wheels=still)
    assert bench.events[-1][UNREADABLE].startswith("not JSON (Expecting value") and not pi.processes("agent-")
