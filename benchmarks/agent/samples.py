"""Run the samples of a task through a session, in the artifact's own batch."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import BadInput
from runtimes.session import Session
from runtimes.signature import Signature

Arrays = Mapping[str, np.ndarray]
RANDOM_LENGTH = 16
"""Of a dynamic axis, for random inputs."""


def run_samples(
    session: Session,
    samples: Arrays,
    *,
    seconds: float,
    at_least: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of the first sample, outputs with a row a sample) for batch after batch, until `seconds` are over.

    Raises BadInput where the inputs have no common batch axis, or no output has a row a sample.
    """
    batch, total = batch_of(session.signature), len(next(iter(samples.values())))
    started = clock()
    for start in range(0, total, batch):
        if clock() - started > seconds and start >= at_least:
            return
        rows = np.minimum(np.arange(start, start + batch), total - 1)  # the last batch is filled with the last sample
        outputs = session.run({name: array[rows] for name, array in samples.items()})
        kept = {name: value[: total - start] for name, value in outputs.items() if value.shape[:1] == (batch,)}
        if not kept:
            shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in session.signature.outputs)
            raise BadInput(f"no output has a row a sample ({shapes})", remedy="export the model with a batch axis")
        yield start, kept


def batch_of(signature: Signature) -> int:
    """How many samples an artifact takes at once: its fixed first axis, or 1 where that is free.

    Raises BadInput where its inputs differ.
    """
    firsts: Sequence[Any] = [spec.shape[0] if spec.shape else "" for spec in signature.inputs]
    lengths = {1 if isinstance(first, str) else first for first in firsts}
    if len(lengths) != 1:
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in signature.inputs)
        raise BadInput(f"its inputs have no common batch axis ({shapes})", remedy="export it with one batch for all")
    return int(lengths.pop())


def named_for(inputs: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The inputs under the names that a model takes: its own, or, where both have just one, that one.

    Raises BadInput where the names do not fit.
    """
    if set(names) <= set(inputs):
        return {name: inputs[name] for name in names}
    if len(inputs) == len(names) == 1:
        return {names[0]: next(iter(inputs.values()))}
    raise BadInput(
        f"the task has the inputs {', '.join(inputs)}, the model takes {', '.join(names)}",
        remedy="give the task that belongs to the model, or name its arrays as the model's inputs",
    )


def golden_inputs(path: Path) -> list[dict[str, np.ndarray]]:
    """The inputs of a golden.npz, sample by sample; `runtimes.golden` has checked the file before it came here."""
    found: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            sample, role, name = key.split("/", 2)
            if role == "input":
                found.setdefault(int(sample), {})[name] = arrays[key]
    return [found[sample] for sample in sorted(found)]


def random_inputs(signature: Signature, seed: int) -> dict[str, np.ndarray]:
    """Normal values for floats, ones for integers, which are indices and masks; dynamic axes get 16, the first 1."""
    generator = np.random.default_rng(seed)
    found = {}
    for spec in signature.inputs:
        shape = [n if isinstance(n, int) else RANDOM_LENGTH if axis else 1 for axis, n in enumerate(spec.shape)]
        dtype = np.dtype(spec.dtype)
        found[spec.name] = generator.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)
    return found


def batched(inputs: Arrays, signature: Signature, batch: int | None) -> dict[str, np.ndarray]:
    """Inputs for `batch` samples at once: the first one, again and again; as they are where `batch` is None.

    Raises BadInput where an input's first axis is another fixed number.
    """
    if batch is None:
        return dict(inputs)
    for spec in signature.inputs:
        first = spec.shape[0] if spec.shape else None
        if first is None or (isinstance(first, int) and first != batch):
            raise BadInput(
                f"input {spec.name} takes {list(spec.shape)}, not {batch} samples at once",
                where="--batch",
                remedy=f"export it with --dynamic {spec.name}:0",
            )
    return {name: np.repeat(array[:1], batch, axis=0) for name, array in inputs.items()}


def encoded(outputs: Arrays) -> dict[str, dict[str, Any]]:
    """Arrays as the event `outputs` carries them."""
    found = {}
    for name, array in outputs.items():
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        data = base64.b64encode(little.tobytes()).decode("ascii")
        found[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}
    return found
