"""One export on its way: what every stage of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.bundle.writer import NEW_BUNDLE, WORK
from exporter.processes.children import Children
from exporter.stages.options import Options
from exporter.stages.progress import OnProgress, OnStage, silent_progress, silent_stage
from exporter.stages.snapshot import folder_of


@dataclass(frozen=True)
class Run:
    """What the user chose, the folder of an unfinished bundle, the processes of this export, and who is told of it.

    A dry run ends with the check of every target for what it lacks.
    """

    options: Options
    partial: Path
    children: Children
    on_stage: OnStage = silent_stage
    on_progress: OnProgress = silent_progress
    dry_run: bool = False

    @property
    def work(self) -> Path:
        """The folder for everything but the bundle."""
        return self.partial / WORK

    @property
    def bundle(self) -> Path:
        """The folder of the bundle that is being made."""
        return self.partial / NEW_BUNDLE

    def message(self, index: int) -> Path:
        """The message that tells the targets' children of a snapshot."""
        return self.work / f"{folder_of(index)}.json"
