"""What a user may choose for an export, checked before anything expensive starts."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporter.compression.recipe import NO_RECIPE, Recipe
from exporter.lowering import TARGETS
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import read_preprocessor
from runtimes.types import COMPUTE_TYPES

OPSETS = range(18, 24)
"""The ONNX opsets that torch 2.13 writes: its operator library starts at 18, its highest is 23."""
IOS_VERSIONS = range(15, 19)
"""The iOS versions that coremltools 9 names for ML Programs."""
DEFAULTS = {"opset": 20, "min_ios": 16}
"""Where neither the user nor the recipe asks for more."""


@dataclass(frozen=True)
class Options:
    """One export: targets in order, what to write and where; see `pocketship export --help`.

    `opset` and `min_ios` are None where the user leaves them to us; `max_drop` is a share of 1; without `measure` a
    recipe's stages are proven, but neither scored nor timed; `preprocessor` is a file as docs/preprocessor.md has it.
    """

    targets: tuple[str, ...] = tuple(TARGETS)
    output: Path | None = None
    preprocessor: Path | None = None
    sign: Path | None = None
    task: str | None = None
    weights: str | None = None
    opset: int | None = None
    min_ios: int | None = None
    coreml_precision: str = "float32"
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dynamic: tuple[tuple[str, int], ...] = ()
    atol: float | None = None
    trust_remote_code: bool = False
    force: bool = False
    recipe: Recipe = NO_RECIPE
    data: str | None = None
    seed: int = 0
    measure: bool = True
    max_drop: float | None = None
    max_size_bytes: int | None = None
    min_speedup: float | None = None


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


def check_installed(options: Options) -> None:
    """Raise BadInput that lists the packages which the targets need and this Python lacks."""
    wanted = dict.fromkeys(("torch", *(p for target in options.targets for p in TARGETS[target].packages)))
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    if missing:
        raise BadInput(f"{', '.join(missing)} not installed", remedy="pip install 'pocketship[export]'")


def check_options(options: Options) -> None:
    """Raise BadInput that lists every option out of its range."""
    faults = []
    if options.opset is not None and options.opset not in OPSETS:
        faults.append(f"--opset {options.opset} is none of {OPSETS[0]} to {OPSETS[-1]}")
    if options.min_ios is not None and options.min_ios not in IOS_VERSIONS:
        faults.append(f"--min-ios {options.min_ios} is none of {IOS_VERSIONS[0]} to {IOS_VERSIONS[-1]}")
    if options.coreml_precision not in COMPUTE_TYPES:
        faults.append(f"--coreml-precision {options.coreml_precision} is none of {', '.join(COMPUTE_TYPES)}")
    if options.preprocessor is not None:
        read_preprocessor(options.preprocessor)  # before minutes are spent on the model
    if options.sign is not None:
        from exporter.delivery.signature import check_signing_key

        check_signing_key(options.sign)
    if options.atol is not None and not 0.0 <= options.atol < float("inf"):
        faults.append(f"--atol {options.atol} is no tolerance")
    faults += [f"unknown target {t!r}" for t in options.targets if t not in TARGETS]
    if faults:
        raise BadInput(", ".join(faults), remedy="see pocketship export --help")


def version_for(name: str, asked: int | None, needed: int) -> int:
    """The opset, or the least iOS version, of an export: as asked for, by default as low as what is needed allows.

    Raises BadInput when less was asked for than a low-bit representation needs.
    """
    if asked is not None and asked < needed:
        option = f"--{name.replace('_', '-')}"
        raise BadInput(
            f"the recipe's weights need {name.replace('_', ' ')} {needed}, not {asked}",
            where=option,
            remedy=f"leave {option} out, or choose another precision",
        )
    return max(asked or DEFAULTS[name], needed)
