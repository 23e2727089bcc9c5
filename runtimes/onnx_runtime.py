"""ONNX files in onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import numpy as np

from runtimes.errors import BadInput, NotInstalled
from runtimes.session import feeds
from runtimes.types import ExecutedBy, Signature, TensorSpec

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
        try:
            import onnxruntime
        except ImportError as error:
            raise NotInstalled(
                "onnxruntime is not installed", where=str(path), remedy="pip install 'pocketship[onnxruntime]'"
            ) from error
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: one for each core
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a family of its own without a common base
            raise BadInput(
                f"onnxruntime cannot load it: {error}", where=str(path), remedy="export the model again"
            ) from error
        self.signature = Signature(
            tuple(map(_spec, self._session.get_inputs())), tuple(map(_spec, self._session.get_outputs()))
        )
        self.executed_by = ExecutedBy("onnxruntime", onnxruntime.__version__, "physical")

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """See `Session.run`."""
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self._session.run(names, feeds(inputs, self.signature))))

    def close(self) -> None:
        """See `Session.close`."""
        del self._session


def open_session(path: Path, threads: Optional[int] = None) -> OnnxSession:
    """Load an ONNX file.

    Raises BadInput when onnxruntime is absent or refuses the file.
    """
    return OnnxSession(path, threads)
