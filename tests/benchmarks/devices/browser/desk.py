"""A job for a browser with files of no sense, and the posts of a page that does it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.devices.browser.desk import Desk
from benchmarks.job import Case, Job, JobArtifact
from runtimes.golden import Golden, write_golden

SHA = "0" * 64
GOLDEN = Golden(
    tuple({"x": np.full((1, 2), i, np.float32)} for i in range(3)),
    tuple({"y": np.full((1, 2), 2.0 * i, np.float32)} for i in range(3)),
)
FACTS = {
    "model": "Chromium 156",
    "family": "desktop",
    "cpu": "",
    "architecture": "x86 64-bit",
    "cores": 2,
    "memory_bytes": None,
    "os": "Linux",
    "executed": "browser",
    "emulator": "",
    "software": {"browser": "Chromium 156"},
}
DEVICE = {"event": "device", "facts": FACTS}


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def job_with_files(folder: Path) -> tuple[Job, dict[str, Path]]:
    """An ONNX file with golden values and data, and a TFLite file with neither."""
    (folder / "a model.onnx").write_bytes(b"model of onnx")
    (folder / "b.tflite").write_bytes(b"model of tflite")
    write_golden(GOLDEN, folder / "golden.npz")
    np.savez(folder / "data.npz", x=np.arange(10, dtype=np.int64).reshape(5, 2))
    files = {
        "a": folder / "a model.onnx",
        "b": folder / "b.tflite",
        "g": folder / "golden.npz",
        "d": folder / "data.npz",
    }
    artifacts = (
        JobArtifact("a", "onnx", "a", 13, SHA, golden="g", data="d"),
        JobArtifact("b", "tflite", "b", 15, SHA),
    )
    return Job("job", artifacts, (Case(0, 1), Case(1, 1))), files


def desk_of(job: Job, clock: Any = None, **options: Any) -> Desk:
    """A desk for `job_with_files`."""
    return Desk(job, {"g": GOLDEN}, {"d": 5}, **({"clock": clock} if clock else {}), **options)


def array(value: Any, dtype: str = "float32") -> dict[str, Any]:
    """An output as the page posts it."""
    numbers = np.asarray(value, dtype)
    return {"dtype": dtype, "shape": list(numbers.shape), "data": base64.b64encode(numbers.tobytes()).decode()}


def loaded(case: int = 0, **changes: Any) -> dict[str, Any]:
    """The event of this name."""
    runtime, inputs = (("onnxruntime-web", "golden"), ("LiteRT.js", "random"))[case]
    times = dict.fromkeys(("import_ns", "load_cold_ns", "load_warm_ns", "first_inference_ns"), 1_000_000)
    event = {"event": "loaded", "case": case, "runtime": runtime, "version": "1.0", "inputs": inputs, **times}
    return {**event, "page_cache_dropped": False, "notes": ["a note"], **changes}


def golden(row: int, value: float | None = None, **changes: Any) -> dict[str, Any]:
    """A golden output of case 0, right unless `value` is another."""
    right = np.full((1, 2), 2.0 * row if value is None else value)
    return {
        "event": "outputs",
        "case": 0,
        "of": "golden",
        "row": row,
        "rows": 1,
        "outputs": {"y": array(right)},
        **changes,
    }


def data(row: int, rows: int = 1, **changes: Any) -> dict[str, Any]:
    """Outputs of case 0 for the data."""
    outputs = {"y": array(np.ones((rows, 2)))}
    return {"event": "outputs", "case": 0, "of": "data", "row": row, "rows": rows, "outputs": outputs, **changes}


def warm(case: int = 0) -> dict[str, Any]:
    """The event of this name."""
    return {"event": "warm", "case": case, "warmup_ns": [2000, 1000], "stable": True}


def block(at_ns: int = 1000, case: int = 0, **changes: Any) -> dict[str, Any]:
    """The event of this name."""
    return {"event": "block", "case": case, "process": 0, "at_ns": at_ns, "runs": 2, "times_ns": [10, 12], **changes}


WHOLE = [
    DEVICE,
    loaded(0),
    *(golden(row) for row in range(3)),
    warm(0),
    loaded(1),
    warm(1),
    block(1000, 0),
    block(2000, 1),
    {"event": "progress", "done": 1, "total": 1},
    {"event": "memory", "case": 0, "baseline_bytes": 1, "steady_bytes": None, "peak_bytes": 3},
    data(0, 2),
    data(2, 3),
    {"event": "energy", "case": 0, "joules": None, "inferences": 2, "source": "", "note": "not told"},
    {"event": "failed", "case": 1, "cause": "crashed", "detail": "a <b> \\ 'detail'"},
    {"event": "end"},
]
"""Everything that a page may tell of the job, in an order that can be true."""


def post(number: int, *events: dict[str, Any]) -> bytes:
    """The body of a post."""
    return json.dumps({"number": number, "events": events}).encode()


def taken(desk: Desk) -> list[Any]:
    """What the desk believed since the last time."""
    found = []
    while not desk.messages.empty():
        found.append(desk.messages.get())
    return found
