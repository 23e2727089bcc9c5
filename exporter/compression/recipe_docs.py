"""Write the settings of all passes into docs/recipes.md, from what they declare: `make docs`."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.compression.recipe import PASSES, Setting, settings_of

HEADING = "## Settings\n"


def with_settings(text: str) -> str:
    """`text` up to the heading of the settings, and after it what the passes declare."""
    before, heading, _ = text.partition(HEADING)
    return before + heading + "".join(map(_section, PASSES))


def _section(name: str) -> str:
    what = inspect.getdoc(importlib.import_module(PASSES[name].module).Settings)
    rows = "\n".join(map(_row, settings_of(name).values()))
    return f"\n### {name}\n\n{what}\n\n| setting | allowed | default |\n|---|---|---|\n{rows}\n"


def _row(setting: Setting) -> str:
    default = setting.default
    if isinstance(default, tuple):
        written = str(list(default))
    else:
        written = default if isinstance(default, str) else json.dumps(default)
    return f"| `{setting.name}` | {setting.allowed} | `{written}` |"


def main(words: Sequence[str] | None = None) -> None:
    """Renew the file that the command line names."""
    (file,) = map(Path, sys.argv[1:] if words is None else words)
    file.write_text(with_settings(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
