"""Where artifacts run: one module a kind of device, each with `run`; see `DEVICES`.

`run(target, job, files, options, on_event)` puts `files` (the job's names -> paths here) on the device, lets it do the
job, calls `on_event` with each of the device's events (docs/results.md lists them; they are as the device told them) as
soon as it is there and `options.check` while it waits, and leaves nothing behind but what makes the next run faster,
whichever of the two raises. It raises a PocketshipError where the device cannot be reached, and `Interrupted` where it
was lost on the way: what was told by then counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.job import Job, Json
from runtimes.errors import BadInput, PocketshipError

OnEvent = Callable[[Json], None]
CHECK_S = 0.5
"""How often a device that waits calls `Options.check`."""


@dataclass(frozen=True)
class Options:
    """How devices are reached; each kind reads what concerns it.

    ssh: `accept_new_host_key` takes an unknown host's key in, `identity` is a file with a private key, `known_hosts`
    the file of known keys, `wheels` a folder of wheels for the board, `clean` removes what earlier runs left there.
    `check` is called twice a second while a device is awaited: what it raises ends the job, and cleans up.
    adb: `runner` is LiteRT's benchmark_model binary, used instead of ours. browser: `bind` is the address to serve on,
    `wait_s` how long to wait for a browser; `headless` starts Chromium here.
    """

    accept_new_host_key: bool = False
    identity: Path | None = None
    known_hosts: Path | None = None
    wheels: Path | None = None
    clean: bool = False
    runner: Path | None = None
    bind: str = "127.0.0.1"
    port: int = 0
    wait_s: float = 300.0
    headless: bool = True
    check: Callable[[], None] = lambda: None


class Stopped(Exception):
    """The user wants no more: thrown in a device's thread."""


class Interrupted(PocketshipError):
    """A device was lost in the middle of a job; `cause` is one of `benchmarks.results.result.CAUSES`."""

    exit_code = 2

    def __init__(self, cause: str, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.cause = cause


MALFORMED_REMEDY = "bench again, over ssh with --clean"
"""Of a device that talks nonsense: what it has of ours may be old or damaged."""
Run = Callable[[str, Job, Mapping[str, Path], Options, OnEvent], None]

DEVICES = {
    "local": "benchmarks.devices.local",
    "ssh": "benchmarks.devices.ssh.device",
    "adb": "benchmarks.devices.adb.device",
    "browser": "benchmarks.devices.browser.device",
}
"""kind -> module with `run` and `reach(target, options)`, imported only when it is needed."""


def kind_of(target: str) -> str:
    """The kind of a target as typed after --on.

    Raises BadInput for one that is none.
    """
    kind, separator, rest = target.partition("://")
    is_whole = {"ssh": bool(rest), "adb": bool(rest) or not separator}.get(kind, not separator)
    if kind not in DEVICES or not is_whole:
        raise BadInput(
            "no such device",
            where=target,
            remedy="give local, ssh://user@host[:port], adb, adb://SERIAL or browser",
        )
    return kind


def run_of(target: str) -> Run:
    """The function that runs a job on a target.

    Raises BadInput for a target that is none.
    """
    run: Run = importlib.import_module(DEVICES[kind_of(target)]).run
    return run


def reach(target: str, options: Options) -> None:
    """See that a target can be reached, before minutes are spent on what it is to run.

    Raises BadInput for a target that is none, and what the device's `run` would raise where it cannot be reached.
    """
    importlib.import_module(DEVICES[kind_of(target)]).reach(target, options)
