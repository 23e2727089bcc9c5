"""Do a job: a worker process for each case, blocks dealt in turns, one worker running at a time; tell events."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from benchmarks.agent.loop import runs_a_block, take_turns
from benchmarks.agent.machine import EnergyMeter, available_bytes, condition, facts

Json = dict[str, Any]
Emit = Callable[[Json], None]
CONDITION_NS = 1_000_000_000
PIPE_BYTES = 1 << 16
MEMORY_OF_A_WORKER_BYTES = 80 * 2**20
MEMORY_PER_ARTIFACT_BYTE = 4
"""A guess at what a worker takes: runtime and numpy, then the file, packed weights and activations."""
START = Path(__file__).resolve().parent / "__main__.py"
INSTRUCTION_RUNS = (10, 60)
INSN_PLUGIN = "POCKETSHIP_INSN_PLUGIN"
"""On an emulated board, the environment's path of a QEMU plugin that counts instructions (tests/rigs)."""
ALONE = "too little memory to hold all artifacts at once: measured one after the other"


class Lost(Exception):
    """A worker ended, hung or refused; the event `failed` has been told."""


class Worker:
    """A worker process, which does one thing after another."""

    def __init__(self, case: int, asked: Json, emit: Emit, log: IO[bytes], timeout_s: float, env: Json) -> None:
        self._case, self._emit, self._timeout_s = case, emit, timeout_s
        self._rest = b""
        self._code: int | None = None
        self._pid, self._requests, self._answers = _begin(log, env)
        self._send(asked)

    def wait(self) -> list[Json]:
        """Pass on the worker's events up to `ready`, and return them.

        Raises Lost where it ends before.
        """
        seen: list[Json] = []
        deadline = time.monotonic() + self._timeout_s
        while True:
            line = self._line(deadline)
            if line is None:
                raise self._lost("timed-out", f"gave no answer within {self._timeout_s:g} s and was killed")
            if not line:
                raise self._lost(*self._end())
            event = json.loads(line)
            if event["event"] == "ready":
                return seen
            event["case"] = self._case
            self._emit(event)
            if event["event"] == "failed":
                self.kill()
                raise Lost
            seen.append(event)
            deadline = time.monotonic() + self._timeout_s

    def do(self, what: str, **how: Any) -> list[Json]:
        """Ask for something and wait for it.

        Raises Lost where the worker ends before it is done.
        """
        self._send({"do": what, **how})
        return self.wait()

    def kill(self) -> None:
        """End it, and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        self._wait()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code

    def _send(self, message: Json) -> None:
        with contextlib.suppress(BrokenPipeError):  # how it ended is found when its answer is awaited
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def _line(self, deadline: float) -> bytes | None:
        """The next line, empty at the end, None once the time is up."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            part = os.read(self._answers.fileno(), PIPE_BYTES)
            if not part:
                return b""
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _end(self) -> tuple[str, str]:
        """Cause and detail of a worker that ended by itself."""
        code = self._wait()
        if code == -signal.SIGKILL:
            return "out-of-memory", "was killed, as the system does when memory runs out"
        if code < 0:
            return "crashed", f"crashed with {signal.Signals(-code).name}"
        return "crashed", f"ended with exit code {code} and no answer"

    def _lost(self, cause: str, detail: str) -> Lost:
        self.kill()
        self._emit({"event": "failed", "case": self._case, "cause": cause, "detail": detail})
        return Lost()


def _begin(log: IO[bytes], env: Json) -> tuple[int, IO[bytes], IO[bytes]]:
    """Start a worker: its number, and the pipes to and from it.

    A copy of this process starts faster than a new Python. Only an emulator's plugin has to be there from the start,
    and macOS's libraries refuse to run in a copy.
    """
    (requests, to_worker), (from_worker, answers) = os.pipe(), os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(PermissionError, ProcessLookupError):  # done by itself, or gone, already
            os.setpgid(pid, pid)
        os.close(requests)
        os.close(answers)
        return pid, os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb", buffering=0)
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, descriptor in enumerate((requests, answers, log.fileno())):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)  # the other workers' pipes, whose ends they wait for
        os.environ.update({"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"), **env})
        if "QEMU_PLUGIN" in env or sys.platform == "darwin":
            os.execv(sys.executable, [sys.executable, str(START), "worker"])
        from benchmarks.agent.worker import main

        os._exit(main())
    finally:
        os._exit(1)


