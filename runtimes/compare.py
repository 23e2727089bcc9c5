"""Compare an artifact's outputs with the reference's, part by part: pure numpy, and NaN never passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from runtimes.parts import Axis, axes_of, largest_by_part
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
EPSILON = float(np.finfo(np.float32).eps)
"""No part is judged more finely than the last place of its output's largest value."""
NOTHING_PROVEN = "agreement would prove nothing"
"""How the reason ends where the original is at fault: its own outputs change too little with the input."""

Outputs = Dict[str, np.ndarray]
PartNoise = Mapping[str, Mapping[int, np.ndarray]]
"""output -> axis -> what rounding may change in each part along it, as golden.npz has it for a format."""


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

    def axes(self, output: str, reference: Sequence[np.ndarray], measured: Optional[PartNoise]) -> Tuple[Axis, ...]:
        """The axes whose parts are judged one by one, with what each part may be off by.

        That is `rtol` times the part's own spread or its `measured` noise, whichever is more: a tensor that holds boxes
        in pixels beside scores is not judged by its pixels. Where the noise was not measured, or `atol` is given, it is
        the output's own tolerance. Integers may not be off at all.
        """
        largest = max((float(np.max(np.abs(r.astype(np.float64)), initial=0.0)) for r in reference), default=0.0)
        exact = reference[0].dtype.kind in "biu"
        most = 0.0 if exact else self.tolerance(output, largest)
        by_axis = None if exact or self.atol is not None or measured is None else measured.get(output)
        return axes_of(reference, by_axis, self.rtol, EPSILON * largest, most)


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
    not_proven: Tuple[str, ...] = ()


def compare_output(
    name: str,
    reference: Sequence[np.ndarray],
    actual: Sequence[np.ndarray],
    limits: Limits,
    measured: Optional[PartNoise] = None,
) -> OutputComparison:
    """Compare one output over all samples (`reference[i]` and `actual[i]` of any one shape), whole and part by part.

    Integers and booleans must be equal. What is `not_proven` agrees, but a constant in its place would, too. `change`
    is the largest difference of the reference of a sample from that of the first one of its shape.
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
    axes = limits.axes(name, reference, measured)
    fault = fault or next(filter(None, (_worst_part(name, axis, reference, actual) for axis in axes)), "")
    return OutputComparison(
        name=name,
        max_abs_error=max_abs,
        max_rel_error=max_abs / (scale or 1.0),
        cosine=_cosine(want, got),
        snr_db=_snr_db(want, error),
        change=change,
        tolerance=tolerance,
        fault=fault,
        not_proven=_not_proven(name, reference, axes, change),
    )


def _worst_part(name: str, axis: Axis, reference: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> str:
    """The part along `axis` that is furthest beyond its tolerance, in words; empty where none is."""
    errors = [np.abs(want.astype(np.float64) - got) for want, got in zip(reference, actual)]
    off = np.max([largest_by_part(error, axis.axis) for error in errors], axis=0)
    beyond = off - axis.tolerance
    worst = int(np.argmax(beyond))
    if off[worst] <= axis.tolerance[worst]:
        return ""
    return (
        f"output {name!r} is off by {off[worst]:.3g} in its {axis.at(worst)}, allowed is {axis.tolerance[worst]:.3g} "
        "there"
    )


def _not_proven(name: str, reference: Sequence[np.ndarray], axes: Sequence[Axis], change: float) -> Tuple[str, ...]:
    if change == 0.0:
        return (f"output {name!r} never changes over the golden inputs",)
    if len({r.shape for r in reference}) == len(reference):
        return (f"output {name!r} has another shape for every golden input, so that no two can be compared",)
    return (*(line for axis in axes for line in axis.not_proven(name)), *_order(name, reference, axes))


def _order(name: str, reference: Sequence[np.ndarray], axes: Sequence[Axis]) -> Tuple[str, ...]:
    """What to say of scores in which the first is never clear of the second.

    Where the reference's first value leads by more than two tolerances, an artifact within them has the same first, and
    so it is with the first k: agreement in order follows from agreement in value, and is not asked again. It does not
    follow where no lead is so large; then every golden input may be classified otherwise. Scores are known as such by
    lying between 0 and 1 along the last axis.
    """
    last = reference[0].ndim - 1
    if not any(axis.axis == last for axis in axes) or reference[0].dtype.kind != "f":
        return ()
    rows = np.concatenate([r.reshape(-1, r.shape[-1]) for r in reference]).astype(np.float64)
    if not rows.size or rows.min() < 0.0 or rows.max() > 1.0:
        return ()
    allowed = next(axis.tolerance for axis in axes if axis.axis == last)
    order = np.argsort(rows, axis=1)
    first, second = order[:, -1], order[:, -2]
    every = np.arange(len(rows))
    if np.any(rows[every, first] - rows[every, second] > allowed[first] + allowed[second]):
        return ()
    return (f"output {name!r}: its largest score is never clear of the second by more than may be off",)


def _too_near(name: str, change: float, max_abs: float, scale: float) -> str:
    """Whose fault it is that an allowed error comes near to the output's change: the original's, or the rounding's."""
    if change >= SENSITIVITY_MARGIN / INT8_STEPS * scale:
        return f"output {name!r} changes by only {change:.3g} between inputs, its error is {max_abs:.3g}"
    return (
        f"the original's own output {name!r} hardly changes with the input (sensitivity {change:.3g}, values up to "
        f"{scale:.3g}), so that an error of {max_abs:.3g}, which rounding may make, could hide a collapsed model: "
        f"{NOTHING_PROVEN}"
    )


