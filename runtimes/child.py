"""Call a function in a child process with time and memory limits: a crash, a hang or a full memory is an outcome.

The parent sends one JSON line on the child's stdin and keeps the pipe open, so that a child whose parent was killed
sees its end and leaves. The child answers in JSON lines on its stdout; whatever else it prints goes to a log file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Optional, Union

from runtimes import errors
from runtimes.scratch import scratch_folder

Json = Dict[str, Any]
LOG_TAIL_BYTES = 4096
EXIT_TIMEOUT_S = 10.0
POLL_S = 1.0

SERVE = (
    ("-P", "-m", "runtimes.child")
    if sys.version_info >= (3, 11)
    else ("-c", "import sys; sys.path.remove(''); import runpy; runpy.run_module('runtimes.child', None, '__main__')")
)
"""Python's arguments that run `main`, without the working folder on the path: it may hold a json.py."""


@dataclass(frozen=True)
class Completed:
    """The function returned `value`."""

    value: Json


@dataclass(frozen=True)
class Refused:
    """The function raised a `PocketshipError`: `error` is the same error in this process."""

    error: errors.PocketshipError


@dataclass(frozen=True)
class Crashed:
    """The process ended by a signal, an exit code or an exception of its own; `reason` is one line, `log_tail` more."""

    reason: str
    log_tail: str


@dataclass(frozen=True)
class TimedOut:
    """The process did not end in time and was killed."""

    limit_s: float


@dataclass(frozen=True)
class OutOfMemory:
    """The process asked for more memory than it may have, or the system killed it (0: by no limit that we set)."""

    limit_bytes: int


Outcome = Union[Completed, Refused, Crashed, TimedOut, OutOfMemory]


def describe(outcome: Outcome) -> str:
    """One line that says how a call that did not complete ended."""
    if isinstance(outcome, TimedOut):
        return f"did not end within {outcome.limit_s:g} s and was killed"
    if isinstance(outcome, OutOfMemory):
        if not outcome.limit_bytes:
            return "ran out of memory or was killed"
        return f"needed more than the {outcome.limit_bytes / 2**20:.0f} MiB of memory it may have"
    if isinstance(outcome, Crashed):
        return outcome.reason
    return str(outcome.error) if isinstance(outcome, Refused) else "completed"


