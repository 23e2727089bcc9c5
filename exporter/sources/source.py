"""A model with example inputs, and where it came from: what every kind of source becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from exporter.sources.described import NOTHING, Described
from exporter.tracing.flat_module import Tensors
from runtimes.processing.preprocessor import Preprocessor


@dataclass(frozen=True)
class Source:
    """A module with one set of example inputs, and where it came from.

    `samples`, where the source has real inputs, gives at least three sets of them, by flat name, for the shapes asked;
    `preprocessor` is how its inputs are made, where the source says so, else `not_described` says why not; `described`
    is what a user's factory says of that; `files`, a tokenizer and a licence, are to lie beside the artifacts.
    """

    name: str
    kind: str
    module: torch.nn.Module
    weights: str
    weights_sha256: str
    parameters: int
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    samples: Callable[[Mapping[str, tuple[int, ...]]], tuple[Tensors, ...]] | None = None
    task: str | None = None
    license: str | None = None
    preprocessor: Preprocessor | None = None
    not_described: str = ""
    described: Described = NOTHING
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceOptions:
    """What the command line says about a source."""

    task: str | None = None
    weights: str | None = None
    trust_remote_code: bool = False


def arguments(example: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Example inputs as forward() takes them: a dict is keywords, a tuple or list positions, else the only one."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}
