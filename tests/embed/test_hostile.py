"""What a bundle says stays data in every file that `embed` generates, as a parser of each language reads it."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from exporter.embed.card import CARD, model_card
from exporter.embed.write import rendered
from runtimes.errors import BadInput
from tests.embed.hostile import (
    DATA_FIELDS,
    HOSTILE,
    NAME_FIELDS,
    OPTIONAL_FIELDS,
    WORD_FIELDS,
    Say,
    harmless,
    library,
    saying,
)
from tests.embed.structure import structures

ALL_AT_ONCE = [field for field in (*DATA_FIELDS, *NAME_FIELDS) if not field.startswith(("input", "output"))]
"""Two inputs of one name would be another library."""
ONE_IN = 40
"""Of the pairs of a field and a string, how many CI looks at one by one."""


def generated(platform: str, say: Say) -> dict[str, str]:
    made = library(platform, say)
    return {**rendered(made, platform), CARD: model_card(made)}


def cases(platform: str, whole: bool) -> Iterator[tuple[str, str, Say]]:
    """The field, what it says, and who says so: each string in all fields at once, and in single ones."""
    for hostile in HOSTILE:
        at_once = [field for field in ALL_AT_ONCE if hostile or field not in OPTIONAL_FIELDS]
        yield "all fields", hostile, saying(hostile, *at_once)
        for field in (*DATA_FIELDS, *NAME_FIELDS, *WORD_FIELDS):
            chosen = whole or zlib.crc32(f"{platform} {field} {hostile!a}".encode()) % ONE_IN == 0
            harm = (
                not re.fullmatch("[a-z]+", hostile) if field in WORD_FIELDS else hostile or field not in OPTIONAL_FIELDS
            )
            if chosen and harm:
                yield field, hostile, saying(hostile, field)


@pytest.mark.parametrize(
    "platform",
    [
        pytest.param("android", marks=pytest.mark.device),
        "ios",
        pytest.param("cpp", marks=pytest.mark.device),
        pytest.param("web", marks=pytest.mark.browser),
        "python",
    ],
)
def test_every_field_is_data(platform, whole_run, tmp_path):
    plain = list(generated(platform, harmless).items())
    texts: dict[str, dict[str, str]] = defaultdict(dict)  # by file the texts that differ, with the case that made them
    looked, refused = 0, 0
    for field, hostile, say in cases(platform, whole_run):
        looked += 1
        name = f"{field}: {hostile!a}"
        try:
            found = list(generated(platform, say).items())
        except BadInput as error:
            assert field in WORD_FIELDS and re.search("is no word of|generated code takes", str(error)), name
            refused += 1
            continue
        assert [PurePosixPath(path).suffix for path, _ in found] == [PurePosixPath(path).suffix for path, _ in plain]
        for (path, text), (place, usual) in zip(found, plain, strict=True):
            assert ".." not in path and path.isascii() and max(map(len, path.split("/"))) < 120, name
            assert all(c == "\n" or c.isprintable() for c in text), (name, path)
            if text != usual:
                texts[place].setdefault(text, name)
    wanted, parsed = dict(plain), 0
    by_suffix: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for place, changed in texts.items():
        suffix = PurePosixPath(place).suffix
        by_suffix[suffix] += [
            (place, "as usual", wanted[place]),
            *((place, name, text) for text, name in changed.items()),
        ]
    for suffix, rows in by_suffix.items():
        made = structures(suffix, [text for _, _, text in rows], tmp_path / f"parsed{suffix}")
        usual = ""
        for (place, name, _), structure in zip(rows, made, strict=True):
            usual = structure if name == "as usual" else usual
            assert structure == usual and not structure.startswith("error"), (platform, place, name, structure[:400])
            parsed += 1
    print(f"{platform}: {looked} libraries with a hostile string, {refused} refused; {parsed} different files parsed")
