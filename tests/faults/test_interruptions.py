"""Full disks, signals, kills and races: a bundle is the old one or the new one, whole, and nothing else is left."""

from __future__ import annotations

import ctypes
import dis
import errno
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

from exporter import pipeline
from exporter.bundle import writer as bundle_writer
from exporter.bundle.writer import NEW_BUNDLE, OURS, WORK, commit, partial_folder
from exporter.processes.children import Children, memory_limit_bytes
from exporter.processes.signals import deferred_signals
from exporter.stages import targets
from exporter.stages.options import Options
from exporter.stages.run import Run
from exporter.stages.targets import Targets
from runtimes import child
from runtimes.bundle import MANIFEST, damage, read_manifest
from runtimes.errors import BadInput, PocketshipError
from runtimes.parity import MEMORY_FLOOR_BYTES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.cold
MLP = f"{ROOT / 'tests' / 'models.py'}:mlp"
RUN = "POCKETSHIP_TEST_RUN"
LEAVE_S = 20.0
SEED = 20250802
EXPORT_KILLS, COMMIT_KILLS, END_SIGNALS = (3, 20), (40, 180), (1, 4)
"""How many of each: by default, and with --whole."""
SEE_LOG = "run it again with --debug to see its log"
LESS_MEMORY = "close other programs, export one --target at a time, or make the model or its inputs smaller"


# Running exports that are stopped --------------------------------------------------------------------------------


BAR = {"FORCE_COLOR": "1", "TERM": "xterm"}
"""Shows the progress bar of a terminal: its lines begin with what runs, once that has told of itself."""
CONTROLS = re.compile(r"\x1b\[[?\d;]*[A-Za-z]|[\u2800-\u28ff]")
"""How a terminal is told of colours, and the spinner."""


@dataclass
class Running:
    """An export in a process of its own: `lines` grows as it prints on stderr."""

    process: subprocess.Popen[str]
    tag: str
    lines: list[str]
    reader: threading.Thread

    def wait_for(self, start: str, timeout_s: float = 120) -> None:
        """Return once a line on stderr begins with `start`."""
        deadline = time.monotonic() + timeout_s
        while not any(CONTROLS.sub("", line).lstrip().startswith(start) for line in self.lines):
            assert time.monotonic() < deadline and self.process.poll() is None, (start, self.lines)
            time.sleep(0.002)

    def end(self) -> int:
        """Wait for the exit code and the rest of stderr."""
        code = self.process.wait(timeout=120)
        self.reader.join(timeout=60)
        return code

    def survivors(self) -> list[psutil.Process]:
        """Processes of this export that are still there when they had time to leave."""
        deadline = time.monotonic() + LEAVE_S
        while found := [p for p in psutil.process_iter() if _environment(p).get(RUN) == self.tag]:
            if time.monotonic() > deadline:
                return found
            time.sleep(0.05)
        return []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except (psutil.Error, OSError):
        return {}


