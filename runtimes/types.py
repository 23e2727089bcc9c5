"""The values that pass between the rooms: frozen dataclasses, units in the field names, JSON-ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple, Union

from runtimes.signature import ExecutedBy, Signature

SCHEMA_VERSION = 1

SUFFIX_OF = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}
FORMATS = tuple(SUFFIX_OF)
PRECISIONS = ("float32", "float16", "int8", "int4", "ternary")
COMPUTE_TYPES = ("float32", "float16")
EXECUTION_KINDS = ("physical", "emulated", "browser", "off-device")


@dataclass(frozen=True)
class Parity:
    """How far an artifact's outputs lie from PyTorch's, over `samples` inputs.

    `max_rel_error` is the largest absolute error of an output over that output's largest absolute value, over 1 where
    that is all zero; `snr_db` is None when there is no error at all, or no signal; `sensitivity` is how much the
    reference output changes between the samples, so that a model which ignores its input cannot pass; `nearest_error`
    is the absolute error of the output that comes nearest to its `tolerance`, or goes furthest beyond it, None where no
    output was compared; `verdict` is "pass" or "fail", `reason` says why it failed. `not_proven` names the outputs, and
    the columns and channels of them, that agree, but would if they were constant, too.
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
    not_proven: Tuple[str, ...] = ()
    nearest_error: Optional[float] = None


@dataclass(frozen=True)
class Artifact:
    """One file (or package folder) of a bundle; `path` and `golden` are relative to the bundle.

    `precision` is that of its weights (of the smallest, where a recipe made several), `compute` that of its arithmetic
    outside of integer layers. `noise` gives, for outputs behind quantized activations, the error that their rounding
    makes by itself. `representations` names the low-bit weights and how each is stored; `left_float` those that could
    not be, with the reason.
    """

    format: str
    path: str
    size_bytes: int
    sha256: str
    precision: str
    signature: Signature
    parity: Parity
    compute: str = "float32"
    golden: str = "golden.npz"
    noise: Dict[str, float] = field(default_factory=dict)
    representations: Dict[str, str] = field(default_factory=dict)
    left_float: Dict[str, str] = field(default_factory=dict)


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
class RecipeStep:
    """One pass of a recipe: its name, its settings as they were used, and what it noted."""

    name: str
    settings: Dict[str, Any]
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """An artifact's figure on `samples` samples of a test split, and the 95% interval of it.

    `of_samples` is how many the split has, None where that was not kept: fewer were taken where a limit, or the time
    that an artifact is given, cut it short. `value`, `low` and `high` are shares of 1, the higher the better; `others`
    holds the task's further figures.
    """

    metric: str
    value: float
    low: float
    high: float
    samples: int
    others: Dict[str, float] = field(default_factory=dict)
    of_samples: Optional[int] = None


@dataclass(frozen=True)
class Latency:
    """Medians on the machine that exported, and how many times faster than the original of the same format.

    Both were measured in turns; `speedup_low` to `speedup_high` is the 95% interval of the ratio: where it contains 1,
    no difference is shown. `threads` is None where the runtime chooses. `load` is the load average of the `cores` cores
    while it was measured, both None where the system tells neither.
    """

    median_ms: float
    baseline_median_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    threads: Optional[int] = None
    load: Optional[float] = None
    cores: Optional[int] = None


@dataclass(frozen=True)
class LedgerRow:
    """What one artifact costs and is worth after stage `index` of a recipe; stage 0 is the original.

    `parameters` and `nonzero` count the elements of the PyTorch module's parameters. `gzip_bytes` is the artifact
    compressed by zlib, `sparse_bytes` what it would take with its weights in the format's own sparse encoding wherever
    that is smaller. `waterfall` says where its bytes went and adds up to `size_bytes`. `not_timed` says why there is no
    latency.
    """

    index: int
    stage: str
    format: str
    parameters: int
    nonzero: int
    size_bytes: int
    gzip_bytes: int
    sparse_bytes: int
    waterfall: Dict[str, int]
    accuracy: Optional[Accuracy] = None
    latency: Optional[Latency] = None
    not_timed: str = ""


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
    recipe: Tuple[RecipeStep, ...] = ()
    ledger: Tuple[LedgerRow, ...] = ()
