"""A model at one point of its recipe, as the child that compresses tells the parent that exports."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtimes.bundle import GOLDEN
from runtimes.signature import Signature
from runtimes.types import RecipeStep

ORIGINAL = "original"
PROGRAM = "program.pt2"
DATA = "data"
"""The folder of a task's arrays, made of pictures, sounds or texts."""


@dataclass(frozen=True)
class TargetNeeds:
    """How one target's artifact of a snapshot is proven, and the least version of the format that it needs.

    `golden` is the file of expected values, `noise` what rounding activations adds to the tolerance of each output.
    """

    golden: str = GOLDEN
    noise: dict[str, float] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The model after `index` passes; its files lie in the folder `snapshot-INDEX` of the export's work folder.

    `precision` is that of its smallest weights, `step` the pass that made it (None for the original), `parameters` and
    `nonzero` count the elements of its parameters. Where the pass changed nothing, files and artifacts are those of the
    snapshot `same_as`.
    """

    index: int
    name: str
    signature: Signature
    operations: int
    precision: str
    parameters: int
    nonzero: int
    targets: dict[str, TargetNeeds]
    step: RecipeStep | None = None
    same_as: int | None = None

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return folder_of(self.index if self.same_as is None else self.same_as)


def folder_of(index: int) -> str:
    """The folder of a snapshot in the work folder."""
    return f"snapshot-{index}"


LOG = "export.log"
STOP = "stop"
"""The message that ends training: the user pressed Ctrl-C."""
