"""`golden.npz`: inputs of a model and the outputs PyTorch computed for them, so that any machine can test itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Tuple

import numpy as np

from runtimes.errors import BadInput

Tensors = Dict[str, np.ndarray]


@dataclass(frozen=True)
class Golden:
    """`inputs[i]` gives `outputs[i]`; every sample holds the same names."""

    inputs: Tuple[Tensors, ...]
    outputs: Tuple[Tensors, ...]


def write_golden(golden: Golden, path: Path) -> None:
    """Write the samples as arrays named `<sample>/input/<name>` and `<sample>/output/<name>`."""
    arrays = {}
    for i, (inputs, outputs) in enumerate(zip(golden.inputs, golden.outputs)):
        arrays.update({f"{i}/input/{name}": value for name, value in inputs.items()})
        arrays.update({f"{i}/output/{name}": value for name, value in outputs.items()})
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub reads ** as its bool


def read_golden(path: Path) -> Golden:
    """Read what `write_golden` wrote; nothing is ever unpickled.

    Raises BadInput for a file that is missing, damaged, or holds anything else.
    """
    samples: Dict[int, Dict[str, Tensors]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                sample, role, name = key.split("/", 2)
                value = arrays[key]
                if not isinstance(value, np.ndarray):
                    raise ValueError(f"{key} is no array")
                samples.setdefault(int(sample), {"input": {}, "output": {}})[role][name] = value
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise a dozen kinds for damaged bytes
        raise BadInput(
            f"cannot read the golden values ({error})", where=str(path), remedy="export the bundle again"
        ) from error
    names = {tuple(frozenset(sample[role]) for role in ("input", "output")) for sample in samples.values()}
    if len(names) != 1 or sorted(samples) != list(range(len(samples))):
        raise BadInput("the golden values are incomplete", where=str(path), remedy="export the bundle again")
    ordered = [samples[i] for i in range(len(samples))]
    return Golden(tuple(s["input"] for s in ordered), tuple(s["output"] for s in ordered))