def compare(
    reference: Sequence[Outputs],
    actual: Sequence[Outputs],
    executed_by: ExecutedBy,
    limits: Limits,
    measured: Optional[PartNoise] = None,
) -> Parity:
    """Parity of all outputs over all samples; the figures are those of the worst output.

    It fails where an output is missing, of another shape or kind, not finite, further off than allowed, whole or in one
    of its parts, and where no output changes with the input: a model collapsed to its bias agrees with any runtime.
    `measured` is the golden values' `noise` for the artifact's format; without it, parts are not judged by their own
    spread.
    """
    if len(reference) != len(actual) or not reference:
        raise ValueError(f"{len(reference)} reference and {len(actual)} actual samples")
    names = list(reference[0])
    missing = [n for n in names if any(n not in outputs for outputs in actual)]
    if missing:
        return _parity([], executed_by, len(reference), f"output {missing[0]!r} is missing from the artifact")
    results = [compare_output(n, [r[n] for r in reference], [a[n] for a in actual], limits, measured) for n in names]
    fault = next((r.fault for r in results if r.fault), "")
    if not fault and not any(r.change > 0.0 for r in results):
        fault = f"no output changes when the input does: {NOTHING_PROVEN}"
    return _parity(results, executed_by, len(reference), fault)


def _parity(results: List[OutputComparison], executed_by: ExecutedBy, samples: int, fault: str) -> Parity:
    nearest = max(results, key=_of_allowed, default=None)
    changes = [r.change for r in results if r.change > 0.0]
    return Parity(
        max_abs_error=max((r.max_abs_error for r in results), default=math.inf),
        max_rel_error=max((r.max_rel_error for r in results), default=math.inf),
        cosine=min((r.cosine for r in results), default=0.0),
        snr_db=_lowest([r.snr_db for r in results]),
        sensitivity=min(changes, default=0.0),
        tolerance=nearest.tolerance if nearest else 0.0,
        samples=samples,
        executed_by=executed_by,
        verdict="fail" if fault else "pass",
        reason=fault,
        not_proven=tuple(line for r in results for line in r.not_proven),
        nearest_error=nearest.max_abs_error if nearest and math.isfinite(nearest.max_abs_error) else None,
    )


def _of_allowed(result: OutputComparison) -> float:
    """The error over the tolerance; of what must be equal, none or infinitely much."""
    if result.max_abs_error == 0.0:
        return 0.0
    return result.max_abs_error / result.tolerance if result.tolerance else math.inf


def _lowest(values: List[Optional[float]]) -> Optional[float]:
    known = [v for v in values if v is not None]
    return min(known) if known else None


def _change(samples: Sequence[np.ndarray]) -> float:
    """Largest difference of a sample from the first one of its shape; 1.0 where each has a shape of its own."""
    firsts: Dict[Tuple[int, ...], np.ndarray] = {}
    pairs = [(s.astype(np.float64), firsts.setdefault(s.shape, s)) for s in samples]
    if len(firsts) == len(samples) > 1:
        return 1.0
    return max(float(np.max(np.abs(s - first), initial=0.0)) for s, first in pairs)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b) / norm) if norm else (1.0 if not a.any() and not b.any() else 0.0)


def _snr_db(signal: np.ndarray, error: np.ndarray) -> Optional[float]:
    """10 log10(sum signal^2 / sum error^2); None where one of the sums is zero."""
    noise, power = float(np.sum(error**2)), float(np.sum(signal**2))
    return 10.0 * math.log10(power / noise) if noise and power else None
