"""TFLite files in LiteRT on the CPU, with its default delegate (XNNPACK)."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping, Optional

import numpy as np

from runtimes.errors import BadInput, NotInstalled
from runtimes.session import feeds
from runtimes.types import ExecutedBy, Signature, TensorSpec


def _spec(name: str, details: dict) -> TensorSpec:
    lengths = details.get("shape_signature", details["shape"])
    if len(lengths) == 0:
        lengths = details["shape"]
    shape = tuple(int(d) if d >= 0 else f"{name}_axis{i}" for i, d in enumerate(lengths))
    return TensorSpec(name, np.dtype(details["dtype"]).name, shape)


class LiteRtSession:
    """A `Session` over the one signature of a TFLite file."""

    def __init__(self, path: Path, threads: Optional[int]) -> None:
        try:
            from ai_edge_litert import __version__ as version
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise NotInstalled(
                "LiteRT is not installed", where=str(path), remedy="pip install 'pocketship[litert]'"
            ) from error
        try:
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
            key, names = next(iter(self._interpreter.get_signature_list().items()))
            self._runner = self._interpreter.get_signature_runner(key)
        except (ValueError, RuntimeError) as error:
            raise BadInput(
                f"LiteRT cannot load it: {error}", where=str(path), remedy="export the model again"
            ) from error
        except StopIteration as error:
            raise BadInput("the file has no signature", where=str(path), remedy="convert it with one") from error
        inputs, outputs = self._runner.get_input_details(), self._runner.get_output_details()
        self.signature = Signature(
            tuple(_spec(n, inputs[n]) for n in names["inputs"]), tuple(_spec(n, outputs[n]) for n in names["outputs"])
        )
        self.executed_by = ExecutedBy("LiteRT", version, "physical")

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """See `Session.run`."""
        outputs = self._runner(**feeds(inputs, self.signature))
        return {spec.name: np.array(outputs[spec.name]) for spec in self.signature.outputs}

    def close(self) -> None:
        """See `Session.close`."""
        del self._runner, self._interpreter


def open_session(path: Path, threads: Optional[int] = None) -> LiteRtSession:
    """Load a TFLite file.

    Raises BadInput when LiteRT is absent or refuses the file.
    """
    return LiteRtSession(path, threads)
