"""Structured pruning: channels, attention heads, hidden neurons and whole blocks are cut out; what stays is smaller.

What goes is chosen as in Minitron, "Compact Language Models via Pruning and Knowledge Distillation" (Muralidharan et
al., 2024), from forward passes on calibration data alone; and blocks by their influence, as in "ShortGPT: Layers in
Large Language Models are More Redundant Than You Expect" (Men et al., 2024), see
exporter/compression/analysis/importance.py. The pass trains nothing: `distill` may follow it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from exporter.compression.analysis.importance import block_influence, unit_importance
from exporter.compression.model import Model, PassReport, differs
from exporter.modules.dependencies import find_groups
from exporter.modules.structure import Block, Group, find_blocks, path_of, sliced, without_blocks
from exporter.modules.weight_uses import multiply_adds
from exporter.tracing.flat_module import FlatModule
from exporter.training.context import Context
from exporter.training.settings import CHECKED, Count, Patterns, ProperShare
from runtimes.errors import BadInput

NAME = "prune-structured"
What = Literal["channels", "heads", "neurons", "layers"]
SEARCH_STEPS = 16
CLOSE_ENOUGH = 0.005
"""Of all multiply-adds: the search ends there."""
NEAR = 0.05
"""Of what is to stay: a model that cannot even come so near is refused."""
MORE = "give more in what, a smaller round_to, or fewer layers_out"
GOLDEN = (math.sqrt(5) - 1) / 2


@checked_dataclass(frozen=True, config=CHECKED)
class Settings:
    """What is removed: the share `flops` of the multiply-adds, by one ratio for all of `what`; or that `ratio` itself.

    `what` are some of "channels" (of convolutions and of a transformer's residual stream), "heads", "neurons" (between
    two linear layers) and "layers" (blocks whose output has the shape of their input). Channels and neurons that stay
    come in multiples of `round_to`. `importance` is "contribution", "activation" or "weights" (see `unit_importance`),
    "auto" the first with data and the last without. The first `samples` of the calibration split are used. `layers_out`
    are patterns (as of a shell) of layers that keep their size, and of blocks that stay.
    """

    flops: ProperShare = 0.5
    ratio: Annotated[float | None, Field(gt=0, lt=1)] = None
    what: Annotated[tuple[What, ...], Field(strict=False, min_length=1)] = ("channels", "heads", "neurons")
    importance: Literal["auto", "contribution", "activation", "weights"] = "auto"
    round_to: Count = 8
    samples: Count = 256
    layers_out: Patterns = ()


@dataclass(frozen=True)
class Ranking:
    """What can go, the least important first: the units of each group, and the blocks."""

    groups: tuple[tuple[Group, tuple[int, ...]], ...]
    blocks: tuple[Block, ...]


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Cut the least important channels, heads, neurons and blocks out of a copy of the model.

    Raises BadInput where torch-pruning cannot trace the model, nothing can be removed, a layer would be emptied, the
    multiply-adds cannot be brought so low, or an importance needs data that is absent, empty or not finite.
    """
    importance = _importance(settings, context)
    groups, blocks, notes = _parts(model.flat, settings)
    if not groups and not blocks:
        reasons = "; ".join(notes) or "it has no such parts"
        raise BadInput(f"there are no {' or '.join(settings.what)} to remove ({reasons:.400})", where=NAME, remedy=MORE)
    scores = unit_importance(model.flat, groups, importance, context, settings.samples)
    influence = block_influence(model.flat, blocks, context, settings.samples)
    _check_finite([*scores, torch.tensor(influence)], [*(g.name for g in groups), "the blocks"])
    order = [tuple(score.argsort(stable=True).tolist()) for score in scores]
    ranking = Ranking(tuple(zip(groups, order, strict=True)), removable(model.flat, blocks, influence))
    if settings.ratio is None:
        ratio, blocks_gone = _search(model.flat, ranking, settings, context)
    else:
        _check_not_emptied(ranking, settings.ratio)
        ratio, blocks_gone = settings.ratio, _share_of_blocks(ranking, settings.ratio)
    pruned = cut(model.flat, ranking, ratio, blocks_gone, settings.round_to)
    done = (*_sizes(model.flat, pruned, settings), *_removed(ranking, ratio, blocks_gone, settings.round_to))
    why = f"importance: {importance}" + ("" if context.task or not blocks else "; of the blocks by the example alone")
    smaller = Model(pruned, model.low_bit)
    return smaller, PassReport(NAME, asdict(settings), differs(model, smaller), (*done, why, *notes))


