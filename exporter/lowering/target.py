"""A target: its row, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from exporter.lowering.settings import CoreMlSettings, OnnxSettings, Settings, TfliteSettings
from exporter.tracing.user_code import user_line


@dataclass(frozen=True)
class Target:
    """A module with `prepare(program, settings)`, `unsupported(program)`, `lower(program, path, settings, metadata)`.

    `lower` writes the artifact, with the facts of `metadata` inside, and says how each low-bit weight of the program is
    stored there; `settings` is what a user may choose.
    """

    module: str
    file_name: str
    packages: tuple[str, ...]
    settings: type[Settings]


TARGETS = {
    "onnx": Target("exporter.lowering.to_onnx", "model.onnx", ("onnxscript", "onnxruntime"), OnnxSettings),
    "tflite": Target("exporter.lowering.to_tflite", "model.tflite", ("litert_torch", "ai_edge_litert"), TfliteSettings),
    "coreml": Target("exporter.lowering.to_coreml", "model.mlpackage", ("coremltools",), CoreMlSettings),
}
SLOWEST_FIRST = ("tflite", "coreml", "onnx")
"""By how long their converters take to be imported and to convert: the longest is to start first."""


@dataclass(frozen=True)
class Unsupported:
    """An operation that a target lacks, the line of the user's code that calls it, and what to do."""

    target: str
    operation: str
    line: str
    remedy: str


def refusals(target: str, nodes: Iterable[Any], remedy: str) -> tuple[Unsupported, ...]:
    """One `Unsupported` for each distinct operation and line among the fx nodes that a target lacks."""
    found = {(str(node.target), user_line(node.meta.get("stack_trace") or "")): None for node in nodes}
    return tuple(Unsupported(target, operation, line, remedy) for operation, line in found)
