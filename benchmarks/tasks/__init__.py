"""Tasks: real data with train, calibration and test splits that never mix, so that accuracy means something."""

from __future__ import annotations

import difflib
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tasks.task import Score, Split, Task
from runtimes.errors import BadInput

__all__ = ["TASKS", "Score", "Split", "Task", "TaskRow", "load_task"]  # what a user's own task is made of is here, too


@dataclass(frozen=True)
class TaskRow:
    """A row of TASKS: the module with `load(name) -> Task`, what it is, and the zoo models that are made for it."""

    module: str
    description: str
    models: tuple[str, ...]


TASKS: dict[str, TaskRow] = {
    "digits": TaskRow("benchmarks.tasks.digits", "handwritten digits, 32x32 (scikit-learn)", ("digits",)),
    "faces": TaskRow("benchmarks.tasks.faces", "face or not, 24x24 (scikit-image's part of LFW)", ("rnet",)),
    "gunpoint": TaskRow("benchmarks.tasks.series", "a hand that draws a gun or points, 150 steps", ("gunpoint",)),
    "italypower": TaskRow("benchmarks.tasks.series", "a day's power demand: winter or summer", ("italypower",)),
    "basicmotions": TaskRow("benchmarks.tasks.series", "four motions, 6 channels of 100 steps", ("basicmotions",)),
    "sentences": TaskRow("benchmarks.tasks.sentences", "docstrings of Python's library, by module", ("minilm",)),
}


def load_task(word: str | Task, bundle: Path | None = None) -> Task:
    """A task as it is, or that of a name in TASKS, of a folder with train, calibration and test.npz, or of
    `FILE.py:FUNCTION`; or of pictures, sounds or texts (see `raw_data`), for the model of `bundle`.

    Raises BadInput for anything else, for data that is not installed, and for splits that cannot be used.
    """
    if isinstance(word, Task):
        return word
    if word in TASKS:
        return importlib.import_module(TASKS[word].module).load(word)
    raw_data = importlib.import_module("benchmarks.tasks.raw_data")
    if raw_data.is_raw(word):
        if bundle is None:
            raise BadInput("pictures, sounds and texts are for one model", where=word, remedy="give arrays here")
        return raw_data.load_raw(Path(word), raw_data.inputs_of_bundle(bundle))
    if re.fullmatch(r".+\.py(:\w+)?", word) or Path(word).exists():
        return importlib.import_module("benchmarks.tasks.user_data").load(word)
    close = difflib.get_close_matches(word, TASKS, n=1)
    raise BadInput(
        "no such task, folder or file",
        where=word,
        remedy=f"did you mean {close[0]}?" if close else f"give {', '.join(TASKS)}, a folder, or FILE.py:FUNCTION",
    )
