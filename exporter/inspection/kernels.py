"""Kernel truth of an artifact of any format: found in a child process, since running a model may crash it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.inspection import coreml_kernels, onnx_kernels, tflite_kernels
from exporter.processes.children import Children, memory_limit_bytes
from runtimes import child
from runtimes.kernels import KernelTruth
from runtimes.records import from_json
from runtimes.session import format_of

TIMEOUT_S = 600.0
KERNELS: dict[str, Callable[[Path], KernelTruth]] = {
    "onnx": onnx_kernels.kernels,
    "tflite": tflite_kernels.kernels,
    "coreml": coreml_kernels.kernels,
}
"""By format: how its kernels are found."""


def kernels_of(path: Path) -> KernelTruth | str:
    """Where an artifact computes with low-bit weights, or, in one line, why that could not be found."""
    with Children() as children:
        outcome = child.call(
            "exporter.inspection.kernels:find",
            {"path": str(path)},
            timeout_s=TIMEOUT_S,
            memory_limit_bytes=memory_limit_bytes(),
            on_start=children.add,
        )
    return from_json(KernelTruth, outcome.value) if isinstance(outcome, child.Completed) else child.describe(outcome)


def find(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `kernels_of`."""
    path = Path(job["path"])
    return asdict(KERNELS[format_of(path)](path))


def in_words(found: KernelTruth | str) -> list[str]:
    """What a person reads of it, a line each."""
    if isinstance(found, str):
        return [f"kernels: not found: {found}"]
    shares = (
        f"weights: {found.low_bit_share:.1%} read as codes by low-bit kernels, {found.dequantized_share:.1%} stored as "
        f"codes and dequantized, {found.float_share:.1%} floating point"
    )
    share = (
        "not known" if found.time_share is None else f"{found.time_share:.0%} on low-bit kernels, with random inputs"
    )
    return [shares, f"time: {share}" + (f" ({found.note})" if found.note else "")]


def to_json(found: KernelTruth | str) -> dict[str, Any]:
    """The same for a program: the fields of `KernelTruth`, or `not_found` with the reason."""
    return {"not_found": found} if isinstance(found, str) else asdict(found)
