"""Writes the unicode.txt of the tokenizers: what BERT's normalizer and pre-tokenizer do to each code point.

Asked of `tokenizers`.

python tests/conformance/unicode_tables.py [FILE]
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

PLACE = Path(__file__).resolve().parents[2] / "runtimes/processing/tokenizers/unicode.txt"
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)
"""Syllables: their decomposition is arithmetic, which the readers of the file do themselves."""


def bert(**options: bool) -> Callable[[str], str]:
    """BERT's normalizer with these options alone."""
    none = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**none, **options}).normalize_str


def ranges(members: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours."""
    first = last = None
    for member in members:
        if last is not None and member == last + 1:
            last = member
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = member
    if first is not None and last is not None:
        yield first, last


def combining_classes(nfd: Callable[[str], str]) -> dict[int, int]:
    """Code point -> its canonical combining class where that is not 0, found by how it changes places with known marks.

    `r` stands before `c` in the input; they change places only if 0 < class(c) < class(r).
    """
    overlay = "\u0334"  # of class 1, which any other class follows
    known = {1: overlay}
    for c in CODE_POINTS:
        mark, value = chr(c), unicodedata.combining(chr(c))
        if value > 1 and value not in known and nfd(mark) == mark and nfd(mark + overlay) == overlay + mark:
            known[value] = mark  # one that `tokenizers` knows, whose Unicode is older
    classes = sorted(known)
    last = known[classes[-1]]
    found = {}
    for c in CODE_POINTS:
        mark = chr(c)
        if mark == last or (nfd(mark) == mark and nfd(mark + overlay) == overlay + mark != mark + overlay):
            above = [v for v in classes if known[v] != mark and nfd(known[v] + mark) == mark + known[v]]
            found[c] = max(v for v in classes if not above or v < above[0])
        elif nfd(mark) == mark and mark + last == nfd(last + mark):
            found[c] = 1
    return found


def lines() -> Iterator[str]:
    """The file, line by line."""
    clean, cjk, strip, lower = (
        bert(**{option: True}) for option in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    )
    nfd = normalizers.NFD().normalize_str
    pieces = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    parts = {c: len(pieces(f"a{chr(c)}b")) for c in CODE_POINTS}
    sets = {
        "clean": (c for c in CODE_POINTS if clean(f"a{chr(c)}b") == "ab"),
        "space": (c for c in CODE_POINTS if parts[c] == 2),
        "cjk": (c for c in CODE_POINTS if cjk(chr(c)) == f" {chr(c)} "),
        "punct": (c for c in CODE_POINTS if parts[c] == 3),
        "mark": (c for c in CODE_POINTS if nfd(chr(c)) == chr(c) and strip(chr(c)) == ""),
    }
    yield "# What BERT's normalizer does to a code point: docs/preprocessing-text.md. Written by"
    yield "# tests/conformance/unicode_tables.py, which asks Hugging Face's tokenizers about each of them."
    for name, members in sets.items():
        for first, last in ranges(members):
            yield f"{name} {first:x} {last:x}"
    classes = combining_classes(nfd)
    for value in sorted(set(classes.values())):
        for first, last in ranges(c for c, found in classes.items() if found == value):
            yield f"ccc {first:x} {last:x} {value:x}"
    for name, function in (("nfd", nfd), ("lower", lower)):
        for c in CODE_POINTS:
            mapped = function(chr(c))
            if mapped != chr(c) and not (name == "nfd" and c in HANGUL):
                yield f"{name} {c:x} {' '.join(f'{ord(m):x}' for m in mapped)}"


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE
    place.write_text("".join(f"{line}\n" for line in lines()), encoding="ascii")
