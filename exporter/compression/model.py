"""What passes from one compression pass to the next, and what a pass may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.tasks.task import Task
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
class Context:
    """What a pass may use besides the model.

    `teacher` is the untouched full-precision module; `task` the user's data, if there is any; `progress(label, done,
    total)` moves a bar; `stopped()` is true once the user pressed Ctrl-C: end training then and keep the best so far.
    """

    teacher: FlatModule
    task: Task | None = None
    seed: int = 0
    progress: Callable[[str, int, int], None] = lambda label, done, total: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class PassReport:
    """What a pass did: its settings as they were used, and notes for the person who reads the ledger.

    A model that it did not change is not lowered again.
    """

    name: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    changed: bool = True
