"""What goes into an artifact and comes out of it, and what computed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple, Union

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
