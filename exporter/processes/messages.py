"""A message to a child process that runs already: a file that appears whole, for which the child looks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

POLL_S = 0.01


def post(path: Path, message: Any = None) -> None:
    """Write a message, JSON-ready; without one an empty file, which is whole at once, is the message."""
    if message is None:
        path.touch()
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(message), encoding="utf-8")
    partial.rename(path)


def is_posted(path: Path) -> bool:
    """Whether the message is there."""
    return path.exists()


def receive(path: Path) -> Any:
    """Wait for a message; what it says."""
    while not is_posted(path):
        time.sleep(POLL_S)
    return json.loads(path.read_text(encoding="utf-8"))
