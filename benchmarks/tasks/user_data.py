"""A user's own task: a folder with train.npz, calibration.npz and test.npz, or a function in a Python file.

Each .npz holds one array a model input, a sample a row, and `labels` `[samples]`: the number of the class, counted from
0, or its name. An array `classes` may name them in order. The function returns a `benchmarks.tasks.task.Task`, or the
same arrays as `{"train": {...}, "calibration": {...}, "test": {...}}`.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Arrays, Split, Task, duplicates, shared_samples, stratified
from runtimes.errors import BadInput

SPLITS = ("train", "calibration", "test")
LABELS, CLASSES = "labels", "classes"
FUNCTION = re.compile(r"(.+\.py):(\w+)")


def load(word: str) -> Task:
    """The task of a folder or of `FILE.py:FUNCTION`; float64 inputs become float32, which models take.

    Raises BadInput where a file or function is missing or fails, and for splits that cannot be used: see `check`.
    """
    function, path = FUNCTION.fullmatch(word), Path(word)
    if function:
        value = _called(Path(function[1]), function[2])
    elif path.suffix == ".py":
        raise BadInput("the function is missing", where=word, remedy=f"give {word}:FUNCTION")
    elif path.is_dir():
        value = {name: _read(path / f"{name}.npz") for name in SPLITS}
    else:
        raise BadInput(
            "the file is no task", where=word, remedy="give a folder of train.npz, calibration.npz, test.npz"
        )
    task = value if isinstance(value, Task) else task_of(function[2] if function else path.resolve().name, value, word)
    check(task, word)
    return task


def task_of(name: str, splits: Any, where: str) -> Task:
    """The task of three mappings from names to arrays, as the module says; its score is accuracy.

    Raises BadInput for anything else, and for labels that are missing or no classes.
    """
    kinds = isinstance(splits, Mapping) and {k: isinstance(v, Mapping) for k, v in splits.items()}
    if kinds != dict.fromkeys(SPLITS, True):
        found = (
            ", ".join(map(str, splits)) if isinstance(splits, Mapping) else f"a value of type {type(splits).__name__}"
        )
        raise BadInput(
            f"this is no task: {found}", where=where, remedy=f"return a Task, or a dict of {', '.join(SPLITS)}"
        )
    arrays = {split: {str(k): np.asarray(v) for k, v in splits[split].items()} for split in SPLITS}
    for split in SPLITS:
        if LABELS not in arrays[split]:
            raise BadInput(
                f"the {split} split has no labels", where=where, remedy="add an array `labels`, one a sample"
            )
    named = {tuple(map(str, found.pop(CLASSES))) for found in arrays.values() if CLASSES in found}
    if len(named) > 1:
        raise BadInput(
            "the splits name different classes", where=where, remedy="name the same, or in the train split only"
        )
    raw = {split: arrays[split].pop(LABELS) for split in SPLITS}
    classes = named.pop() if named else _classes(raw, where)
    train, calibration, test = (
        Split({k: _single(v) for k, v in arrays[split].items()}, _numbers(raw[split], classes, split, where))
        for split in SPLITS
    )
    return Task(name, where, classes, train, calibration, test, partial(accuracy, classes))


def split_at_random(arrays: Arrays, seed: int, where: str, classes: Sequence[str] = ()) -> Task:
    """The task of labelled samples: 60% train, 20% calibration, 20% test, each with the classes in proportion.

    `classes` names them in order, where the labels do not.

    Raises BadInput where a sample occurs twice, since it could come into two splits, and for fewer than five samples.
    """
    labels = np.asarray(arrays[LABELS])
    inputs = {name: array for name, array in arrays.items() if name != LABELS}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in {name!r}" for name, count in counts.items())
        raise BadInput(f"there are {listed} samples", where=where, remedy="give one label a sample")
    if len(labels) < 5:
        raise BadInput(f"{len(labels)} samples cannot be split", where=where, remedy="give 5 at least")
    twice = duplicates(Split(inputs))
    if twice:
        raise BadInput(
            f"sample {twice[0]} is there before ({len(twice)} are), and may come into two splits",
            where=where,
            remedy="leave it out, or give splits: train, calibration, test",
        )
    fifth = len(labels) // 5
    parts = stratified(np.unique(labels, return_inverse=True)[1], (len(labels) - 2 * fifth, fifth, fifth), seed)
    rows = dict(zip(SPLITS, parts, strict=True))
    named = {CLASSES: np.array(classes)} if classes else {}
    splits = {s: {n: a[rows[s]] for n, a in {**inputs, LABELS: labels}.items()} | named for s in SPLITS}
    return task_of(where, splits, where)


def check(task: Task, where: str) -> None:
    """Raise BadInput for splits that cannot be used.

    They are empty, of different inputs, hold NaN or infinity, have another number of labels than samples, share samples
    with the test split, or the calibration split is constant.
    """
    for name, split in task.splits.items():
        if name == "test" and not task.can_score:
            continue
        for fault, remedy in _faults(split, task.train):
            raise BadInput(f"the {name} split {fault}", where=where, remedy=remedy)
    for key, array in task.calibration.inputs.items():
        if array.dtype.kind == "f" and array.min() == array.max():
            raise BadInput(
                f"calibration input {key!r} is {array.flat[0]:g} throughout", where=where, remedy="give real samples"
            )
    for name in ("train", "calibration") if task.can_score else ():
        shared = shared_samples(task.splits[name], task.test)
        if shared:
            raise BadInput(
                f"test sample {shared[0]} is also in the {name} split ({len(shared)} are)",
                where=where,
                remedy="keep each sample in one split",
            )


def _faults(split: Split, train: Split) -> Iterator[tuple[str, str]]:
    """What is wrong with one split, and what to do."""
    if not split.inputs:
        yield "has no inputs", "add one array a model input"
    for name, array in split.inputs.items():
        if array.dtype.kind not in "fiub":
            yield f"holds {array.dtype} in {name!r}", "give numbers"
        elif array.ndim == 0 or array.size == 0:
            yield "is empty", "give at least one sample"
        elif not np.isfinite(array).all():
            yield f"holds NaN or infinity in {name!r}", "mend the data"
    for name, array in split.inputs.items():
        if len(array) != len(split):
            yield f"has {len(split)} samples in one input and {len(array)} in {name!r}", "give as many of each"
    if split.labels is not None and split.labels.shape != (len(split),):
        yield f"has {len(split)} samples and labels of shape {list(split.labels.shape)}", "give one label a sample"
    shapes, wanted = ({k: (a.dtype.name, a.shape[1:]) for k, a in s.inputs.items()} for s in (split, train))
    if shapes != wanted:
        yield (
            f"has the inputs {_in_words(shapes)}, train has {_in_words(wanted)}",
            "give the same inputs in every split",
        )


def _in_words(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in shapes.items())


def _classes(raw: Arrays, where: str) -> tuple[str, ...]:
    """The classes that the labels name, or count from 0."""
    if raw["train"].dtype.kind in "US":
        return tuple(map(str, np.unique(raw["train"])))
    if any(values.dtype.kind not in "iu" for values in raw.values()):
        kinds = ", ".join(values.dtype.name for values in raw.values())
        raise BadInput(f"the labels are {kinds}", where=where, remedy="give integers from 0, or words")
    return tuple(str(i) for i in range(max(int(values.max(initial=-1)) for values in raw.values()) + 1))


def _numbers(raw: np.ndarray, classes: tuple[str, ...], split: str, where: str) -> np.ndarray:
    """Labels as the numbers of their classes, int64.

    Raises BadInput for a label that is no class.
    """
    if raw.dtype.kind in "US":
        known = {name: i for i, name in enumerate(classes)}
        strange = sorted(set(map(str, raw.ravel())) - set(known))
        values = np.array([known.get(str(label), -1) for label in raw.ravel()], np.int64).reshape(raw.shape)
    else:
        strange = [str(label) for label in np.unique(raw) if label not in range(len(classes))]
        values = raw.astype(np.int64)
    if strange:
        raise BadInput(
            f"label {strange[0]} of the {split} split is no class ({', '.join(classes)[:60]})",
            where=where,
            remedy="name every class in an array `classes`, or mend the labels",
        )
    return values


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise BadInput(
            f"there is no {path.name}", where=str(path.parent), remedy="write it with numpy.savez"
        ) from error
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise a dozen kinds for damaged bytes
        text = " ".join(str(error).split())
        raise BadInput(
            f"cannot read the arrays ({text[:160]})", where=str(path), remedy="write it with numpy.savez"
        ) from error


def _called(path: Path, name: str) -> Any:
    """What the user's function returns; the file is run as Python would run it as a script."""
    if not path.is_file():
        raise BadInput("no such file", where=str(path), remedy="check the path")
    place = path.resolve()
    spec = importlib.util.spec_from_file_location(f"pocketship_task_{path.stem}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.dont_write_bytecode = True  # nothing is left beside the user's file
    sys.path.insert(0, str(place.parent))
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name, None)
        if not callable(function):
            raise BadInput(f"there is no function {name!r}", where=str(path), remedy="check its name")
        return function()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(place)]
        line = f":{frames[-1].lineno}" if frames else ""
        raise BadInput(
            f"the function raised {type(error).__name__}: {error}", where=f"{path}{line}", remedy="mend the function"
        ) from error
    finally:
        sys.path.remove(str(place.parent))
