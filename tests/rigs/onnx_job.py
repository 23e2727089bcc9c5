"""Small ONNX files whose outputs numpy computes, and jobs over them: what a runner without Python is tested with."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.job import Case, Job, Json
from benchmarks.job import JobArtifact as Artifact
from benchmarks.results.record import Proof, Recorder
from benchmarks.results.result import ArtifactFacts, Result
from runtimes.golden import Golden, write_golden

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "benchmarks/devices/adb/runner/build.sh"
RUNNERS = ROOT / "build" / "runner"
SIZES = {"tall": 40, "wide": 8}
"""Of the inputs of two models, which differ: one must not be run for the other."""


def built(target: str) -> Path:
    """The folder of a freshly built runner and its library.

    Raises RuntimeError where the build fails.
    """
    done = subprocess.run([str(BUILD), target], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"no runner for {target} ({done.stderr.strip()[-800:]}); run tests/rigs/install.sh")
    return RUNNERS / target


@dataclass(frozen=True)
class Made:
    """A job, its files, and what its artifacts should answer."""

    job: Job
    files: Mapping[str, Path]
    goldens: tuple[Golden | None, ...]

    def with_(self, **changes: Any) -> Made:
        """The same with other settings of the job."""
        return replace(self, job=replace(self.job, **changes))

    def recorded(self, events: Iterable[Json]) -> tuple[Result, ...]:
        """The results of events, checked as the host checks them; a device is made up where none was told."""
        proofs = [Proof(golden) if golden else None for golden in self.goldens]
        facts = [ArtifactFacts(a.name, a.format, a.size_bytes, a.sha256) for a in self.job.artifacts]
        recorder = Recorder("test", self.job, facts, proofs)
        told = list(events)
        if not any(event["event"] == "device" for event in told):
            machine = {"model": "m", "family": "desktop", "cpu": "c", "architecture": "a", "os": "o"}
            recorder.add(
                {"event": "device", "facts": {**machine, "cores": 1, "memory_bytes": 1, "executed": "physical"}}
            )
        for event in told:
            recorder.add(event)
        return recorder.results()


def dense(size: int, seed: int, path: Path) -> Golden:
    """Write `y = relu(x @ w) + number`, x [batch, size] float32 and number [batch, 1] int64; three samples of it."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(size, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Relu", ["product"], ["positive"]),
        helper.make_node("Cast", ["number"], ["offset"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["positive", "offset"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size]),
        helper.make_tensor_value_info("number", TensorProto.INT64, ["batch", 1]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "dense", inputs, [output], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    samples = [
        {
            "x": generator.normal(size=(1, size)).astype(np.float32),
            "number": generator.integers(-9, 9, (1, 1), dtype=np.int64),
        }
        for _ in range(3)
    ]
    answers = [{"y": answer(sample, weights)} for sample in samples]
    return Golden(tuple(samples), tuple(answers))


def answer(sample: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """What `dense` computes."""
    return np.maximum(sample["x"] @ weights, 0.0) + sample["number"].astype(np.float32)


def make_job(folder: Path, names: Iterable[str] = SIZES, **settings: Any) -> Made:
    """A short job over the models `names`, one case each at one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    artifacts, goldens = [], []
    for seed, name in enumerate(names):
        path, golden_path = folder / f"{name}.onnx", folder / f"{name}.npz"
        golden = dense(SIZES[name], seed, path)
        write_golden(golden, golden_path)
        keys = [hashlib.sha256(p.read_bytes()).hexdigest() + p.suffix for p in (path, golden_path)]
        files.update(zip(keys, (path, golden_path), strict=True))
        size_bytes, digest = path.stat().st_size, keys[0].partition(".")[0]
        artifacts.append(Artifact(path.name, "onnx", keys[0], size_bytes, digest, keys[1]))
        goldens.append(golden)
    cases = tuple(Case(i, 1) for i in range(len(artifacts)))
    given = {"seconds": 0.05, "warmup_s": 0.2, "timeout_s": 60.0, "profile": False, **settings}
    job = Job(os.urandom(8).hex(), tuple(artifacts), cases, **given)
    return Made(job, files, tuple(goldens))
