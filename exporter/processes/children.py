"""The child processes of one export, and what the end of one means."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Any

from runtimes import child
from runtimes.errors import PocketshipError


class Children:
    """The child processes of one export, so that the first error, or Ctrl-C, ends all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed = False

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """Take a process in; one that starts after the kill is killed at once."""
        with self._lock:
            self._processes.append(process)
            if self._killed:
                _kill(process)

    def kill(self) -> None:
        """Kill all processes, and those that are yet to start."""
        with self._lock:
            self._killed = True
            for process in self._processes:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def value_of(outcome: child.Outcome, what: str) -> dict[str, Any]:
    """The value of a call that completed; else the error it stands for."""
    if isinstance(outcome, child.Completed):
        return outcome.value
    if isinstance(outcome, child.Refused):
        raise outcome.error
    error = PocketshipError(f"{what} {child.describe(outcome)}", remedy="run it again with --debug to see its log")
    error.log_tail = getattr(outcome, "log_tail", "")
    raise error
