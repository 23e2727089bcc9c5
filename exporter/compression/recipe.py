"""A recipe is an ordered list of passes with settings, from YAML or the command line, validated before any work."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.bundle import from_json
from runtimes.errors import BadInput

if TYPE_CHECKING:
    from exporter.compression.model import Model, PassReport
    from exporter.training.context import Context


@dataclass(frozen=True)
class Pass:
    """A row of PASSES: a module with `Settings` and `apply`; a pass never follows one of a higher rank."""

    module: str
    rank: int
    what: str


PASSES = {
    "prune-structured": Pass("exporter.compression.passes.structured", 1, "remove channels, heads, neurons or layers"),
    "low-rank": Pass("exporter.compression.passes.low_rank", 2, "factor linear layers"),
    "prune": Pass("exporter.compression.passes.magnitude", 3, "set the smallest weights to zero"),
    "distill": Pass("exporter.compression.passes.distill", 3, "train against the full-precision model"),
    "ternary": Pass("exporter.compression.passes.ternary", 4, "weights of -s, 0 and +s"),
    "quantize": Pass("exporter.compression.passes.integer", 5, "int8 or int4 weights, int8 activations"),
}
"""Structure first, then values, then bits: each later pass keeps what the earlier ones made."""


@dataclass(frozen=True)
class Step:
    """One pass with its settings: an instance of the `Settings` dataclass of the pass's module."""

    name: str
    settings: Any


@dataclass(frozen=True)
class Recipe:
    """Passes in order."""

    steps: tuple[Step, ...] = ()


NO_RECIPE = Recipe()


def step(name: str, settings: Mapping[str, Any], where: str) -> Step:
    """A step with validated settings; what is not given has the default of the pass.

    Raises BadInput for an unknown pass or setting, or a value out of its range.
    """
    if name not in PASSES:
        raise BadInput(f"unknown pass {name!r}", where=where, remedy=f"give one of {', '.join(PASSES)}")
    kind = importlib.import_module(PASSES[name].module).Settings
    allowed = {f.name: f for f in dataclasses.fields(kind)}
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise BadInput(f"{name} has no setting {unknown[0]!r}", where=where, remedy=f"it has {', '.join(allowed)}")
    types = typing.get_type_hints(kind)
    values = {key: _setting(types[key], value, f"{name}.{key}", where) for key, value in settings.items()}
    try:
        return Step(name, kind(**values))
    except BadInput as error:
        place = f"{where}: {error.where}" if error.where else where
        raise BadInput(error.what, where=place, remedy=error.remedy) from error


def _setting(kind: Any, value: Any, name: str, where: str) -> Any:
    try:
        return from_json(kind, value)
    except BadInput as error:
        raise BadInput(f"{name}: {error.what}", where=where, remedy="see docs/recipes.md") from error


def check_order(recipe: Recipe, where: str) -> None:
    """Raise BadInput when a pass would undo what an earlier one made."""
    for earlier, later in zip(recipe.steps, recipe.steps[1:], strict=False):
        if PASSES[later.name].rank < PASSES[earlier.name].rank:
            raise BadInput(
                f"{later.name} cannot follow {earlier.name}: it would undo it",
                where=where,
                remedy=f"put {later.name} first; the order is {', '.join(PASSES)}",
            )


def read_recipe(path: Path) -> Recipe:
    """The recipe of a YAML file: `passes:` and under it a list of `name: {setting: value}` or plain names.

    Raises BadInput for a file that is missing, is no YAML, or holds anything else.
    """
    import yaml

    where, remedy = str(path), "write passes: and under it a list, as in docs/recipes.md"
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(
            f"cannot read the recipe ({' '.join(str(error).split())[:160]})", where=where, remedy=remedy
        ) from error
    if (
        not isinstance(value, dict)
        or set(value) != {"passes"}
        or not isinstance(value["passes"], list)
        or not value["passes"]
    ):
        raise BadInput("the recipe is no list of passes", where=where, remedy=remedy)
    steps = []
    for i, entry in enumerate(value["passes"]):
        entry = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or len(entry) != 1 or not isinstance(next(iter(entry.values())) or {}, dict):
            raise BadInput(f"pass {i + 1} is {entry!r:.60}", where=where, remedy=remedy)
        name, settings = next(iter(entry.items()))
        steps.append(step(str(name), settings or {}, where))
    recipe = Recipe(tuple(steps))
    check_order(recipe, where)
    return recipe


QUANTIZE: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("quantize", {"bits": 8}),
    "int8-static": ("quantize", {"bits": 8, "activations": "static"}),
    "int8-dynamic": ("quantize", {"bits": 8, "activations": "dynamic"}),
    "int8-weights": ("quantize", {"bits": 8, "activations": "float"}),
    "int4": ("quantize", {"bits": 4, "embedding_bits": 4, "conv_bits": 4}),
    "ternary": ("ternary", {"embedding_bits": 4, "first_last_share": 0.02}),
}
"""What the words of --quantize mean."""


def recipe_of(file: Path | None, prune: str | None, low_rank: str | None, quantize: str | None) -> Recipe:
    """The recipe of --recipe, or of --prune, --low-rank and --quantize.

    Raises BadInput for words that say no recipe, and for a file together with them.
    """
    if file is not None:
        if prune or low_rank or quantize:
            raise BadInput("a recipe file says it all", where="--recipe", remedy="put the other passes into the file")
        return read_recipe(file)
    steps = []
    if prune is not None:
        steps.append(_prune(prune))
    if low_rank is not None:
        method, _, ratio = low_rank.rpartition(":")
        settings = {"method": method or "svd", "ratio": _number(ratio, "--low-rank", "3 or fwsvd:3")}
        steps.append(step("low-rank", settings, "--low-rank"))
    if quantize is not None:
        if quantize not in QUANTIZE:
            raise BadInput(
                f"unknown precision {quantize!r}", where="--quantize", remedy=f"give one of {', '.join(QUANTIZE)}"
            )
        steps.append(step(*QUANTIZE[quantize], where="--quantize"))
    return Recipe(tuple(sorted(steps, key=lambda s: PASSES[s.name].rank)))


def _prune(word: str) -> Step:
    if word.startswith("structured:"):
        share = _number(word.removeprefix("structured:"), "--prune", "structured:0.5")
        return step("prune-structured", {"flops": share}, "--prune")
    pattern = re.fullmatch(r"(\d+):(\d+)", word)
    if pattern:
        return step("prune", {"pattern": word, "sparsity": 1 - int(pattern[1]) / max(1, int(pattern[2]))}, "--prune")
    return step("prune", {"sparsity": _number(word, "--prune", "0.8, 2:4 or structured:0.5")}, "--prune")


def _number(word: str, where: str, example: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise BadInput(f"cannot read {word!r}", where=where, remedy=f"write it as {example}") from error


def apply(step: Step, model: Model, context: Context) -> tuple[Model, PassReport]:
    """Run one pass; the model that was given stays as it is."""
    return importlib.import_module(PASSES[step.name].module).apply(model, step.settings, context)


def to_json(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe as the manifest holds it: a list of `{"pass": name, "settings": {...}}`."""
    return [{"pass": s.name, "settings": json.loads(json.dumps(dataclasses.asdict(s.settings)))} for s in recipe.steps]


def from_words(words: Sequence[dict[str, Any]]) -> Recipe:
    """The recipe that `to_json` wrote."""
    return Recipe(tuple(step(w["pass"], w["settings"], "recipe") for w in words))
