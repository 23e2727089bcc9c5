"""What a task is: three splits of data that share no sample, and a score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Split:
    """`inputs[name]` holds one sample a row, without a batch axis; `labels` int64 `[samples]`, or None."""

    inputs: Arrays
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, chosen: np.ndarray | slice) -> Split:
        """Some of the samples."""
        inputs = {name: array[chosen] for name, array in self.inputs.items()}
        return Split(inputs, None if self.labels is None else self.labels[chosen])


@dataclass(frozen=True)
class Score:
    """How good outputs are: `correct[i]` is 1.0 or 0.0 (or a share) for test sample i, and further figures by name."""

    metric: str
    correct: np.ndarray
    others: Mapping[str, float]


@dataclass(frozen=True)
class Task:
    """Three splits that share no sample.

    `score(outputs, split)` takes the outputs by name, one sample a row, and the samples they belong to. A task with a
    `gallery` compares with samples of known labels: its `score(outputs, split, gallery_outputs, gallery)` also takes
    what the same model gives for those. `benchmarks.tasks.scores.score_outputs` calls either.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    train: Split
    calibration: Split
    test: Split
    score: Callable[..., Score]
    gallery: Split | None = None

    @property
    def splits(self) -> Mapping[str, Split]:
        """The three by name."""
        return {"train": self.train, "calibration": self.calibration, "test": self.test}

    @property
    def can_score(self) -> bool:
        """Whether it has test samples: one of `unlabelled` samples has none."""
        return self.test.labels is not None or len(self.test) > 0


def unlabelled(name: str, inputs: Arrays) -> Task:
    """Samples without labels: they calibrate, and train against the original; there is nothing to score."""
    samples = Split({k: a.astype(np.float32) if a.dtype == np.float64 else a for k, a in inputs.items()})

    def nothing(outputs: Arrays, split: Split) -> Score:
        raise ValueError("samples without labels have no score")

    return Task(name, "samples without labels", (), samples, samples, samples.rows(slice(0)), nothing)


def stratified(labels: np.ndarray, sizes: Sequence[int], seed: int) -> Iterator[np.ndarray]:
    """Disjoint random rows, `sizes` of them, each part with the classes in the proportion of all `labels`."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    order = np.argsort(place, kind="stable")
    yield from np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])


def shared_samples(first: Split, second: Split) -> list[int]:
    """The rows of `second` that are, value for value, also in `first`."""
    known = set(_contents(first))
    return [row for row, content in enumerate(_contents(second)) if content in known]


def duplicates(split: Split) -> list[int]:
    """The rows that are, value for value, an earlier one."""
    seen: set[bytes] = set()
    found = []
    for row, content in enumerate(_contents(split)):
        found += [row] if content in seen else []
        seen.add(content)
    return found


def _contents(split: Split) -> Iterator[bytes]:
    for row in range(len(split)):
        yield b"".join(np.ascontiguousarray(split.inputs[name][row]).tobytes() for name in sorted(split.inputs))