class Bench:
    """One job: the workers that live, the clock that events count from, the energy by case."""

    def __init__(self, job: Json, files: Path, emit: Emit, log: IO[bytes], scratch: str) -> None:
        self._job, self._files, self._log, self._tell, self._scratch = job, files, log, emit, scratch
        self._started_ns = time.perf_counter_ns()
        self._looked_ns = 0
        self._workers: dict[int, Worker] = {}
        self._failed: set[int] = set()
        self._notes: list[str] = []
        self._process = 0
        self._meter = EnergyMeter()
        self._joules: dict[int, list[float | None]] = {}
        self._inferences: dict[int, int] = {}

    def run(self) -> None:
        """All of it; a case that fails is told and left out of what follows."""
        self._tell({"event": "device", "facts": facts()})
        self._look("before")
        cases = range(len(self._job["cases"]))
        try:
            for process in range(self._job["processes"]):
                self._process = process
                for group in self._groups([case for case in cases if case not in self._failed]):
                    self._measure(group)
        finally:
            for worker in self._workers.values():
                worker.kill()
        self._look("after")
        self._tell({"event": "end"})

    def _groups(self, cases: list[int]) -> list[list[int]]:
        """The cases that are in memory at once: all, if there is room and none is to run alone."""
        free = available_bytes()
        sizes = [self._job["artifacts"][self._job["cases"][case]["artifact"]]["size_bytes"] for case in cases]
        needed = sum(MEMORY_OF_A_WORKER_BYTES + MEMORY_PER_ARTIFACT_BYTE * size for size in sizes)
        self._notes = [ALONE] if free is not None and needed > free and len(cases) > 1 else []
        return [[case] for case in cases] if self._notes or self._job["sustained_s"] else [cases] if cases else []

    def _measure(self, cases: list[int]) -> None:
        """One process of each case: load and warm up one by one, then turns (or alone, sustained), then the rest."""
        block_runs: dict[int, int] = {}
        seconds = self._job["seconds"] / self._job["processes"]
        for case in cases:
            warmup_ns = self._guarded(case, self._prepare)
            if warmup_ns:
                block_runs[case] = runs_a_block(warmup_ns, seconds)
        if self._job["sustained_s"]:
            for case in block_runs:
                self._guarded(case, self._sustain)
        else:
            take_turns(
                self._deal,
                block_runs,
                seconds=seconds,
                seed=self._job["seed"] + self._process,
                precision=self._job["precision"],
                on_round=lambda done, total: self._tell({"event": "progress", "done": done, "total": total}),
            )
        for case in cases:
            if case not in self._failed:
                self._guarded(case, self._finish)

    def _guarded(self, case: int, step: Callable[[int], Any]) -> Any:
        """What a step gives; None where it lost the worker."""
        try:
            return step(case)
        except Lost:
            self._failed.add(case)
            self._workers.pop(case, None)
            return None

    def _prepare(self, case: int) -> list[int]:
        """Start a worker, let it tell its golden outputs, warm it up: the warm-up's times."""
        worker = self._workers[case] = self._start(case)
        worker.wait()
        if self._asked(case)["golden"] and self._process == 0:
            worker.do("golden")
        return worker.do("warm", limit_s=self._job["warmup_s"])[-1]["warmup_ns"]

    def _start(self, case: int, env: Json | None = None, tell: Emit | None = None) -> Worker:
        environment = {"TMPDIR": self._scratch, **(env or {})}
        return Worker(case, self._asked(case), tell or self._emit, self._log, self._job["timeout_s"], environment)

    def _asked(self, case: int) -> Json:
        """What a case's worker is told to load: paths on this machine, None where there is none, and how."""
        chosen = self._job["cases"][case]
        artifact = self._job["artifacts"][chosen["artifact"]]
        paths = {key: str(self._files / artifact[key]) if artifact[key] else None for key in ("file", "golden", "data")}
        settings = {key: self._job[key] for key in ("affinity", "batch", "seed")}
        return {**paths, **settings, "threads": chosen["threads"], "notes": self._notes}

    def _deal(self, case: int, runs: int) -> list[int] | None:
        """The times of a block; None where the case is lost."""
        self._look("during")
        return self._guarded(case, lambda _: self._metered(case, "block", runs=runs)[-1]["times_ns"])

    def _sustain(self, case: int) -> None:
        self._metered(case, "sustain", seconds=self._job["sustained_s"])

    def _metered(self, case: int, what: str, **how: Any) -> list[Json]:
        """Let a worker do something; its events, while energy and inferences are counted."""
        self._meter.start(time.perf_counter_ns())
        events = self._workers[case].do(what, **how)
        self._joules.setdefault(case, []).append(self._meter.stop(time.perf_counter_ns()))
        computed = sum(event["runs"] + (what == "block" and event["runs"] > 1) for event in events)  # one is not timed
        self._inferences[case] = self._inferences.get(case, 0) + computed
        return events

    def _finish(self, case: int) -> None:
        """After the runs: memory, and once for all processes profile, accuracy, energy and instructions."""
        worker = self._workers[case]
        worker.do("memory")
        if self._process == 0:
            if self._job["profile"]:
                worker.do("profile")
            if self._asked(case)["data"]:
                worker.do("data", seconds=self._job["data_s"])
        self._workers.pop(case).kill()
        if self._process == self._job["processes"] - 1:
            self._tell_energy(case)
            if os.environ.get(INSN_PLUGIN):
                self._count_instructions(case)

    def _tell_energy(self, case: int) -> None:
        parts: list[Any] = self._joules[case]
        joules = sum(parts) if parts and None not in parts else None
        meter = {"source": self._meter.source, "note": self._meter.note}
        self._tell({"event": "energy", "case": case, "joules": joules, "inferences": self._inferences[case], **meter})

    def _count_instructions(self, case: int) -> None:
        """Instructions an inference: what 60 take beyond 10, over 50; the plugin counts in a file of 8 bytes."""
        told = Path(self._scratch) / f"instructions-{case}"
        plugin = {"QEMU_PLUGIN": f"file={os.environ[INSN_PLUGIN]}", "INSN_OUT": str(told)}
        worker = self._workers[case] = self._start(case, plugin, tell=lambda event: None)
        worker.wait()
        counts = []
        for runs in INSTRUCTION_RUNS:
            before = int.from_bytes(told.read_bytes(), sys.byteorder)
            worker.do("run", runs=runs)
            counts.append(int.from_bytes(told.read_bytes(), sys.byteorder) - before)
        self._workers.pop(case).kill()
        few, many = INSTRUCTION_RUNS
        self._tell({"event": "instructions", "case": case, "per_inference": (counts[1] - counts[0]) / (many - few)})

    def _emit(self, event: Json) -> None:
        """Tell a worker's event, on the job's clock."""
        if event["event"] == "block":
            event["process"] = self._process
            event["at_ns"] -= self._started_ns
            if self._job["sustained_s"]:
                self._look("during")
        self._tell(event)

    def _look(self, when: str) -> None:
        """Tell the machine's condition; during the runs once a second at most."""
        now = time.perf_counter_ns()
        if when != "during" or now - self._looked_ns >= CONDITION_NS:
            self._looked_ns = now
            self._tell({"event": "condition", "at_ns": now - self._started_ns, "when": when, **condition()})


def run(job: Json, files: Path, emit: Emit, log: IO[bytes], scratch: Path) -> None:
    """Do a job whose files lie in `files`; the workers' output goes to `log`, their temporary files to `scratch`."""
    Bench(job, files, emit, log, str(scratch)).run()
