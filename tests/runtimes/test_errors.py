"""Errors of Python's own that a user can mend are one line; all others stay what they are."""

from __future__ import annotations

import errno
import os
import re
import tomllib
from pathlib import Path

import pytest

from runtimes.errors import EXTRAS, PACKAGES, BadInput, NotInstalled, refusal_of

ROOT = Path(__file__).resolve().parents[2]


def absent(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_foreign_files_own_words_do_not_command_a_terminal():
    """onnxruntime repeats a tensor's name as the file has it."""
    error = BadInput("no input '0\x0e\x1b]52;c;eA==\x07'\nof a node", where="model\x9b.onnx", remedy="export\tit again")
    assert str(error) == "model\ufffd.onnx: no input '0\ufffd\ufffd]52;c;eA==\ufffd' of a node; export it again"
    assert error.what.isprintable() and error.where.isprintable()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (absent("yaml"), "pyyaml is not installed; pip install 'pocketship[bench]'"),
        (absent("jinja2"), "jinja2 is not installed; pip install 'pocketship[bench]'"),
        (absent("sqlalchemy.engine"), "sqlalchemy is not installed; pip install 'pocketship[bench]'"),
        (absent("zstandard"), "zstandard is not installed; pip install 'pocketship[delivery]'"),
        (absent("sklearn.datasets"), "scikit-learn is not installed; pip install 'pocketship[demo]'"),
        (absent("torch"), "torch is not installed; pip install 'pocketship[export]'"),
        (absent("einops"), "einops is not installed; pip install einops"),
        (
            ImportError("cannot import name 'x' from 'jinja2'", name="jinja2"),
            "jinja2 cannot be imported (cannot import name 'x' from 'jinja2'); pip install 'pocketship[bench]'",
        ),
    ],
)
def test_a_library_that_is_missing(error, line):
    refusal = refusal_of(error)
    assert isinstance(refusal, NotInstalled) and str(refusal) == line and refusal.exit_code == 2


def test_an_extra_brings_what_it_is_said_to_bring():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, extra in EXTRAS.items():
        packages = {re.split(r"[=<>\[]", wanted)[0] for wanted in extras[extra]}
        assert PACKAGES.get(name, name.replace("_", "-")) in packages, (name, extra)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("operator torchvision::nms does not exist", "torchvision is of another build than torch (one for CUDA"),
        ("Could not determine home directory.", "this user has no home folder; set HOME to a folder"),
    ],
)
def test_what_an_environment_lacks(said, line):
    refusal = refusal_of(RuntimeError(said))
    assert str(refusal).startswith(line) and refusal.exit_code == 2 and refusal.remedy
    assert refusal_of(RuntimeError("another")) is None


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.EMFILE, "allow more open files: ulimit -n 1024"),
        (errno.EACCES, "use a folder that you may write"),
        (errno.EROFS, "use a folder that you may write"),
        (errno.ENOSPC, "free some space on the disk"),
        (errno.ENOENT, "check the path"),
        (errno.ENAMETOOLONG, "use a shorter path"),
    ],
)
def test_what_the_system_refuses(number, mend):
    refusal = refusal_of(OSError(number, os.strerror(number), "/place"))
    assert isinstance(refusal, BadInput) and str(refusal) == f"/place: {os.strerror(number)}; {mend}"
    assert str(refusal_of(OSError(number, os.strerror(number)))) == f"{os.strerror(number)}; {mend}"


def test_text_that_is_not_utf_8():
    try:
        "\udce9".encode()
    except UnicodeEncodeError as error:
        line = str(refusal_of(error))
    assert line.startswith("a name or a text is not in UTF-8 ('utf-8' codec can't encode character")
    assert line.endswith("; rename it, or write it in UTF-8")


@pytest.mark.parametrize(
    "error", [KeyError("x"), OSError("no number"), absent("runtimes.gone"), ImportError("of nobody"), RecursionError()]
)
def test_a_fault_of_ours_stays_one(error):
    assert refusal_of(error) is None
