"""What the server gives: the page's own files, the job, and the job's files, under names of the server's making."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.devices.browser.events import ITEM_BYTES
from benchmarks.job import Job, Json
from runtimes.errors import BadInput
from runtimes.golden import Golden, read_golden

DIST = Path(__file__).resolve().parent / "page" / "dist"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
PACKED = ".gz"
"""What the page keeps packed, which is sent as it is."""
BYTES = "application/octet-stream"
ALIGNMENT_BYTES = 8
FORMATS = ("onnx", "tflite")
"""What a browser has a runtime for; of other artifacts the page gets no file, and refuses the case."""

Serve = Callable[[bytes], str]
"""Serve this, and give its name on the server."""


@dataclass(frozen=True)
class Given:
    """What is served under one name: bytes, or a file; `is_private` where only the session gets it.

    `encoding` is the header's word for how the content is packed, as every browser unpacks it.
    """

    content: bytes | Path
    content_type: str
    is_private: bool
    encoding: str = ""


@dataclass(frozen=True)
class JobFiles:
    """Everything of a job: what is served, and what the answers are compared with."""

    routes: Mapping[str, Given]
    goldens: Mapping[str, Golden]
    data_rows: Mapping[str, int]


def page_routes(dist: Path = DIST) -> dict[str, Given]:
    """The page's files by their paths on the server.

    Raises BadInput where the page is not built.
    """
    routes: dict[str, Given] = {}
    for path in sorted(path for path in dist.rglob("*") if path.is_file()):
        name = path.relative_to(dist).as_posix().removesuffix(PACKED)
        if content_type := CONTENT_TYPES.get(Path(name).suffix):
            routes[f"/{name}"] = Given(path, content_type, False, "gzip" if path.suffix == PACKED else "")
    if "/index.html" not in routes:
        raise BadInput("the page for browsers is not built", where=str(dist), remedy="make page (needs node and npm)")
    return {**routes, "/": routes["/index.html"]}


def job_files(job: Job, files: Mapping[str, Path], heartbeat_s: float) -> JobFiles:
    """A job and its files as the page fetches them; it is to give a sign of life every `heartbeat_s`.

    Raises BadInput for golden values or data that cannot be read.
    """
    routes: dict[str, Given] = {}
    models: dict[str, Json] = {}
    packs: dict[str, Json] = {}
    goldens: dict[str, Golden] = {}
    data_rows: dict[str, int] = {}

    def serve(content: bytes | Path) -> str:
        url = f"/files/{len(routes)}"
        routes[url] = Given(content, BYTES, True)
        return url

    for artifact in job.artifacts:
        if artifact.format in FORMATS and artifact.file not in models:
            models[artifact.file] = {"url": serve(files[artifact.file]), "size_bytes": artifact.size_bytes}
        if artifact.golden and artifact.golden not in packs:
            goldens[artifact.golden] = golden = read_golden(files[artifact.golden])
            packs[artifact.golden] = _pack(golden.inputs, files[artifact.golden], serve)
        if artifact.data and artifact.data not in packs:
            arrays = _read_data(files[artifact.data])
            data_rows[artifact.data] = len(next(iter(arrays.values())))
            packs[artifact.data] = _pack((arrays,), files[artifact.data], serve)
    told = {"job": asdict(job), "files": models, "packs": packs, "heartbeat_s": heartbeat_s}
    routes["/job"] = Given(json.dumps(told).encode(), "application/json", True)
    return JobFiles(routes, goldens, data_rows)


def _pack(samples: tuple[Mapping[str, np.ndarray], ...], path: Path, serve: Serve) -> Json:
    """Arrays one after another in one file, each from a multiple of 8 bytes on, and where each lies."""
    arrays: list[Json] = []
    parts: list[bytes] = []
    offset = 0
    for row, sample in enumerate(samples):
        for name, array in sample.items():
            if array.dtype.name not in ITEM_BYTES:
                raise BadInput(f"{name} is {array.dtype}", where=str(path), remedy="give numbers")
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            data += bytes(-len(data) % ALIGNMENT_BYTES)
            place = {"row": row, "name": name, "dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
            arrays.append(place)
            parts.append(data)
            offset += len(data)
    return {"url": serve(b"".join(parts)), "arrays": arrays}


def _read_data(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged bytes
        raise BadInput(f"cannot read the data ({error})", where=str(path), remedy="bench again") from error
    lengths = {array.shape[:1] for array in found.values()}
    if len(lengths) != 1 or not next(iter(lengths)):
        raise BadInput("the arrays have no common number of samples", where=str(path), remedy="bench again")
    return found
