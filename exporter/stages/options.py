"""What a user may choose for an export, checked before anything expensive starts."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tasks.task import Task
from exporter.compression.recipe import NO_RECIPE, Recipe
from exporter.families import ZOO
from exporter.lowering.settings import Settings
from exporter.lowering.target import TARGETS
from exporter.sources.described import described
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import read_preprocessor

if TYPE_CHECKING:
    import torch


ModuleAndInputs = tuple["torch.nn.Module", Any]


@dataclass(frozen=True)
class Options:
    """One export: targets in order, what to write and where; see `pocketship export --help`.

    `settings` holds those of every target; `max_drop` is a share of 1; without `measure` a recipe's stages are proven,
    but neither scored nor timed; `preprocessor` is a file as docs/preprocessor.md has it; `labels`, `image` and
    `tokenizer` say the most usual of it in words (exporter/sources/described.py); `strict` refuses what agrees and is
    not proven by that.
    """

    targets: tuple[str, ...] = tuple(TARGETS)
    output: Path | None = None
    preprocessor: Path | None = None
    labels: Path | Sequence[str] | None = None
    image: str | Mapping[str, Any] | None = None
    tokenizer: Path | None = None
    sign: Path | None = None
    task: str | None = None
    weights: str | None = None
    settings: Mapping[str, Settings] = field(default_factory=lambda: settings_of({}))
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dynamic: tuple[tuple[str, int], ...] = ()
    atol: float | None = None
    trust_remote_code: bool = False
    force: bool = False
    strict: bool = False
    recipe: Recipe = NO_RECIPE
    data: str | Task | None = None
    seed: int = 0
    measure: bool = True
    max_drop: float | None = None
    max_size_bytes: int | None = None
    min_speedup: float | None = None


def settings_of(words: Mapping[str, Any]) -> dict[str, Settings]:
    """The settings of every target, from those of the words that are names of one; the others are left."""
    return {
        name: target.settings(**{f.name: words[f.name] for f in fields(target.settings) if f.name in words})
        for name, target in TARGETS.items()
    }


def options_of(**words: Any) -> Options:
    """Options as the command line and `export` name them: the fields of `Options`, and those of a target's settings."""
    settings = settings_of(words)
    of_targets = {f.name for chosen in settings.values() for f in fields(chosen)}
    return Options(settings=settings, **{name: word for name, word in words.items() if name not in of_targets})


def parse_targets(words: Sequence[str]) -> tuple[str, ...]:
    """The targets of repeated and comma-separated words; `all`, or no word, means every one.

    Raises BadInput for an unknown or empty word.
    """
    names = [name.strip() for word in words for name in word.split(",")]
    for name in names:
        if name != "all" and name not in TARGETS:
            raise BadInput(f"unknown target {name!r}", where="--target", remedy=f"give {', '.join(TARGETS)} or all")
    return tuple(TARGETS) if not names or "all" in names else tuple(dict.fromkeys(names))


def parse_shapes(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of words like `image=1,3,224,224`.

    Raises BadInput for a word of another form.
    """
    shapes = {}
    for word in words:
        match = re.fullmatch(r"(\w+)=(\d+(?:,\d+)*)", word)
        if not match:
            raise BadInput(f"cannot read {word!r}", where="--input-shape", remedy="write it as name=1,3,224,224")
        shapes[match[1]] = tuple(int(n) for n in match[2].split(","))
    return shapes


def parse_dynamic(words: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """The axes of words like `input_ids:1`.

    Raises BadInput for a word of another form.
    """
    axes = []
    for word in words:
        match = re.fullmatch(r"(\w+):(\d+)", word)
        if not match:
            raise BadInput(f"cannot read {word!r}", where="--dynamic", remedy="write it as name:axis, axes from 0")
        axes.append((match[1], int(match[2])))
    return tuple(dict.fromkeys(axes))


def check_source(source: str | ModuleAndInputs) -> None:
    """Raise BadInput for a path that leads nowhere, before anything is imported to load it."""
    is_path = isinstance(source, str) and source.startswith((".", "/", "~")) and ":" not in source
    if is_path and not Path(str(source)).exists():
        remedy = "check the path, or give a name that pocketship zoo lists"
        raise BadInput("no such file or folder", where=str(source), remedy=remedy)


def check_installed(options: Options) -> None:
    """Raise BadInput that lists the packages which the targets need and this Python lacks."""
    wanted = dict.fromkeys(("torch", *(p for target in options.targets for p in TARGETS[target].packages)))
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    if missing:
        raise BadInput(f"{', '.join(missing)} not installed", remedy="pip install 'pocketship[export]'")


def check_options(options: Options) -> None:
    """Raise BadInput that lists every option out of its range."""
    faults = [fault for settings in options.settings.values() for fault in settings.faults()]
    if options.preprocessor is not None:
        read_preprocessor(options.preprocessor)  # before minutes are spent on the model
    described(options.labels, options.image, options.tokenizer)
    if options.preprocessor is not None and (options.labels or options.image or options.tokenizer):
        faults.append("--preprocessor says what --labels, --image and --tokenizer say: give one of them")
    if options.sign is not None:
        from exporter.delivery.signature import check_signing_key

        check_signing_key(options.sign)
    if options.atol is not None and not 0.0 <= options.atol < float("inf"):
        faults.append(f"--atol {options.atol} is no tolerance")
    faults += [f"unknown target {t!r}" for t in options.targets if t not in TARGETS]
    if faults:
        raise BadInput(", ".join(faults), remedy="see pocketship export --help")


def check_limits_given(options: Options) -> None:
    """Raise BadInput for a limit that nothing could be judged by."""
    limits = (options.max_drop, options.max_size_bytes, options.min_speedup)
    if all(limit is None for limit in limits):
        return
    needs_measuring = options.max_drop is not None or options.min_speedup is not None
    if needs_measuring and not options.recipe.steps:
        raise BadInput("a limit is for a recipe", remedy="add --quantize, --prune, --low-rank or --recipe")
    if needs_measuring and not options.measure:
        raise BadInput("a limit needs measuring", where="--no-measure", remedy="leave one of them out")
    from benchmarks.measure import not_timed
    from exporter.ledger.limits import check_judgeable

    timed = [target for target in options.targets if not not_timed(Path(TARGETS[target].file_name))]
    scores = options.data.can_score if isinstance(options.data, Task) else options.data is not None
    check_judgeable(timed, scores, *limits)


def with_task_of_zoo(source: str | ModuleAndInputs, options: Options) -> Options:
    """With the task that a model of the zoo is made for, where a recipe may need one and the user names none."""
    known = isinstance(source, str) and source in ZOO and options.recipe.steps and options.data is None
    return replace(options, data=ZOO[str(source)].data) if known else options


def default_name(source: str | ModuleAndInputs) -> str:
    """A folder name for a source as the user typed it."""
    if not isinstance(source, str):
        return type(source[0]).__name__.lower()
    last = source.rstrip("/").split("/")[-1].split(":")[-1]
    return last.removesuffix(".pt2") or "model"
