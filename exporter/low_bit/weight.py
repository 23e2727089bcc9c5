"""Low-bit weights on their way from the passes, which choose them, to the lowerings, which store them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

KINDS = ("linear", "conv", "embedding")
ACTIVATIONS = ("float", "dynamic", "static")
LARGEST_CODE = {8: 127, 4: 7, 2: 1}
"""Codes are symmetric around zero: with 2 bits they are ternary."""


@dataclass(frozen=True)
class Range:
    """The values that a tensor takes, as calibration found them; zero lies within."""

    low: float
    high: float


@dataclass(frozen=True)
class LowBitWeight:
    """A weight that the module holds as `scale * codes`, and how the layer that uses it computes.

    `codes` is int8 of the weight's own shape, `scale` float32 `[codes.shape[0]]`: one for an output channel, or for a
    row of an embedding. `bits` is 8, 4 or 2, the codes lie within -LARGEST_CODE[bits]..LARGEST_CODE[bits].
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

    @property
    def value(self) -> np.ndarray:
        """The weight itself, float32, as PyTorch computes with it."""
        return self.codes.astype(np.float32) * self.scale.reshape(-1, *[1] * (self.codes.ndim - 1))


LowBit = Mapping[str, LowBitWeight]
"""By the name of the parameter, as module.named_parameters() has it."""


def save_low_bit(low_bit: LowBit, path: Path) -> None:
    """Keep the table for the children that lower the program, as an .npz without pickles."""
    facts, arrays = {}, {}
    for i, (name, weight) in enumerate(low_bit.items()):
        arrays[f"{i}/codes"], arrays[f"{i}/scale"] = weight.codes, weight.scale
        ranges = {k: asdict(r) if r else None for k, r in (("inputs", weight.inputs), ("outputs", weight.outputs))}
        facts[name] = {"bits": weight.bits, "kind": weight.kind, "activations": weight.activations, **ranges}
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
            )
            for i, (name, fact) in enumerate(facts.items())
        }
