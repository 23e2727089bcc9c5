"""Fixtures: emulated Raspberry Pis that are started once a session, and a link to them that can be cut."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from tests.rigs.jobs import write_wheels
from tests.rigs.pi import MODELS, RIGS, Pi, emulated_pi
from tests.rigs.proxy import Proxy


@pytest.fixture(scope="session")
def boards(tmp_path_factory):
    """A running board by name, "3", "4" or "5", started when it is first asked for; wheels are kept in build/rigs.

    Tests share it, but for one of their own that a word names.
    """
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(RIGS / "cache"))
        environment.delenv("SSH_AUTH_SOCK", raising=False)
        started: dict[tuple[str, bool, str], Pi] = {}

        def get(name: str, counts: bool = False, own: str = "") -> Pi:
            if (name, counts, own) not in started:
                folder = tmp_path_factory.mktemp(f"pi{name}")
                started[name, counts, own] = stack.enter_context(emulated_pi(MODELS[name], folder, counts=counts))
            return started[name, counts, own]

        yield get


@pytest.fixture
def pi(boards):
    """The Raspberry Pi 4 that most tests share, without a bench of an earlier test."""
    board = boards("4")
    yield board
    deadline = time.monotonic() + 30  # what followed a bench over a link that was cut ends after it
    while board.processes("jobs/") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert board.processes("jobs/") == [], "a test left its bench running"


@pytest.fixture(scope="session")
def still(tmp_path_factory) -> Path:
    """A folder of wheels whose onnxruntime takes a minute to be imported: with it a bench stands still, at no cost."""
    folder = tmp_path_factory.mktemp("still")
    return write_wheels(folder, {"numpy": ("2.0.0", ""), "onnxruntime": ("1.0.0", "import time; time.sleep(60)")})


@pytest.fixture
def proxy_of():
    """Start proxies, which end with the test."""
    proxies: list[Proxy] = []

    def start(pi: Pi, cut_after: int | None = None) -> Proxy:
        proxies.append(Proxy(pi.port, cut_after))
        return proxies[-1]

    yield start
    for proxy in proxies:
        with contextlib.suppress(OSError):
            proxy.refuse()