def _collect(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """Start `pocketship WORDS` in `tmp_path`; whatever is left of it is killed at the end."""
    started: list[Running] = []

    def run(*words: object, **env: str) -> Running:
        tag, lines = uuid.uuid4().hex, []
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "exporter", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200", RUN: tag, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        reader = threading.Thread(target=_collect, args=(process.stderr, lines), daemon=True)
        reader.start()
        started.append(Running(process, tag, lines, reader))
        return started[-1]

    yield run
    for running in started:
        running.process.kill()
        for survivor in [p for p in psutil.process_iter() if _environment(p).get(RUN) == running.tag]:
            survivor.kill()
        running.end()


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(p.name for p in folder.iterdir())


def whole(bundle: Path) -> bytes:
    """The manifest of a bundle in which every file is there, has the manifest's bytes, and nothing else lies."""
    manifest = read_manifest(bundle)
    entries = (*manifest.artifacts, *manifest.files)
    assert [damage(bundle, entry) for entry in entries if damage(bundle, entry)] == []
    assert names(bundle) == sorted({*(e.path for e in entries), MANIFEST})
    return (bundle / MANIFEST).read_bytes()


# A full disk -----------------------------------------------------------------------------------------------------

WEIGHTS_MIB = 4
CHATTER_MIB = 3
LARGE = f"""
import torch

def make():
    print("x" * {CHATTER_MIB} * 2**20)  # ends in the export's log
    return torch.nn.Linear(1024, {WEIGHTS_MIB} * 256), torch.randn(1, 1024)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator:
    """Mount a file system of so many MiB; it is unmounted at the end."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size_mib: float) -> Path:
        size = f"size={int(size_mib * 1024)}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
        return folder

    yield mount
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size_mib", "stages"),
    [
        pytest.param(CHATTER_MIB + WEIGHTS_MIB / 2, ["load"], id="while the program is saved"),
        pytest.param(CHATTER_MIB + WEIGHTS_MIB * 1.5, ["load", "trace"], id="while the artifact is written"),
    ],
)
def test_a_full_disk_is_reported_and_left_clean(size_mib: float, stages: list[str], small_disk, tmp_path, pocketship):
    (tmp_path / "large.py").write_text(LARGE)
    disk = small_disk(size_mib)
    done = pocketship("export", f"{tmp_path / 'large.py'}:make", "--target", "onnx", "-o", disk / "new" / "bundle")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert [line.split()[0] for line in lines[:-1]] == stages
    assert lines[-1].startswith("pocketship: ") and "the disk is full; free some space or give -o" in lines[-1]
    assert names(disk) == []


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_reported_and_left_clean(tmp_path):
    words = [sys.executable, "-P", "-m", "exporter", "export", "digits", "--target", "onnx", "-o", "new/bundle"]
    command = f"ulimit -f 600; exec {shlex.join(words)}"  # KiB; the weights are 1.1 MB
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 2, done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("pocketship: ") and said.endswith("ulimit -f unlimited"), said
    assert names(tmp_path) == []


