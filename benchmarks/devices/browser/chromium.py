"""Chromium on this machine, without a window, in a profile of its own that goes with it."""

from __future__ import annotations

import contextlib
import html
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtimes.errors import NotInstalled
from runtimes.scratch import scratch_folder

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chrome", "chromium-browser")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
)
ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost , EXCLUDE [::1]"
NO_SANDBOX = "--no-sandbox"
END_S = 5.0
LONGEST_FOLDER = 24
"""Chromium makes a socket in a folder of its own below the one for temporary files, and aborts where the path of it has
more than 107 bytes."""


def find() -> str:
    """The path of Chromium or Chrome.

    Raises NotInstalled where there is none.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NotInstalled(
            "no Chromium or Chrome on the PATH",
            where="browser",
            remedy="apt-get install chromium, or --open, and a browser of your own",
        )
    return found


def flags(is_root: bool) -> tuple[str, ...]:
    """What it is started with; as root it has no sandbox, in which it would not start."""
    return (*FLAGS, ONLY_HERE, *((NO_SANDBOX,) if is_root else ()))


@contextlib.contextmanager
def opened(url: str, extra: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Chromium with `url` open, until the block is left.

    The address stands in a file that only this user can read: a command line can be read by every user.

    Raises NotInstalled where there is no Chromium.
    """
    program = find()
    short = None if len(tempfile.gettempdir()) <= LONGEST_FOLDER else Path("/tmp")
    with scratch_folder(short) as folder:
        start = folder / "start.html"
        start.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">', encoding="utf-8")
        profile = f"--user-data-dir={folder}/profile"
        process = subprocess.Popen(
            [program, *flags(os.geteuid() == 0), profile, *extra, start.as_uri()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then end it and every process that it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
