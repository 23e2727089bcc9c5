"""A bench in a real browser: a job put together, run by ours or by one that a user opens, and what was told."""

from __future__ import annotations

import base64
import hashlib
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.devices import Options
from benchmarks.devices.browser import chromium
from benchmarks.devices.browser import device as browser
from benchmarks.job import Case, Job, JobArtifact
from runtimes.compare import FLOAT32, compare
from runtimes.errors import PocketshipError
from runtimes.golden import read_golden
from runtimes.types import ExecutedBy

PAGE = Path(browser.__file__).parent / "page"
WAIT_S = 60.0
SHOWN_STATUS = "document.querySelector('#status').textContent"
IS_OVER = "document.querySelector('#status').className"


def new_bench() -> Bench:
    """An empty one, where all that it needs is there."""
    assert (PAGE / "dist" / "index.html").is_file(), "the page is not built: run tests/rigs/install.sh and make page"
    assert any(map(shutil.which, chromium.NAMES)), "no Chromium here: run tests/rigs/install.sh"
    return Bench()


@dataclass
class Bench:
    """A job being put together, and what was told of it."""

    artifacts: list[JobArtifact] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def add(self, path: Path, golden: Path | None = None, data: Path | None = None, name: str = "") -> None:
        """An artifact."""
        keys = [None if file is None else str(file) for file in (path, golden, data)]
        self.files.update({key: Path(key) for key in keys if key})
        size, sha = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        kind = path.suffix.lstrip(".")
        self.artifacts.append(JobArtifact(name or path.name, kind, keys[0], size, sha, keys[1], keys[2]))

    def add_bundle(self, bundle: Path, *formats: str, data: Path | None = None) -> None:
        for kind in formats or ("onnx", "tflite"):
            self.add(bundle / f"model.{kind}", bundle / "golden.npz", data, f"{bundle.parent.name}/model.{kind}")

    def job(self, threads: tuple[int | None, ...] = (1,), **settings: Any) -> Job:
        cases = tuple(Case(i, n) for i in range(len(self.artifacts)) for n in threads)
        quick = {"seconds": 0.1, "warmup_s": 0.5, "timeout_s": WAIT_S, **settings}
        return Job("job", tuple(self.artifacts), cases, **quick)

    def run(self, job: Job, **options: Any) -> None:
        browser.run("browser", job, self.files, Options(**{"wait_s": WAIT_S, **options}), self.events.append)

    def of(self, kind: str, case: int | None = None) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == kind and case in (None, e.get("case"))]


def arrays(event: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(base64.b64decode(value["data"]), value["dtype"]).reshape(value["shape"])
        for name, value in event["outputs"].items()
    }


def assert_parity(bench: Bench, case: int, golden: Path) -> None:
    expected = read_golden(golden).outputs
    found = [arrays(event) for event in bench.of("outputs", case) if event["of"] == "golden"]
    parity = compare(expected, found, ExecutedBy("browser", "", "browser"), FLOAT32)
    assert parity.verdict == "pass", parity.reason


class InBackground:
    """`browser.run` in a thread, waiting for a browser; `error` is what it raised."""

    def __init__(self, bench: Bench, job: Job, **options: Any) -> None:
        self.error: BaseException | None = None
        self._bench = bench
        self._thread = threading.Thread(target=self._run, args=(job, options))
        self._thread.start()

    def _run(self, job: Job, options: dict[str, Any]) -> None:
        try:
            self._bench.run(job, **{"headless": False, **options})
        except PocketshipError as error:
            self.error = error

    def url(self) -> str:
        """What the user is asked to open."""
        while not self._bench.of("notice"):
            assert self._thread.is_alive(), self.error
            time.sleep(0.02)
        return next(line for line in self._bench.of("notice")[0]["text"].splitlines() if line.startswith("http"))

    def join(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def wait_until(page, script: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := page.evaluate(script)):
        assert time.monotonic() < deadline, page.evaluate(SHOWN_STATUS)
        time.sleep(0.1)
    return found
