"""The child processes of one export, and what the end of one means."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtimes import child
from runtimes.errors import PocketshipError
from runtimes.parity import MEMORY_FLOOR_BYTES

MEMORY_SHARE = 0.75
"""What one child may take of the memory: the rest keeps the system from killing other programs for it."""
CGROUP_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container finds its own limit, of version 2 and 1."""


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


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """The memory that one child of an export may take: MEMORY_SHARE of the machine's, or of its container's.

    At least what a converter needs to be imported.
    """
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or "max"
            known.append(int((root / name).read_text()))
    return max(MEMORY_FLOOR_BYTES, int(MEMORY_SHARE * min(known)))


def value_of(outcome: child.Outcome, what: str) -> dict[str, Any]:
    """The value of a call that completed; else the error it stands for."""
    if isinstance(outcome, child.Completed):
        return outcome.value
    if isinstance(outcome, child.Refused):
        raise outcome.error
    remedy = "run it again with --debug to see its log"
    if isinstance(outcome, child.OutOfMemory):
        remedy = "close other programs, export one --target at a time, or make the model or its inputs smaller"
    error = PocketshipError(f"{what} {child.describe(outcome)}", remedy=remedy)
    error.log_tail = getattr(outcome, "log_tail", "")
    raise error
