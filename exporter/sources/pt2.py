"""Read a .pt2 file as data: whatever torch.export.load would unpickle, evaluate, import or execute is refused first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from exporter.sources.pt2_archive import faults
from exporter.sources.source import Source
from exporter.sources.weights import weights_facts
from runtimes.errors import BadInput

REMEDY = "save it again with torch.export.save of this torch version, with plain tensors as weights and inputs"


def load(path: Path) -> Source:
    """A program that torch.export.save wrote."""
    with damage(path):
        exported = read_program(path)
        args, kwargs = exported.example_inputs or ((), {})
        if not args and not kwargs:
            raise BadInput("the program holds no example inputs", where=str(path), remedy="save it again with them")
        module = exported.module(check_guards=False)  # guards are Python source inside the file
        for node in module.graph.nodes:
            if node.target is torch.ops.aten.detach_.default:  # of torch.tensor() in forward(); cannot be traced again
                node.target = torch.ops.aten.detach.default
        module.recompile()
        return Source(
            name=path.stem,
            kind="pt2",
            module=module,
            args=args,
            kwargs=kwargs,
            weights="pretrained",
            **weights_facts(module),
        )


def read_program(path: Path) -> torch.export.ExportedProgram:
    """The program that torch.export.save wrote.

    Raises BadInput when the file is missing, damaged, or holds anything but plain tensors and torch's own operations.
    """
    from torch.export.pt2_archive._package import load_pt2

    if not path.is_file() or path.stat().st_size == 0:
        cause = "no such file" if not path.exists() else "the file is empty" if path.is_file() else "not a regular file"
        raise BadInput(cause, where=str(path), remedy="check the path")
    with damage(path):
        fault = next(faults(path), "")
        if fault:
            raise BadInput(f"{fault}, and nothing but data is read", where=str(path), remedy=REMEDY)
        return load_pt2(path).exported_programs["model"]  # not torch.export.load: it falls back to an older format


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """What torch says of a file that it cannot read, in one line."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged archive
        raise BadInput(
            f"not an exported program, or damaged ({type(error).__name__}: {_first_sentence(error)})",
            where=str(path),
            remedy=REMEDY,
        ) from error


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split("Exception raised from")[0][:160]