def cut(flat: FlatModule, ranking: Ranking, ratio: float, blocks: int, round_to: int) -> FlatModule:
    """A copy without the share `ratio` of the units of each group and without `blocks` blocks: the least important."""
    kept = _kept(ranking, ratio, round_to)
    units = [(g, order[: g.size - n]) for (g, order), n in zip(ranking.groups, kept, strict=True)]
    return without_blocks(sliced(flat, units), ranking.blocks[:blocks])


def kept_units(size: int, ratio: float, multiple: int, stagger: float) -> int:
    """How many of `size` units stay: about `(1 - ratio) * size`, a multiple, one multiple at the least.

    It is rounded up from a rest of `1 - stagger` multiples on: each group has a `stagger` of its own in (0, 1), so that
    all together come near the ratio although each is rounded.
    """
    wanted = math.floor(size * (1.0 - ratio) / multiple + stagger) * multiple
    return min(size, max(multiple, wanted))


def removable(flat: FlatModule, blocks: Sequence[Block], influence: Sequence[float]) -> tuple[Block, ...]:
    """The blocks that may go, of the least influence first; one element of every container stays."""
    left = {block.container: len(flat.module.get_submodule(block.container)._modules) for block in blocks}
    found = []
    for i in sorted(range(len(blocks)), key=lambda i: influence[i]):
        if left[blocks[i].container] > 1:
            left[blocks[i].container] -= 1
            found.append(blocks[i])
    return tuple(found)


def _importance(settings: Settings, context: Context) -> str:
    if context.task and not len(context.task.calibration):
        raise BadInput("the calibration split is empty", where=context.task.name, remedy="give samples")
    if settings.importance == "auto":
        return "contribution" if context.task else "weights"
    if settings.importance != "weights" and context.task is None:
        raise BadInput(
            f"the importance {settings.importance} needs data",
            where=NAME,
            remedy="name a task with --data, or give weights",
        )
    return settings.importance


def _check_finite(scores: Sequence[Tensor], names: Sequence[str]) -> None:
    for score, name in zip(scores, names, strict=True):
        if not bool(score.isfinite().all()):
            raise BadInput(f"the importance of {name} is no finite number", where=NAME, remedy="clean the data")


def _parts(flat: FlatModule, settings: Settings) -> tuple[list[Group], list[Block], tuple[str, ...]]:
    """The groups and blocks that the settings speak of, and notes on those that stay whole."""
    groups, notes = find_groups(flat) if set(settings.what) != {"layers"} else ((), ())
    blocks = find_blocks(flat) if "layers" in settings.what else ()
    names = {cut.name for group in groups for cut in group.cuts} | set(map(path_of, blocks))
    for pattern in settings.layers_out:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(sorted(names))
            raise BadInput(f"layers_out {pattern!r} fits no layer", where=NAME, remedy=f"the layers are {known:.400}")

    def out(names: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in settings.layers_out)

    found = []
    for group in groups:
        if group.kind not in settings.what:
            continue
        if out(cut.name for cut in group.cuts):
            notes += (f"left whole: {group.name}, as asked",)
        elif group.size <= _multiple(group, settings.round_to):
            notes += (f"left whole: {group.name}, of {group.size} {group.kind}, with round_to {settings.round_to}",)
        else:
            found.append(group)
    return found, [block for block in blocks if not out([path_of(block)])], notes


