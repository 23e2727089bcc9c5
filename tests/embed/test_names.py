"""Any name becomes an identifier in every language, and none that a library uses itself."""

from __future__ import annotations

import itertools
import json
import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.embed import names
from exporter.embed.escape import Safe
from exporter.embed.names import camel, class_of, constant, pascal, snake, unique
from exporter.embed.write import PLATFORMS, TEMPLATES, rendered
from tests.embed.hostile import HOSTILE, KEYS, NAME_FIELDS, Say, library
from tests.embed.structure import structures

TEXTS = st.text(st.characters(codec=None), max_size=100) | st.sampled_from(HOSTILE)


@pytest.mark.parametrize(
    ("name", "plain", "humps", "kind"),
    [
        ("input_ids", "input_ids", "inputIds", "InputIds"),
        ("MobileNetV3-small", "mobile_net_v_3_small", "mobileNetV3Small", "MobileNetV3Small"),
        ("class", "class_", "class_", "Class"),
        ("3d", "n3_d", "n3D", "N3D"),
        ("été", "t", "t", "T"),
        ("*/", "model", "model", "Model"),
        ("", "model", "model", "Model"),
        ("bitand", "bitand_", "bitand_", "Bitand"),
        ("typealias", "typealias_", "typealias_", "Typealias"),
    ],
)
def test_any_name_becomes_an_identifier(name, plain, humps, kind):
    assert (snake(name), camel(name), pascal(name)) == (plain, humps, kind)
    assert constant(name) == plain.upper()


@given(TEXTS)
def test_an_identifier_is_one_in_every_language(name):
    for made, form in ((snake, r"[a-z][a-z0-9_]*"), (camel, r"[a-z][a-zA-Z0-9]*_?"), (pascal, r"[A-Z][a-zA-Z0-9]*")):
        found = made(name)
        assert isinstance(found, Safe) and re.fullmatch(form, found, re.ASCII) and len(found) <= names.LONGEST
        assert found not in names.KEYWORDS and not keyword.iskeyword(found.lower() if made is not pascal else "")
        assert made(found) == made(made(found))
    assert names.library(name) not in names.LIBRARIES and class_of(name).lower() not in names.TYPES


@given(st.lists(TEXTS, max_size=8))
def test_no_two_are_the_same_nor_taken(many):
    for taken, suffixes in ((names.TENSOR_WORDS, ()), (names.ENTRY_WORDS, names.SUFFIXES)):
        found = unique(many, taken, suffixes)
        humps = [camel(name) for name in found]
        derived = [*humps, *(f"{name}{pascal(suffix)}" for name in humps for suffix in suffixes)]
        assert len(found) == len(many) and len(set(derived)) == len(derived)
        assert not set(humps) & set(map(camel, taken)) and max(map(len, found), default=0) <= names.LONGEST


def test_names_that_would_be_the_same_are_numbered():
    assert unique(["a-b", "a.b", "a_b", "c"]) == ("a_b", "a_b_2", "a_b_3", "c")
    assert unique(["inputs", "class", "class"], ["inputs"]) == ("inputs_2", "class_", "class_2")
    assert unique(["text", "text_tokens"], (), ["tokens"]) == ("text", "text_tokens_2")
    assert unique(["text_tokens", "text"], (), ["tokens"]) == ("text_tokens", "text_2")
    assert len(set(unique(["9" * 400] * 200))) == 200


def test_keywords_of_python_are_known():
    assert {word.lower() for word in keyword.kwlist} <= names.KEYWORDS


@pytest.mark.parametrize(
    ("name", "plain", "kind"),
    [
        ("numpy", "numpy_model", "NumpyModel"),
        ("JSON", "json_model", "JsonModel"),
        ("image", "image_model", "ImageModel"),
        ("test", "test_model", "TestModel"),
        ("tensor", "tensor", "TensorModel"),
        ("WordPiece", "word_piece", "WordPieceModel"),
        ("digits", "digits", "Digits"),
    ],
)
def test_a_library_is_called_like_nothing_that_it_uses(name, plain, kind):
    own = names.library(name)
    assert (own, class_of(own)) == (plain, kind)


def test_files_and_classes_of_the_templates_are_known():
    for template in TEMPLATES.rglob("*.j2"):
        stem, suffix = template.name.split(".")[:2]
        if "{" in stem:
            continue
        if suffix in ("java", "swift") and "Test" not in template.parent.name:
            assert stem.lower() in names.TYPES, template
        if suffix in ("py", "js", "cpp", "hpp") and "__" not in stem:
            assert stem in names.LIBRARIES, template
        code = template.read_text()
        kinds = "class|struct|enum|interface|protocol|extension"
        declared = re.findall(rf"^ *(?:\w+ )*(?:{kinds}) ([A-Z]\w*)\b", code, re.MULTILINE)
        imported = re.findall(r"^import (?:[a-z.]+\.)?([A-Z]\w*);?$", code, re.MULTILINE)
        for name in {*declared, *imported}:
            assert pascal(name) != name or name.lower() in names.TYPES, (template.name, name)


