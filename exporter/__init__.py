"""Turn a PyTorch model into a verified bundle: `exporter.export(source, targets=...)`; see docs/python.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.tasks.task import Score, Split, Task
    from exporter.compression.recipe import Recipe
    from exporter.pipeline import Bundle, export
    from runtimes.errors import (
        BadInput,
        LimitNotMet,
        NotInstalled,
        ParityFailed,
        PocketshipError,
        UnsupportedOperation,
    )

__all__ = [
    "BadInput",
    "Bundle",
    "LimitNotMet",
    "NotInstalled",
    "ParityFailed",
    "PocketshipError",
    "Recipe",
    "Score",
    "Split",
    "Task",
    "UnsupportedOperation",
    "export",
]
ERRORS = ("BadInput", "LimitNotMet", "NotInstalled", "ParityFailed", "PocketshipError", "UnsupportedOperation")
LATER = {
    **dict.fromkeys(ERRORS, "runtimes.errors"),
    **dict.fromkeys(("Bundle", "export"), "exporter.pipeline"),
    **dict.fromkeys(("Score", "Split", "Task"), "benchmarks.tasks.task"),
    "Recipe": "exporter.compression.recipe",
}
"""Where a name is from that is imported when it is asked for: `pocketship --help` must not pay seconds for it, and
`python -m exporter` must first find our packages, not the user's of the same name."""


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
