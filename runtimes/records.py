"""Values of dataclasses from what JSON gave, every field checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from runtimes.errors import BadInput

LARGEST_WHOLE = 1 << 64
"""More than any field counts; a float holds it."""
JSON_NAMES = {type(None): "null"}
UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))  # `X | None` is of the second kind


def from_json(kind: Any, value: Any, where: str = "") -> Any:
    """Build a value of the type `kind` (a dataclass of types.py, or a field's type) from what JSON gave.

    Raises BadInput naming the field that is missing, unknown or of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if origin is tuple:
        _expect(isinstance(value, list), where, "a list", value)
        if arguments[0] in (int, float, str) and {*map(type, value)} == {arguments[0]}:  # thousands of times a block
            return tuple(value)
        return tuple(from_json(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {k: from_json(arguments[1], v, f"{where}.{k:.60}") for k, v in value.items()}
    kinds = arguments if origin in UNIONS else (kind,)
    nested = [k for k in kinds if dataclasses.is_dataclass(k) or typing.get_origin(k) in (tuple, dict)]
    if nested and value is not None:  # a union holds one of them at most
        return from_json(nested[0], value, where)
    if type(value) is int and int not in kinds and float in kinds:
        _expect(abs(value) < LARGEST_WHOLE, where, "a number of 64 bits", value)
        return float(value)
    _expect(type(value) in kinds, where, " or ".join(JSON_NAMES.get(k, k.__name__) for k in kinds), value)
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where, "an object", value)
    types = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    required = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    wrong = [f"unknown field {k!r:.60}" for k in value if k not in types] + [
        f"no field {k!r}" for k in sorted(required - set(value))
    ]
    if wrong:
        raise BadInput(wrong[0], where=where or "manifest", remedy="export the bundle again")
    return kind(**{k: from_json(types[k], v, f"{where}.{k}" if where else k) for k, v in value.items()})


def _expect(fits: bool, where: str, wanted: str, value: Any) -> None:
    if not fits:
        raise BadInput(f"{value!r:.60} is not {wanted}", where=where or "manifest", remedy="export the bundle again")