def _multiple(group: Group, round_to: int) -> int:
    return 1 if group.kind == "heads" else round_to


def _kept(ranking: Ranking, ratio: float, round_to: int) -> list[int]:
    return [
        kept_units(group.size, ratio, _multiple(group, round_to), (i + 1) * GOLDEN % 1.0)
        for i, (group, _) in enumerate(ranking.groups)
    ]


def _share_of_blocks(ranking: Ranking, ratio: float) -> int:
    return math.floor(ratio * len(ranking.blocks) + 0.5)


def _search(flat: FlatModule, ranking: Ranking, settings: Settings, context: Context) -> tuple[float, int]:
    """The ratio and the number of blocks that leave nearest to `1 - flops` of the multiply-adds.

    One ratio for units and blocks is sought; then, as a block is a large step, one for the units beside those blocks.
    Raises BadInput where too many multiply-adds are left even at the largest ratio.
    """
    before, goal = multiply_adds(flat), 1.0 - settings.flops

    def miss(ratio: float, blocks: int) -> float:
        return multiply_adds(cut(flat, ranking, ratio, blocks, settings.round_to)) / before - goal

    least = goal + miss(1.0, len(ranking.blocks))
    if least > goal * (1.0 + NEAR):
        raise BadInput(
            f"of the multiply-adds {least:.1%} are left at the least, {goal:.1%} were asked for",
            where=NAME,
            remedy=f"give flops of {1 - least:.2f} or less, or {MORE.removeprefix('give ')}",
        )
    ratio = _bisect(lambda ratio: miss(ratio, _share_of_blocks(ranking, ratio)), context)
    blocks = _share_of_blocks(ranking, ratio)
    if ranking.blocks and ranking.groups:
        ratio = _bisect(lambda ratio: miss(ratio, blocks), context)
    return ratio, blocks


def _bisect(miss: Callable[[float], float], context: Context) -> float:
    """The ratio in [0, 1] that was tried and missed by least; `miss` falls from above zero."""
    low, high, tried = 0.0, 1.0, {1.0: abs(miss(1.0))}
    for step in range(SEARCH_STEPS):
        context.progress(NAME, step, SEARCH_STEPS)
        middle = (low + high) / 2
        missed = miss(middle)
        tried[middle] = abs(missed)
        if abs(missed) <= CLOSE_ENOUGH:
            break
        low, high = (middle, high) if missed > 0 else (low, middle)
    return min(tried, key=lambda ratio: tried[ratio])


def _check_not_emptied(ranking: Ranking, ratio: float) -> None:
    for group, _ in ranking.groups:
        if group.size * (1.0 - ratio) < 1.0 - 1e-9:
            raise BadInput(
                f"a ratio of {ratio} would empty {group.name} ({group.size} {group.kind})",
                where=NAME,
                remedy="give a lower ratio, or name the layer in layers_out",
            )


def _sizes(before: FlatModule, after: FlatModule, settings: Settings) -> tuple[str, ...]:
    work, left = multiply_adds(before), multiply_adds(after)
    parameters = [sum(p.numel() for p in flat.module.parameters()) for flat in (before, after)]
    goal = f"; {1 - settings.flops:.1%} were asked for" if settings.ratio is None else ""
    return (
        f"multiply-adds: {work:,} became {left:,}, {left / work:.1%}{goal}",
        f"parameters: {parameters[0]:,} became {parameters[1]:,}",
    )


def _removed(ranking: Ranking, ratio: float, blocks: int, round_to: int) -> tuple[str, ...]:
    total: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for (group, _), kept in zip(ranking.groups, _kept(ranking, ratio, round_to), strict=True):
        total[group.kind] += group.size
        gone[group.kind] += group.size - kept
    units = tuple(f"removed {gone[kind]:,} of {total[kind]:,} {kind}" for kind in total)
    names = ", ".join(path_of(block) for block in ranking.blocks[:blocks])
    return (*units, f"removed the blocks {names}") if blocks else units
