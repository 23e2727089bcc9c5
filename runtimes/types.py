"""The values that pass between the rooms: frozen dataclasses, units in the field names, JSON-ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple, Union

SCHEMA_VERSION = 1

FORMATS = ("onnx", "tflite", "coreml")
PRECISIONS = ("float32", "float16")
EXECUTION_KINDS = ("physical", "emulated", "browser", "off-device")

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
    """What computed a result: the runtime, its version, and one of `EXECUTION_KINDS`."""

    runtime: str
    version: str
    kind: str


@dataclass(frozen=True)
class Parity:
    """How far an artifact's outputs lie from PyTorch's, over `samples` inputs.

    `max_rel_error` is the largest absolute error of an output over that output's largest absolute value, over 1 where
    that is all zero; `snr_db` is None when there is no error at all, or no signal; `sensitivity` is how much the
    reference output changes between the samples, so that a model which ignores its input cannot pass; `verdict` is
    "pass" or "fail", `reason` says why it failed.
    """

    max_abs_error: float
    max_rel_error: float
    cosine: float
    snr_db: Optional[float]
    sensitivity: float
    tolerance: float
    samples: int
    executed_by: ExecutedBy
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Artifact:
    """One file (or package folder) of a bundle; `path` is relative to the bundle, `precision` that of its weights."""

    format: str
    path: str
    size_bytes: int
    sha256: str
    precision: str
    signature: Signature
    parity: Parity


@dataclass(frozen=True)
class Origin:
    """Where the model came from: the source as typed, its kind, its weights' hash.

    `weights` is "pretrained", "random", or "as given" for a module that the user built.
    """

    source: str
    kind: str
    weights_sha256: str
    weights: str
    parameters: int
    task: Optional[str] = None
    license: Optional[str] = None


@dataclass(frozen=True)
class BundleFile:
    """Another file of a bundle: golden values, tokenizer, README."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds: see docs/manifest.md."""

    schema_version: int
    name: str
    origin: Origin
    signature: Signature
    artifacts: Tuple[Artifact, ...]
    files: Tuple[BundleFile, ...]
    tool_versions: Dict[str, str]
    settings: Dict[str, Union[str, int, float, bool]] = field(default_factory=dict)
