"""How good a model's outputs are on a task, and how near they are to those of the full-precision model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.tasks.task import Arrays, Score, Split, Task
from runtimes.errors import BadInput

NEIGHBOURS = 10
WITHOUT_CLASS = "columns without a class"
"""The figure of a score that says how many of the model's classes the task does not have."""


def score_outputs(
    task: Task,
    outputs: Arrays,
    gallery_outputs: Arrays | None = None,
    reference: Arrays | None = None,
    *,
    rows: np.ndarray | None = None,
    gallery_rows: np.ndarray | None = None,
) -> Score:
    """The score of a model's outputs for the test split, each `[len(test), ...]`, and for the gallery if there is one.

    With `rows` or `gallery_rows` the outputs are for these samples only, in this order. `reference` holds what the
    full-precision model gives for all of the test split: with it the score says how faithful the outputs are.

    Raises BadInput where the outputs do not fit the task.
    """
    split = task.test if rows is None else task.test.rows(rows)
    if reference is not None and rows is not None:
        reference = {name: array[rows] for name, array in reference.items()}
    try:
        if task.gallery is None:
            found = task.score(outputs, split)
        else:
            gallery = task.gallery if gallery_rows is None else task.gallery.rows(gallery_rows)
            found = task.score(outputs, split, gallery_outputs, gallery)
        others = {} if reference is None else faithfulness(outputs, reference, task)
    except BadInput as error:
        raise BadInput(error.what, where=error.where or task.name, remedy=error.remedy) from error
    return Score(found.metric, found.correct, {**found.others, **others})


def accuracy(classes: Sequence[str], outputs: Arrays, split: Split) -> Score:
    """Whether the largest of an output's columns is the label's; a row with NaN or infinity is wrong.

    Where the output has more columns than there are classes, label i is column i, and WITHOUT_CLASS says how many more.

    Raises BadInput where no output has a column a class, or the split no labels.
    """
    found = class_columns(classes, outputs)
    finite = np.isfinite(found).all(axis=1)
    correct = (found.argmax(axis=1) == _labels(split)) & finite
    surplus = found.shape[1] - len(classes)
    return Score("accuracy", correct.astype(np.float64), {WITHOUT_CLASS: float(surplus)} if surplus else {})


def nearest_class_mean(
    classes: Sequence[str], outputs: Arrays, split: Split, gallery_outputs: Arrays, gallery: Split
) -> Score:
    """Whether the mean of the gallery's vectors that is nearest by cosine is that of the label's class.

    The vectors have unit length before the mean is taken, and so has the mean (the nearest centroid classifier, with
    cosine for distance); a class of which the gallery holds no sample is never the nearest.

    Raises BadInput where the outputs hold no one vector a sample, or a split no labels.
    """
    known = _unit(vectors(gallery_outputs))  # [gallery, width]
    members = _labels(gallery)[:, None] == np.arange(len(classes))  # [gallery, classes]
    means = _unit(members.T.astype(np.float64) @ known)  # [classes, width]; zero for a class without samples
    found = vectors(outputs)
    similar = np.where(members.any(axis=0), _unit(found) @ means.T, -np.inf)  # [test, classes]
    correct = (similar.argmax(axis=1) == _labels(split)) & np.isfinite(found).all(axis=1)
    return Score("nearest-class-mean accuracy", correct.astype(np.float64), {})


def faithfulness(outputs: Arrays, reference: Arrays, task: Task) -> dict[str, float]:
    """How near outputs are to the full-precision model's for the same samples.

    "cosine" is the mean over the samples. Where the task has a gallery, "neighbour overlap@10" is the mean share of
    each sample's ten nearest other samples, by cosine, that both agree on; else "agreement" is the share of samples of
    the same class. The cosine is NaN where an output is not finite; there is no overlap for ten samples or fewer.

    Raises BadInput where the two do not match.
    """
    pick = (lambda found: class_columns(task.classes, found)) if task.gallery is None else vectors
    ours, theirs = pick(outputs), pick(reference)
    if ours.shape != theirs.shape:
        raise BadInput(
            f"the outputs are {list(ours.shape)}, the reference's {list(theirs.shape)}",
            remedy="give a reference of the same model, over the same samples",
        )
    if not np.isfinite(theirs).all():
        raise BadInput("the reference holds NaN or infinity", remedy="give one that covers every sample")
    figures = {"cosine": float((_unit(ours) * _unit(theirs)).sum(axis=1).mean())}
    if task.gallery is None:
        figures["agreement"] = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    elif len(ours) > NEIGHBOURS:
        figures[f"neighbour overlap@{NEIGHBOURS}"] = neighbour_overlap(ours, theirs, NEIGHBOURS)
    return figures


def neighbour_overlap(first: np.ndarray, second: np.ndarray, count: int) -> float:
    """The mean share of each row's `count` nearest other rows by cosine that `first` and `second` agree on.

    Both are `[rows, width]`, of any width each; equally near rows count in the order of the rows.
    """
    ours, theirs = _nearest(first, count), _nearest(second, count)  # [rows, count]
    shared = (ours[:, :, None] == theirs[:, None, :]).any(axis=2)  # [rows, count]
    return float(shared.mean())


def class_columns(classes: Sequence[str], outputs: Arrays) -> np.ndarray:
    """The float output `[samples, len(classes)]`, else one of more columns; the one called "logits" where several fit.

    Raises BadInput where none fits, or several do and none has that name.
    """
    matrices = {name: value.shape[1] for name, value in outputs.items() if _is_matrix(value)}
    fitting = [name for name, columns in matrices.items() if columns == len(classes)]
    fitting = fitting or [name for name, columns in matrices.items() if columns > len(classes)]
    if "logits" in fitting:
        return outputs["logits"]
    if len(fitting) != 1:
        shapes = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in outputs.items())
        found = f"{len(fitting)} outputs of the model have" if fitting else "no output of the model has"
        raise BadInput(
            f"the task has {len(classes)} classes, and {found} as many columns ({shapes} a sample)",
            remedy="give the task that belongs to the model" if not fitting else 'call the right one "logits"',
        )
    return outputs[fitting[0]]


def vectors(outputs: Arrays) -> np.ndarray:
    """The one float output `[samples, width]`.

    Raises BadInput where there is none, or more than one.
    """
    fitting = [value for value in outputs.values() if _is_matrix(value)]
    if len(fitting) != 1:
        found = f"{len(fitting)} outputs of the model are" if fitting else "no output of the model is"
        raise BadInput(
            f"{found} one vector a sample ({', '.join(outputs)})",
            remedy="give a model that turns a sample into one vector",
        )
    return fitting[0]


def _labels(split: Split) -> np.ndarray:
    if split.labels is None:
        raise BadInput("the samples have no labels", remedy="give the split labels, one a sample")
    return split.labels


def _is_matrix(value: np.ndarray) -> bool:
    return value.ndim == 2 and value.dtype.kind == "f"


def _unit(rows: np.ndarray) -> np.ndarray:
    """Float64 rows of length 1; a row of zeros stays."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _nearest(rows: np.ndarray, count: int) -> np.ndarray:
    similar = _unit(rows) @ _unit(rows).T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]
