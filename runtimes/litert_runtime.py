"""TFLite files in LiteRT on the CPU, with its default delegate (XNNPACK); on 32-bit boards in the older tflite-runtime.

LiteRT has no wheels for 32-bit ARM. tflite-runtime 2.14 has; it computes some files wrongly, in silence, and crashes on
others: these are refused.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np

from runtimes.emulation import execution
from runtimes.errors import BadInput, NotInstalled
from runtimes.session import feeds
from runtimes.signature import ExecutedBy, Signature, TensorSpec


def _spec(name: str, details: dict) -> TensorSpec:
    lengths = details.get("shape_signature", details["shape"])
    if len(lengths) == 0:
        lengths = details["shape"]
    shape = tuple(int(d) if d >= 0 else f"{name}_axis{i}" for i, d in enumerate(lengths))
    return TensorSpec(name, np.dtype(details["dtype"]).name, shape)


class LiteRtSession:
    """A `Session` over the one signature of a TFLite file."""

    def __init__(self, path: Path, threads: Optional[int]) -> None:
        module = library(str(path))
        is_old = module.__name__.startswith("tflite_runtime")
        name = "tflite-runtime" if is_old else "LiteRT"
        try:
            self._interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
            if is_old:
                _refuse_what_it_computes_wrongly(self._interpreter, path)
            self._interpreter.allocate_tensors()
            signatures = self._interpreter.get_signature_list()
            runners = [self._interpreter.get_signature_runner(key) for key in signatures]
        except (ValueError, RuntimeError) as error:
            raise BadInput(
                f"{name} cannot load it: {error}", where=str(path), remedy="export the model again"
            ) from error
        if [runner._subgraph_index for runner in runners] != [0]:  # an app that names no signature runs the first graph
            cause = "the file has not one signature, that of its first graph"
            raise BadInput(cause, where=str(path), remedy="convert it with one")
        (self._runner,), (names,) = runners, signatures.values()
        inputs, outputs = self._runner.get_input_details(), self._runner.get_output_details()
        self.signature = Signature(
            tuple(_spec(n, inputs[n]) for n in names["inputs"]), tuple(_spec(n, outputs[n]) for n in names["outputs"])
        )
        self.executed_by = ExecutedBy(name, _version(module), execution())

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """See `Session.run`."""
        outputs = self._runner(**feeds(inputs, self.signature))
        return {spec.name: np.array(outputs[spec.name]) for spec in self.signature.outputs}

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """See `Session.bind`: the inputs stay set."""
        self._runner(**inputs)
        # The runner's own call: the interpreter's refuses to run while a runner shares it.
        return partial(self._runner._interpreter_wrapper.Invoke, self._runner._subgraph_index)

    def close(self) -> None:
        """See `Session.close`."""
        del self._runner, self._interpreter


def library(where: str = "") -> Any:
    """Import LiteRT's interpreter, or tflite-runtime's; raises NotInstalled where both are absent."""
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        try:
            from tflite_runtime import interpreter
        except ImportError as error:
            remedy = "pip install 'pocketship[litert]'"
            raise NotInstalled("LiteRT is not installed", where=where, remedy=remedy) from error
    return interpreter


def _version(module: Any) -> str:
    package = module.__name__.partition(".")[0]
    return str(importlib.import_module(package).__version__)


def _refuse_what_it_computes_wrongly(interpreter: Any, path: Path) -> None:
    """tflite-runtime 2.14 reads one scale where a hybrid FULLY_CONNECTED has one a channel, and crashes on int4.

    Raises BadInput for such a file, before any kernel is prepared.
    """
    try:
        tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    except (ValueError, RuntimeError, TypeError) as error:  # it knows no type of fewer than 8 bits
        raise BadInput(OLD + f"cannot read its tensors ({error})", where=str(path), remedy=NEWER) from error
    for operation in interpreter._get_ops_details():
        taken = [tensors[i] for i in operation["inputs"] if i in tensors]
        if operation["op_name"] == "FULLY_CONNECTED" and taken[0]["dtype"] == np.float32:
            weight = taken[1]
            scales = weight["quantization_parameters"]["scales"]
            if weight["dtype"] == np.int8 and len(scales) > 1:
                wrong = OLD + "computes dynamic int8 with one scale a channel wrongly"
                raise BadInput(wrong, where=str(path), remedy=NEWER)
        if any(np.dtype(tensor["dtype"]).itemsize == 0 for tensor in taken):
            raise BadInput(OLD + "crashes on weights of fewer than 8 bits", where=str(path), remedy=NEWER)


OLD = "tflite-runtime 2.14 "
NEWER = "bench it on a 64-bit system with LiteRT, or export float32 or static int8"


def open_session(path: Path, threads: Optional[int] = None) -> LiteRtSession:
    """Load a TFLite file.

    Raises BadInput when LiteRT is absent or refuses the file.
    """
    return LiteRtSession(path, threads)
