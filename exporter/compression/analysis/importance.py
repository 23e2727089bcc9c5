"""How much a model depends on each unit of a group and on each block: by forward passes, or by the weights alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.modules.structure import TRANSPOSED, Block, Cut, Group, first_tensor, input_axis, path_of, with_hooks
from exporter.modules.weight_uses import CONVOLUTIONS, Use, watched_weights
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.training.batches import batches
from exporter.training.context import Context

BATCH = 32
MAKERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def unit_importance(
    flat: FlatModule, groups: Sequence[Group], importance: str, context: Context, samples: int
) -> tuple[Tensor, ...]:
    """For each group the importance `[units]`, float64.

    "activation" is Minitron's: with x the input of a layer that reads the units, the norm ||x_u||_2 of what unit u has
    there (|x_u| of a neuron or channel; over its width of a head), the mean over the positions and the L2 norm over the
    samples, summed over the layers that read it. Those of a transformer's channels read a norm's output.
    "contribution" multiplies each summand by the norm of the weights that read the unit, ||W[:, u]||_2 (as Wanda does
    with single weights; Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2023): what no
    layer listens to is worth nothing. "weights" has, instead of data, the norm of the weights that make the unit:
    ||W_in[u]||_2 * ||W_out[:, u]||_2, all makers and all readers together.
    """
    if importance == "weights":
        return tuple(_weight_norms(flat, group) for group in groups)
    squares = _activation_squares(flat, groups, context, samples)
    found = []
    for i, group in enumerate(groups):
        total = torch.zeros(group.size, dtype=torch.float64)
        for reader in group.readers:
            score = squares[i, reader.name].sqrt()
            total += score * _norms(flat, reader, group.size) if importance == "contribution" else score
        found.append(total)
    return tuple(found)


def block_influence(flat: FlatModule, blocks: Sequence[Block], context: Context, samples: int) -> tuple[float, ...]:
    """For each block BI = 1 - E[cos(x_in, x_out)], over all positions and samples (ShortGPT, equation 1).

    The vectors are those of the last axis, of images `[batch, channels, height, width]` the channels; the samples are
    those of the calibration split, without a task the example.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)

    def see(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            before, after = first_tensor(args, keywords).double(), first_tensor((output,), {}).double()
            cosine = nn.functional.cosine_similarity(before, after, dim=1 if before.ndim == 4 else -1)
            sums[name] += float(cosine.sum())
            counts[name] += cosine.numel()

        return hook

    hooks = {path_of(block): see(path_of(block)) for block in blocks}
    for inputs in _samples(flat, context, samples) if blocks else ():
        with_hooks(flat, hooks, inputs)
    return tuple(1.0 - sums[path_of(block)] / counts[path_of(block)] for block in blocks)


def _weight_norms(flat: FlatModule, group: Group) -> Tensor:
    made, read = (torch.zeros(group.size, dtype=torch.float64) for _ in range(2))
    for part in group.cuts:
        if part.side == "in":
            read += _norms(flat, part, group.size).square()
        elif isinstance(flat.module.get_submodule(part.name) if part.side == "out" else None, MAKERS):
            made += _norms(flat, part, group.size).square()
    return (made * read).sqrt()


def _norms(flat: FlatModule, part: Cut, size: int) -> Tensor:
    """The L2 norm of each unit's weights in one layer."""
    layer = flat.module.get_submodule(part.name)
    read = input_axis(layer)
    axis = read if part.side == "in" or isinstance(layer, nn.Embedding) else 1 - read
    weight = flat.module.get_parameter(f"{part.name}.weight").detach().double()
    squares = weight.movedim(axis, 0).flatten(1).square().sum(1)
    return _by_unit(squares, part, size).sqrt()


def _by_unit(values: Tensor, part: Cut, size: int) -> Tensor:
    """The sums `[..., size]` over each unit's indices of `values` `[..., indices]`."""
    places = torch.tensor([i for unit in part.units for i in unit])
    units = torch.tensor([u for u, unit in enumerate(part.units) for _ in unit])
    return values.new_zeros(*values.shape[:-1], size).index_add_(-1, units, values[..., places])


def _activation_squares(
    flat: FlatModule, groups: Sequence[Group], context: Context, samples: int
) -> dict[tuple[int, str], Tensor]:
    """By group and reader the sum over the samples of (the mean over positions of ||x_u||_2)^2."""
    readers: dict[str, list[tuple[int, Cut]]] = {}
    for i, group in enumerate(groups):
        for reader in group.readers:
            readers.setdefault(f"{reader.name}.weight", []).append((i, reader))
    found: dict[tuple[int, str], Tensor] = {}

    def see(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        last = value.movedim(1, -1) if use.kind in CONVOLUTIONS else value
        for i, reader in readers.get(use.name, ()):
            norms = _by_unit(last.double().square(), reader, groups[i].size).sqrt()  # [batch, ..., units]
            means = norms.reshape(len(norms), -1, groups[i].size).mean(1)
            found[i, reader.name] = found.get((i, reader.name), torch.zeros(1)) + means.square().sum(0)
        return value, weight

    with torch.no_grad(), watched_weights(flat.module, see):
        for inputs in _samples(flat, context, samples) if groups else ():
            flat.compute(inputs)
    return found


def _samples(flat: FlatModule, context: Context, samples: int) -> Iterator[Tensors]:
    if context.task is None:
        yield dict(flat.example)
        return
    for inputs, _ in batches(flat, context.task.calibration.rows(slice(samples)), BATCH):
        yield inputs
