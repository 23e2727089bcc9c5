"""A recipe is an ordered list of passes with settings, from YAML or the command line, validated before any work."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from benchmarks.yaml_file import read_yaml
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
    "float16": Pass("exporter.compression.passes.float16", 6, "the other weights in float16"),
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


@dataclass(frozen=True)
class Setting:
    """What one setting of a pass may be, as its type declares it: for messages, for the documentation, for a search.

    `kind` is "int", "float", "bool", "str", "list" or "dict". A number lies from `low` to `high`, which it reaches
    unless they are open; `choices` are all values there are (of a list or a dict: all that an element may be).
    """

    name: str
    kind: str
    default: Any
    optional: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[Any, ...] = ()
    description: str = ""

    @property
    def allowed(self) -> str:
        """The same in words, to go after "give"."""
        if self.description:
            words = self.description
        elif self.choices:
            words = f"{'some' if self.kind == 'list' else 'one'} of {', '.join(map(str, self.choices))}"
        elif self.kind == "bool":
            words = "true or false"
        else:
            words = f"a {'whole ' if self.kind == 'int' else ''}number {self._bounds()}"
        return f"{words}, or null" if self.optional else words

    def _bounds(self) -> str:
        if self.low is not None and self.high is not None:
            return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"
        assert self.low is not None, "a number without bounds"
        return f"above {self.low:g}" if self.low_open else f"of {self.low:g} or more"


def settings_of(name: str) -> dict[str, Setting]:
    """The settings of a pass by their names, in the order of its `Settings`."""
    return {key: _setting(key, field) for key, field in _kind(name).__pydantic_fields__.items()}


def _kind(name: str) -> Any:
    return importlib.import_module(PASSES[name].module).Settings


def _setting(name: str, field: FieldInfo) -> Setting:
    kinds = [k for k in typing.get_args(field.annotation) if k is not type(None)]
    optional = typing.get_origin(field.annotation) is types.UnionType
    kind: Any = kinds[0] if optional else field.annotation
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    values = {tuple: lambda: typing.get_args(arguments[0]), dict: lambda: typing.get_args(arguments[1])}
    choices = arguments if origin is typing.Literal else values.get(origin, tuple)()
    bounds = {b: getattr(m, b) for m in field.metadata for b in ("ge", "gt", "le", "lt") if hasattr(m, b)}
    plain = type(choices[0]) if origin is typing.Literal else origin or kind
    return Setting(
        name,
        {tuple: "list"}.get(plain, plain.__name__),
        field.get_default(call_default_factory=True),
        optional,
        bounds.get("ge", bounds.get("gt")),
        bounds.get("le", bounds.get("lt")),
        "gt" in bounds,
        "lt" in bounds,
        choices,
        field.description or "",
    )


def step(name: str, settings: Mapping[str, Any], where: str) -> Step:
    """A step with validated settings; what is not given has the default of the pass.

    Raises BadInput for an unknown pass or setting, values out of their ranges, and values that contradict each other.
    """
    if name not in PASSES:
        raise BadInput(f"unknown pass {name!r:.60}", where=where, remedy=f"give one of {', '.join(PASSES)}")
    allowed = settings_of(name)
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise BadInput(f"{name} has no setting {unknown[0]!r:.60}", where=where, remedy=f"it has {', '.join(allowed)}")
    where = f"{where}: {name}"
    try:
        return Step(name, _kind(name)(**settings))
    except ValidationError as error:
        raise _out_of_range(error, allowed, where) from error
    except BadInput as error:  # two settings that do not go together
        raise BadInput(error.what, where=where, remedy=error.remedy) from error


def _out_of_range(error: ValidationError, allowed: Mapping[str, Setting], where: str) -> BadInput:
    """All values that are out of their ranges, and the ranges, in one line."""
    wrong: dict[str, str] = {}
    for found in error.errors(include_url=False):
        name, *places = found["loc"]
        place = "".join(f" of {p!r}" if isinstance(p, str) else f"[{p}]" for p in places if p != "[key]")
        wrong.setdefault(str(name), f"{name}{place} is {found['input']!r:.60}")
    if len(wrong) == 1:
        ((name, what),) = wrong.items()
        return BadInput(what, where=where, remedy=f"give {allowed[name].allowed}")
    remedy = "; ".join(f"{name}: {allowed[name].allowed}" for name in wrong)
    return BadInput(", ".join(wrong.values()), where=where, remedy=f"give {remedy}")


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
    where, remedy = str(path), "write passes: and under it a list, as in docs/recipes.md"
    value = read_yaml(path, "recipe", remedy)
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
    "float16": ("float16", {}),
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
