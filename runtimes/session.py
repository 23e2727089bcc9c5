"""One way to run an artifact of any format: `open_session(path)` gives a `Session`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Tuple

import numpy as np

from runtimes.errors import BadInput, NotInstalled
from runtimes.signature import ExecutedBy, Signature, TensorSpec


class Session(Protocol):
    """A loaded artifact."""

    signature: Signature
    executed_by: ExecutedBy

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Compute the outputs, by name, of one set of inputs that fits `signature`."""

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """A call that computes once with these inputs, which fit already, and hands nothing over: what is timed.

        It holds until `run` or `bind` is called again, or the session is closed.
        """

    def close(self) -> None:
        """Release the runtime's memory."""


RUNTIMES = {
    "onnx": "runtimes.onnx_runtime",
    "tflite": "runtimes.litert_runtime",
    "coreml": "runtimes.coreml_runtime",
}
"""format -> module with `library`, `open_session` and `profile`, imported only when it is needed."""
LIBRARIES = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai_edge_litert", "tflite_runtime"),
    "coreml": ("coremltools",),
}
"""format -> the packages of which one runs it."""

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite", ".mlpackage": "coreml"}


def format_of(path: Path) -> str:
    """The format of an artifact by its suffix.

    Raises BadInput for a suffix that is no format's.
    """
    if path.suffix not in SUFFIXES:
        raise BadInput(
            f"no runtime for a file ending in {path.suffix!r}",
            where=str(path),
            remedy=f"give a file ending in {', '.join(SUFFIXES)}",
        )
    return SUFFIXES[path.suffix]


def open_session(path: Path, threads: Optional[int] = None) -> Session:
    """Load an artifact in its own runtime, which computes with `threads` threads, or with as many as it likes.

    Raises BadInput when the file is missing, is no artifact, its runtime is not installed, or cannot be told `threads`.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise BadInput(f"{threads} threads cannot compute", remedy="give 1 or more")
    module = _runtime_of(path)
    if not path.exists():
        raise BadInput("no such artifact", where=str(path), remedy="check the path")
    return module.open_session(path, threads)


def library(path: Path) -> Any:
    """Import the library that runs an artifact.

    Raises NotInstalled where it is absent.
    """
    return _runtime_of(path).library(str(path))


def lacking(kind: str) -> str:
    """Why no artifact of a format runs here, where its library is absent, and what to do; nothing is imported."""
    if any(importlib.util.find_spec(name) for name in LIBRARIES[kind]):
        return ""
    try:
        importlib.import_module(RUNTIMES[kind]).library()
    except NotInstalled as error:
        return f"{error.what}; {error.remedy}"
    return ""


def profile(
    path: Path, threads: Optional[int], inputs: Mapping[str, np.ndarray], runs: int
) -> Tuple[Tuple[str, int, int], ...]:
    """(kind of operation, calls, nanoseconds) over `runs` inferences, longest first; none but of onnxruntime.

    In a session of its own, since being watched slows it down.
    """
    found = getattr(_runtime_of(path), "profile", None)
    return found(path, threads, inputs, runs) if found else ()


def _runtime_of(path: Path) -> Any:
    return importlib.import_module(RUNTIMES[format_of(Path(path))])


def feeds(inputs: Mapping[str, np.ndarray], signature: Signature) -> Dict[str, np.ndarray]:
    """The inputs that `signature` names, each made to `fit`; others are ignored.

    Raises BadInput when one is missing or does not fit.
    """
    missing = [spec.name for spec in signature.inputs if spec.name not in inputs]
    if missing:
        raise BadInput(
            f"no value for input {missing[0]!r}", remedy=f"give {', '.join(s.name for s in signature.inputs)}"
        )
    return {spec.name: fit(inputs[spec.name], spec) for spec in signature.inputs}


def fit(value: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """`value` as `spec` wants it: same shape, integers narrowed only where nothing is lost, floats only where finite.

    Raises BadInput when the shape differs or a value does not survive the narrower type.
    """
    value = np.asarray(value)
    wanted = tuple(spec.shape)
    if value.ndim != len(wanted) or any(isinstance(w, int) and w != g for w, g in zip(wanted, value.shape)):
        raise BadInput(f"input has shape {list(value.shape)}, the artifact takes {list(wanted)}", where=spec.name)
    dtype = np.dtype(spec.dtype)
    if value.dtype == dtype:
        return np.asarray(value, order="C")
    if value.dtype.kind != dtype.kind and {value.dtype.kind, dtype.kind} != {"i", "u"}:
        raise BadInput(f"input is {value.dtype}, the artifact takes {dtype}", where=spec.name)
    with np.errstate(over="ignore"):
        narrow = value.astype(dtype)
    lost = narrow != value if dtype.kind in "iu" else np.isfinite(narrow) != np.isfinite(value)
    if np.any(lost):
        raise BadInput(f"a value does not fit {dtype}", where=spec.name)
    return np.asarray(narrow, order="C")
