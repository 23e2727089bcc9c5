"""What training, and a pass, may use besides the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.tasks.task import Task
from exporter.tracing.flat_module import FlatModule


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
