"""What a manifest's values may be: hostile ones of every field are refused in one line that names the place."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from runtimes import grammar, types
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput
from tests.runtimes.manifests import LEAVES, MANIFEST, as_json, with_value

HOSTILE = ("\x1b]52;c;AAAA\x07", "a\nb", "\u2028", "\u202ea", "\ud800", "\0", "\x7f", "\x85", "x" * 5000)
NO_NAMES = ('"""', "*/", "*\\", "a'b", "${x}", "<b>", "`", "", "a/b", "|", "\\u002a/", "??/", "%s", "{{ x }}", " \t")


def refusal(folder, document: Any) -> str:
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BadInput) as caught:
        read_manifest(folder)
    line = str(caught.value)
    assert line.isprintable(), line
    return line


def test_the_manifest_that_is_changed_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(as_json()))
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize("bad", HOSTILE)
def test_no_text_of_a_manifest_holds_what_a_terminal_obeys_or_nobody_can_read(tmp_path, bad):
    for leaf in [leaf for leaf, value in LEAVES.items() if isinstance(value, str)]:
        line = refusal(tmp_path, with_value(leaf, bad))
        assert line.endswith(("do not trust this bundle", "export the bundle again")), (leaf, line)


@pytest.mark.parametrize("bad", [10**400, 1e300, -(10**60), 10**60], ids=["400 digits", "1e300", "-60", "60"])
def test_every_number_of_a_manifest_has_a_range(tmp_path, bad):
    for leaf in [leaf for leaf, value in LEAVES.items() if type(value) in (int, float)]:
        refusal(tmp_path, with_value(leaf, bad))


NAMES = ("name", "origin.task", "origin.license", "recipe.0.name", "ledger.0.stage", "ledger.0.accuracy.metric")
TENSORS = ("signature.inputs.0.name", "signature.inputs.0.shape.0", "artifacts.0.signature.outputs.0.name")


@pytest.mark.parametrize("bad", NO_NAMES)
def test_no_name_holds_what_means_something_in_code(tmp_path, bad):
    for leaf in (*NAMES, *TENSORS):
        place = leaf.replace(".0.", "[0].").removesuffix(".0")
        assert place in refusal(tmp_path, with_value(leaf, bad))


@pytest.mark.parametrize(
    ("leaf", "bad", "says"),
    [
        ("name", "a*/b", "name: 'a*/b' holds the character U+002A, which no name has"),
        ("name", "x" * 201, "has 201 characters, a name has 1 to 200"),
        ("origin.source", "a\x1b[2J", "origin.source: 'a\\x1b[2J' holds the character U+001B"),
        ("origin.kind", "guess", "'guess' is none of zoo, huggingface, timm, factory, pt2, module"),
        ("origin.weights_sha256", "0" * 63, "is no SHA-256"),
        ("signature.inputs.0.dtype", "complex64", "'complex64' is none of bool, int8"),
        ("signature.inputs.0.shape.1", -16, "signature.inputs[0].shape[1]: -16 is not 0 to 2147483648"),
        ("signature.inputs.0.shape.1", 10**18, "is not 0 to 2147483648"),
        ("artifacts.0.parity.verdict", "pas0", "artifacts[0].parity.verdict: 'pas0' is none of pass, fail"),
        ("artifacts.0.parity.samples", 0, "artifacts[0].parity.samples: 0 is not 1 to"),
        ("artifacts.0.parity.cosine", 1.5, "is not -1 to 1"),
        ("artifacts.0.parity.tolerance", -1.0, "is not 0 to 1e+39"),
        ("artifacts.0.size_bytes", -1, "artifacts[0].size_bytes: -1 is not 0 to"),
        ("settings.opset", "x" * 5000, "has 5000 characters, the most are 4096"),
        ("recipe.0.settings.bits", [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], "is nested more than 16 deep"),
        ("ledger.0.latency.threads", 0, "is not 1 to 65536"),
    ],
)
def test_a_value_out_of_its_grammar_is_named_with_its_place(tmp_path, leaf, bad, says):
    assert says in refusal(tmp_path, with_value(leaf, bad))


def test_a_key_is_held_to_the_grammar_of_text(tmp_path):
    line = refusal(tmp_path, with_value("tool_versions", {"a\x1b": "1"}))
    assert "tool_versions: the key 'a\\x1b' holds the character U+001B" in line


@pytest.mark.parametrize("good", ["all-MiniLM-L6-v2", "Ünïcode 2", "模型", "a (copy) [2], v=1~#@+_."])
def test_a_name_that_means_nothing_in_code_is_read(tmp_path, good):
    (tmp_path / "manifest.json").write_text(json.dumps(with_value("name", good)))
    assert read_manifest(tmp_path).name == good


def fields_of(kind: Any) -> Iterator[str]:
    """Class and field of every value of a record, inner records as well."""
    for name, hint in typing.get_type_hints(kind).items():
        inner = [k for k in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(k)]
        yield f"{kind.__name__}.{name}"
        for record in inner:
            yield from fields_of(record)


def test_every_rule_is_of_a_field_that_there_is():
    """A field that is renamed must not lose its rule in silence."""
    from exporter.stages.progress import SourceFacts
    from runtimes.processing.preprocessor import Classes

    known = {*fields_of(types.Manifest), *fields_of(SourceFacts), *fields_of(Classes)}
    assert set(grammar.RULES) <= known


def test_a_source_is_held_to_the_same_grammar_before_anything_is_exported(refused, tmp_path):
    from tests.conftest import MODELS

    (tmp_path / 'my"model').mkdir()
    (tmp_path / 'my"model' / "f\u202e.py").write_text(MODELS.read_text())
    line = refused("export", f'{tmp_path}/my"model/f\u202e.py:mlp', "-t", "onnx", "-o", tmp_path / "out")
    assert "origin.source" in line and "holds the character U+202E; rename it" in line
    assert not (tmp_path / "out").exists()
