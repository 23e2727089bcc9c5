"""What passes from one compression pass to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.low_bit.weight import LowBit
from exporter.tracing.program import FlatModule


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
    """What a pass did: its settings as they were used, and notes for the person who reads the ledger."""

    name: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
