"""The parent's side of the child that loads, traces and compresses the source."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.tasks.task import Task
from exporter.compression.recipe import to_json
from exporter.processes.children import memory_limit_bytes, value_of
from exporter.processes.messages import is_posted, post
from exporter.stages.options import ModuleAndInputs
from exporter.stages.progress import SourceFacts, Stage
from exporter.stages.run import Run
from exporter.stages.snapshot import LOG, STOP, Snapshot
from exporter.stages.targets import TRAINING_TIMEOUT_S, Targets
from runtimes import child
from runtimes.records import from_json

PREPARE_TIMEOUT_S = 3600.0


def prepare_in_child(source: str | ModuleAndInputs, targets: Targets, run: Run) -> None:
    """Load, trace and compress the source in a child; in this process where the caller holds the module or the task.

    `targets` get the snapshots.
    """
    options, work = run.options, run.work
    job = {
        "source": source if isinstance(source, str) else type(source[0]).__name__,
        "options": {"task": options.task, "weights": options.weights, "trust_remote_code": options.trust_remote_code},
        "preprocessor": str(options.preprocessor.absolute()) if options.preprocessor else None,
        "described": {
            "labels": _absolute(options.labels),
            "image": options.image,
            "tokenizer": _absolute(options.tokenizer),
        },
        "work": str(work),
        "targets": {target: options.settings[target].compute for target in options.targets},
        "input_shapes": {name: list(shape) for name, shape in options.input_shapes.items()},
        "dynamic": [list(axis) for axis in options.dynamic],
        "recipe": to_json(options.recipe),
        "data": options.data,
        "seed": options.seed,
    }
    with _first_interrupt_ends_training(work / STOP) as training:

        def tell(event: dict[str, Any]) -> None:
            if "progress" in event:
                label, done, total = event["progress"]
                training.running = done < total
                run.on_progress(label, done, total)
            elif "snapshot" in event:
                targets.submit(from_json(Snapshot, event["snapshot"]))
            elif "source" in event:
                targets.source = from_json(SourceFacts, event["source"])
            else:
                training.running = False
                run.on_stage(Stage(event["stage"], event["seconds"], event["detail"]))

        if isinstance(source, str) and not isinstance(options.data, Task):
            outcome = child.call(
                "exporter.stages.prepare:prepare",
                job,
                timeout_s=TRAINING_TIMEOUT_S if options.recipe.steps else PREPARE_TIMEOUT_S,
                memory_limit_bytes=memory_limit_bytes(),
                log_path=work / LOG,
                scratch=work,
                on_event=tell,
                on_start=run.children.add,
            )
            value_of(outcome, f"{source}: loading and tracing")
        else:
            _prepare_here(source, job, lambda event: tell(json.loads(json.dumps(event))))  # as a child's would come


def _prepare_here(source: str | ModuleAndInputs, job: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """In this process, which holds the module or the task; its random numbers go on as if nothing had been drawn."""
    import torch

    from exporter.stages.prepare import prepare, prepare_module

    with torch.random.fork_rng(devices=[]):
        if isinstance(source, str):
            prepare(job, tell)
        else:
            prepare_module(*source, job, tell)


class _Training:
    """Whether a pass is training just now."""

    running = False


def _absolute(given: Any) -> Any:
    """A path of the user's as the child finds it; a list is one."""
    return str(given.absolute()) if isinstance(given, Path) else given


@contextmanager
def _first_interrupt_ends_training(stop: Path) -> Iterator[_Training]:
    """While a pass trains, the first Ctrl-C tells it to keep the best so far and end; the next one aborts."""
    training = _Training()
    if threading.current_thread() is not threading.main_thread():
        yield training
        return

    def interrupt(number: int, frame: object) -> None:
        if not training.running or is_posted(stop):
            raise KeyboardInterrupt
        post(stop)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield training
    finally:
        signal.signal(signal.SIGINT, before)
