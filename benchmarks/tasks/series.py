"""Time series of the UCR and UEA archives that come with aeon: GunPoint, ItalyPowerDemand and BasicMotions."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.tasks import TASKS
from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Split, Task, stratified
from runtimes.errors import BadInput

SEED = 0


@dataclass(frozen=True)
class Archived:
    """A set of the archive: its folder, how many samples of its TRAIN file calibrate, and what its labels mean."""

    folder: str
    calibration: int
    classes: dict[str, str]


ARCHIVED = {
    "gunpoint": Archived("GunPoint", 12, {"1": "gun", "2": "point"}),
    "italypower": Archived("ItalyPowerDemand", 16, {"1": "October to March", "2": "April to September"}),
    "basicmotions": Archived(
        "BasicMotions", 10, {name: name.lower() for name in ("Standing", "Running", "Walking", "Badminton")}
    ),
}


def load(name: str) -> Task:
    """The task; its input `series` is float32 `[channels, steps]`. Train and calibration are the archive's TRAIN file.

    Raises BadInput where aeon is not installed.
    """
    archived = ARCHIVED[name]
    spec = importlib.util.find_spec("aeon")
    if spec is None or spec.origin is None:
        raise BadInput("aeon is not installed", where=name, remedy="pip install 'pocketship[demo]'")
    folder = Path(spec.origin).parent / "datasets" / "data" / archived.folder
    given, test = (
        read_ts(folder / f"{archived.folder}_{part}.ts", tuple(archived.classes)) for part in ("TRAIN", "TEST")
    )
    assert given.labels is not None
    sizes = (len(given) - archived.calibration, archived.calibration)
    train, calibration = (given.rows(rows) for rows in stratified(given.labels, sizes, SEED))
    classes = tuple(archived.classes.values())
    return Task(name, TASKS[name].description, classes, train, calibration, test, partial(accuracy, classes))


def read_ts(path: Path, labels: tuple[str, ...]) -> Split:
    """A .ts file of series of equal length: a line a sample, its channels and last its label separated by colons.

    aeon's own loader does the same, but its import alone takes seconds.

    Raises BadInput where the file is missing, or holds anything else.
    """
    series, found = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines[lines.index("@data") + 1 :]:
            *channels, label = line.split(":")
            series.append([[float(value) for value in channel.split(",")] for channel in channels])
            found.append(labels.index(label))
        return Split({"series": np.array(series, np.float32)}, np.array(found, np.int64))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the series ({error})", where=str(path), remedy="install aeon again") from error
