"""The parts of an output, its columns and channels: how far each spreads, moves with the input, and may be off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

PARTS = range(2, 4097)
"""How long an axis may be whose indices are judged one by one: a longer one holds places, not kinds."""
PEAK = 5.0
"""What normal noise stays under in a million values (its 5 sigma): few values of a part do not show their largest."""
NAMED = 8
"""Parts that a line names; the rest is counted."""

Rows = Dict[int, np.ndarray]
"""axis -> one number for each index along it."""


def judged_axes(samples: Sequence[np.ndarray]) -> Tuple[int, ...]:
    """The axes whose indices are parts: as long in every sample, and of a length in PARTS."""
    shapes = [sample.shape for sample in samples]
    if len({len(shape) for shape in shapes}) != 1:
        return ()
    lengths = [{shape[axis] for shape in shapes} for axis in range(len(shapes[0]))]
    return tuple(axis for axis, found in enumerate(lengths) if len(found) == 1 and found <= set(PARTS))


def largest_by_part(values: np.ndarray, axis: int) -> np.ndarray:
    """[..., n along `axis`, ...] -> [n]: the largest value at each index; zeros where there are none."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    return np.asarray(np.max(values, axis=others, initial=0.0))


def spread(samples: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """[n]: how far apart the values of each part lie, over all samples."""
    rows = np.concatenate([_rows(sample, axis) for sample in samples], axis=1)
    return np.asarray(np.ptp(rows, axis=1)) if rows.shape[1] else np.zeros(len(rows))


def movement(samples: Sequence[np.ndarray], axis: int) -> Optional[np.ndarray]:
    """[n]: by how much the element of each part that moves most changes between samples of one shape.

    None where every sample has a shape of its own.
    """
    by_shape: Dict[Tuple[int, ...], List[np.ndarray]] = {}
    for sample in samples:
        by_shape.setdefault(sample.shape, []).append(sample.astype(np.float64))
    groups = [np.stack(group) for group in by_shape.values() if len(group) > 1]
    if not groups and len(by_shape) > 1:
        return None
    moved = [largest_by_part(np.ptp(group, axis=0), axis) for group in groups]
    return np.asarray(np.max(moved, axis=0)) if moved else np.zeros(samples[0].shape[axis])


def noise(errors: Sequence[np.ndarray], samples: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """[n]: what rounding may change in each part of `samples`, where it was seen to change it by `errors`.

    The largest seen, or PEAK times the root of the mean square: a part of few values has not shown its largest. A part
    whose errors happened to be small gets the median part's share of its spread.
    """
    rows = np.concatenate([_rows(error, axis) for error in errors], axis=1)
    if not rows.shape[1]:
        return np.zeros(len(rows))
    typical, own = np.sqrt(np.mean(rows**2, axis=1)), spread(samples, axis)
    shares = typical[own > 0.0] / own[own > 0.0]
    usual = float(np.median(shares)) * own if len(shares) and np.isfinite(shares).all() else np.zeros_like(own)
    return np.asarray(np.maximum(np.max(np.abs(rows), axis=1), PEAK * np.maximum(typical, usual)))


def _rows(sample: np.ndarray, axis: int) -> np.ndarray:
    """[..., n along `axis`, ...] -> [n, the rest], as float64."""
    moved = np.moveaxis(sample, axis, 0).astype(np.float64)
    return moved.reshape(len(moved), -1) if moved.size else np.zeros((len(moved), 0))


@dataclass(frozen=True)
class Axis:
    """The parts along one axis of an output: what each may be off by, and how much the reference moves it.

    `movement` is None where no two samples have one shape.
    """

    axis: int
    rank: int
    tolerance: np.ndarray
    movement: Optional[np.ndarray]

    def not_proven(self, name: str) -> List[str]:
        """The parts that a constant could stand in for, in one line for each reason."""
        if self.movement is None:
            return []
        still = self.movement == 0.0
        within = ~still & (self.movement <= 2.0 * self.tolerance)
        lines = []
        if still.any():
            verb = "changes" if still.sum() == 1 else "change"
            lines.append(f"{self._in_words(name, still)} never {verb} over the golden inputs")
        if within.any():
            verb, them = ("changes", "it") if within.sum() == 1 else ("change", "them")
            lines.append(f"{self._in_words(name, within)} {verb} too little to tell {them} from a constant")
        return lines

    def at(self, index: int) -> str:
        """What a part is called."""
        return f"{self._kind()} {index}"

    def _kind(self) -> str:
        if self.axis == self.rank - 1:
            return "column"
        return "channel" if self.axis == 1 else f"axis-{self.axis} slice"

    def _in_words(self, name: str, chosen: np.ndarray) -> str:
        places = np.flatnonzero(chosen)
        if len(places) == len(chosen):
            return f"output {name!r} (all {len(places)} of its {self._kind()}s)"
        more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
        kind = self._kind() if len(places) == 1 else f"{self._kind()}s"
        return f"output {name!r} {kind} {', '.join(map(str, places[:NAMED]))}{more}"


def axes_of(
    samples: Sequence[np.ndarray], noise_of: Optional[Mapping[int, np.ndarray]], share: float, least: float, most: float
) -> Tuple[Axis, ...]:
    """Every judged axis of an output whose reference is `samples`.

    A part may be off by `share` of its own spread, by its noise, or by `least` where that is more, and never by more
    than `most`, what the whole output may; where its noise was not measured (None), by that.
    """
    found = []
    for axis in judged_axes(samples):
        own = np.full(samples[0].shape[axis], most)
        measured = None if noise_of is None else noise_of.get(axis)
        if measured is not None and measured.shape == own.shape:
            own = np.minimum(most, np.maximum(np.maximum(share * spread(samples, axis), measured), least))
        found.append(Axis(axis, samples[0].ndim, own, movement(samples, axis)))
    return tuple(found)
