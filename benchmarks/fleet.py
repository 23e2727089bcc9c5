"""boards.yaml: a fleet of boards by name, each with how it is reached and what is measured there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import Board, Plan
from benchmarks.devices import Options, kind_of
from benchmarks.yaml_file import read_yaml
from runtimes.errors import BadInput

if TYPE_CHECKING:
    from pydantic import ValidationError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
REMEDY = "see docs/bench.md for what a fleet's file holds"


def read_fleet(path: Path, plan: Plan, options: Options) -> tuple[Board, ...]:
    """The boards of a file; what a board does not say is as `plan` and `options` have it.

    A file holds `boards:`, by name: `target`, as --on takes it (the word `on` is a boolean in YAML), and where they
    differ `threads`, `affinity`, `identity`, `known_hosts`, `wheels`, `runner`; paths are from the file's folder.

    Raises BadInput for a file that is missing, is no YAML, or holds anything else.
    """
    from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

    class Entry(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        target: str
        threads: list[PositiveInt] | None = None
        affinity: list[int] | None = None
        identity: str | None = None
        known_hosts: str | None = None
        wheels: str | None = None
        runner: str | None = None

    class Fleet(BaseModel):
        model_config = ConfigDict(extra="forbid")
        boards: dict[str, Entry]

    try:
        fleet = Fleet.model_validate(read_yaml(path, "fleet", REMEDY))
    except ValidationError as error:
        raise BadInput(_in_a_line(error), where=str(path), remedy=REMEDY) from error
    if not fleet.boards:
        raise BadInput("it names no board", where=str(path), remedy=REMEDY)
    found = []
    for name, entry in fleet.boards.items():
        if not NAME.fullmatch(name):
            raise BadInput(f"{name!r:.60} is no name for a board", where=str(path), remedy="use letters, digits, . _ -")
        kind_of(entry.target)
        files = {key: getattr(entry, key) for key in ("identity", "known_hosts", "wheels", "runner")}
        reached = {key: path.parent / Path(file).expanduser() for key, file in files.items() if file}
        measured = replace(
            plan,
            threads=tuple(entry.threads) if entry.threads else plan.threads,
            affinity=tuple(entry.affinity) if entry.affinity else plan.affinity,
        )
        found.append(Board(entry.target, measured, replace(options, **reached), name))  # type: ignore[arg-type]
    return tuple(found)


def _in_a_line(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
