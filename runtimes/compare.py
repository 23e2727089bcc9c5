"""Compare an artifact's outputs with the reference's: pure numpy, and NaN never passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np

from runtimes.signature import ExecutedBy
from runtimes.types import Artifact, Manifest, Parity

RELATIVE_TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
"""By the type of the arithmetic: the largest error allowed, over the output's largest absolute value. That is about
1,000 machine epsilons of float32 (1.2e-7) and 10 of float16 (9.8e-4). Six fp32 models measured 1e-7 to 3e-5, fp16 BERT
2e-3."""

SENSITIVITY_MARGIN = 10.0
"""The error must be this many times smaller than the change that a different input makes."""
NOISY_MARGIN = 2.0
"""The same where activations are quantized, whose rounding alone comes near to the larger margin."""
INT8_STEPS = 255
"""An output that changes by fewer than SENSITIVITY_MARGIN of so many steps of its size is the original's own fault."""
NOTHING_PROVEN = "agreement would prove nothing"
"""How the reason ends where the original is at fault: its own outputs change too little with the input."""

Outputs = Dict[str, np.ndarray]


@dataclass(frozen=True)
class Limits:
    """How far outputs may be off: `rtol` times the largest absolute reference value, `noise` (by output, the error that
    quantizing the activations makes by itself) where that is larger, or `atol` instead of both where it is given.
    """

    rtol: float = RELATIVE_TOLERANCE["float32"]
    atol: Optional[float] = None
    noise: Mapping[str, float] = field(default_factory=dict)

    def tolerance(self, output: str, largest: float) -> float:
        """The largest error allowed of a floating-point output whose largest absolute value is `largest`."""
        return self.atol if self.atol is not None else max(self.rtol * largest, self.noise.get(output, 0.0))


FLOAT32 = Limits()
"""Of float32 arithmetic, where nothing else is known."""


def limits_of(manifest: Manifest, artifact: Artifact) -> Limits:
    """The limits that an artifact of a bundle was proven by, and must keep wherever it runs."""
    atol = manifest.settings.get("atol")
    return Limits(RELATIVE_TOLERANCE[artifact.compute], None if atol is None else float(atol), artifact.noise)


@dataclass(frozen=True)
class OutputComparison:
    """One output over all samples: errors, agreement, and how much the reference itself changes."""

    name: str
    max_abs_error: float
    max_rel_error: float
    cosine: float
    snr_db: Optional[float]
    change: float
    tolerance: float
    fault: str


def compare_output(
    name: str, reference: Sequence[np.ndarray], actual: Sequence[np.ndarray], limits: Limits
) -> OutputComparison:
    """Compare one output over all samples (`reference[i]` and `actual[i]` of any one shape).

    Integers and booleans must be equal. `change` is the largest difference between the reference of the first and of
    any other sample of its shape.
    """

    def failed(fault: str) -> OutputComparison:
        return OutputComparison(name, math.inf, math.inf, 0.0, -math.inf, 0.0, 0.0, fault)

    for want, got in zip(reference, actual):
        if want.shape != got.shape:
            return failed(f"output {name!r} has shape {list(got.shape)} instead of {list(want.shape)}")
        if want.dtype.kind != got.dtype.kind:
            return failed(f"output {name!r} is {got.dtype} instead of {want.dtype}")
        if not np.all(np.isfinite(want)):
            return failed(f"PyTorch's own output {name!r} is not finite")
        if not np.all(np.isfinite(got)):
            return failed(f"output {name!r} holds NaN or infinity")

    want = np.concatenate([np.ravel(r) for r in reference]).astype(np.float64)
    got = np.concatenate([np.ravel(a) for a in actual]).astype(np.float64)
    error = want - got
    max_abs = float(np.max(np.abs(error), initial=0.0))
    scale = float(np.max(np.abs(want), initial=0.0))
    exact = reference[0].dtype.kind in "biu"
    tolerance = 0.0 if exact else limits.tolerance(name, scale)
    margin = NOISY_MARGIN if limits.noise.get(name) else SENSITIVITY_MARGIN
    change = _change(reference)
    fault = ""
    if exact and not all(map(np.array_equal, reference, actual)):
        max_abs = max(max_abs, 1.0)  # float64 cannot tell neighbours beyond 2**53 apart
        fault = f"output {name!r} must be equal and is off by {max_abs:.3g}"
    elif not max_abs <= tolerance:
        fault = f"output {name!r} is off by {max_abs:.3g}, allowed is {tolerance:.3g}"
    elif not exact and 0.0 < change < max_abs * margin:
        fault = _too_near(name, change, max_abs, scale)
    return OutputComparison(
        name=name,
        max_abs_error=max_abs,
        max_rel_error=max_abs / (scale or 1.0),
        cosine=_cosine(want, got),
        snr_db=_snr_db(want, error),
        change=change,
        tolerance=tolerance,
        fault=fault,
    )


