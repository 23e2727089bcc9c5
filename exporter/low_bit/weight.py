"""Low-bit weights on their way from the passes, which choose them, to the lowerings, which store them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("linear", "conv", "conv_transpose", "embedding")
ACTIVATIONS = ("float", "dynamic", "static")
OTHER_USE = "other"
"""The kind of a float16 weight that is used in none of them."""
LARGEST_CODE = {8: 127, 4: 7, 2: 1}
"""Codes are symmetric around zero: with 2 bits they are ternary."""
HALF_BITS = 16
"""Of a float16 weight, whose codes are its values."""


@dataclass(frozen=True)
class Range:
    """The values that a tensor takes, as calibration found them; zero lies within."""

    low: float
    high: float


GROUPS = (32, 64, 128)
"""How many values of a channel may share a scale, where not all of them do."""


@dataclass(frozen=True)
class Granularity:
    """Which values of a weight share a scale: all at one index of `axis`, or `group` of them in a row.

    `[out, in, ...]`, axis 0 -> scale `[out]`; `[out, in]`, axis 0, group g -> scale `[out, in / g]`. A transposed
    convolution's `[in, out / groups, ...]` has axis 1 -> scale `[out / groups]`.

    Raises ValueError for a group that is none of GROUPS, or runs along another axis than the first one's rows.
    """

    axis: int = 0
    group: int | None = None

    def __post_init__(self) -> None:
        if self.group is not None and (self.group not in GROUPS or self.axis):
            raise ValueError(f"no group of {self.group} along axis {self.axis}: give one of {GROUPS}, and axis 0")

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the scales of a weight of this shape.

        Raises ValueError where its rows are no whole number of groups.
        """
        if self.group is None:
            return (shape[self.axis],)
        if math.prod(shape[1:]) % self.group:
            raise ValueError(f"a row of {math.prod(shape[1:])} values is no whole number of groups of {self.group}")
        return shape[0], math.prod(shape[1:]) // self.group

    def along(self, scale: Any, shape: tuple[int, ...]) -> Any:
        """The scales (of numpy or PyTorch) so that they go with a weight of this shape, by broadcasting."""
        if self.group is None:
            return scale.reshape([-1 if axis == self.axis else 1 for axis in range(len(shape))])
        return scale[:, np.arange(math.prod(shape[1:])) // self.group].reshape(shape)  # [out, in / g] -> [out, in]


PER_CHANNEL = Granularity()


@dataclass(frozen=True)
class LowBitWeight:
    """A weight that the module holds as `scale * codes`, and how the layer that uses it computes.

    `codes` is int8 of the weight's own shape, `scale` float32 of the shape that `granularity` gives: one for an output
    channel, or for a row of an embedding. `bits` is 8, 4 or 2, the codes lie within
    -LARGEST_CODE[bits]..LARGEST_CODE[bits]; or it is 16, and `codes` are the weight itself in float16, every scale 1.
    `activations` is "float", "dynamic" (int8, its range taken from each input) or "static" (int8 within the calibrated
    `inputs` and `outputs` of the layer, its bias included in the output). A dynamic one may have these ranges too, for
    formats that gain nothing from its own.
    """

    codes: np.ndarray
    scale: np.ndarray
    bits: int
    kind: str
    activations: str = "float"
    inputs: Range | None = None
    outputs: Range | None = None
    granularity: Granularity = PER_CHANNEL

    @property
    def value(self) -> np.ndarray:
        """The weight itself, float32, as PyTorch computes with it."""
        return self.codes.astype(np.float32) * self.granularity.along(self.scale, self.codes.shape)


LowBit = Mapping[str, LowBitWeight]
"""By the name of the parameter, as module.named_parameters() has it."""


def save_low_bit(low_bit: LowBit, path: Path) -> None:
    """Keep the table for the children that lower the program, as an .npz without pickles."""
    facts, arrays = {}, {}
    for i, (name, weight) in enumerate(low_bit.items()):
        arrays[f"{i}/codes"], arrays[f"{i}/scale"] = weight.codes, weight.scale
        ranges = {k: asdict(r) if r else None for k, r in (("inputs", weight.inputs), ("outputs", weight.outputs))}
        facts[name] = {
            "bits": weight.bits,
            "kind": weight.kind,
            "activations": weight.activations,
            "granularity": asdict(weight.granularity),
            **ranges,
        }
    np.savez(path, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]


def load_low_bit(path: Path) -> dict[str, LowBitWeight]:
    """Read what `save_low_bit` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        facts = json.loads(str(arrays["facts"]))
        return {
            name: LowBitWeight(
                codes=arrays[f"{i}/codes"],
                scale=arrays[f"{i}/scale"],
                bits=fact["bits"],
                kind=fact["kind"],
                activations=fact["activations"],
                inputs=Range(**fact["inputs"]) if fact["inputs"] else None,
                outputs=Range(**fact["outputs"]) if fact["outputs"] else None,
                granularity=Granularity(**fact["granularity"]),
            )
            for i, (name, fact) in enumerate(facts.items())
        }
