"""What an export tells while it runs: the stages that ended, and how far a long one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtimes.types import Origin


@dataclass(frozen=True)
class Stage:
    """A stage that ended: its name, how long it took, and what came of it."""

    name: str
    seconds: float
    detail: str


@dataclass(frozen=True)
class SourceFacts:
    """The model's name and where it came from."""

    name: str
    origin: Origin


OnStage = Callable[[Stage], None]
OnProgress = Callable[[str, int, int], None]
"""(what is running, done, total)"""


def silent_stage(stage: Stage) -> None:
    """Tell nobody."""


def silent_progress(label: str, done: int, total: int) -> None:
    """Tell nobody."""
