"""ONNX files in onnxruntime on the CPU."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from runtimes.emulation import execution
from runtimes.errors import BadInput, NotInstalled
from runtimes.session import feeds
from runtimes.signature import ExecutedBy, Signature, TensorSpec

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def _spec(node: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, (int, str)) else f"{node.name}_axis{i}" for i, d in enumerate(node.shape))
    return TensorSpec(node.name, DTYPES.get(node.type, node.type), shape)


class OnnxSession:
    """A `Session` over onnxruntime's InferenceSession."""

    def __init__(self, path: Path, threads: Optional[int]) -> None:
        onnxruntime = library(str(path))
        self._session = _load(onnxruntime, path, _options(onnxruntime, threads))
        self.signature = Signature(
            tuple(map(_spec, self._session.get_inputs())), tuple(map(_spec, self._session.get_outputs()))
        )
        self.executed_by = ExecutedBy("onnxruntime", onnxruntime.__version__, execution())

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """See `Session.run`."""
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self._session.run(names, feeds(inputs, self.signature))))

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """See `Session.bind`: nothing is checked or copied; the call keeps the inputs' memory, which it computes on."""
        from onnxruntime import OrtValue, RunOptions

        binding = self._session.io_binding()
        held = [OrtValue.ortvalue_from_numpy(value) for value in inputs.values()]  # over numpy's own memory
        for name, value in zip(inputs, held):
            binding.bind_ortvalue_input(name, value)
        for spec in self.signature.outputs:
            binding.bind_output(spec.name, "cpu")
        # The compiled class's method: the Python one around it costs half a microsecond a call, and so do the options
        # that onnxruntime else makes anew in every call.
        call = partial(self._session._sess.run_with_iobinding, binding._iobinding, RunOptions())
        call.held = held  # type: ignore[attr-defined]
        return call

    def close(self) -> None:
        """See `Session.close`."""
        del self._session


def library(where: str = "") -> Any:
    """Import onnxruntime.

    Raises NotInstalled where it is absent.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise NotInstalled(
            "onnxruntime is not installed", where=where, remedy="pip install 'pocketship[onnxruntime]'"
        ) from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


EXACT_INT8 = ("session.x64quantprecision", "1")
"""Without it, int8 sums saturate, wrongly, on x86-64 without VNNI; with it, AMX is not used, and int8 is no faster than
float32."""
CPUINFO = "/proc/cpuinfo"


def ask_for_exact_int8(options: Any) -> None:
    """Set `EXACT_INT8` of session options, unless Linux says that the processor has VNNI: its sums do not saturate."""
    try:
        with open(CPUINFO, encoding="ascii", errors="replace") as file:
            has_vnni = "vnni" in file.read()
    except OSError:  # another system
        has_vnni = False
    if not has_vnni:
        options.add_session_config_entry(*EXACT_INT8)


def _options(onnxruntime: Any, threads: Optional[int]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    ask_for_exact_int8(options)
    return options


def _load(onnxruntime: Any, path: Path, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of its own without a common base
        raise BadInput(
            f"onnxruntime cannot load it: {error}", where=str(path), remedy="export the model again"
        ) from error


def profile(
    path: Path, threads: Optional[int], inputs: Mapping[str, np.ndarray], runs: int
) -> Tuple[Tuple[str, int, int], ...]:
    """See `runtimes.session.profile`: from the trace that onnxruntime writes; the first inference is left out."""
    import tempfile

    onnxruntime = library(str(path))
    options = _options(onnxruntime, threads)
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _load(onnxruntime, path, options)
        for _ in range(runs + 1):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    found: Dict[str, Tuple[int, int]] = {}
    for event in kernels[len(kernels) // (runs + 1) :]:
        calls, total_ns = found.get(event["args"]["op_name"], (0, 0))
        found[event["args"]["op_name"]] = (calls + 1, total_ns + event["dur"] * 1000)
    return tuple(sorted(((name, *row) for name, row in found.items()), key=lambda row: -row[2]))


def open_session(path: Path, threads: Optional[int] = None) -> OnnxSession:
    """Load an ONNX file.

    Raises BadInput when onnxruntime is absent or refuses the file.
    """
    return OnnxSession(path, threads)
