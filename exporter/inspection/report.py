"""What is inside an artifact: signature, operations, and bytes by tensor; read from the file, nothing is executed.

What its low-bit weights run on, for which it has to run, is found in inspection/kernels.py, in a child process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from exporter.formats.contents import StoredTensor
from exporter.formats.readers import READERS
from runtimes.bundle import digest
from runtimes.errors import BadInput
from runtimes.session import format_of
from runtimes.signature import Signature


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
    format_name = format_of(path)
    if not path.exists():
        raise BadInput("no such artifact", where=str(path), remedy="check the path")
    try:
        contents = READERS[format_name].contents(path)
    except BadInput:
        raise
    except ImportError as error:
        raise BadInput(
            f"{error.name} is not installed", where=str(path), remedy="pip install 'pocketship[export]'"
        ) from error
    except Exception as error:  # each parser fails in its own way on bytes that are not its format
        raise BadInput(
            f"not a {format_name} file, or damaged ({type(error).__name__})",
            where=str(path),
            remedy="export the model again",
        ) from error
    return Report(
        path=str(path),
        format=format_name,
        size_bytes=digest(path)[0],
        signature=contents.signature,
        operations=dict(Counter(contents.operations).most_common()),
        tensors=tuple(sorted(contents.tensors, key=lambda t: -t.size_bytes)),
        metadata=contents.metadata,
    )
