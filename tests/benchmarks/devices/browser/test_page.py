"""The page in a user's browser and in ours: what it shows, who may open it, and how it goes when it goes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.devices import Interrupted, Options
from benchmarks.devices.browser import chromium
from benchmarks.devices.browser import device as browser
from benchmarks.devices.browser import files as browser_files
from benchmarks.devices.browser import server as browser_server
from benchmarks.job import Job
from runtimes.errors import BadInput, NotInstalled, PocketshipError
from tests.benchmarks.chromium import chromium as user_browser
from tests.benchmarks.devices.browser.browsing import IS_OVER, SHOWN_STATUS, InBackground, new_bench, wait_until

rig = pytest.mark.browser


@pytest.fixture
def bench():
    return new_bench()


# --- a browser of the user's ---------------------------------------------------------------------------------------


@rig
@pytest.mark.parametrize(("width", "height", "is_dark"), [(390, 844, False), (390, 844, True), (1280, 800, False)])
def test_the_page_shows_what_it_finds(bench, exported, tmp_path, width, height, is_dark):
    odd = tmp_path / "odd.tflite"
    odd.write_bytes(b"nonsense" * 100)
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    name = 'it\'s a "model"\nof <script>alert(1)</script> <b>mine</b> .tflite'
    bench.add(odd, name=name)
    running = InBackground(bench, bench.job())
    with user_browser() as page:
        page.open(running.url(), width, height, is_dark)
        assert wait_until(page, IS_OVER) == "done"
        assert page.evaluate(SHOWN_STATUS).startswith("Done.")
        assert page.evaluate("location.href").endswith("/"), "the token is gone from the address"
        assert page.evaluate("[...document.querySelectorAll('.name')].map(e => e.textContent).at(-1)") == name
        assert page.evaluate("document.scripts.length") == 1
        assert page.evaluate("document.querySelectorAll('#rows b').length") == 0
        rows = page.evaluate("[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.innerText))")
        figures = [[cell.strip() for cell in row[1:]] for row in rows[:2]]
        assert all(re_time(p50) and re_time(p90) and parity == "ok" for _, p50, p90, parity in figures), figures
        assert rows[3][0] == "refused: Failed to load model from buffer"
        assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
        origin = running.url().partition("#")[0]
        assert all(asked.startswith((origin, "data:")) for asked in page.requests())
        assert page.complaints() == []
        page.picture(tmp_path / "page.png")
    running.join()
    assert running.error is None and bench.events[-1] == {"event": "end"}


def re_time(text: str) -> bool:
    return text.endswith((" us", " ms")) and float(text.split()[0]) > 0


@rig
def test_a_second_browser_with_the_address_is_told_so_and_the_first_goes_on(bench, exported):
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    running = InBackground(bench, bench.job())
    with user_browser() as first, user_browser() as second:
        first.open(running.url(), 390)
        wait_until(first, "!document.querySelector('#results').hidden")
        second.open(running.url(), 390)
        assert wait_until(second, IS_OVER) == "failed"
        assert second.evaluate(SHOWN_STATUS).startswith("This code was used already, by another browser")
        assert wait_until(first, IS_OVER) == "done"
    running.join()
    assert running.error is None and bench.events[-1] == {"event": "end"}
    assert "403 This code was used already" in bench.of("notice")[1]["text"]


@rig
def test_a_page_that_is_closed_in_the_middle_ends_the_run_and_what_it_told_counts(bench, exported):
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    running = InBackground(bench, bench.job(seconds=600.0))
    with user_browser() as page:
        page.open(running.url(), 390)
        while not bench.of("block"):
            page.evaluate("0")
            time.sleep(0.1)
        page.ask("Page.navigate", url="about:blank")
        running.join()
    assert isinstance(running.error, Interrupted) and running.error.cause == "link-lost"
    assert str(running.error) == "browser: the browser left: the page was closed or reloaded"
    assert bench.of("loaded", 1) and bench.of("outputs") and bench.of("block")


@rig
def test_a_browser_that_falls_silent_is_lost(bench, exported):
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    running = InBackground(bench, bench.job(seconds=600.0), wait_s=4.0)
    with user_browser() as page:
        page.open(running.url(), 390)
        while not bench.of("block"):
            time.sleep(0.1)
    running.join()  # Chromium was killed, which says no good-bye
    assert isinstance(running.error, Interrupted) and running.error.cause == "link-lost"
    assert str(running.error) == "browser: the browser said nothing for 4 s"
    assert bench.of("block")


@rig
@pytest.mark.parametrize("is_taken", [False, True], ids=["the post is lost", "its answer is lost"])
def test_a_link_that_drops_loses_nothing_and_doubles_nothing(bench, exported, monkeypatch, is_taken):
    posts, real = [0], browser_server._Handler.do_POST

    def unreliable(handler) -> None:
        posts[0] += handler.path == "/events"
        is_cut = handler.path == "/events" and posts[0] % 2 == 0
        if is_taken or not is_cut:
            if is_cut:
                handler.wfile = io.BytesIO()
            real(handler)
        if is_cut:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(browser_server._Handler, "do_POST", unreliable)
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    bench.run(bench.job(seconds=1.0))
    assert posts[0] > 3
    assert bench.of("failed") == [] and bench.events[-1] == {"event": "end"}
    assert len(bench.of("loaded")) == len(bench.of("warm")) == 2
    rounds = [progress["done"] for progress in bench.of("progress")]
    assert rounds == list(range(1, len(rounds) + 1)) and len(bench.of("block")) == 2 * len(rounds)


@rig
def test_a_phone_in_the_network_has_one_thread(bench, exported):
    """No page over plain http is isolated, but on localhost: what needs threads is refused, the rest is measured."""
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    running = InBackground(bench, bench.job(threads=(1, 2, None)), bind="0.0.0.0")
    if "//localhost" in running.url():
        pytest.fail("this machine has no address but loopback")
    with user_browser() as page:
        page.open(running.url(), 390)
        assert wait_until(page, IS_OVER) == "done"
    running.join()
    assert bench.of("device")[0]["facts"]["software"]["cross-origin isolated"] == "no"
    assert {event["case"]: event["cause"] for event in bench.of("failed")} == {1: "refused", 4: "refused"}
    assert all("give --threads 1" in event["detail"] for event in bench.of("failed"))
    assert {event["case"] for event in bench.of("block")} == {0, 2, 3, 5}
    assert "█" in bench.of("notice")[0]["text"], "and there was a QR code"


# --- a browser of ours ---------------------------------------------------------------------------------------------


@rig
def test_our_chromium_is_ended_and_leaves_nothing(bench, exported, tmp_path, monkeypatch):
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    temporary = tmp_path / ("deep" * 30)  # too deep for the socket that Chromium makes
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(chromium.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])
    bench.run(bench.job())
    (process,) = started
    assert process.returncode is not None
    assert not [word for word in process.args if "#" in word], "the token is in no command line"
    alive = [p.pid for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE]
    assert [pid for pid in alive if psutil.pid_exists(pid) and os.getpgid(pid) == process.pid] == []
    (profile,) = [Path(word.partition("=")[2]) for word in process.args if word.startswith("--user-data-dir=")]
    assert not profile.parent.exists() and list(temporary.iterdir()) == []


@rig
def test_our_chromium_that_dies_is_a_lost_link(bench, exported, monkeypatch):
    opened = chromium.opened

    @contextlib.contextmanager
    def killed_later(url: str):
        with opened(url) as process:
            threading.Timer(3.0, os.killpg, (process.pid, signal.SIGKILL)).start()
            yield process

    monkeypatch.setattr(chromium, "opened", killed_later)
    bench.add_bundle(exported("mlp", "onnx,tflite"))
    with pytest.raises(Interrupted, match="browser: Chromium ended with exit code -9") as caught:
        bench.run(bench.job(seconds=600.0))
    assert caught.value.cause == "link-lost"


def test_without_a_sandbox_only_as_root():
    assert chromium.NO_SANDBOX in chromium.flags(is_root=True)
    assert chromium.NO_SANDBOX not in chromium.flags(is_root=False)


def test_no_chromium_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    job = Job("job", (), ())
    with pytest.raises(
        NotInstalled, match="browser: no Chromium or Chrome on the PATH; apt-get install chromium, or --open"
    ):
        browser.run("browser", job, {}, Options(), lambda event: None)


def test_a_page_that_is_not_built_is_an_error_that_says_how(tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "page_routes", lambda: browser_files.page_routes(tmp_path))
    with pytest.raises(BadInput, match="the page for browsers is not built; make page"):
        browser.run("browser", Job("job", (), ()), {}, Options(headless=False), lambda event: None)


def test_nobody_comes(monkeypatch):
    monkeypatch.setattr(browser, "page_routes", dict)
    events: list[dict[str, Any]] = []
    with pytest.raises(
        PocketshipError, match=r"^browser: no browser came within 0.3 s; open the page sooner, or give --wait$"
    ):
        browser.run("browser", Job("job", (), ()), {}, Options(headless=False, wait_s=0.3), events.append)
    assert events[0]["text"].startswith(
        "open this page in a browser on this machine; it works once:\nhttp://127.0.0.1:"
    )


def test_a_qr_code_is_for_other_machines():
    url = "http://192.168.1.2:8000/#token"
    assert browser.invitation(url, only_here=True).splitlines()[1:] == [url]
    lines = browser.invitation(url, only_here=False).splitlines()
    assert lines[1] == url and len(lines) > 12
    assert len({len(line) for line in lines[2:]}) == 1, "a square"