def call(
    function: str,
    job: Json,
    *,
    timeout_s: float,
    memory_limit_bytes: Optional[int] = None,
    log_path: Optional[Path] = None,
    scratch: Optional[Path] = None,
    on_event: Optional[Callable[[Json], None]] = None,
    on_start: Optional[Callable[[subprocess.Popen], None]] = None,
) -> Outcome:
    """Call `function` ("package.module:name") with `job` in a new process and wait for its outcome.

    The function takes the job and an `emit(event)` callable, and returns a JSON-ready dict. `on_event` sees each
    emitted event while the child runs; `on_start` gets the process, so that another thread can kill it.
    Output of the child is appended to `log_path`; its temporary files lie in a folder of its own, in `scratch` where
    given, which is removed with it: some libraries leave theirs behind.
    """
    with contextlib.ExitStack() as stack:
        log: IO[bytes] = stack.enter_context(
            tempfile.TemporaryFile() if log_path is None else open(log_path, "ab+")  # noqa: SIM115
        )
        log_start = log.seek(0, os.SEEK_END)
        temporary = stack.enter_context(scratch_folder(scratch))
        process = subprocess.Popen(
            [sys.executable, *SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(str(temporary)),
            start_new_session=True,
        )
        stack.callback(_end, process)
        if on_start:
            on_start(process)
        request = {"function": function, "job": job, "memory_limit_bytes": memory_limit_bytes}
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        final: Json = {}
        for message in _messages(process, timeout_s):
            if message is None:
                return TimedOut(timeout_s)
            if "event" not in message:
                final = message
                break  # a process that it forked may hold its stdout open
            if on_event:
                on_event(message["event"])
        try:
            code = process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = 0  # it has answered, or never will: what holds it up is not ours
        log.seek(max(log_start, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return _outcome(final, code, log.read().decode(errors="replace"), memory_limit_bytes or 0)


def _environment(temporary: str) -> Dict[str, str]:
    """The environment of a child: our packages first on its path, hashing that repeats, its own temporary files.

    OpenMP's threads are to sleep while they wait, unless the user says otherwise: where another process holds a core,
    threads that spin for each other trained a small model in minutes instead of seconds.
    """
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    ours = {"PYTHONPATH": root if not path else root + os.pathsep + path, "PYTHONHASHSEED": "0", "TMPDIR": temporary}
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **ours}


def _messages(process: subprocess.Popen, timeout_s: float) -> Iterator[Optional[Json]]:
    """The child's messages until it closes its stdout; None once the time is up."""
    lines: queue.SimpleQueue = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(ValueError):  # the pipe is closed under us when the child is given up
            for line in process.stdout or ():
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + timeout_s
    while True:
        ended = process.poll() is not None
        try:
            line = lines.get(timeout=max(0.0, min(POLL_S, deadline - time.monotonic())))
        except queue.Empty:
            if ended:  # a process that it forked holds its stdout open
                return
            if time.monotonic() < deadline:
                continue
            yield None
            return
        if not line.endswith(b"\n"):  # the end, or half a message of a child that was killed while writing
            return
        yield json.loads(line)


def _end(process: subprocess.Popen) -> None:
    """Kill what is left of the child and of the processes it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _outcome(final: Json, code: int, log_tail: str, limit_bytes: int) -> Outcome:
    if "value" in final:
        return Completed(final["value"])
    if "refused" in final:
        refused = final["refused"]
        kind = getattr(errors, refused["class"])
        return Refused(kind(refused["what"], where=refused["where"], remedy=refused["remedy"]))
    if final.get("out_of_memory") or "std::bad_alloc" in log_tail:
        return OutOfMemory(limit_bytes)
    if code == -signal.SIGKILL:
        return OutOfMemory(0)
    if "exception" in final:
        return Crashed(final["exception"], log_tail)
    if code < 0:
        return Crashed(f"crashed with {signal.Signals(-code).name}", log_tail)
    return Crashed(f"ended with exit code {code} and no answer", log_tail)


def _limit_memory(limit_bytes: Optional[int]) -> None:
    if limit_bytes is None:
        return
    import resource

    # Linux counts private writable memory under RLIMIT_DATA; elsewhere the whole address space is all there is.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    with contextlib.suppress(ValueError, OSError):  # macOS refuses both
        resource.setrlimit(kind, (limit_bytes, resource.getrlimit(kind)[1]))


def _leave_with_parent(requests: int) -> None:
    """End this process, and those it started, when the parent closes the pipe or dies."""

    def watch() -> None:
        while os.read(requests, 4096):
            pass
        if os.getpgrp() == os.getpid():  # the group is ours, as `call` makes it
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read_line(requests: int) -> bytes:
    parts: List[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        part = os.read(requests, 1 << 16)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def main() -> int:
    """Serve one call: read the request, run the function, answer."""
    requests, answers = os.dup(0), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # whatever asks a question on stdin meets its end instead of waiting
    os.dup2(2, 1)  # whatever prints to stdout, in Python or in C++, ends in the log

    def answer(message: Json) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = json.loads(_read_line(requests))
    _leave_with_parent(requests)
    _limit_memory(request["memory_limit_bytes"])
    module, name = request["function"].split(":")
    try:
        function = getattr(importlib.import_module(module), name)
        answer({"value": function(request["job"], lambda event: answer({"event": event}))})
        return 0
    except MemoryError:
        answer({"out_of_memory": True})
    except Exception as error:
        refusal = error if isinstance(error, errors.PocketshipError) else errors.refusal_of(error)
        if isinstance(error, OSError) and error.errno not in errors.TOO_FEW:
            refusal = None  # of a library: who called it knows what its file is
        if refusal:
            told = {"what": refusal.what, "where": refusal.where, "remedy": refusal.remedy}
            answer({"refused": {"class": type(refusal).__name__, **told}})
            return 1
        traceback.print_exc()
        out_of_memory = "bad_alloc" in str(error) or "can't allocate memory" in str(error)
        text = " ".join(str(error).split())[:500]
        answer({"out_of_memory": True} if out_of_memory else {"exception": f"{type(error).__name__}: {text}"})
    return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the libraries' own exit handlers are not ours to trust
