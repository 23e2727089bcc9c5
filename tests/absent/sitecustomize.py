"""On Python's path, this folder makes libraries absent, in a process and its children: LACKS names them, or all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from typing import Any

OURS = {"runtimes", "benchmarks", "exporter"}
BASE = {"numpy", "typer", "rich"}
THEIRS = {
    *("annotated_doc", "annotated_types", "click", "markdown_it", "mdurl", "pydantic", "pydantic_core", "pygments"),
    *("shellingham", "typing_extensions", "typing_inspection"),
}
"""What pip installs with pocketship alone: its dependencies, and what these need."""
LACKS = os.environ.get("LACKS", "")


def is_absent(name: str) -> bool:
    """Whether a module or a distribution, by its first name, is to be absent."""
    first = name.partition(".")[0].replace("-", "_").lower()
    if LACKS == "all":
        return not first.startswith("_") and first not in sys.stdlib_module_names | OURS | BASE | THEIRS
    return first in LACKS.split(",")


class Without:
    """A finder of modules and distributions that does not find the absent ones."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, name: str, *more: Any) -> Any:
        """As importlib asks for a module."""
        return None if is_absent(name) else self._finder.find_spec(name, *more)

    def find_distributions(self, *more: Any) -> Iterator[Distribution]:
        """As importlib.metadata asks for a distribution."""
        found = getattr(self._finder, "find_distributions", lambda *more: ())
        return (distribution for distribution in found(*more) if not is_absent(distribution.metadata["Name"] or ""))


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
