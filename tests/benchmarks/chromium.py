"""Debian's Chromium without a screen, spoken to over its own pipe: no port, no driver, no download."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars", "--mute-audio"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage"),
)
TIMEOUT_S = 120.0


class Page:
    """One tab; `events` holds all that the browser told of it."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._last, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        return self._until(lambda told: told.get("id") == self._last)["result"]

    def wait_for(self, event: str) -> None:
        """Read until the browser tells this event."""
        if not any(told.get("method") == event for told in self.events):
            self._until(lambda told: told.get("method") == event)

    def _until(self, is_it) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            raw, found, rest = self._rest.partition(b"\0")
            if not found:
                assert time.monotonic() < deadline, "Chromium does not answer"
                chunk = os.read(self._answers, 1 << 20)
                assert chunk, "Chromium ended"
                self._rest += chunk
                continue
            self._rest = rest
            told = json.loads(raw)
            assert "error" not in told, told["error"]
            if "method" in told:
                self.events.append(told)
            if is_it(told):
                return told

    def open(self, address: str, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Load a page in a window of this size, and listen to its console and network from the start."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.events.clear()
        self.ask("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """What an expression gives, in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self, path: Path) -> Path:
        """The whole page as PNG."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def requests(self) -> list[str]:
        """Addresses that the page asked for, itself included."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What stands in its console."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"])[:400] for e in self.events if e["method"] in kinds]


@contextmanager
def chromium() -> Iterator[Page]:
    """A browser with one page, ended at the end."""
    binary = shutil.which("chromium")
    assert binary, "no chromium here: run tests/rigs/install.sh"
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec 3<&{in_read} 4>&{out_write}; exec "$0" "$@"'  # the two numbers that Chromium's pipe has
        process = subprocess.Popen(
            ["bash", "-c", shell, binary, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(in_read, out_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": profile},  # it makes a folder of its own there, which a kill would leave
        )
        os.close(in_read), os.close(out_write)
        try:
            yield Page(in_write, out_read)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(in_write), os.close(out_read)
