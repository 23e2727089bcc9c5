"""The constants inside an artifact as they are stored: their values, and what kind of layer reads each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from exporter.formats.contents import OTHER, Constant, Input, Operation
from exporter.formats.readers import READERS
from runtimes.session import format_of

WEIGHT_RANK = 2
"""A weight has at least two axes; with fewer it is a bias, a scale, or another constant."""


def stored_constants(path: Path) -> tuple[tuple[Constant, str], ...]:
    """The constants of an artifact, each with the kind of layer whose weight it is: one of KINDS, or OTHER."""
    reader = READERS[format_of(path)]
    graph = reader.graph(path)
    places = {place: kind for kind, places in reader.readers_of_weights.items() for place in places}
    kinds = kinds_read(graph.operations, places, reader.passed_on)
    return tuple((c, kinds.get(c.name, OTHER) if c.values.ndim >= WEIGHT_RANK else OTHER) for c in graph.constants)


def kinds_read(operations: Iterable[Operation], readers: Mapping[Input, str], passed_on: set[Input]) -> dict[str, str]:
    """The kind of layer that reads each value as its weight, itself or in another form; operations in graph order."""
    kinds: dict[str, str] = {}
    for operation in reversed(list(operations)):
        for place, value in operation.inputs.items():
            kind = readers.get((operation.name, place))
            if (operation.name, place) in passed_on:
                kind = next((kinds[output] for output in operation.outputs if output in kinds), None)
            if kind:
                kinds[value] = kind
    return kinds