def _too_near(name: str, change: float, max_abs: float, scale: float) -> str:
    """Whose fault it is that an allowed error comes near to the output's change: the original's, or the rounding's."""
    if change >= SENSITIVITY_MARGIN / INT8_STEPS * scale:
        return f"output {name!r} changes by only {change:.3g} between inputs, its error is {max_abs:.3g}"
    return (
        f"the original's own output {name!r} hardly changes with the input (sensitivity {change:.3g}, values up to "
        f"{scale:.3g}), so that an error of {max_abs:.3g}, which rounding may make, could hide a collapsed model: "
        f"{NOTHING_PROVEN}"
    )


def compare(reference: Sequence[Outputs], actual: Sequence[Outputs], executed_by: ExecutedBy, limits: Limits) -> Parity:
    """Parity of all outputs over all samples; the figures are those of the worst output.

    It fails where an output is missing, of another shape or kind, not finite, further off than allowed, and where no
    output changes with the input: a model collapsed to its bias agrees with any runtime.
    """
    if len(reference) != len(actual) or not reference:
        raise ValueError(f"{len(reference)} reference and {len(actual)} actual samples")
    names = list(reference[0])
    missing = [n for n in names if any(n not in outputs for outputs in actual)]
    if missing:
        return _parity([], executed_by, len(reference), f"output {missing[0]!r} is missing from the artifact")
    results = [compare_output(n, [r[n] for r in reference], [a[n] for a in actual], limits) for n in names]
    fault = next((r.fault for r in results if r.fault), "")
    if not fault and not any(r.change > 0.0 for r in results):
        fault = f"no output changes when the input does: {NOTHING_PROVEN}"
    return _parity(results, executed_by, len(reference), fault)


def _parity(results: List[OutputComparison], executed_by: ExecutedBy, samples: int, fault: str) -> Parity:
    worst = max(results, key=lambda r: r.max_rel_error, default=None)
    changes = [r.change for r in results if r.change > 0.0]
    return Parity(
        max_abs_error=max((r.max_abs_error for r in results), default=math.inf),
        max_rel_error=worst.max_rel_error if worst else math.inf,
        cosine=min((r.cosine for r in results), default=0.0),
        snr_db=_lowest([r.snr_db for r in results]),
        sensitivity=min(changes, default=0.0),
        tolerance=worst.tolerance if worst else 0.0,
        samples=samples,
        executed_by=executed_by,
        verdict="fail" if fault else "pass",
        reason=fault,
    )


def _lowest(values: List[Optional[float]]) -> Optional[float]:
    known = [v for v in values if v is not None]
    return min(known) if known else None


def _change(samples: Sequence[np.ndarray]) -> float:
    """Largest difference from the first sample among those of its shape; 1.0 where all others have another shape."""
    first, others = samples[0].astype(np.float64), samples[1:]
    alike = [s for s in others if s.shape == first.shape]
    if others and not alike:
        return 1.0
    return max((float(np.max(np.abs(s - first), initial=0.0)) for s in alike), default=0.0)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b) / norm) if norm else (1.0 if not a.any() and not b.any() else 0.0)


def _snr_db(signal: np.ndarray, error: np.ndarray) -> Optional[float]:
    """10 log10(sum signal^2 / sum error^2); None where one of the sums is zero."""
    noise, power = float(np.sum(error**2)), float(np.sum(signal**2))
    return 10.0 * math.log10(power / noise) if noise and power else None
