"""What each value of a manifest may be: a rule for each field that has its own, the rule of its type for all others.

A manifest may come from anybody, and its words reach terminals, documents and code: what no export of ours would write
is refused when it is read.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from runtimes.errors import BadInput
from runtimes.types import COMPUTE_TYPES, EXECUTION_KINDS, FORMATS, PRECISIONS

Rule = Callable[[Any], str]
"""Says what is wrong with a value, empty where nothing is."""

MOST_TEXT, MOST_NAME, MOST_WORD = 4096, 200, 200
MOST_COUNT = 1 << 53
"""The whole numbers that every reader of JSON tells apart."""
LARGEST = 1e39
"""Above all that float32 holds."""
MOST_AXES, MOST_LENGTH, MOST_ELEMENTS = 16, 1 << 31, 1 << 34
MOST_MS = 1e9
NAME_SIGNS = frozenset(" ._-+@()[],=~#")
CONTROLS = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's control characters, lone surrogates, and separators of lines and paragraphs."""
TURNS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the direction of the text around them, which then reads as what it is not."""
DTYPES = (
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)
SOURCES = ("zoo", "huggingface", "timm", "factory", "pt2", "module")
WEIGHTS = ("pretrained", "random", "as given")
VERDICTS = ("pass", "fail")


def text(most: int = MOST_TEXT) -> Rule:
    """Anything that can be read on one line."""

    def fault(value: str) -> str:
        if len(value) > most:
            return f"has {len(value)} characters, the most are {most}"
        bad = next((c for c in value if c in TURNS or unicodedata.category(c) in CONTROLS), "")
        return f"holds the character U+{ord(bad):04X}" if bad else ""

    return fault


def name(value: str) -> str:
    """A name of a model, a task or a licence: letters, digits and a few signs, none of which means anything in code."""
    if not 0 < len(value) <= MOST_NAME:
        return f"has {len(value)} characters, a name has 1 to {MOST_NAME}"
    bad = next((c for c in value if not c.isalnum() and c not in NAME_SIGNS and unicodedata.category(c)[0] != "M"), "")
    return f"holds the character U+{ord(bad):04X}, which no name has" if bad else ""


def word(pattern: str, what: str) -> Rule:
    """A text that matches a pattern as a whole."""
    compiled = re.compile(pattern)
    return lambda value: "" if compiled.fullmatch(value) else f"is no {what}"


def one_of(words: Tuple[str, ...]) -> Rule:
    """One of a few words."""
    return lambda value: "" if value in words else f"is none of {', '.join(words)}"


def whole(low: int = 0, high: int = MOST_COUNT) -> Rule:
    """A whole number of a range."""
    return lambda value: "" if low <= value <= high else f"is not {low} to {high}"


def number(low: float = -LARGEST, high: float = LARGEST) -> Rule:
    """A number of a range."""
    return lambda value: "" if low <= value <= high else f"is not {low:g} to {high:g}"


def setting(value: Any) -> str:
    """A setting of a pass: a whole number may be negative."""
    return whole(-MOST_COUNT)(value) if type(value) is int else PLAIN[type(value)](value)


def length(value: Any) -> str:
    """A length of an axis, or its name."""
    return whole(0, MOST_LENGTH)(value) if isinstance(value, int) else identifier(value)


identifier = word(r"[A-Za-z0-9_.-]{1,200}", "name of a tensor or an axis")
sha256 = word("[0-9a-f]{64}", "SHA-256")
path = text(1024)

RULES: Dict[str, Rule] = {
    "Artifact.format": one_of(FORMATS),
    "Artifact.precision": one_of(PRECISIONS),
    "Artifact.compute": one_of(COMPUTE_TYPES),
    "ExecutedBy.kind": one_of(EXECUTION_KINDS),
    "Manifest.name": name,
    "SourceFacts.name": name,
    "Origin.kind": one_of(SOURCES),
    "Origin.weights": one_of(WEIGHTS),
    "Origin.weights_sha256": sha256,
    "Origin.task": name,
    "Origin.license": name,
    "TensorSpec.name": identifier,
    "TensorSpec.dtype": one_of(DTYPES),
    "TensorSpec.shape": length,
    "Artifact.path": path,
    "Artifact.golden": path,
    "Artifact.sha256": sha256,
    "Artifact.noise": number(0.0),
    "BundleFile.path": path,
    "BundleFile.sha256": sha256,
    "Parity.max_abs_error": number(0.0),
    "Parity.max_rel_error": number(0.0),
    "Parity.cosine": number(-1.000001, 1.000001),  # rounding makes a little more than 1
    "Parity.sensitivity": number(0.0),
    "Parity.tolerance": number(0.0),
    "Parity.nearest_error": number(0.0),
    "Parity.samples": whole(1),
    "Parity.verdict": one_of(VERDICTS),
    "ExecutedBy.runtime": text(MOST_WORD),
    "ExecutedBy.version": text(MOST_WORD),
    "RecipeStep.name": name,
    "RecipeStep.settings": setting,
    "Accuracy.metric": name,
    "Accuracy.value": number(-1.0, 1.0),
    "Accuracy.low": number(-1.0, 1.0),
    "Accuracy.high": number(-1.0, 1.0),
    "Accuracy.samples": whole(1),
    "Accuracy.of_samples": whole(1),
    "Latency.median_ms": number(0.0, MOST_MS),
    "Latency.baseline_median_ms": number(0.0, MOST_MS),
    "Latency.speedup": number(0.0),
    "Latency.speedup_low": number(0.0),
    "Latency.speedup_high": number(0.0),
    "Latency.threads": whole(1, 1 << 16),
    "Latency.load": number(0.0),
    "Latency.cores": whole(1, 1 << 16),
    "LedgerRow.stage": name,
    "LedgerRow.format": one_of(FORMATS),
    "Classes.labels": text(MOST_WORD),
}
"""By class and field; of a list or an object the rule holds for each value in it."""
PLAIN: Dict[type, Rule] = {str: text(), int: whole(), float: number(), bool: lambda value: ""}
"""The rules of fields that have none of their own."""
KEY = text(1024)
MOST_DEPTH = 16


def check(value: Any, where: str, remedy: str = "do not trust this bundle") -> None:
    """Raise BadInput for a record of types.py that holds a value which its field does not allow."""
    fault = next(faults(value, ""), "")
    if fault:
        raise BadInput(fault, where=where, remedy=remedy)


def faults(value: Any, place: str, rule: Optional[Rule] = None, depth: int = 0) -> Iterator[str]:
    """What is wrong with a value and with all that it holds, each with its place."""
    if depth > MOST_DEPTH:
        yield f"{place} is nested more than {MOST_DEPTH} deep"
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            inner = f"{place}.{field.name}" if place else field.name
            own = RULES.get(f"{type(value).__name__}.{field.name}")
            yield from faults(getattr(value, field.name), inner, own, depth + 1)
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from faults(item, f"{place}[{i}]", rule, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            wrong = KEY(key)
            if wrong:
                yield f"{place}: the key {key!r:.60} {wrong}"
                return
            yield from faults(item, f"{place}.{key:.60}", rule, depth + 1)
    elif value is not None:
        wrong = (rule or PLAIN[type(value)])(value)
        if wrong:
            yield f"{place}: {value!r:.60} {wrong}"
