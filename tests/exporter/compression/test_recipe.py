"""Recipes: what YAML and the short words mean, and every recipe that is refused before any work."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from exporter.compression.recipe import PASSES, Setting, from_words, read_recipe, recipe_of, settings_of, step, to_json
from exporter.compression.recipe_docs import main, with_settings
from runtimes.errors import BadInput

BOMB = "".join(f"\n- &b{i} [{', '.join(9 * [f'*b{i - 1}' if i else '*a'])}]" for i in range(30))
"""Each line is nine of the one before."""
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
        ("passes: [{prune: {sparsity: half}}]", "recipe.yaml: prune: sparsity is 'half'; give a number in [0, 1)"),
        ("passes: [{prune: {sparsity: 1.0}}]", "prune: sparsity is 1.0; give a number in [0, 1)"),
        ("passes: [{prune: {sparsity: -0.1}}]", "prune: sparsity is -0.1; give a number in [0, 1)"),
        ("passes: [{prune: {sparsity: .nan}}]", "prune: sparsity is nan; give a number in [0, 1)"),
        ("passes: [{prune: {sparsity: .inf}}]", "prune: sparsity is inf; give a number in [0, 1)"),
        ("passes: [{prune: {sparsity: true}}]", "prune: sparsity is True; give a number in [0, 1)"),
        ("passes: [{prune: {embeddings: 1}}]", "prune: embeddings is 1; give true or false"),
        ("passes: [{prune: {epochs: 1.5}}]", "prune: epochs is 1.5; give a whole number of 0 or more"),
        ("passes: [{prune: {layers_out: head}}]", "prune: layers_out is 'head'; give a list of patterns"),
        ("passes: [{prune: {layers_out: [head, 3]}}]", "prune: layers_out[1] is 3; give a list of patterns"),
        ("passes: [{prune: {pattern: '2:2'}}]", "prune: pattern is '2:2'; give unstructured, 2:4 (2 of 4 stay) or 4x1"),
        ("passes: [{prune: {1: 2}}]", "prune has no setting 1; it has sparsity"),
        ("passes: [{ternary: {layer_bits: {head: 3}}}]", "ternary: layer_bits of 'head' is 3; give 2, 4, 8 or 32"),
        ("passes: [{ternary: {layer_bits: {1: 2}}}]", "ternary: layer_bits[1] is 1; give 2, 4, 8 or 32 by patterns"),
        ("passes: [{low-rank: {rank: 2, energy: 0.5}}]", "low-rank: rank and energy are both given; give one of them"),
        (
            "passes: [{quantize: {bits: 3, samples: 0}}]",
            "quantize: bits is 3, samples is 0; give bits: one of 8, 4; samples: a whole number of 1 or more",
        ),
        ("passes: [quantize, {prune: {sparsity: 0.5}}]", "prune cannot follow quantize: it would undo it; put prune"),
        ("passes: [{prune: {sparsity: 0.5}}, {low-rank: {}}]", "low-rank cannot follow prune"),
        ("passes: []", "the recipe is no list of passes"),
        ("passes: {prune: 1}", "the recipe is no list of passes"),
        ("prune: 0.5", "the recipe is no list of passes"),
        ("passes: [[prune]]", "pass 1 is ['prune']"),
        ("passes: [{prune: 0.5}]", "pass 1 is {'prune': 0.5}"),
        ("passes: [", "cannot read the recipe"),
        ("!!python/object/apply:os.system ['true']", "cannot read the recipe (line 1: !tags are not read)"),
        (f"a: &a [0]\npasses: {BOMB}", "cannot read the recipe (line 1: write it out, *names and &names are not read)"),
        ("passes: [{prune: {sparsity: *a}}]", "cannot read the recipe (line 1: write it out"),
        (f"passes: {'[' * 9999}", "cannot read the recipe (line 1: nested more than 16 deep)"),
        (f"passes:\n{'- ' * 9999}", "cannot read the recipe (line 2: nested more than 16 deep)"),
        (f"a:\n{'[' * 16}", "cannot read the recipe (line 2: nested more than 16 deep)"),
        (f"passes: [{'x' * 1001}]", "cannot read the recipe (line 1: a word of 1001 characters)"),
        (f"passes: [0x{'f' * 1001}]", "cannot read the recipe (line 1: a word of 1003 characters)"),
        (f"# {'x' * (1 << 16)}\npasses: [prune]", "cannot read the recipe (65,554 bytes are more than 65,536)"),
        ("passes: [{prune: {sparsity: 9999-99-99}}]", "prune: sparsity is '9999-99-99'; give a number in [0, 1)"),
        ("passes: [2001-02-03]", "unknown pass '2001-02-03'"),
        (f"passes: [{{prune: {{sparsity: {'9' * 400}}}}}]", "(line 1: 99999999999999999999... has more"),
        (f"passes: [{{prune: {{sparsity: {'1:' * 490}1.5}}}}]", "cannot read the recipe ("),
        ("passes: [{low-rank: {ratio: .inf}}]", "low-rank: ratio is inf"),
        ("passes: [{low-rank: {ratio: 1.e+999}}]", "low-rank: ratio is inf"),
        ("passes: [{low-rank: {ratio: .nan}}]", "low-rank: ratio is nan"),
        (f"passes: [{{distill: {{epochs: {'9' * 400}}}}}]", "(line 1: 99999999999999999999... has more than 64 bits)"),
        (f"passes: [{{{'x' * 999}: 1}}]", "pass 1 is {'xxx"),
        (f"passes: [{{{'x' * 999}: {{}}}}]", "unknown pass 'xxx"),
        ("passes: [{1: {2: 3}}]", "unknown pass '1'"),
        ("passes: [\x07]", "cannot read the recipe ("),
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
    for got, (_, settings) in zip(steps, passes, strict=True):
        found = dataclasses.asdict(got.settings)
        assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("much", None, None), "--prune: cannot read 'much'; write it as 0.8, 2:4 or structured:0.5"),
        (("1.0", None, None), "--prune: prune: sparsity is 1.0; give a number in [0, 1)"),
        (("structured:x", None, None), "--prune: cannot read 'x'; write it as structured:0.5"),
        ((None, "few", None), "--low-rank: cannot read 'few'; write it as 3 or fwsvd:3"),
        ((None, None, "int3"), "--quantize: unknown precision 'int3'; give one of float16, int8"),
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


def test_the_documentation_says_what_the_settings_declare():
    file = Path(__file__).resolve().parents[3] / "docs" / "recipes.md"
    text = file.read_text(encoding="utf-8")
    assert with_settings(text) == text, "run `make docs`"
    assert with_settings(text.replace("| `sparsity` | a number in [0, 1) | `0.5` |", "")) == text


def test_the_documentation_is_written_in_place(tmp_path):
    file = tmp_path / "recipes.md"
    file.write_text("# Recipes\n\n## Settings\n\nold\n")
    main([str(file)])
    assert file.read_text() == with_settings("# Recipes\n\n## Settings\n")


@pytest.mark.parametrize("name", PASSES)
def test_the_settings_of_a_pass_are_told_with_their_bounds(name):
    """Each default lies within what is told, and a value just outside is refused: what is told is what is checked."""
    for setting in settings_of(name).values():
        outside = [b - 1 for b in (setting.low,) if b is not None] + [b + 1 for b in (setting.high,) if b is not None]
        outside += [b for b, o in ((setting.low, setting.low_open), (setting.high, setting.high_open)) if o]
        outside += ["none of them"] if setting.choices else []
        assert outside or setting.kind in ("bool", "list") or setting.description
        for value in outside:
            value = int(value) if setting.kind == "int" and not isinstance(value, str) else value
            value = {"list": [value], "dict": {"head": value}}.get(setting.kind, value)
            with pytest.raises(BadInput) as error:
                step(name, {setting.name: value}, "recipe.yaml")
            said = str(error.value)
            assert said.startswith(f"recipe.yaml: {name}: {setting.name}") and setting.allowed in said


def test_a_search_can_read_the_bounds():
    assert settings_of("prune")["sparsity"] == Setting("sparsity", "float", 0.5, low=0, high=1, high_open=True)
    assert settings_of("low-rank")["rank"] == Setting("rank", "int", None, optional=True, low=1)
    assert settings_of("quantize")["bits"] == Setting("bits", "int", 8, choices=(8, 4))
    assert settings_of("prune-structured")["what"].choices == ("channels", "heads", "neurons", "layers")
    assert settings_of("ternary")["layer_bits"].kind == "dict" and settings_of("ternary")["layer_bits"].default == {}
