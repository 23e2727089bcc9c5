"""Writes text.tsv: strings of every script and kind, with the ids that Hugging Face's tokenizers give for them.

python tests/conformance/text.py [FILE]      (needs minilm's package for its tokenizer.json)
"""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from exporter.families.minilm import model_folder
from exporter.sources.huggingface import SENTENCES

PLACE = Path(__file__).parent / "text.tsv"
MAX_TOKENS = 128
SEED = 5

INVALID = (
    b"\xff", b"\xfe\xff", b"\x80", b"\xbf\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2 ", b"\xe0\x80\x80", b"\xe2\x82",
    b"\xe2\x82 x", b"\xe2\x28\xa1", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xef\xbf", b"\xf0\x9f",
    b"\xf0\x9f\x98", b"\xf0\x9f\x98x", b"\xf0\x28\x8c\x28", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"a\xffb", b"word\xe2\x82word", b"\xe4\xb8\xff\xe4\xb8\xad",
    b"\xf1\x80\x80\xe1\x80\xc2", b"caf\xe9", b"na\xefve \x93quotes\x94", b"\xef\xbb\xbfbom", b"\x00\xff\x00",
)  # fmt: skip
WRITTEN = (
    "", " ", "   ", "\t\n\r", "\u3000\u2003", "a", "A", "ÀÉÎÕÜ", "naïve café", "ﬁne ﬂow ﬃ", "ŒUVRE Ǆ ǅ ǆ", "İstanbul I ı i", "ΣΊΣΥΦΟΣ Σ σ ς",
    "STRASSE ẞ ß", "ǰ ΐ ΰ", "Ω Ω K K Å Å", "½ ² ① Ⅷ ⅷ", "don't can't it's", "e-mail: a.b+c@d-e.org", "https://example.org/a?b=c#d",
    "3.14159 1,000,000 $5 €6 £7 ¥8 ₹9", "C++ C# .NET a_b __init__", "!!!???...", "¿Qué? ¡Sí!", "「日本語」、中文。한국어", "日本語とEnglishの混在",
    "한글 자모 각 각", "สวัสดีชาวโลก", "नमस्ते दुनिया", "שָׁלוֹם עולם", "مَرْحَبًا بالعالم", "გამარჯობა", "Բարեւ", "ሰላም", "မင်္ဂလာပါ", "ជំរាបសួរ",
    "ᐃᓄᒃᑎᑐᑦ", "ᎣᏏᏲ", "👍", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷🇩🇪", "1️⃣", "❤️", "☺︎", "🫠", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[CLS]x[SEP]",
    "a[MASK]b", "[ MASK ]", "[mask]", "[[SEP]]", "x [SEP] y [SEP] z", "[CLS][CLS][CLS]", "##ing", "# #ing", "un##aff", "\u200bzero\u200bwidth\u200c\u200d",
    "soft\u00adhyphen", "\ufeffbom", "left\u202eright", "\u2066isolate\u2069", "\U000e0041\U000e007f tags", "\ue000 private \U000f0000",
    "\ufdd0 \ufffe \uffff", "\u0378 unassigned", "\ufffd replaced \ufffd", "a\u0301\u0327 a\u0327\u0301", "q\u0323\u0307 q\u0307\u0323",
    "\u0344 \u1fee", "\u1e9b\u0323", "\u0f73\u0f75", "\u302e\u302f", "\U0001d15e \U0001d1bb", "Ａｆｕｌｌｗｉｄｔｈ １２３", "ｶﾞｷﾞ", "㍿ ㎏", "\U00020000\U0002a6df",
    "\U0002f800", "豈更", "\x00\x01\x02", "a\x00b", "a\x7fb", "a\x85b", "a\xa0b", "line\u2028sep\u2029", "tab\tnew\nret\r\nvt\x0bff\x0c", "\x1b[31mred\x1b[0m",
)  # fmt: skip


UNIDATA = "14.0.0"
"""Of Python 3.11, whose names and categories choose the characters: with another, other strings would be made."""
BLOCKS = (
    0x10300, 0x10350, 0x103A0, 0x10A60, 0x10A80, 0x10C00, 0x10C80, 0x10F00, 0x10F70,  # Old Italic, Permic, Persian, ...
    0x11F04, 0x1E4D0, 0x10D4A, 0x16100, 0x16D43, 0x1E5D0, 0x11BC0, 0x105C0, 0x11380,  # Kawi, Nag Mundari, and newer ones
)  # fmt: skip


