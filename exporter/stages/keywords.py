"""The keywords of `exporter.export` as `Options`: the command line's words, or values of Python's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands.words import parse_bytes, parse_percent
from exporter.stages.options import parse_dynamic, parse_shapes, parse_targets
from runtimes.errors import BadInput

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("output", "preprocessor", "tokenizer", "sign"), ((str, Path), "a path")),
    **dict.fromkeys(("prune", "low_rank", "quantize", "task", "coreml_precision"), ((str,), "a word")),
    "weights": ((str, Path), "a path"),
    "labels": ((str, Path, list, tuple), "a path, or the name of each class"),
    "image": ((str, dict), 'it as {"size": 224, "mean": 0.5, "std": 0.5}'),
    **dict.fromkeys(("opset", "min_ios", "seed"), ((int,), "a whole number")),
    **dict.fromkeys(("atol", "min_speedup"), ((int, float), "a number")),
    **dict.fromkeys(("trust_remote_code", "strict", "force", "measure"), ((bool,), "True or False")),
}
"""By keyword what it may be, None aside, and how that is said."""


def check_kinds(**given: Any) -> None:
    """Raise BadInput for a value that is of none of its keyword's types; True is no number."""
    for name, value in given.items():
        kinds, said = KINDS[name]
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if value is not None and not fits:
            raise wrong(name, value, said)


def wrong(name: str, value: Any, said: str) -> BadInput:
    """The error of a keyword with a value of another type."""
    return BadInput(f"{value!r:.60} is of type {type(value).__name__}", where=name, remedy=f"give {said}")


def check_pair(source: Any) -> None:
    """Raise BadInput for what is neither a word nor a pair."""
    if not isinstance(source, str) and not (isinstance(source, (tuple, list)) and len(source) == 2):
        raise wrong("source", source, "(module, example_inputs), or a word as pocketship export takes it")


def targets_in(name: str, value: Any) -> tuple[str, ...]:
    """`"onnx"`, `"onnx,tflite"`, `"all"` or several such words as the names of targets.

    Raises BadInput for anything else.
    """
    return parse_targets(_words(name, value, 'it as "all", or ["onnx", "tflite"]'))


def share_of(name: str, value: Any) -> float | None:
    """`"1%"` or 0.01 as 0.01.

    Raises BadInput for anything else.
    """
    if isinstance(value, str):
        return parse_percent(value)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1):
        return None if value is None else float(value)
    raise wrong(name, value, 'it as "1%", or as a share, 0.01')


def bytes_in(name: str, value: Any) -> int | None:
    """`"3MB"` or 3_000_000 as 3_000_000.

    Raises BadInput for anything else.
    """
    if isinstance(value, str):
        return parse_bytes(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise wrong(name, value, 'it as "3MB", or in bytes, 3_000_000')


def shapes_in(name: str, value: Any) -> dict[str, tuple[int, ...]]:
    """`{"image": (1, 3, 96, 96)}`, `"image=1,3,96,96"` or several such words, as the former.

    Raises BadInput for anything else.
    """
    if isinstance(value, Mapping) and all(isinstance(k, str) and _is_shape(v) for k, v in value.items()):
        return {key: tuple(map(int, shape)) for key, shape in value.items()}
    return parse_shapes(_words(name, value, 'it as {"image": (1, 3, 96, 96)}'))


def dynamic_in(name: str, value: Any) -> tuple[tuple[str, int], ...]:
    """`{"ids": 1}`, `{"ids": (0, 1)}`, `"ids:1"` or several such words, as pairs.

    Raises BadInput for anything else.
    """
    if isinstance(value, Mapping):
        axes = {key: (axis,) if isinstance(axis, int) else axis for key, axis in value.items()}
        if all(isinstance(key, str) and _is_shape(axis) for key, axis in axes.items()):
            return tuple((key, int(axis)) for key, several in axes.items() for axis in several)
    return parse_dynamic(_words(name, value, 'it as {"input_ids": 1}'))


def _is_shape(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)


def _words(name: str, value: Any, said: str) -> list[str]:
    words = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise wrong(name, value, said)
    return list(words)
