"""What passes from one compression pass to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from exporter.low_bit.weight import LowBit
from exporter.tracing.flat_module import FlatModule


@dataclass(frozen=True)
class Model:
    """A module in the middle of a recipe, and its low-bit weights.

    The module already holds every low-bit weight's `value`, so that it computes what the artifact is to compute.
    """

    flat: FlatModule
    low_bit: LowBit = field(default_factory=dict)

    def copy(self) -> Model:
        """The same model with a module of its own, which a pass may change."""
        return replace(self, flat=self.flat.copy())


@dataclass(frozen=True)
class PassReport:
    """What a pass did: its settings as they were used, whether the model `differs`, and notes for the ledger."""

    name: str
    settings: Mapping[str, Any]
    changed: bool
    notes: tuple[str, ...] = ()


NAMED_IN_A_NOTE = 5


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    rest = f" and {len(names) - NAMED_IN_A_NOTE} more" if len(names) > NAMED_IN_A_NOTE else ""
    return f"{', '.join(names[:NAMED_IN_A_NOTE])}{rest}"


def differs(before: Model, after: Model) -> bool:
    """Whether a parameter, a buffer or a low-bit weight is another one, is gone, or is new."""
    states = before.flat.module.state_dict(), after.flat.module.state_dict()
    same_weights = states[0].keys() == states[1].keys() and all(map(torch.equal, *(s.values() for s in states)))
    same_codes = before.low_bit.keys() == after.low_bit.keys() and all(
        weight is after.low_bit[name] for name, weight in before.low_bit.items()
    )
    return not (same_weights and same_codes)