def scripts() -> Iterator[str]:
    """Three strings for each first word of a character's name, which is its script's for letters; and BLOCKS."""
    if unicodedata.unidata_version != UNIDATA:
        raise SystemExit(f"text.py needs a Python with Unicode {UNIDATA}: 3.11")
    for first in BLOCKS:
        yield f"{chr(first)}{chr(first + 1)} {chr(first + 2)}"
    by_name: dict[str, list[str]] = {}
    for code in range(0x110000):
        char = chr(code)
        name = unicodedata.name(char, "")
        if name and unicodedata.category(char)[0] in "LMNPSZ":
            by_name.setdefault(name.split()[0].split("-")[0], []).append(char)
    generator = random.Random(SEED)
    for _, chars in sorted(by_name.items()):
        for length in (1, 5, 12):
            yield "".join(generator.choice(chars) + (" " if generator.random() < 0.15 else "") for _ in range(length))


def kinds() -> Iterator[str]:
    """Every control and format character, space, and a thousand marks and punctuation characters, inside a word."""
    generator = random.Random(SEED)
    chars = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    by_category: dict[str, list[str]] = {}
    for char in chars:
        by_category.setdefault(unicodedata.category(char), []).append(char)
    for category in ("Cc", "Cf", "Zs", "Zl", "Zp"):
        for char in by_category[category]:
            yield f"ab{char}cd {char}"
    for category, count in (("Mn", 160), ("Mc", 60), ("Me", 13), ("Nd", 60), ("Nl", 20), ("No", 40), ("Pc", 10), ("Pd", 20),
                            ("Ps", 30), ("Pe", 30), ("Pi", 10), ("Pf", 10), ("Po", 120), ("Sm", 50), ("Sc", 40), ("Sk", 50),
                            ("So", 80), ("Lu", 120), ("Ll", 120), ("Lt", 31), ("Lm", 50), ("Lo", 100), ("Co", 10), ("Cn", 40)):  # fmt: skip
        for char in generator.sample(by_category[category], min(count, len(by_category[category]))):
            yield f"ab{char}cd {char}"


def long_ones() -> Iterator[str]:
    """Words about the longest that is looked up, of 10,000 characters, and texts that are cut."""
    for length in (99, 100, 101, 128, 500, 10_000):
        yield "a" * length
    yield "é" * 10_000
    yield "中" * 10_000
    yield "e\u0301" * 5_000
    yield "👍" * 2_500
    yield "x" * 10_000 + " tail"
    yield "head " + "!" * 10_000
    yield "word " * 400
    yield "[SEP]" * 200
    yield " ".join(SENTENCES) * 20
    yield "a" * 100 + "\u0301"
    yield "İ" * 60


def mixtures() -> Iterator[str]:
    """Seeded strings of everything."""
    generator = random.Random(SEED)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    marks = [chr(code) for code in range(0x300, 0x370)] + [chr(code) for code in range(0x591, 0x5C8)]
    odd = [chr(code) for code in (*range(0xA0, 0x3100), *range(0xFB00, 0xFDD0), *range(0x1F300, 0x1FA00))]
    for _ in range(500):
        parts = []
        for _ in range(generator.randrange(1, 14)):
            pool = generator.choice((letters, letters, " .,;'-", "0123456789", marks, odd))
            parts.append("".join(generator.choice(pool) for _ in range(generator.randrange(1, 7))))
        yield generator.choice(("", " ")).join(parts)


def strings() -> Iterator[bytes]:
    """All of them, in UTF-8 or not."""
    yield from INVALID
    for source in (WRITTEN, SENTENCES, scripts(), kinds(), long_ones(), mixtures()):
        yield from (text.encode() for text in source)


def lines() -> Iterator[str]:
    """The file, line by line."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    for data in dict.fromkeys(strings()):
        ids = tokenizer.encode(data.decode("utf-8", "replace")).ids
        yield f"{data.hex()}\t{' '.join(map(str, ids))}"


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE
    place.write_text("".join(f"{line}\n" for line in lines()), encoding="ascii")
