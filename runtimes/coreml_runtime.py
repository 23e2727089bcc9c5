"""Core ML packages: in Core ML itself on macOS, in the numpy evaluator (checked off-device) elsewhere."""

from __future__ import annotations

import importlib
import platform
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from runtimes.errors import BadInput, ParityFailed, PocketshipError
from runtimes.mil.evaluator import declared_outputs, evaluate, load_program, protocol_buffers
from runtimes.mil.package import specification_of
from runtimes.session import fit
from runtimes.signature import ExecutedBy, Signature, TensorSpec

Compute = Callable[[Dict[str, np.ndarray]], Mapping[str, np.ndarray]]

ARRAY_TYPES = {65568: "float32", 65552: "float16", 131104: "int32", 65600: "float64", 131080: "int8"}
"""Core ML's ArrayDataType -> numpy's name (FeatureTypes.proto)."""


def read_specification(package: Path) -> Tuple[Any, Path]:
    """The Model protocol buffer of a package, and the folder of its weights.

    Raises BadInput when the package is missing, damaged, or no ML Program with the one function "main".
    """
    specification = protocol_buffers().Model()
    DecodeError = importlib.import_module("google.protobuf.message").DecodeError  # present wherever coremltools is

    model = specification_of(package)
    try:
        specification.ParseFromString(model.read_bytes())
    except (OSError, DecodeError) as error:
        cause = f"not a readable Core ML package ({type(error).__name__}: {error})"
        raise BadInput(cause, where=str(package), remedy="export the model again") from error
    kind = specification.WhichOneof("Type")
    if kind != "mlProgram":
        raise BadInput(f"not an ML Program but {kind}", where=str(package), remedy='convert it to "mlprogram"')
    functions = sorted(specification.mlProgram.functions)
    if functions != ["main"]:
        raise BadInput(f"it has the functions {functions}", where=str(package), remedy='save one function, "main"')
    return specification, model.parent / "weights"


def _feature_spec(feature: Any) -> TensorSpec:
    """An input or output of the description; an axis that may vary is called `name_axis0`."""
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        raise BadInput(f"takes or gives {kind}, not an array", where=feature.name, remedy="convert it with TensorType")
    array = feature.type.multiArrayType
    lengths = [{int(length)} for length in array.shape]
    for axis, limits in enumerate(array.shapeRange.sizeRanges):
        lengths[axis] |= {limits.lowerBound, limits.upperBound}
    for allowed in array.enumeratedShapes.shapes:
        for axis, length in enumerate(allowed.shape):
            lengths[axis].add(int(length))
    shape = tuple(next(iter(s)) if len(s) == 1 else f"{feature.name}_axis{axis}" for axis, s in enumerate(lengths))
    return TensorSpec(feature.name, ARRAY_TYPES[array.dataType], shape)


def _refuse_other_shapes(feature: Any, shape: Tuple[int, ...]) -> None:
    """Core ML takes flexible shapes within their range or list only."""
    array = feature.type.multiArrayType
    listed = [tuple(allowed.shape) for allowed in array.enumeratedShapes.shapes]
    ranges = [(limits.lowerBound, limits.upperBound) for limits in array.shapeRange.sizeRanges]
    if (listed and shape not in listed) or any(n < low or 0 <= high < n for n, (low, high) in zip(shape, ranges)):
        raise BadInput(
            f"input has shape {list(shape)}, outside the shapes the artifact takes",
            where=feature.name,
            remedy=f"give one of {listed}" if listed else f"keep each axis within {ranges} (-1: no limit)",
        )


def signature_of(specification: Any) -> Signature:
    """Inputs and outputs of a package that `read_specification` read."""
    dtypes = {feature.name: _feature_spec(feature).dtype for feature in specification.description.output}
    outputs = declared_outputs(specification.mlProgram)
    return Signature(
        tuple(map(_feature_spec, specification.description.input)),
        tuple(TensorSpec(spec.name, dtypes[spec.name], spec.shape) for spec in outputs),
    )


class CoreMlSession:
    """A `Session` over one ML Program."""

    def __init__(self, path: Path) -> None:
        specification, weights_folder = read_specification(path)
        self._path = path
        self._features = list(specification.description.input)
        self.signature = signature_of(specification)
        if sys.platform == "darwin":
            self._compute = self._native_model()
            self.executed_by = ExecutedBy("Core ML", platform.mac_ver()[0], "physical")
        else:
            self._compute = partial(evaluate, load_program(specification.mlProgram, weights_folder))
            self.executed_by = ExecutedBy("pocketship MIL evaluator on numpy", np.__version__, "off-device")

    def _native_model(self) -> Compute:
        from coremltools.models import MLModel

        try:
            return MLModel(str(self._path)).predict
        except Exception as error:  # coremltools raises Exception itself
            cause = f"Core ML cannot load it: {error}"
            raise BadInput(cause, where=str(self._path), remedy="export the model again") from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """See `Session.run`."""
        feeds = {}
        for spec, feature in zip(self.signature.inputs, self._features):
            feeds[spec.name] = fit(inputs[spec.name], spec)
            _refuse_other_shapes(feature, feeds[spec.name].shape)
        try:
            outputs = self._compute(feeds)
        except PocketshipError:
            raise
        except Exception as error:  # coremltools raises Exception itself
            cause = f"Core ML cannot run it: {error}"
            raise ParityFailed(cause, where=str(self._path), remedy="see what Xcode says of it") from error
        return {spec.name: np.asarray(outputs[spec.name], spec.dtype) for spec in self.signature.outputs}

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """See `Session.bind`."""
        return partial(self._compute, dict(inputs))

    def close(self) -> None:
        """See `Session.close`."""
        del self._compute


def library(where: str = "") -> Any:
    """Import what runs a package: coremltools on macOS, elsewhere its protocol buffers, which are all that is needed.

    Raises BadInput where it is absent.
    """
    return importlib.import_module("coremltools") if sys.platform == "darwin" else protocol_buffers()


def open_session(path: Path, threads: Optional[int] = None) -> CoreMlSession:
    """Load a Core ML package.

    Raises BadInput when coremltools is absent or the package cannot be used, or for `threads`, which Core ML chooses
    itself; UnsupportedOperation, off macOS, when the evaluator lacks an operation.
    """
    if threads is not None:
        raise BadInput("Core ML takes no number of threads", where=str(path), remedy="leave the choice to it")
    return CoreMlSession(path)
