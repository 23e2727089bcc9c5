"""Lines of JSON as devices tell them, in pieces of any size: each is cut off at its end, bounded and parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.job import Json
from benchmarks.results.events import UNREADABLE
from runtimes.errors import BadInput
from runtimes.records import from_json

LONGEST_BYTES = 1 << 25
LONGEST_OUTPUTS_BYTES = 1 << 28
"""Of a line that tells outputs, as far as its beginning says."""


def told_by(line: bytes) -> Json:
    """What a line tells, not checked yet; of one that is no JSON object `UNREADABLE` says why."""
    if len(line) > LONGEST_BYTES and b'"outputs"' not in line[:100]:
        return too_long(len(line))
    try:
        event = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return {UNREADABLE: f"not JSON ({error})"}
    return event if isinstance(event, dict) else {UNREADABLE: "no JSON object"}


def _no_number(token: str) -> None:
    raise ValueError(f"{token} is no JSON")


@dataclass(frozen=True)
class Refusal:
    """What an agent says in place of events where it cannot do what it is asked."""

    what: str
    where: str
    remedy: str


def refusal_of(value: Any, where: str = "") -> BadInput:
    """The error of an agent that refuses, whatever it says; `where` in place of what it calls the place."""
    try:
        told: Refusal = from_json(Refusal, value, "refused")
    except BadInput as error:
        return BadInput(f"the agent refuses and does not say why ({error})", where=where, remedy="bench again")
    return BadInput(told.what, where=where or told.where, remedy=told.remedy)


def too_long(size_bytes: int) -> Json:
    """What stands for a line that is longer than any event."""
    return {UNREADABLE: f"{size_bytes:,} bytes are of no event"}


class Lines:
    """Cuts bytes that come in pieces into lines; what is longer than any event is let go as it comes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[Json, int]]:
        """What each line tells that ends in `chunk`, with the bytes that it took."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._add(end)
            is_whole = self._size_bytes <= LONGEST_OUTPUTS_BYTES
            yield told_by(b"".join(self._parts)) if is_whole else too_long(self._size_bytes), self._size_bytes + 1
            self._parts, self._size_bytes = [], 0
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._size_bytes += len(part)
        if self._size_bytes > LONGEST_OUTPUTS_BYTES:
            self._parts = []
        else:
            self._parts.append(part)
