"""Which lines are the user's: what an error or a refusal points at."""

from __future__ import annotations

import traceback
from pathlib import Path

from runtimes.errors import BadInput

LIBRARY_FOLDERS = ("/site-packages/", "/dist-packages/")
EXPORTER = Path(__file__).resolve().parent.parent
FAMILIES = EXPORTER / "families"
"""Models: their lines are as a user's."""


def user_line(stack_trace: str) -> str:
    """`file.py:12 (code)` of the innermost frame of a stack trace that is the user's, else of the innermost at all."""
    lines = stack_trace.splitlines()
    frames = [
        (line.split('"')[1], line.split(", line ")[1].split(",")[0], lines[i + 1].strip() if i + 1 < len(lines) else "")
        for i, line in enumerate(lines)
        if line.lstrip().startswith('File "') and ", line " in line
    ]
    users = [
        f for f in frames if not _is_ours(f[0]) and not any(folder in f[0] for folder in LIBRARY_FOLDERS)
    ] or frames
    return f"{users[-1][0]}:{users[-1][1]} ({users[-1][2]})" if users else ""


def line_of(error: Exception) -> tuple[str, str]:
    """`file.py:12` and the code of the innermost line, neither torch's nor ours, that an exception went through.

    Both are empty where there is none; a model library's own line counts, since the model is there.
    """
    import torch

    of_torch = str(Path(torch.__file__).parent)
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not _is_ours(f.filename) and not f.filename.startswith(of_torch) and f.filename[:1] != "<"
    ]
    return (f"{frames[-1].filename}:{frames[-1].lineno}", frames[-1].line or "") if frames else ("", "")


def _is_ours(file: str) -> bool:
    """Whether a file is the exporter's, and no model of the zoo."""
    folders = Path(file).parents
    return EXPORTER in folders and FAMILIES not in folders


def untraceable(error: Exception) -> BadInput:
    """The refusal for what torch.export raised, with the line of the user's code that it stopped at."""
    place, code = line_of(error)
    text = " ".join(str(error).split())
    if (
        "data-dependent" in text
        or "unbacked" in text.lower()
        or type(error).__name__.startswith("GuardOnDataDependent")
    ):
        return BadInput(
            f"control flow depends on the data{f' `{code}`' if code else ''}, which no trace can hold",
            where=place,
            remedy="use torch.where or torch.cond instead of a Python branch on tensor values",
        )
    return BadInput(
        f"torch.export cannot trace the model ({type(error).__name__}: {text[:300]})",
        where=place,
        remedy="make torch.export.export(module, inputs) work first",
    )
