"""Words of the command line as numbers: sizes, shares, times, lists."""

from __future__ import annotations

import re

from runtimes.errors import BadInput

BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_percent(text: str) -> float:
    """`1%` as 0.01.

    Raises BadInput for anything but a percentage of 0 to 100.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", text.strip())
    if not match or float(match[1]) > 100.0:
        raise BadInput(f"{text!r} is no percentage of 0 to 100", remedy="give it as 1%")
    return float(match[1]) / 100.0


def parse_bytes(text: str) -> int:
    """`3MB` as 3,000,000 and `3MiB` as 3,145,728.

    Raises BadInput for anything else, such as a number without a unit, and for less than one byte.
    """
    units = {unit.lower(): factor for unit, factor in BYTES.items()}
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)", text.strip())
    if match and not match[2]:
        raise BadInput(f"{text!r} has no unit", where="--max-size", remedy=f"give it as {text.strip()}MB")
    if not match or match[2].lower() not in units:
        raise BadInput(f"{text!r} is no size", remedy=f"give a number and one of {', '.join(BYTES)}, as 3MB")
    size_bytes = round(float(match[1]) * units[match[2].lower()])
    if size_bytes < 1:
        raise BadInput(f"{text!r} holds no model", remedy="give it as 3MB")
    return size_bytes


def parse_formats(text: str) -> tuple[str, ...]:
    """`onnx,tflite` as a tuple; `all` as none, which stands for every format.

    Raises BadInput for a word that is no format.
    """
    from runtimes.types import FORMATS

    words = tuple(word.strip() for word in text.split(","))
    if words == ("all",):
        return ()
    wrong = [word for word in words if word not in FORMATS]
    if wrong:
        raise BadInput(f"{wrong[0]!r} is no format", where="--target", remedy=f"give {', '.join(FORMATS)} or all")
    return words


SECONDS_OF = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_numbers(text: str, where: str, least: int) -> tuple[int, ...]:
    """`1,2,4` as a tuple.

    Raises BadInput for anything but whole numbers from `least` on, each once.
    """
    words = text.split(",")
    if not all(re.fullmatch(r"\s*\d{1,4}\s*", word) for word in words) or len(set(map(int, words))) < len(words):
        raise BadInput(f"{text!r} is no list of numbers", where=where, remedy="give it as 1,2,4")
    if min(map(int, words)) < least:
        raise BadInput(f"{min(map(int, words))} is too little", where=where, remedy=f"give {least} or more")
    return tuple(map(int, words))


def parse_seconds(text: str) -> float:
    """`10m` as 600.0; a bare number counts seconds.

    Raises BadInput for anything else, and for less than two seconds.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh]?)", text.strip())
    if not match or float(match[1]) * SECONDS_OF[match[2]] < 2.0:
        raise BadInput(f"{text!r} is no time of two seconds or more", where="--sustained", remedy="give it as 10m")
    return float(match[1]) * SECONDS_OF[match[2]]


def parse_share(text: str) -> float:
    """`1%` as 0.01.

    Raises BadInput for anything but a percentage above 0 and up to 100.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", text.strip())
    if not match or not 0.0 < float(match[1]) <= 100.0:
        raise BadInput(f"{text!r} is no percentage above 0", where="--precision", remedy="give it as 1%")
    return float(match[1]) / 100.0


def positive(value: float, where: str) -> float:
    """The value, which must be above 0 and finite.

    Raises BadInput otherwise.
    """
    if not 0 < value < float("inf"):
        raise BadInput(f"{value:g} is too little or too much", where=where, remedy="give more than 0")
    return value
