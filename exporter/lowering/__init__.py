"""Lower one traced program to a target's file. A target is one module (see `Target`), and a row here."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.tracing.user_code import user_line

POLL_S = 0.01


@dataclass(frozen=True)
class Target:
    """A module with `prepare(program, settings)`, `unsupported(program)` and `lower(program, path, settings)`.

    `lower` writes the artifact and says how each low-bit weight of the program is stored there.
    """

    module: str
    file_name: str
    packages: tuple[str, ...]


TARGETS = {
    "onnx": Target("exporter.lowering.to_onnx", "model.onnx", ("onnxscript", "onnxruntime")),
    "tflite": Target("exporter.lowering.to_tflite", "model.tflite", ("litert_torch", "ai_edge_litert")),
    "coreml": Target("exporter.lowering.to_coreml", "model.mlpackage", ("coremltools",)),
}


@dataclass(frozen=True)
class LoweringSettings:
    """What the user may choose: ONNX opset, least iOS version, precision of Core ML; and the facts to store inside."""

    opset: int
    min_ios: int
    coreml_precision: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Unsupported:
    """An operation that a target lacks, the line of the user's code that calls it, and what to do."""

    target: str
    operation: str
    line: str
    remedy: str


def lower(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of a target: lower each snapshot of the model as soon as it is there.

    The converter is imported, which takes seconds, while another child still traces the program: a snapshot is there
    once its file of settings is. What the target lacks is told first, then that an artifact lies there.
    """
    target = importlib.import_module(TARGETS[job["target"]].module)
    for package in TARGETS[job["target"]].packages:
        importlib.import_module(package)
    from exporter.tracing.program import load_program

    for index, snapshot in enumerate(job["snapshots"]):
        while not Path(snapshot["settings"]).exists():
            time.sleep(POLL_S)
        settings = LoweringSettings(**json.loads(Path(snapshot["settings"]).read_text(encoding="utf-8"))[job["target"]])
        program = target.prepare(load_program(Path(snapshot["program"])), settings)
        refusals = target.unsupported(program)
        emit({"unsupported": [asdict(r) for r in refusals]})
        if refusals or job["dry_run"]:
            return {}
        carried = target.lower(program, Path(snapshot["output"]), settings)
        emit({"lowered": index, "carried": [asdict(c) for c in carried]})
    return {}


def refusals(target: str, nodes: Iterable[Any], remedy: str) -> tuple[Unsupported, ...]:
    """One `Unsupported` for each distinct operation and line among the fx nodes that a target lacks."""
    found = {(str(node.target), user_line(node.meta.get("stack_trace") or "")): None for node in nodes}
    return tuple(Unsupported(target, operation, line, remedy) for operation, line in found)
