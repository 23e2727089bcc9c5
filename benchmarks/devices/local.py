"""This machine: the agent in a process of its own, the very code that boards run."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.devices import CHECK_S, Interrupted, OnEvent, Options
from benchmarks.devices.lines import Lines, refusal_of
from benchmarks.job import Job
from runtimes.scratch import scratch_folder

AGENT = Path(__file__).resolve().parents[1] / "agent" / "__main__.py"
LOG_TAIL_BYTES = 4096
CHUNK_BYTES = 1 << 16


def run(target: str, job: Job, files: Mapping[str, Path], options: Options, on_event: OnEvent) -> None:
    """See `benchmarks.devices`. One bench at a time on a machine.

    Raises BadInput where another one runs, Interrupted where the agent was killed.
    """
    do(job, files, on_event, check=options.check)


def reach(target: str, options: Options) -> None:
    """This machine is here."""


def do(
    job: Job,
    files: Mapping[str, Path],
    on_event: OnEvent,
    *,
    exclusive: bool = True,
    check: Callable[[], None] = lambda: None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
    scratch: Path | None = None,
    log_path: Path | None = None,
) -> None:
    """Let the agent do a job on this machine; `exclusive` refuses where another bench runs, `check` may end it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(scratch))
        for name, path in files.items():
            (folder / name).symlink_to(path.resolve())
        (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        log = stack.enter_context(open(log_path or folder / "agent.log", "ab+"))
        words = [sys.executable, str(AGENT), "run", str(folder / "job.json"), "--files", str(folder)]
        process = subprocess.Popen(
            [*words, *([] if exclusive else ["--shared", "yes"])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        stack.callback(_end, process)
        if on_start:
            on_start(process)
        assert process.stdout
        ended, lines = False, Lines()
        for chunk in _chunks(process.stdout.fileno(), check):
            for event, _ in lines.feed(chunk):
                if "refused" in event:
                    raise refusal_of(event["refused"])
                ended = ended or event.get("event") == "end"
                on_event(event)
        if not ended:  # what it began to write when it was killed is no line
            raise _killed(process, log_path or folder / "agent.log")


def _chunks(descriptor: int, check: Callable[[], None]) -> Iterator[bytes]:
    """What a pipe gives until its end; `check` is called while nothing comes."""
    while True:
        if not select.select([descriptor], [], [], CHECK_S)[0]:
            check()
        elif chunk := os.read(descriptor, CHUNK_BYTES):
            yield chunk
        else:
            return


def _killed(process: subprocess.Popen[bytes], log: Path) -> Interrupted:
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    error = Interrupted("agent-killed", f"the agent {how}", where="local", remedy="bench again")
    error.log_tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
    return error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the agent, which stops its workers; then whatever is left of it."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
