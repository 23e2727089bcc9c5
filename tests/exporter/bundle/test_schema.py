"""The schemas of manifest.json and preprocessor.json: as documented, true of real files, false of broken ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from exporter.bundle.schema import manifest_schema, preprocessor_schema
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import parse_preprocessor

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize(
    ("option", "schema", "file"),
    [
        ((), manifest_schema, "manifest.schema.json"),
        (("--preprocessor",), preprocessor_schema, "preprocessor.schema.json"),
    ],
)
def test_the_documented_schema_is_what_the_command_prints(option, schema, file, pocketship):
    printed = pocketship("schema", *option)
    assert printed.returncode == 0
    assert printed.stdout == (DOCS / file).read_text()
    assert json.loads(printed.stdout) == schema()
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", ["mlp", "transformer", "nested"])
def test_real_manifests_are_valid(name, exported, manifest_of):
    jsonschema.Draft202012Validator(manifest_schema()).validate(manifest_of(exported(name)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("artifacts"),
        lambda m: m["artifacts"][0].pop("parity"),
        lambda m: m["artifacts"][0].update(size_bytes="12"),
        lambda m: m["signature"]["inputs"][0].update(shape="2x8"),
        lambda m: m["artifacts"][0]["parity"]["executed_by"].pop("kind"),
        lambda m: m.update(schema_version="1"),
    ],
)
def test_broken_manifests_are_not(damage, exported, manifest_of):
    manifest = copy.deepcopy(manifest_of(exported("mlp")))
    damage(manifest)
    assert list(jsonschema.Draft202012Validator(manifest_schema()).iter_errors(manifest))


def documented_example() -> dict:
    return json.loads((DOCS / "preprocessor.md").read_text().split("```json\n")[1].split("```")[0])


def test_the_documented_preprocessor_is_valid_and_read():
    example = documented_example()
    jsonschema.Draft202012Validator(preprocessor_schema()).validate(example)
    assert parse_preprocessor(json.dumps(example).encode()).inputs[0].kind == "image"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: p.pop("schema_version"), "its schema version is None, this pocketship reads 1"),
        (lambda p: p["inputs"][0].update(kind="video"), r"inputs\[0\]\.kind is 'video', none of text, image, "),
        (lambda p: p["inputs"][0].update(layout="chw"), "image: layout is 'chw', none of nchw, nhwc"),
        (lambda p: p["inputs"][0].pop("width"), r"inputs\[0\]: no field 'width'"),
        (lambda p: p["inputs"][0].update(depth=3), r"inputs\[0\]: unknown field 'depth'"),
        (lambda p: p["outputs"][0].update(labels="cat"), r"outputs\[0\]\.labels: 'cat' is not a list"),
    ],
)
def test_a_broken_preprocessor_is_neither(damage, says):
    example = documented_example()
    damage(example)
    assert list(jsonschema.Draft202012Validator(preprocessor_schema()).iter_errors(example))
    with pytest.raises(BadInput, match=f"^preprocessor.json: {says}"):
        parse_preprocessor(json.dumps(example).encode())
