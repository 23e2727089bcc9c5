"""What goes into an artifact and comes out of it, and what computed it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Tuple, Union

from runtimes.errors import ParityFailed

Dimension = Union[int, str]
"""A fixed length, or the name of a dynamic axis."""


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output; `dtype` is numpy's name, a string in `shape` names a dynamic axis."""

    name: str
    dtype: str
    shape: Tuple[Dimension, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model or an artifact, in order."""

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ExecutedBy:
    """What computed a result: the runtime, its version, and one of `runtimes.types.EXECUTION_KINDS`."""

    runtime: str
    version: str
    kind: str


def agree(model: Signature, artifact: Signature, where: str) -> Signature:
    """The artifact's signature in the model's order, with the model's names for dynamic axes.

    Raises ParityFailed when the artifact has other inputs or outputs than the model, or one with more or fewer axes.
    """
    inputs = _matched(model.inputs, artifact.inputs, "input", where)
    return Signature(inputs, _matched(model.outputs, artifact.outputs, "output", where))


def _matched(
    wanted: Tuple[TensorSpec, ...], found: Tuple[TensorSpec, ...], role: str, where: str
) -> Tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in found}
    fault = ""
    if set(by_name) != {spec.name for spec in wanted}:
        fault = f"its {role}s are {', '.join(sorted(by_name))} instead of {', '.join(s.name for s in wanted)}"
    for spec in () if fault else wanted:
        if len(spec.shape) != len(by_name[spec.name].shape):
            fault = f"its {role} {spec.name} has {len(by_name[spec.name].shape)} axes instead of {len(spec.shape)}"
    if fault:
        raise ParityFailed(fault, where=where, remedy="the artifact is refused")
    return tuple(_with_names(by_name[spec.name], spec) for spec in wanted)


def _with_names(found: TensorSpec, model: TensorSpec) -> TensorSpec:
    """`found` with the model's word for each axis that may vary."""
    shape = zip(model.shape, found.shape)
    return replace(found, shape=tuple(named if isinstance(axis, str) else axis for named, axis in shape))
