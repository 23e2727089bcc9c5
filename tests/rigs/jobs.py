"""Jobs of small models, let done by an emulated board, and what was told of them."""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.devices import Options
from benchmarks.devices.ssh.device import run
from benchmarks.job import Case, Job, JobArtifact, Json
from benchmarks.results.record import Proof, Recorder
from benchmarks.results.result import ArtifactFacts, Failure, Result
from runtimes.golden import read_golden
from tests.rigs.pi import Pi

LEAST = {"seconds": 0.005, "warmup_s": 0.02, "profile": False}
"""Emulated times mean nothing, so few are taken."""


def options_of(pi: Pi, **changes) -> Options:
    """How to reach a board."""
    return replace(Options(identity=pi.identity, known_hosts=pi.known_hosts), **changes)


@dataclass
class Asked:
    """A job, its files, and what is known of its artifacts."""

    job: Job
    files: dict[str, Path]
    facts: list[ArtifactFacts]
    proofs: list[Proof | None]
    events: list[Json] = field(default_factory=list)

    def on(self, pi: Pi, on_event: Callable[[Json], None] = lambda event: None, target: str = "", **options) -> None:
        """Let a board do it; `on_event` sees each event after it was noted in `events`."""

        def note(event: Json) -> None:
            self.events.append(event)
            on_event(event)

        run(target or pi.target, self.job, self.files, options_of(pi, **options), note)

    def told(self, *names: str) -> list[Json]:
        """The events of these names."""
        return [event for event in self.events if event["event"] in names]

    @property
    def pushed_bytes(self) -> int:
        """How many bytes of files were put on the board."""
        return max((event["total"] for event in self.told("progress") if event.get("what") == "push"), default=0)

    def results(self, lost: Failure | None = None) -> tuple[Result, ...]:
        """What the events come to."""
        recorder = Recorder("ssh://board", self.job, self.facts, self.proofs)
        for event in self.events:
            recorder.add(event)
        return recorder.results(lost)


def asked(*paths: Path, cases: Sequence[int] | None = None, golden: Path | None = None, **settings) -> Asked:
    """A job of files, each a case with one thread unless `cases` says which; `golden` belongs to all of them."""
    files: dict[str, Path] = {}

    def named(path: Path, suffix: str) -> str:
        name = hashlib.sha256(path.read_bytes()).hexdigest()[:32] + suffix
        files[name] = path
        return name

    artifacts = []
    for path in paths:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        kept = named(golden, ".npz") if golden else None
        kind = path.suffix[1:]
        artifacts.append(
            JobArtifact(path.name, kind, named(path, path.suffix), path.stat().st_size, sha256, golden=kept)
        )
    chosen = range(len(artifacts)) if cases is None else cases
    job = Job(
        id=uuid.uuid4().hex,
        artifacts=tuple(artifacts),
        cases=tuple(Case(number, 1) for number in chosen),
        **{**LEAST, **settings},
    )
    facts = [ArtifactFacts(a.name, a.format, a.size_bytes, a.sha256) for a in artifacts]
    proof = Proof(read_golden(golden)) if golden else None
    return Asked(job, files, facts, [proof] * len(artifacts))


def matmul(path: Path, width: int, seed: int = 0) -> Path:
    """An ONNX file of one matrix product `[4, width] x [width, width]`."""
    weight = np.random.default_rng(seed).standard_normal((width, width)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, width])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


def write_wheels(folder: Path, modules: dict[str, tuple[str, str]]) -> Path:
    """A folder of wheels, each of one module: name -> version, text."""
    for name, (version, text) in modules.items():
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(f"{name}/__init__.py", f"__version__ = '{version}'\n{text}\n")
    return folder
