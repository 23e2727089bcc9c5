"""A text into BERT's token ids, id for id what Hugging Face's tokenizers give: docs/preprocessing-text.md."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from runtimes.errors import BadInput
from runtimes.files import parse_json

TABLES = "unicode.txt"
REMEDY = "pocketship describes WordPiece tokenizers alone; see docs/preprocessing-text.md"
HANGUL_FIRST, HANGUL_LAST = 0xAC00, 0xD7A3
LEADING, VOWEL, TRAILING = 0x1100, 0x1161, 0x11A7
VOWELS, TRAILINGS = 21, 28
"""Of Hangul's arithmetic decomposition: The Unicode Standard, section 3.12."""
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class WordPieceOptions:
    """What a tokenizer.json says, and the ids of its special tokens; `special` are texts that are one token."""

    lowercase: bool
    strip_accents: bool
    clean_text: bool
    handle_chinese_chars: bool
    prefix: str
    max_chars: int
    unk: int
    cls: int
    sep: int
    pad: int
    special: Tuple[Tuple[str, int], ...] = ()


class WordPiece:
    """A tokenizer with its vocabulary; `vocabulary[i]` is the token of id `i`."""

    def __init__(self, vocabulary: Sequence[str], options: WordPieceOptions, max_tokens: int) -> None:
        if max_tokens < 3:
            raise BadInput(f"{max_tokens} tokens leave no room for a text", remedy="give 3 or more")
        self.vocabulary = tuple(vocabulary)
        self.options = options
        self.max_tokens = max_tokens
        self._ids = {token: i for i, token in enumerate(self.vocabulary)}
        self._longest = max(map(len, self.vocabulary), default=0)
        self._special = dict(options.special)
        longest_first = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._steps = _normalizer(options)
        self._spaces, self._punctuation = _tables().space, _tables().punct

    @classmethod
    def from_tokenizer_json(cls, data: bytes, max_tokens: int) -> WordPiece:
        """The tokenizer that a tokenizer.json describes.

        Raises BadInput where that is no BERT WordPiece tokenizer, or says anything that is not described.
        """
        vocabulary, options = _read(data)
        return cls(vocabulary, options, max_tokens)

    def encode(self, text: Union[str, bytes]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, mask and types of a text, int64 `[max_tokens]` each; bytes are UTF-8, and what is not becomes U+FFFD."""
        found = self.tokens(text)
        ids = np.full(self.max_tokens, self.options.pad, np.int64)
        ids[: len(found)] = found
        mask = (np.arange(self.max_tokens) < len(found)).astype(np.int64)
        return ids, mask, np.zeros(self.max_tokens, np.int64)

    def tokens(self, text: Union[str, bytes]) -> List[int]:
        """The ids without padding: [CLS], at most `max_tokens - 2`, [SEP]."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        text = SURROGATES.sub("\ufffd", text)
        room = self.max_tokens - 2
        found: List[int] = []
        at = 0
        for match in self._split.finditer(text) if self._split else ():
            self._add(text[at : match.start()], found, room)
            found.append(self._special[match[0]])
            at = match.end()
            if len(found) >= room:
                break
        else:
            self._add(text[at:], found, room)
        return [self.options.cls, *found[:room], self.options.sep]

    def _add(self, text: str, found: List[int], room: int) -> None:
        """The ids of a text without special tokens, as long as there is room."""
        for step in self._steps:
            text = step(text)
        for word in self._words(text):
            if len(found) >= room:
                return
            found.extend(self._pieces(word))

    def _words(self, text: str) -> List[str]:
        words: List[str] = []
        start = 0
        for i, char in enumerate(text):
            if char in self._spaces or char in self._punctuation:
                if start < i:
                    words.append(text[start:i])
                if char in self._punctuation:
                    words.append(char)
                start = i + 1
        if start < len(text):
            words.append(text[start:])
        return words

    def _pieces(self, word: str) -> List[int]:
        """The longest token that begins the word, then the longest that goes on with it; all of it, or unknown."""
        if len(word) > self.options.max_chars:
            return [self.options.unk]
        pieces: List[int] = []
        start = 0
        while start < len(word):
            before = self.options.prefix if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self._ids.get(before + word[start:end])
                if piece is not None:
                    pieces.append(piece)
                    start = end
                    break
            else:
                return [self.options.unk]
        return pieces


# --- normalization ---------------------------------------------------------------------------------------------------


class _Ranges:
    """A set of characters as ranges of code points, in ascending order; what was asked once is remembered."""

    def __init__(self) -> None:
        self._firsts: List[int] = []
        self._lasts: List[int] = []
        self._known: Dict[str, bool] = {}

    def add(self, first: int, last: int) -> None:
        self._firsts.append(first)
        self._lasts.append(last)

    def __contains__(self, char: object) -> bool:
        assert isinstance(char, str)
        known = self._known.get(char)
        if known is None:
            at = bisect_right(self._firsts, ord(char)) - 1
            known = self._known[char] = at >= 0 and ord(char) <= self._lasts[at]
        return known


class _Tables:
    """unicode.txt: what each character is, and becomes."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.clean, self.space, self.cjk, self.punct, self.mark = (_Ranges() for _ in range(5))
        self.combining: Dict[str, int] = {}
        self.nfd: Dict[int, str] = {}
        self.lower: Dict[int, str] = {}
        sets = {name: getattr(self, name) for name in ("clean", "space", "cjk", "punct", "mark")}
        for line in lines:
            name, *words = line.split()
            numbers = [int(word, 16) for word in words] if name != "#" else []
            if name in sets:
                sets[name].add(*numbers)
            elif name == "ccc":
                self.combining.update({chr(c): numbers[2] for c in range(numbers[0], numbers[1] + 1)})
            elif name in ("nfd", "lower"):
                getattr(self, name)[numbers[0]] = "".join(map(chr, numbers[1:]))


_loaded: List[_Tables] = []


def _tables() -> _Tables:
    if not _loaded:
        text = (Path(__file__).resolve().parent / TABLES).read_text(encoding="ascii")
        _loaded.append(_Tables(text.splitlines()))
    return _loaded[0]


class _Mapping(Dict[int, str]):
    """For str.translate: each character as `function` maps it, asked once."""

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, code: int) -> str:
        mapped = self[code] = self._function(chr(code))
        return mapped


def _normalizer(options: WordPieceOptions) -> List[Callable[[str], str]]:
    """The steps that the options ask for, in BERT's order."""
    tables = _tables()

    def translate(mapping: Mapping[int, str]) -> Callable[[str], str]:
        return lambda text: text.translate(mapping)

    steps: List[Callable[[str], str]] = []
    if options.clean_text:
        steps.append(translate(_Mapping(lambda c: "" if c in tables.clean else " " if c in tables.space else c)))
    if options.handle_chinese_chars:
        steps.append(translate(_Mapping(lambda c: f" {c} " if c in tables.cjk else c)))
    if options.strip_accents:
        steps.append(translate(_Mapping(_decomposed)))
        steps.append(_in_canonical_order)
        steps.append(translate(_Mapping(lambda c: "" if c in tables.mark else c)))
    if options.lowercase:
        steps.append(translate(_Mapping(lambda c: tables.lower.get(ord(c), c))))
    return steps


def _decomposed(char: str) -> str:
    code = ord(char)
    if not HANGUL_FIRST <= code <= HANGUL_LAST:
        return _tables().nfd.get(code, char)
    index = code - HANGUL_FIRST
    leading, rest = divmod(index, VOWELS * TRAILINGS)
    vowel, trailing = divmod(rest, TRAILINGS)
    last = chr(TRAILING + trailing) if trailing else ""
    return chr(LEADING + leading) + chr(VOWEL + vowel) + last


def _in_canonical_order(text: str) -> str:
    """Neighbours of combining classes above 0 sorted by class, those of one class left as they are."""
    combining = _tables().combining
    if text.isascii() or not any(char in combining for char in text):
        return text
    ordered: List[str] = []
    run: List[str] = []
    for char in text:
        if char in combining:
            run.append(char)
            continue
        ordered += sorted(run, key=combining.__getitem__)
        ordered.append(char)
        run = []
    return "".join(ordered + sorted(run, key=combining.__getitem__))


# --- tokenizer.json --------------------------------------------------------------------------------------------------


def _read(data: bytes) -> Tuple[List[str], WordPieceOptions]:
    try:
        value = parse_json(data)
    except ValueError as error:
        raise _refusal(f"it is not JSON ({error})") from error
    model = _part(value, "model", ("WordPiece", None))
    normalizer = _part(value, "normalizer", ("BertNormalizer",))
    _part(value, "pre_tokenizer", ("BertPreTokenizer",))
    vocabulary = _vocabulary(model.get("vocab"))
    ids = {token: i for i, token in enumerate(vocabulary)}
    added = _added(value.get("added_tokens"), ids)
    cls, sep = _template(_part(value, "post_processor", ("TemplateProcessing", "BertProcessing")), ids)
    tokens = {"unk": model.get("unk_token"), "cls": cls, "sep": sep, "pad": _padding(value, ids)}
    for role, token in tokens.items():
        if not isinstance(token, str) or token not in ids:
            raise _refusal(f"its token {role} is {token!r:.40}, which is not in the vocabulary")
    cut = value.get("truncation")
    if cut is not None and not (isinstance(cut, dict) and cut.get("direction", "Right") == "Right"):
        raise _refusal("it does not cut long texts on the right")
    lowercase = _flag(normalizer, "lowercase")
    accents = normalizer.get("strip_accents")
    prefix, most = model.get("continuing_subword_prefix"), model.get("max_input_chars_per_word")
    if not isinstance(prefix, str) or type(most) is not int or most < 1 or type(accents) not in (type(None), bool):
        raise _refusal("its model or normalizer lacks a field")
    options = WordPieceOptions(
        lowercase=lowercase,
        strip_accents=lowercase if accents is None else accents,
        clean_text=_flag(normalizer, "clean_text"),
        handle_chinese_chars=_flag(normalizer, "handle_chinese_chars"),
        prefix=prefix,
        max_chars=most,
        special=added,
        **{role: ids[str(token)] for role, token in tokens.items()},
    )
    return vocabulary, options


def _refusal(what: str) -> BadInput:
    return BadInput(what, where="tokenizer.json", remedy=REMEDY)


def _part(value: Any, name: str, kinds: Tuple[Optional[str], ...]) -> Dict[str, Any]:
    part = value.get(name) if isinstance(value, dict) else None
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in kinds:
        raise _refusal(f"its {name} is {kind!r:.40}, not {' or '.join(k for k in kinds if k)}")
    return part


def _flag(part: Dict[str, Any], name: str) -> bool:
    value = part.get(name)
    if not isinstance(value, bool):
        raise _refusal(f"its normalizer's {name} is {value!r:.40}, neither true nor false")
    return value


def _vocabulary(vocab: Any) -> List[str]:
    numbers = list(vocab.values()) if isinstance(vocab, dict) else []
    if not numbers or {type(n) for n in numbers} != {int} or sorted(numbers) != list(range(len(numbers))):
        raise _refusal("its vocabulary's ids are not 0, 1, 2, ...")
    tokens: List[str] = sorted(vocab, key=vocab.__getitem__)
    for token in tokens:
        if "\n" in token or "\r" in token or SURROGATES.search(token):
            raise _refusal(f"its token {token!r:.40} cannot be a line of a file")
    return tokens


def _added(added: Any, ids: Mapping[str, int]) -> Tuple[Tuple[str, int], ...]:
    if not isinstance(added, list):
        raise _refusal("it has no list of added tokens")
    found = []
    for token in added:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not content or not _has_id(ids, content, token.get("id")):
            raise _refusal(f"its added token {content!r:.40} is not in the vocabulary")
        for flag in ("lstrip", "rstrip", "single_word", "normalized"):
            if token.get(flag) is not False:
                raise _refusal(f"its added token {content!r:.40} is {flag}")
        found.append((str(content), int(token["id"])))
    return tuple(found)


def _has_id(ids: Mapping[str, int], token: Any, number: Any) -> bool:
    """Whether the vocabulary gives `token` this id; JSON's true and 1.0 are no ids."""
    return isinstance(token, str) and type(number) is int and ids.get(token) == number


def _template(part: Dict[str, Any], ids: Mapping[str, int]) -> Tuple[str, str]:
    """The tokens before and after a single text; the ids that it adds for them are those of the vocabulary."""
    if part.get("type") == "BertProcessing":
        pairs = [p for p in (part.get("cls"), part.get("sep")) if isinstance(p, list) and len(p) == 2]
        if len(pairs) != 2:
            raise _refusal("its post_processor names no tokens")
        found = [(token, [number]) for token, number in pairs]
    else:
        found = [(name, _special_ids(part, name)) for name in _template_names(part.get("single"))]
    for token, numbers in found:
        if len(numbers) != 1 or not _has_id(ids, token, numbers[0]):
            raise _refusal(f"its post_processor's token {token!r:.40} is not the vocabulary's")
    return str(found[0][0]), str(found[1][0])


def _template_names(single: Any) -> Tuple[Any, Any]:
    """The names of the first and the last token of a template that is token, text, token, all of type 0."""
    try:
        (first,), (text,), (last,) = (piece.items() for piece in single)
        shape = [(kind, inner["type_id"]) for kind, inner in (first, text, last)]
        names = [inner["id"] for _, inner in (first, text, last)]
    except (AttributeError, KeyError, TypeError, ValueError):  # not three objects of one object each
        shape, names = [], []
    if shape != [("SpecialToken", 0), ("Sequence", 0), ("SpecialToken", 0)] or names[1] != "A":
        raise _refusal("its post_processor's template for one text is not [CLS] text [SEP]")
    return names[0], names[2]


def _special_ids(part: Dict[str, Any], name: Any) -> List[Any]:
    """What the template adds for a token: its own list of ids, whatever the vocabulary says."""
    special = part.get("special_tokens")
    entry = special.get(name) if isinstance(special, dict) and isinstance(name, str) else None
    numbers = entry.get("ids") if isinstance(entry, dict) else None
    return numbers if isinstance(numbers, list) else []


def _padding(value: Dict[str, Any], ids: Mapping[str, int]) -> str:
    padding = value.get("padding")
    if padding is None:
        return "[PAD]"
    if not isinstance(padding, dict) or padding.get("direction", "Right") != "Right":
        raise _refusal("its padding is not to the right")
    if not _has_id(ids, padding.get("pad_token"), padding.get("pad_id")):
        raise _refusal("its padding is by a token that is not in the vocabulary")
    if padding.get("pad_type_id", 0) != 0:
        raise _refusal(f"its padding's pad_type_id is {padding['pad_type_id']!r:.40}, not 0")
    return str(padding["pad_token"])


__all__ = ["WordPiece", "WordPieceOptions"]