@pytest.mark.slow
def test_the_disk_that_was_full_is_large_enough_with_a_little_more(small_disk, tmp_path, pocketship):
    (tmp_path / "large.py").write_text(LARGE)
    disk = small_disk(CHATTER_MIB * 2 + WEIGHTS_MIB * 2 + 1)
    source = f"{tmp_path / 'large.py'}:make"
    done = pocketship("export", source, "--target", "onnx", "-o", disk / "bundle", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    whole(disk / "bundle")
    assert names(disk) == ["bundle"]


# Signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(("stage", "delay_s"), [("start", 0.5), ("load", 0.0), ("trace", 0.0), ("trace", 0.7)], ids=str)
def test_a_signal_ends_all_of_it(number: int, code: int, word: str, stage: str, delay_s: float, start, tmp_path):
    running = start("export", MLP, "--target", "onnx,tflite", "-o", "new/bundle")
    if stage == "start":
        _wait_until(lambda: (tmp_path / "new" / ".bundle.partial" / WORK).exists())
    else:
        running.wait_for(stage)
    time.sleep(delay_s)
    running.process.send_signal(number)
    assert running.end() == code, running.lines
    assert running.survivors() == []
    stages = ("load", "trace", "onnx", "tflite")
    messages = [line for line in running.lines if line.strip() and not line.startswith(stages)]
    assert messages == [f"pocketship: {word}; a bundle is written whole or not at all\n"]
    assert names(tmp_path) == []


def _wait_until(condition, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_a_signal_while_the_bundle_is_finished_leaves_all_or_nothing(start, tmp_path, whole_run):
    """Between the last proof and the printed table; whether the bundle is there yet decides nothing but itself."""
    chance = random.Random(SEED)
    for i in range(END_SIGNALS[whole_run]):
        running = start("export", MLP, "--target", "onnx", "-o", f"bundle{i}")
        running.wait_for("onnx")
        time.sleep(chance.uniform(0.0, 0.03))
        running.process.send_signal(signal.SIGINT)
        assert running.end() in (0, 130, -signal.SIGINT), running.lines  # the last: Python had nothing more to do
        assert "Traceback" not in "".join(running.lines)
        assert running.survivors() == []
        assert names(tmp_path) in ([], [f"bundle{i}"])
        if names(tmp_path):
            whole(tmp_path / f"bundle{i}")
            shutil.rmtree(tmp_path / f"bundle{i}")


@pytest.mark.slow
def test_the_first_ctrl_c_ends_training_and_keeps_the_best_so_far(start, tmp_path):
    """The second one would abort; a bundle is written, and says that training was stopped."""
    (tmp_path / "long.yaml").write_text("passes: [{distill: {epochs: 1000000}}]")
    words = ("--recipe", tmp_path / "long.yaml", "--data", f"{ROOT / 'tests' / 'data.py'}:points")
    running = start("export", MLP, "--target", "onnx", *words, "-o", "bundle", **BAR)
    running.wait_for("distill")
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0, running.lines
    (step,) = read_manifest(tmp_path / "bundle").recipe
    assert step.name == "distill" and any("stopped" in note for note in step.notes), step.notes
    whole(tmp_path / "bundle")


HANDLED_AFTER = {dis.opmap[name] for name in ("RESUME", "CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD")}
"""The instructions after which CPython looks for signals."""


def _finish_interrupted(moment: int, output: Path, monkeypatch) -> int:
    """Wait for two targets whose children run for 20 ms, with Ctrl-C at one moment; how many moments there were."""
    children, main, count, last = Children(), threading.current_thread(), 0, {}
    monkeypatch.setattr(child, "call", lambda *call, **options: time.sleep(0.02) or child.Crashed("ended", ""))
    options = Options(targets=("onnx", "tflite"), output=output)
    waiting = Targets(Run(options, output.parent, children))

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        if event == "opcode" and threading.current_thread() is main:
            count += last.get(frame) in HANDLED_AFTER
            if last.get(frame) in HANDLED_AFTER and count == moment:
                raise KeyboardInterrupt
            last[frame] = frame.f_code.co_code[frame.f_lasti]
        return trace

    tracing = sys.gettrace()
    try:
        sys.settrace(trace)
        waiting.wait()
    except (KeyboardInterrupt, PocketshipError):
        sys.settrace(tracing)
        leaving = threading.Thread(target=waiting.cancel, daemon=True)
        leaving.start()
        leaving.join(timeout=10)
        assert not leaving.is_alive(), f"stuck after an interrupt at moment {moment}"
    finally:
        sys.settrace(tracing)
    return count


def test_an_interrupt_at_any_moment_of_the_wait_for_the_targets_ends_their_threads(tmp_path, monkeypatch):
    """Ours or the library's: a lock that stays taken would hold up the threads, and the whole program with them."""
    moments = _finish_interrupted(-1, tmp_path / "bundle", monkeypatch)
    assert moments > 5
    for moment in range(1, moments + 1):
        _finish_interrupted(moment, tmp_path / "bundle", monkeypatch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_deferred_signals_come_when_the_block_is_left(number):
    seen: list[str] = []
    before = signal.signal(number, lambda number, frame: seen.append("told"))
    try:
        with deferred_signals():
            signal.raise_signal(number)
            seen.append("block")
        assert seen == ["block", "told"]
    finally:
        signal.signal(number, before)


LATE = """
import atexit, os, signal
atexit.register(lambda: [os.kill(os.getpid(), number) for number in (signal.SIGINT, signal.SIGTERM)])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), [(("zoo",), 0), (("export", "unknown"), 2)], ids=["done", "refused"])
def test_a_signal_after_the_last_word_changes_nothing(words, code, tmp_path, pocketship):
    """While Python runs its exit handlers there is nothing left to interrupt, and no traceback to show."""
    (tmp_path / "sitecustomize.py").write_text(LATE)
    done = pocketship(*words, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "interrupt" not in done.stderr.lower()


# kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_bundles(once, pocketship) -> tuple[Path, Path]:
    """Two bundles of one model that differ."""

    def make(folder: Path) -> None:
        for name, opset in (("a", 18), ("b", 20)):
            done = pocketship("export", MLP, "--target", "onnx", "--opset", opset, "-o", folder / name, "--quiet")
            assert done.returncode == 0, done.stderr

    folder = once("two bundles", make)
    return folder / "a", folder / "b"


@pytest.mark.slow
def test_killed_exports_leave_the_old_bundle_or_the_new(start, tmp_path, two_bundles, whole_run):
    """Kills at random moments of a whole export, and a few right where the bundle is put in place."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    old, other = two_bundles
    opset = {whole(old): 20, whole(other): 18}  # what the next export is to change
    output = tmp_path / "bundle"
    shutil.copytree(old, output)
    left_over, kills = 0, EXPORT_KILLS[whole_run]
    for i in range(kills):
        before = whole(output)
        running = start("export", MLP, "--target", "onnx", "--opset", opset[before], "-o", output, "--force")
        if i < kills // 2:
            time.sleep(chance.uniform(0.2, 6.0))
        else:
            running.wait_for("onnx")
            time.sleep(chance.uniform(0.0, 0.03))
        running.process.kill()
        running.end()
        assert running.survivors() == []
        assert whole(output) in opset, f"kill {i}: neither the old bundle nor the new"
        left_over += (tmp_path / ".bundle.partial").exists()
    assert left_over, "no kill came early enough to prove anything"
    wanted = opset[whole(output)]
    running = start("export", MLP, "--target", "onnx", "--opset", wanted, "-o", output, "--force", "--quiet")
    assert running.end() == 0, running.lines
    assert opset[whole(output)] != wanted
    assert names(tmp_path) == ["bundle"]


REPLACER = """
import itertools, shutil, sys, time
from pathlib import Path
from exporter.bundle.writer import NEW_BUNDLE, commit, partial_folder
a, b, output = map(Path, sys.argv[1:])
def replace(source):
    with partial_folder(output, force=True) as partial:
        shutil.copytree(source, partial / NEW_BUNDLE, dirs_exist_ok=True)
        commit(partial, output)
started = time.monotonic()
replace(b)
print(time.monotonic() - started, flush=True)
for source in itertools.cycle((a, b)):
    replace(source)
"""


@pytest.mark.slow
def test_kills_around_the_commit_leave_one_bundle_whole(tmp_path, two_bundles, whole_run):
    """Bundles replaced in turn as fast as it goes, killed within the time that some replacements take."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    output, states, kills = tmp_path / "bundle", Counter(), COMMIT_KILLS[whole_run]
    known = {whole(bundle): bundle.name for bundle in two_bundles}
    for n in range(COMMIT_KILLS[True]):
        if n >= kills and all(states[name] for name in ("a", "b", "left over")):
            break  # a busy machine needs more of them to meet each state
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", REPLACER, *map(str, two_bundles), str(output)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout
        time.sleep(chance.uniform(0.0, 4.0) * float(process.stdout.readline()))
        process.kill()
        process.communicate()
        states[known[whole(output)] if output.exists() else "none"] += 1
        states["left over"] += (tmp_path / ".bundle.partial").exists()
        assert set(names(tmp_path)) <= {"bundle", ".bundle.partial"}
    print(states)
    assert all(states[name] for name in ("a", "b", "left over")), states
    with partial_folder(output, force=True) as partial:
        shutil.copytree(two_bundles[0], partial / NEW_BUNDLE, dirs_exist_ok=True)
        commit(partial, output)
    assert known[whole(output)] == "a" and names(tmp_path) == ["bundle"]


# Two at once -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_export_into_the_same_folder_is_refused(start, tmp_path, refused):
    first = start("export", MLP, "--target", "onnx", "-o", "bundle")
    _wait_until(lambda: (tmp_path / ".bundle.partial" / WORK).exists())
    line = refused("export", MLP, "--target", "onnx", "-o", tmp_path / "bundle", "--force")
    assert line.endswith("bundle: another export is writing this folder; wait for it, or give another -o")
    assert first.end() == 0, first.lines
    whole(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]


@pytest.mark.slow
def test_of_two_exports_started_together_one_wins(start, tmp_path):
    both = [start("export", MLP, "--target", "onnx", "-o", "bundle", "--quiet") for _ in range(2)]
    codes = [running.end() for running in both]
    assert sorted(codes) == [0, 2]
    loser = both[codes.index(2)]
    assert len(loser.lines) == 1
    assert "another export is writing this folder" in loser.lines[0] or "the output folder exists" in loser.lines[0]
    whole(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]


def test_only_one_writer_at_a_time_is_inside(tmp_path):
    """Threads that fight for one folder: each is alone inside, or is refused with the one line."""
    inside, overlaps, refusals, entered = threading.Semaphore(1), [], Counter(), Counter()

    def fight(i: int) -> None:
        for _ in range(150):
            try:
                with partial_folder(tmp_path / "bundle", force=False) as partial:
                    if not inside.acquire(blocking=False):
                        overlaps.append(i)
                    entered[i] += 1
                    assert names(partial) == [NEW_BUNDLE, WORK, OURS]
                    inside.release()
            except BadInput as refusal:
                refusals[refusal.what] += 1

    threads = [threading.Thread(target=fight, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []
    assert set(refusals) <= {"another export is writing this folder"}
    assert sum(entered.values()) + sum(refusals.values()) == 600
    assert names(tmp_path) == []


# The writer itself -----------------------------------------------------------------------------------------------


def test_the_partial_folder_is_empty_and_gone_afterwards(tmp_path):
    output = tmp_path / "new" / "deep" / "bundle"
    with partial_folder(output, force=False) as partial:
        assert partial == tmp_path / "new" / "deep" / ".bundle.partial"
        assert names(partial) == [NEW_BUNDLE, WORK, OURS]
        assert list((partial / NEW_BUNDLE).iterdir()) == list((partial / WORK).iterdir()) == []
    assert names(tmp_path) == []


def test_it_is_gone_after_an_exception_too(tmp_path):
    with pytest.raises(KeyboardInterrupt), partial_folder(tmp_path / "new" / "bundle", force=False) as partial:
        (partial / WORK / "program.pt2").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_parent_stays_when_it_was_there_or_holds_something(tmp_path):
    (tmp_path / "there").mkdir()
    with partial_folder(tmp_path / "there" / "new" / "bundle", force=False) as partial:
        (partial.parent / "letter.txt").write_text("somebody's")
    assert names(tmp_path / "there") == ["new"] and names(tmp_path / "there" / "new") == ["letter.txt"]


def test_the_bundle_is_put_in_place_with_its_parents(tmp_path):
    output = tmp_path / "new" / "bundle"
    with partial_folder(output, force=False) as partial:
        (partial / NEW_BUNDLE / "file").write_text("content")
        commit(partial, output)
    assert names(tmp_path / "new") == ["bundle"] and (output / "file").read_text() == "content"


def test_stale_contents_are_removed_but_not_what_links_lead_to(tmp_path):
    outside, partial = tmp_path / "outside", tmp_path / ".bundle.partial"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "letter.txt").write_text("keep me")
    (partial / WORK / "deep").mkdir(parents=True)
    (partial / WORK / "deep" / "program.pt2").write_text("stale")
    (partial / "file").write_text("stale")
    (partial / OURS).touch()
    (partial / NEW_BUNDLE).symlink_to(outside / "folder")
    with partial_folder(tmp_path / "bundle", force=False):
        assert names(partial) == [NEW_BUNDLE, WORK, OURS]
        assert not (partial / NEW_BUNDLE).is_symlink() and names(partial / WORK) == []
    assert names(tmp_path) == ["outside"]
    assert (outside / "folder" / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("mark", ["", "a folder", "a link to nothing"])
def test_a_folder_of_somebody_else_of_the_same_name_is_not_touched(mark, tmp_path):
    partial = tmp_path / ".bundle.partial"
    (partial / "novel").mkdir(parents=True)
    (partial / "novel" / "chapter-1.txt").write_text("It was a dark and stormy night.")
    if mark == "a folder":
        (partial / OURS).mkdir()
    elif mark:
        (partial / OURS).symlink_to("nothing")
    before = names(partial)
    expected = rf"{re.escape(str(partial))}: this folder would be cleared, .* did not make it; give it another name, or"
    for _ in range(2):
        with pytest.raises(BadInput, match=expected), partial_folder(tmp_path / "bundle", force=False):
            pass
    assert names(partial) == before and names(tmp_path) == [".bundle.partial"]
    assert (partial / "novel" / "chapter-1.txt").read_text() == "It was a dark and stormy night."


def test_an_empty_folder_that_a_kill_left_is_taken_over(tmp_path):
    (tmp_path / ".bundle.partial").mkdir()
    with partial_folder(tmp_path / "bundle", force=False) as partial:
        assert names(partial) == [NEW_BUNDLE, WORK, OURS]
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_partial_that_is_no_folder_is_refused(kind, tmp_path):
    """A link could lead the clean-up anywhere."""
    outside, partial = tmp_path / "outside", tmp_path / ".bundle.partial"
    outside.mkdir()
    (outside / "letter.txt").write_text("keep me")
    if kind == "link":
        partial.symlink_to(outside)
    else:
        partial.write_text("mine")
    with (
        pytest.raises(BadInput, match=r"\.bundle\.partial: cannot write \("),
        partial_folder(tmp_path / "bundle", False),
    ):
        pass
    assert names(tmp_path) == [".bundle.partial", "outside"]
    assert (outside / "letter.txt").read_text() == "keep me"


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    """Another export may end between the first look and the lock."""
    output, lock = tmp_path / "bundle", bundle_writer._lock

    def late(partial: Path, output: Path) -> int:
        output.mkdir()
        return lock(partial, output)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(BadInput, match="the output folder exists"):
        patch.setattr(bundle_writer, "_lock", late)
        with partial_folder(output, force=False):
            pass
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("again", [False, True], ids=["removed", "made anew"])
def test_a_lock_on_a_folder_that_its_owner_removed_is_taken_again(again, tmp_path, monkeypatch):
    """The owner removes the folder between our opening and our locking of it."""
    flock, partial, calls = bundle_writer.fcntl.flock, tmp_path / ".bundle.partial", []

    def late(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            partial.rmdir()
            if again:
                (tmp_path / "occupies the inode").mkdir()
                partial.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(bundle_writer.fcntl, "flock", late)
    with partial_folder(tmp_path / "bundle", force=False) as locked:
        assert len(calls) == 2
        assert os.fstat(calls[-1]).st_ino == locked.stat().st_ino
        with pytest.raises(BadInput, match="another export"), partial_folder(tmp_path / "bundle", force=False):
            pass


class NoSwap:
    """A libc whose file system cannot exchange two folders."""

    def __init__(self, code: int) -> None:
        self.renameat2 = self.renamex_np = lambda *arguments: ctypes.set_errno(code) or -1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        *((code, "this file system cannot replace a folder in one step; remove it first") for code in (22, 38, 95)),
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EPERM, r"cannot write \(Operation not permitted\); give -o"),
    ],
)
def test_a_swap_that_fails_keeps_the_old_bundle(code, says, tmp_path, monkeypatch):
    output = tmp_path / "bundle"
    output.mkdir()
    (output / MANIFEST).write_text("old")
    monkeypatch.setattr(bundle_writer.ctypes, "CDLL", lambda *arguments, **options: NoSwap(code))
    with pytest.raises(BadInput, match=says), partial_folder(output, force=True) as partial:
        (partial / NEW_BUNDLE / MANIFEST).write_text("new")
        commit(partial, output)
    assert names(tmp_path) == ["bundle"] and (output / MANIFEST).read_text() == "old"


# Children that crash or hang -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", f"loading and tracing crashed with SIGSEGV; {SEE_LOG}"),
        ("os.kill(os.getpid(), signal.SIGKILL)", f"loading and tracing ran out of memory or was killed; {LESS_MEMORY}"),
        ("os._exit(3)", f"loading and tracing ended with exit code 3 and no answer; {SEE_LOG}"),
    ],
)
def test_a_source_that_crashes_is_reported(body, says, tmp_path, refused):
    (tmp_path / "f.py").write_text(f"import os, signal\ndef make():\n    {body}\n")
    line = refused("export", "f.py:make", "-t", "onnx", "-o", "new/bundle", cwd=tmp_path, code=1)
    assert line == f"pocketship: f.py:make: {says}"
    assert names(tmp_path) == ["f.py"]


INJECTED = """
import importlib.abc, os, signal, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "exporter.lowering.to_onnx":
            {fault}

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def injected(tmp_path_factory):
    """A folder for PYTHONPATH that makes the converter's process do something at its start."""

    def write(fault: str) -> Path:
        folder = tmp_path_factory.mktemp("injected")
        (folder / "sitecustomize.py").write_text(INJECTED.format(fault=fault))
        return folder

    return write


@pytest.mark.slow
def test_a_converter_that_crashes_is_reported(injected, tmp_path, refused):
    path = injected("print('last words', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    words = ("export", MLP, "-t", "onnx,tflite", "-o", "new/bundle")
    line = refused(*words, cwd=tmp_path, PYTHONPATH=f"{ROOT}:{path}", code=1)
    assert line == "pocketship: onnx: the converter crashed with SIGSEGV; run it again with --debug to see its log"
    assert names(tmp_path) == []


@pytest.mark.slow
def test_its_last_words_are_shown_with_debug(injected, tmp_path, pocketship):
    path = injected("print('last words', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    done = pocketship(
        *("export", MLP, "-t", "onnx", "-o", "bundle", "--debug"), cwd=tmp_path, PYTHONPATH=f"{ROOT}:{path}"
    )
    assert done.returncode == 1
    assert "last words" in done.stderr


@pytest.mark.slow
def test_a_converter_that_hangs_is_ended(injected, tmp_path, monkeypatch):
    tag = uuid.uuid4().hex
    monkeypatch.setenv("PYTHONPATH", str(injected("time.sleep(1000)")))
    monkeypatch.setenv(RUN, tag)
    monkeypatch.setattr(targets, "LOWER_TIMEOUT_S", 5.0)
    options = Options(targets=("onnx",), output=tmp_path / "new" / "bundle")
    with pytest.raises(PocketshipError, match="onnx: the converter did not end within 5 s and was killed") as error:
        pipeline.export_with(MLP, options, on_stage=lambda stage: None)
    assert error.value.exit_code == 1
    assert [p.pid for p in psutil.process_iter() if _environment(p).get(RUN) == tag] in ([], [os.getpid()])
    assert names(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS sets no memory limit")
def test_a_converter_that_exhausts_its_memory_is_ended(injected, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(injected("bytearray(8 * 2**30)")))
    monkeypatch.setattr(targets, "memory_limit_bytes", lambda: 2 * 2**30)
    options = Options(targets=("onnx",), output=tmp_path / "new" / "bundle")
    with pytest.raises(PocketshipError) as error:
        pipeline.export_with(MLP, options, on_stage=lambda stage: None)
    says = "onnx: the converter needed more than the 2048 MiB of memory it may have"
    assert str(error.value) == f"{says}; {LESS_MEMORY}"
    assert names(tmp_path) == []


def test_a_child_may_take_most_of_the_machine_s_memory_or_of_its_container_s(tmp_path):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit_bytes(tmp_path) == max(MEMORY_FLOOR_BYTES, int(0.75 * machine))
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    limit.parent.mkdir(parents=True)
    for text, expected in (("max\n", machine), (f"{machine - 2**20}\n", machine - 2**20)):
        limit.write_text(text)
        assert memory_limit_bytes(tmp_path) == max(MEMORY_FLOOR_BYTES, int(0.75 * expected))
    limit.write_text(f"{2**30}\n")
    assert memory_limit_bytes(tmp_path) == MEMORY_FLOOR_BYTES, "a converter must be importable"
