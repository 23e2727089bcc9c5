"""Whether an emulator of another processor runs this process: then no kernel of that processor is proven."""

from __future__ import annotations

import os
from pathlib import Path


def emulator(root: Path = Path("/")) -> str:
    """The user-mode emulator that runs this process: it hides itself in /proc/self/exe, but not behind a thread."""
    try:
        name = Path(os.readlink(root / "proc/thread-self/exe")).name  # noqa: PTH115 (3.9: its text, which need be no path)
    except OSError:
        return ""
    return name if name.startswith("qemu-") else ""


def execution() -> str:
    """How this process executes kernels, of `types.EXECUTION_KINDS`."""
    return "emulated" if emulator() else "physical"
