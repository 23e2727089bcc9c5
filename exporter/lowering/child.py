"""The child process of a target: it lowers each snapshot of a model as soon as it is there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.lowering.representation import in_words
from exporter.lowering.target import TARGETS
from exporter.processes.messages import receive


def lower(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of a target: lower each snapshot of the model as soon as it is there.

    The converter is imported, which takes seconds, while another child still traces the program: a snapshot is there
    once the message with its settings is, and one without settings is of a model that did not change. What the target
    cannot do as torch does, and what it lacks, is told first, then that an artifact lies there.
    """
    row = TARGETS[job["target"]]
    target = importlib.import_module(row.module)
    for package in row.packages:
        importlib.import_module(package)
    from exporter.lowering.differences import differences
    from exporter.tracing.program import functional, load_program

    for index, snapshot in enumerate(job["snapshots"]):
        message = receive(Path(snapshot["message"]))[job["target"]]
        if message is None:
            emit({"unchanged": index})
            continue
        settings = row.settings(**message["settings"])
        traced = functional(load_program(Path(snapshot["program"])))
        emit({"differences": differences(traced, job["target"]) if index == 0 else ()})
        program = target.prepare(traced, settings)
        refusals = target.unsupported(program)
        emit({"unsupported": [asdict(r) for r in refusals]})
        if refusals or job["dry_run"]:
            return {}
        carried = target.lower(program, Path(snapshot["output"]), settings, message["metadata"])
        emit({"lowered": index, "carried": in_words(carried)})
    return {}