SLOTS = (*NAME_FIELDS[1:], *(f"input {key}" for key in KEYS), "output scores", "output vector", "output rest")
WORDS = tuple(
    dict.fromkeys([*names.ENTRY_WORDS, *names.RESULT_WORDS, *names.SUFFIXES])
    | dict.fromkeys(
        """run predict embed create close runtime engine golden model self this self_test tolerances narrowed checked
        error init to_string hash_code get_class notify wait clone finalize equals description session tensor values
        name file shape threads data text_tokens image_options classes_labels constructor prototype load example samples
        implementation std string object float""".split()  # noqa: SIM905
    )
)


def called(turn: int) -> Say:
    """Every slot called by another of `WORDS`, by every one in turn."""
    own = {slot: WORDS[(turn + i * 7) % len(WORDS)] for i, slot in enumerate(SLOTS)}
    return lambda field, text: f"lib{turn}" if field == "name" else own.get(field, text)


def libraries(platform: str, step: int = 1) -> Iterator[dict[str, str]]:
    for turn in range(0, len(WORDS), step):
        yield rendered(library(platform, called(turn)), platform)


def write(files: dict[str, str], folder: Path) -> list[Path]:
    for place, text in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    return [folder / place for place in files]


STUBS = {
    "image": "def to_tensor(given, entry): return 'image ' + given",
    "audio": "import numpy\ndef to_tensor(given, entry): return numpy.zeros((1, 16, 6))",
    "series": "def to_tensor(given, entry): return 'series ' + given",
    "postprocess": "def classes(output, result): return 'classes ' + output\n"
    "def embedding(output, result, mask): return 'embedding ' + output",
    "preprocessor": "read_preprocessor = None",
    "wordpiece": "def WordPieceOptions(**_): pass\nWordPiece = None",
}
CALL = """
import dataclasses, importlib, json, sys, types
import numpy as np
sys.path.insert(0, ".")
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    model = object.__new__(getattr(module, name.replace("_", "").capitalize()))
    tokens = [np.zeros(8)] * 3
    model._tokenizer = types.SimpleNamespace(encode=lambda text: tokens if text == "a text" else None)
    model._entries, model._results = [None] * 4, [None] * 2
    fields = [field.name for field in dataclasses.fields(module.Outputs)]
    computed = {name: f"output {i}" for i, name in enumerate(module.TOLERANCES["onnx"])}
    model._run = lambda inputs: computed
    print(json.dumps(list(dataclasses.asdict(model.predict("a text", "picture", "sound", "steps")).values())))
    print(json.dumps(list(dataclasses.asdict(model.run(*range(6))).values())))
"""


def test_python_computes_whatever_the_names(tmp_path):
    own = []
    for turn, files in zip(itertools.count(0, 3), libraries("python", 3), strict=False):
        own.append(str(library("python", called(turn)).name))
        write(files, tmp_path)
        write({f"{own[-1]}/{stub}.py": text for stub, text in STUBS.items()}, tmp_path)
    done = subprocess.run([sys.executable, "-c", CALL, *own], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[::2] == [["classes output 0", "embedding output 1", "output 2"]] * len(own)
    assert lines[1::2] == [["output 0", "output 1", "output 2"]] * len(own)


@pytest.mark.slow
@pytest.mark.device
def test_java_compiles_whatever_the_names(jvm, tmp_path):
    sources = []
    for turn, files in zip(itertools.count(0, 7), libraries("android", 7), strict=False):
        main = {place: text for place, text in files.items() if place.startswith("src/main/java")}
        sources += write(main, tmp_path / str(turn))
    jvm.compile(tmp_path / "classes", *sources)


@pytest.mark.slow
@pytest.mark.device
def test_cpp_compiles_whatever_the_names(tmp_path):
    root = Path(__file__).resolve().parents[2]
    subprocess.run([root / "benchmarks/devices/adb/runner/build.sh", "headers"], check=True, timeout=300)
    own = []
    for files in libraries("cpp", 7):
        own += [path.name for path in write(files, tmp_path) if path.match("src/lib*.cpp")]
    (tmp_path / "all.cpp").write_text("".join(f'#include "src/{name}"\n' for name in own))
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", tmp_path / "include")
    words = ["g++", *flags, "-isystem", root / "build/runner/aar/headers", tmp_path / "all.cpp"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and own, done.stderr[:3000]


@pytest.mark.parametrize("platform", [pytest.param("web", marks=pytest.mark.browser), "ios"])
def test_javascript_and_swift_are_read_whatever_the_names(platform, tmp_path):
    suffix = {"web": ".js", "ios": ".swift"}[platform]
    texts = [text for files in libraries(platform, 5) for place, text in files.items() if place.endswith(suffix)]
    found = structures(suffix, list(dict.fromkeys(texts)), tmp_path / "parsed")
    assert found and not [kinds for kinds in found if kinds.startswith("error") or " error" in kinds]


def test_every_platform_is_looked_at():
    assert set(PLATFORMS) == {"android", "ios", "cpp", "web", "python"}
