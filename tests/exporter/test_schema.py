"""The schema of manifest.json: as documented, true of every real manifest, false of a broken one."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from exporter.schema import manifest_schema

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"


def test_the_documented_schema_is_what_the_command_prints(pocketship):
    printed = pocketship("schema")
    assert printed.returncode == 0
    assert printed.stdout == DOCUMENTED.read_text()
    assert json.loads(printed.stdout) == manifest_schema()


def test_it_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


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
