"""What is inside an artifact: signature, operations, and bytes by tensor; read from the file, nothing is executed.

What its low-bit weights run on, for which it has to run, is found in inspection/kernels.py, in a child process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.formats.contents import StoredTensor
from exporter.formats.readers import READERS
from exporter.processes.children import Children
from runtimes import child
from runtimes.bundle import digest
from runtimes.errors import BadInput
from runtimes.parity import MEMORY_FLOOR_BYTES, MEMORY_PER_ARTIFACT_BYTE, size_bytes
from runtimes.records import from_json
from runtimes.session import format_of
from runtimes.signature import Signature

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Report:
    """An artifact's contents: operations by count, tensors by size, both largest first."""

    path: str
    format: str
    size_bytes: int
    signature: Signature
    operations: dict[str, int]
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def inspect(path: Path) -> Report:
    """Read an artifact of any format.

    Raises BadInput when the file is missing, empty, or not what its suffix says.
    """
    format_of(path)
    if not path.exists():
        raise BadInput("no such artifact", where=str(path), remedy="check the path")
    if not (path.is_file() or path.is_dir()):
        raise BadInput("not a regular file", where=str(path), remedy="check the path")
    with Children() as children:
        outcome = child.call(
            "exporter.inspection.report:read",
            {"path": str(path)},
            timeout_s=TIMEOUT_S,
            memory_limit_bytes=MEMORY_FLOOR_BYTES + MEMORY_PER_ARTIFACT_BYTE * size_bytes(path),
            on_start=children.add,
        )
    if isinstance(outcome, child.Completed):
        report: Report = from_json(Report, outcome.value)
        return report
    if isinstance(outcome, child.Refused):
        raise outcome.error
    raise BadInput(
        f"reading it {child.describe(outcome)}", where=str(path), remedy="do not use it, export the model again"
    )


def read(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `inspect`: a parser may take all memory, or crash, over bytes that are not its format."""
    path = Path(job["path"])
    format_name = format_of(path)
    try:
        contents = READERS[format_name].contents(path)
    except (BadInput, MemoryError, ImportError):  # the child's `main` says of a library that it is missing
        raise
    except Exception as error:  # each parser fails in its own way on bytes that are not its format
        raise BadInput(
            f"not a {format_name} file, or damaged ({type(error).__name__}: {' '.join(str(error).split()):.160})",
            where=str(path),
            remedy="export the model again",
        ) from error
    report = Report(
        path=str(path),
        format=format_name,
        size_bytes=digest(path)[0],
        signature=contents.signature,
        operations=dict(Counter(contents.operations).most_common()),
        tensors=tuple(sorted(contents.tensors, key=lambda t: -t.size_bytes)),
        metadata=contents.metadata,
    )
    return asdict(report)
