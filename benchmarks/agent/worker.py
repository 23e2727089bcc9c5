"""One artifact in a process of its own: load it, compute golden values, warm up, then blocks as they are asked for.

JSON lines on stdin say what to load, then what to do; it answers in events, a JSON line each, and `ready` after each
thing done. It leaves when its stdin closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.agent.loop import sustain, timed_block, warm_up
from benchmarks.agent.machine import resident_bytes
from runtimes.errors import BadInput, PocketshipError

Json = dict[str, Any]
Emit = Callable[..., None]
PROFILE_RUNS = 20
PROFILE_S = 5.0
LONGEST_DETAIL = 2_000
"""Characters: a runtime's message may list all that it knows."""


def main() -> int:
    """Serve until stdin closes."""
    requests, answers = os.dup(0), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever prints to stdout, in Python or in C++, ends in the log
    lines = _lines_of(requests)

    def emit(event: str, **fields: Any) -> None:
        answers.write(json.dumps({"event": event, **fields}) + "\n")
        answers.flush()

    try:
        worker = Worker(json.loads(lines.get()), emit)
        emit("ready")
        while True:
            command = json.loads(lines.get())
            getattr(worker, command.pop("do"))(**command)
            emit("ready")
    except PocketshipError as error:
        emit("failed", cause="refused", detail=str(error)[:LONGEST_DETAIL])
    except MemoryError:
        emit("failed", cause="out-of-memory", detail="ran out of memory")
    except Exception as error:  # whatever a runtime raises is this artifact's end, and a line for the user
        import traceback

        traceback.print_exc()
        out_of_memory = "bad_alloc" in str(error) or "can't allocate memory" in str(error)
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        emit("failed", cause="out-of-memory" if out_of_memory else "crashed", detail=detail)
    return 1


def _lines_of(requests: int) -> queue.SimpleQueue[str]:
    """The lines of a pipe; the process leaves at its end, even out of a computation that hangs."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(requests, encoding="utf-8") as stream:
            for line in stream:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


class Worker:
    """A loaded artifact; each public method is something to do."""

    def __init__(self, asked: Json, emit: Emit) -> None:
        self._asked, self._emit = asked, emit
        self._clock = time.perf_counter_ns
        self._path = Path(asked["file"])
        if asked["affinity"]:
            try:
                os.sched_setaffinity(0, asked["affinity"])
            except OSError as error:
                raise BadInput("no such processors", where="--affinity") from error
        started = self._clock()
        import numpy

        from runtimes.session import library, open_session

        versions = {"numpy": numpy.__version__}
        library(self._path)
        import_ns = self._clock() - started
        self._baseline, _ = resident_bytes()
        dropped = _drop_page_cache(self._path)
        session, cold_ns = self._timed(open_session)
        inputs, kind = self._inputs(session)
        first_ns = timed_block(session.bind(inputs), 1, self._clock)[0]
        session.close()
        self._session, warm_ns = self._timed(open_session)
        self._inputs_of_runs = inputs
        self._run = self._session.bind(inputs)
        by, notes = self._session.executed_by, asked.get("notes", [])
        load = {
            "import_ns": import_ns,
            "load_cold_ns": cold_ns,
            "load_warm_ns": warm_ns,
            "first_inference_ns": first_ns,
        }
        said = {"inputs": kind, "page_cache_dropped": dropped, "versions": versions, "notes": notes}
        emit("loaded", runtime=by.runtime, version=by.version, **said, **load)

    def golden(self) -> None:
        """Tell the outputs of every golden sample."""
        from benchmarks.agent.samples import encoded, golden_inputs

        for row, inputs in enumerate(golden_inputs(Path(self._asked["golden"]))):
            outputs = self._session.run(inputs)
            self._emit("outputs", of="golden", row=row, rows=1, outputs=encoded(outputs))
        self._run = self._session.bind(self._inputs_of_runs)  # the samples may have had other shapes

    def warm(self, limit_s: float) -> None:
        """Warm up and tell every run."""
        import gc

        gc.disable()
        times, stable = warm_up(self._run, self._clock, limit_s)
        self._emit("warm", warmup_ns=times, stable=stable)

    def block(self, runs: int) -> None:
        """Tell the times of a block; before one of several runs, one is not counted: it finds the caches cold."""
        if runs > 1:
            self._run()
        at_ns = self._clock()
        self._emit("block", at_ns=at_ns, runs=runs, times_ns=timed_block(self._run, runs, self._clock))

    def sustain(self, seconds: float) -> None:
        """Run alone for so long: a block a second."""
        for at_ns, runs, times in sustain(self._run, self._clock, seconds):
            self._emit("block", at_ns=at_ns, runs=runs, times_ns=times)

    def memory(self) -> None:
        """Tell the resident memory."""
        steady, peak = resident_bytes()
        self._emit("memory", baseline_bytes=self._baseline, steady_bytes=steady, peak_bytes=peak)

    def profile(self) -> None:
        """Tell the runtime's own profile, where it gives one: of a session of its own, since it slows every run."""
        from runtimes.session import profile

        run_ns = timed_block(self._run, 1, self._clock)[0]
        runs = max(1, min(PROFILE_RUNS, int(PROFILE_S * 1e9 / max(run_ns, 1))))
        found = profile(self._path, self._asked["threads"], self._inputs_of_runs, runs)
        self._emit(
            "profile", operations=[{"operation": o, "calls": c, "total_ns": t, "runs": runs} for o, c, t in found]
        )

    def data(self, seconds: float) -> None:
        """Tell the outputs of a task's samples, as many as the time allows."""
        import numpy as np

        from benchmarks.agent.samples import encoded, named_for, run_samples

        with np.load(self._asked["data"], allow_pickle=False) as arrays:
            samples = {name: arrays[name] for name in arrays.files}
        names = [spec.name for spec in self._session.signature.inputs]
        for row, outputs in run_samples(self._session, named_for(samples, names), seconds=seconds, at_least=2):
            rows = len(next(iter(outputs.values())))
            self._emit("outputs", of="data", row=row, rows=rows, outputs=encoded(outputs))

    def run(self, runs: int) -> None:
        """Compute, for counting instructions."""
        for _ in range(runs):
            self._run()

    def _inputs(self, session: Any) -> tuple[dict[str, Any], str]:
        from benchmarks.agent.samples import batched, golden_inputs, random_inputs
        from runtimes.session import feeds

        golden = self._asked["golden"]
        if golden:
            found = golden_inputs(Path(golden))[0]
        else:
            found = random_inputs(session.signature, self._asked["seed"])
        fed = feeds(batched(found, session.signature, self._asked["batch"]), session.signature)
        return fed, "golden" if golden else "random"

    def _timed(self, open_session: Callable[[Path, int | None], Any]) -> tuple[Any, int]:
        started = self._clock()
        session = open_session(self._path, self._asked["threads"])
        return session, self._clock() - started


def _drop_page_cache(path: Path) -> bool:
    """Ask the system to forget the file's pages, so that the first load reads the disk; whether it was asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    files: list[Path] = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        with contextlib.suppress(OSError), open(file, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
