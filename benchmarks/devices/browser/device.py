"""A browser as a device: serve the page, let one browser do the job, pass on what it tells once it is believed."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.agent import machine
from benchmarks.devices import Interrupted, OnEvent, Options
from benchmarks.devices.browser import chromium
from benchmarks.devices.browser.desk import Desk, Left
from benchmarks.devices.browser.files import job_files, page_routes
from benchmarks.devices.browser.server import is_loopback, serving
from benchmarks.job import Job
from runtimes.errors import BadInput

POLL_S = 0.2
HEARTBEAT_S = 30.0
FACTS_OF_THIS_MACHINE = ("family", "cpu", "architecture", "cores", "memory_bytes", "os", "emulator")


def run(target: str, job: Job, files: Mapping[str, Path], options: Options, on_event: OnEvent) -> None:
    """See `benchmarks.devices`. On loopback Chromium is started here, unless `options.headless` is off; else the event
    `notice` says what to open.

    Raises BadInput where the page is not built or the address is taken, NotInstalled without Chromium, BadInput
    where no browser comes, Interrupted where it leaves.
    """
    is_ours = options.headless and is_loopback(options.bind)
    if is_ours:
        chromium.find()
    served = job_files(job, files, min(HEARTBEAT_S, options.wait_s / 4))
    facts = {name: value for name, value in machine.facts().items() if name in FACTS_OF_THIS_MACHINE}
    desk = Desk(job, served.goldens, served.data_rows, facts=facts if is_ours else None)
    routes = {**page_routes(), **served.routes}
    with serving(options.bind, options.port, routes, desk) as origin, contextlib.ExitStack() as stack:
        url = f"{origin}/#{desk.token}"
        browser = None
        if is_ours:
            browser = stack.enter_context(chromium.opened(url))
            if os.geteuid() == 0:
                on_event({"event": "notice", "text": "Chromium runs without its sandbox, since you are root"})
        else:
            on_event({"event": "notice", "text": invitation(url, is_loopback(options.bind))})
        _listen(target, desk, browser, options, on_event)


def reach(target: str, options: Options) -> None:
    """See that the page is built, and that there is a Chromium where it is ours to start; raises as `run` does."""
    if options.headless and is_loopback(options.bind):
        chromium.find()
    page_routes()


def _listen(
    target: str, desk: Desk, browser: subprocess.Popen[bytes] | None, options: Options, on_event: OnEvent
) -> None:
    """Pass on what the desk believes until the job's end.

    Raises Interrupted where the browser leaves or falls silent, BadInput where none comes.
    """
    wait_s = options.wait_s
    while True:
        options.check()
        try:
            message = desk.messages.get(timeout=POLL_S)
        except queue.Empty:
            if browser and browser.poll() is not None:
                raise Interrupted(
                    "link-lost", f"Chromium ended with exit code {browser.returncode}", where=target
                ) from None
            if desk.silent_s() > wait_s and desk.is_open:
                raise Interrupted("link-lost", f"the browser said nothing for {wait_s:g} s", where=target) from None
            if desk.silent_s() > wait_s:
                raise BadInput(
                    f"no browser came within {wait_s:g} s", where=target, remedy="open the page sooner, or give --wait"
                ) from None
            continue
        if isinstance(message, Left):
            raise Interrupted("link-lost", f"the browser left: {message.reason}", where=target)
        on_event(message)
        if message["event"] == "end":
            return


def invitation(url: str, only_here: bool) -> str:
    """What to open, as an address and as a QR code for a terminal; `only_here`: no other machine can open it."""
    if only_here:
        return f"open this page in a browser on this machine; it works once:\n{url}"
    from qrcode import QRCode

    code = QRCode(border=2)
    code.add_data(url)
    drawn = io.StringIO()
    code.print_ascii(out=drawn, invert=True)
    return (
        "open this page on the phone, in the same network; it works once, for whoever opens it first, and what it "
        f"fetches and tells is not encrypted:\n{url}\n{drawn.getvalue()}"
    )
