"""What programs on a board answer: one JSON line each, every field of it with its type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runtimes.errors import BadInput
from runtimes.records import from_json

REMEDY = "bench again with --clean"


@dataclass(frozen=True)
class Probe:
    """What board.py finds: Python's version, our folder there, what it has, and who benches or why nobody can."""

    python: tuple[int, ...]
    folder: str
    free_bytes: int
    busy: str
    error: str
    has: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What the agent's command `facts` prints."""

    python: tuple[int, ...]
    bits: int
    machine: str
    libc: str
    system: str
    modules: dict[str, str | None]


@dataclass(frozen=True)
class Started:
    """The agent's number."""

    pid: int


@dataclass(frozen=True)
class Unpacked:
    """How many wheels were unpacked."""

    unpacked: int


@dataclass(frozen=True)
class Stopped:
    """The number of the agent that has ended."""

    stopped: int


@dataclass(frozen=True)
class Put:
    """How a file comes on: the bytes that are there, then that all are, or why not; nothing where it was cut off."""

    have: int | None = None
    done: bool = False
    error: str = ""
    full: bool = False


def read_answer(line: bytes, kind: Any, where: str) -> Any:
    """An answer as a value of `kind`.

    Raises BadInput where it is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"it answers what is no JSON ({error})", where=where, remedy=REMEDY) from error
    return typed(value, kind, where)


def typed(value: Any, kind: Any, where: str) -> Any:
    """What JSON gave, as a value of `kind`.

    Raises BadInput where it is none.
    """
    try:
        found = from_json(kind, value, "answer")
    except (BadInput, OverflowError) as error:
        said = error.what if isinstance(error, BadInput) else str(error)
        raise BadInput(f"it answers what it was not asked ({said})", where=where, remedy=REMEDY) from error
    if isinstance(found, (Probe, Facts)) and len(found.python) < 2:
        raise BadInput("it does not say its Python's version", where=where, remedy=REMEDY)
    return found
