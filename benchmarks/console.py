"""What the commands print: tables on stdout, or the same facts as JSON; everything else on stderr."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from runtimes.signature import ExecutedBy


def terminal() -> Console:
    """The console of stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def out() -> Console:
    """The console of stdout."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # tables in a pipe or a log keep their lines whole
    return console


def print_json(value: Any) -> None:
    """Print JSON on stdout; dataclasses are objects, infinity and NaN, which JSON lacks, are null."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def in_words(by: ExecutedBy) -> str:
    """What computed a result."""
    return f"{by.runtime} {by.version} ({by.kind})"
