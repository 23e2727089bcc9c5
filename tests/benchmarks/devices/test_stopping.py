"""Ctrl-C reaches a device that says nothing: each kind looks up while it waits, ends the job and cleans up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from benchmarks.devices import Options, Stopped, local
from benchmarks.devices.adb.link import _lines_of
from benchmarks.devices.browser.desk import Desk
from benchmarks.devices.browser.device import _listen
from benchmarks.devices.ssh.device import _watched
from benchmarks.job import Job

JOB = Job("job", (), ())


def stopping_at(look: int):
    """A `check` that stops the job when it is called so many times."""
    looks = []

    def check() -> None:
        looks.append(time.monotonic())
        if len(looks) == look:
            raise Stopped

    return check


def test_an_agent_here_that_says_nothing(tmp_path, monkeypatch):
    agent, started = tmp_path / "agent.py", []
    agent.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(local, "AGENT", agent)
    with pytest.raises(Stopped):
        local.do(JOB, {}, lambda event: None, check=stopping_at(1), on_start=started.append, scratch=tmp_path)
    assert started[0].returncode is not None and list(tmp_path.iterdir()) == [agent]


def test_a_board_that_says_nothing():
    cleaned = []

    async def course() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("the board")

    with pytest.raises(Stopped):
        asyncio.run(_watched(course(), stopping_at(2)))
    assert cleaned == ["the board"]


def test_a_board_whose_course_ends_by_itself():
    async def refused() -> None:
        raise ZeroDivisionError("as if")

    asyncio.run(_watched(asyncio.sleep(0), lambda: None))
    with pytest.raises(ZeroDivisionError, match="as if"):
        asyncio.run(_watched(refused(), lambda: None))


def test_a_phone_that_says_nothing():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with pytest.raises(Stopped):
            list(_lines_of(process, 600.0, stopping_at(2)))
        assert list(_lines_of(process, 0.01, lambda: None)) == [b""], "and one that is given up"
        process.kill()


def test_a_browser_that_says_nothing():
    with pytest.raises(Stopped):
        _listen("browser", Desk(JOB, {}, {}), None, Options(check=stopping_at(2)), lambda event: None)
