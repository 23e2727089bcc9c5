"""Recipes: what YAML and the short words mean, and every recipe that is refused before any work."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from exporter.compression.recipe import PASSES, from_words, read_recipe, recipe_of, to_json
from runtimes.errors import BadInput

YAML = """
passes:
  - prune: {sparsity: 0.5}
  - distill
  - quantize: {bits: 4, activations: float}
"""


def written(tmp_path, text: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_yaml_file_is_read_in_order_with_the_defaults_of_each_pass(tmp_path):
    recipe = read_recipe(written(tmp_path, YAML))
    assert [s.name for s in recipe.steps] == ["prune", "distill", "quantize"]
    assert recipe.steps[0].settings.sparsity == 0.5
    assert (recipe.steps[2].settings.bits, recipe.steps[2].settings.activations) == (4, "float")
    kind = importlib.import_module(PASSES["distill"].module).Settings
    assert recipe.steps[1].settings == kind()


def test_a_recipe_survives_the_way_to_the_child_and_into_the_manifest(tmp_path):
    recipe = read_recipe(written(tmp_path, YAML))
    assert from_words(to_json(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("passes: [shrink]", "unknown pass 'shrink'; give one of prune-structured, low-rank, prune"),
        ("passes: [{prune: {sparsity: 0.5, colour: red}}]", "prune has no setting 'colour'; it has sparsity"),
        ("passes: [{prune: {sparsity: half}}]", "'half' is not float"),
        ("passes: [{prune: {sparsity: 1.0}}]", "sparsity"),
        ("passes: [{prune: {sparsity: -0.1}}]", "sparsity"),
        ("passes: [{prune: {sparsity: .nan}}]", "sparsity"),
        ("passes: [quantize, {prune: {sparsity: 0.5}}]", "prune cannot follow quantize: it would undo it; put prune"),
        ("passes: [{prune: {sparsity: 0.5}}, {low-rank: {}}]", "low-rank cannot follow prune"),
        ("passes: []", "the recipe is no list of passes"),
        ("passes: {prune: 1}", "the recipe is no list of passes"),
        ("prune: 0.5", "the recipe is no list of passes"),
        ("passes: [[prune]]", "pass 1 is ['prune']"),
        ("passes: [{prune: 0.5}]", "pass 1 is {'prune': 0.5}"),
        ("passes: [", "cannot read the recipe"),
        ("!!python/object/apply:os.system ['true']", "cannot read the recipe"),
        ("", "the recipe is no list of passes"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text, says, tmp_path):
    with pytest.raises(BadInput) as error:
        read_recipe(written(tmp_path, text))
    assert says in str(error.value) and "recipe.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"none.yaml: cannot read the recipe \(.*No such file.*\); write passes:"):
        read_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ((None, None, None), []),
        (("0.8", None, None), [("prune", {"sparsity": 0.8})]),
        (("2:4", None, None), [("prune", {"sparsity": 0.5, "pattern": "2:4"})]),
        (("structured:0.5", None, "int8"), [("prune-structured", {"flops": 0.5}), ("quantize", {"bits": 8})]),
        (("0.5", "fwsvd:3", None), [("low-rank", {"method": "fwsvd", "ratio": 3.0}), ("prune", {"sparsity": 0.5})]),
        ((None, None, "ternary"), [("ternary", {})]),
    ],
    ids=str,
)
def test_short_words_are_recipes_in_the_right_order(words, passes):
    steps = recipe_of(None, *words).steps
    assert [s.name for s in steps] == [name for name, _ in passes]
    for step, (_, settings) in zip(steps, passes, strict=True):
        found = dataclasses.asdict(step.settings)
        assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("much", None, None), "--prune: cannot read 'much'; write it as 0.8, 2:4 or structured:0.5"),
        (("1.0", None, None), "sparsity"),
        (("structured:x", None, None), "--prune: cannot read 'x'; write it as structured:0.5"),
        ((None, "few", None), "--low-rank: cannot read 'few'; write it as 3 or fwsvd:3"),
        ((None, None, "int3"), "--quantize: unknown precision 'int3'; give one of int8, int8-static"),
    ],
    ids=str,
)
def test_wrong_words_are_refused(words, says):
    with pytest.raises(BadInput) as error:
        recipe_of(None, *words)
    assert says in str(error.value)


def test_a_file_and_words_together_are_refused(tmp_path):
    with pytest.raises(BadInput, match="--recipe: a recipe file says it all; put the other passes into the file"):
        recipe_of(written(tmp_path, YAML), None, None, "int8")


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_is_one_module_one_row_and_a_mirrored_test(name):
    module = importlib.import_module(PASSES[name].module)
    assert dataclasses.is_dataclass(module.Settings) and callable(module.apply)
    stem = PASSES[name].module.rpartition(".")[2]
    assert (Path(__file__).parent / "passes" / f"test_{stem}.py").is_file()


@pytest.mark.parametrize("name", PASSES)
def test_every_setting_is_documented_with_its_default(name):
    text = (Path(__file__).resolve().parents[3] / "docs" / "recipes.md").read_text()
    section = text.split(f"### {name}\n")[1].split("\n### ")[0]
    kind = importlib.import_module(PASSES[name].module).Settings
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*)` \|$", section, re.MULTILINE))
    assert list(rows) == [f.name for f in dataclasses.fields(kind)]
    found = {key: yaml.safe_load(value) for key, value in rows.items()}
    assert found == json.loads(json.dumps(dataclasses.asdict(kind())))
