"""What can be taken out of a module whole, and how: units of coupled layers are cut out, blocks of layers left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporter.tracing.flat_module import FlatModule, Tensors

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
HEAD_WIDTHS = ("head_width", "head_dim", "head_size", "attention_head_size", "dim_head")
HEAD_COUNTS = ("num_heads", "heads", "n_heads", "num_attention_heads")
ALL_HEADS_WIDTHS = ("all_head_size", "attn_dim", "inner_dim", "embed_dim", "dim")
"""How attention modules name the width of a head, their number, and the product of both."""


@dataclass(frozen=True)
class Cut:
    """A tensor axis that shrinks: `units[u]` are the indices that unit u of the group has there.

    `name` is a module's and `side` "in" (it reads the unit) or "out"; or `name` is a parameter's of its own, `side` is
    "parameter" and `axis` says which.
    """

    name: str
    side: str
    units: tuple[tuple[int, ...], ...]
    axis: int = 0


@dataclass(frozen=True)
class Group:
    """Units that can only be removed from all of `cuts` at once; `kind` is "channels", "heads" or "neurons".

    `attention` is the module whose attributes count the heads, of that kind alone.
    """

    kind: str
    name: str
    cuts: tuple[Cut, ...]
    attention: str = ""

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.cuts[0].units)

    @property
    def readers(self) -> tuple[Cut, ...]:
        """The layers that read the units."""
        return tuple(cut for cut in self.cuts if cut.side == "in")


@dataclass(frozen=True)
class Block:
    """Element `index` of the container `container`, whose output has the shape of its input."""

    container: str
    index: int


Removal = Sequence[tuple[Group, Collection[int]]]
"""Groups, and the units to remove of each."""


def find_blocks(flat: FlatModule) -> tuple[Block, ...]:
    """The blocks that can be left out, in order: outermost elements of numbered containers, with layers inside.

    A block counts if it is called once, its output has the shape of its input, it has siblings of its own kind, and
    the module still runs, to the same output shapes, without it.
    """
    seen: dict[str, list[bool]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, args, keywords, output: seen.setdefault(name, []).append(
            first_tensor(args, keywords).shape == first_tensor((output,), {}).shape
        )

    with_hooks(flat, {name: note(name) for name, _ in flat.module.named_modules() if name})
    shapes = _output_shapes(flat)
    found: list[Block] = []
    for name, container in flat.module.named_modules():
        if not _numbered(container) or any(_inside(name, block) for block in found):
            continue
        kinds = Counter(type(child) for child in container.children())
        for i, child in enumerate(container.children()):
            block = Block(name, i)
            fits = seen.get(path_of(block)) == [True] and kinds[type(child)] > 1 and next(child.children(), None)
            if fits and shapes == _output_shapes(without_blocks(flat, [block])):
                found.append(block)
    return tuple(found)


def path_of(block: Block) -> str:
    """The name of the block's module."""
    return f"{block.container}.{block.index}".removeprefix(".")


def without_blocks(flat: FlatModule, blocks: Collection[Block]) -> FlatModule:
    """A copy without these blocks; those behind them move up."""
    thinner = flat.copy()
    containers: dict[str, Any] = {b.container: thinner.module.get_submodule(b.container) for b in blocks}
    for block in sorted(blocks, key=lambda b: -b.index):
        del containers[block.container][block.index]
    return thinner


def sliced(flat: FlatModule, removal: Removal) -> FlatModule:
    """A copy from which the units are cut out: its layers are smaller, its inputs and outputs the same."""
    from torch_pruning.ops import module2type
    from torch_pruning.pruner.function import PrunerBox

    smaller = flat.copy()
    for (name, side, axis), indices in _indices(removal).items():
        if side == "parameter":
            parameter = smaller.module.get_parameter(name)
            owner, _, attribute = name.rpartition(".")
            kept = parameter.index_select(axis, _kept(parameter.shape[axis], indices)).detach()
            setattr(smaller.module.get_submodule(owner), attribute, nn.Parameter(kept, parameter.requires_grad))
            continue
        module = smaller.module.get_submodule(name)
        if isinstance(module, nn.LayerNorm):
            _slice_layer_norm(module, indices)
        else:
            pruner = PrunerBox[module2type(module)]
            (pruner.prune_in_channels if side == "in" else pruner.prune_out_channels)(module, sorted(indices))
    for group, units in removal:
        if group.kind == "heads" and units:
            _count_heads(smaller.module.get_submodule(group.attention), group, len(units))
    return smaller


def masked(flat: FlatModule, removal: Removal) -> FlatModule:
    """A copy of the old size that computes what the sliced one does: no layer hears of the units that are gone.

    The weights that read them are zero, and a LayerNorm takes its mean and variance over the others.
    """
    silent = flat.copy()
    for (name, side, _), indices in _indices(removal).items():
        module = silent.module.get_submodule(name) if side != "parameter" else None
        if side == "in" and module is not None:
            with torch.no_grad():
                module.get_parameter("weight").index_fill_(input_axis(module), torch.tensor(sorted(indices)), 0.0)
        elif isinstance(module, nn.LayerNorm):
            module.register_forward_hook(_normalize_the_others(_kept(module.normalized_shape[-1], indices)))
    return silent


def input_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight that counts its inputs: `[out, in, ...]`, of a transposed convolution the other."""
    return 0 if isinstance(layer, TRANSPOSED) and layer.groups == 1 else 1


def with_hooks(flat: FlatModule, hooks: Mapping[str, Callable[..., None]], inputs: Tensors | None = None) -> None:
    """One forward pass in which `hooks[name](module, args, keywords, output)` sees each call of the module `name`."""
    handles = [
        flat.module.get_submodule(name).register_forward_hook(hook, with_kwargs=True) for name, hook in hooks.items()
    ]
    try:
        with torch.no_grad():
            flat.compute(dict(inputs or flat.example))
    finally:
        for handle in handles:
            handle.remove()


def _count_heads(attention: nn.Module, group: Group, removed: int) -> None:
    before, head = group.size, len(group.cuts[0].units[0])
    changes = {(n, before): before - removed for n in HEAD_COUNTS}
    changes |= {(n, before * head): (before - removed) * head for n in ALL_HEADS_WIDTHS}
    for (name, old), new in changes.items():
        if getattr(attention, name, None) == old:
            setattr(attention, name, new)


def _slice_layer_norm(norm: nn.LayerNorm, indices: Collection[int]) -> None:
    """torch-pruning 1.6.1 takes what stays from a set, in no certain order."""
    kept = _kept(norm.normalized_shape[-1], indices)
    norm.normalized_shape = (*norm.normalized_shape[:-1], len(kept))
    for name, parameter in list(norm.named_parameters(recurse=False)):
        setattr(norm, name, nn.Parameter(parameter.detach()[..., kept], parameter.requires_grad))


def _normalize_the_others(kept: Tensor) -> Callable[..., Tensor]:
    def hook(norm: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        weight, bias = (None if p is None else p[kept] for p in (norm.weight, norm.bias))
        others = nn.functional.layer_norm(args[0][..., kept], (len(kept),), weight, bias, norm.eps)
        return torch.zeros_like(output).index_copy(-1, kept, others)

    return hook


def _indices(removal: Removal) -> dict[tuple[str, str, int], set[int]]:
    """By (name, side, axis) all that is removed there, also where several groups meet, as behind a concatenation."""
    found: dict[tuple[str, str, int], set[int]] = {}
    for group, units in removal:
        for cut in group.cuts:
            places = found.setdefault((cut.name, cut.side, cut.axis), set())
            places.update(i for unit in units for i in cut.units[unit])
    return {place: indices for place, indices in found.items() if indices}


def _kept(size: int, indices: Collection[int]) -> Tensor:
    return torch.tensor([i for i in range(size) if i not in indices], dtype=torch.int64)


def first_tensor(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
    """The first tensor of a call, also of a tuple in front, as blocks return it; an empty one where there is none."""
    for value in (*args, *keywords.values()):
        if isinstance(value, Tensor):
            return value
        if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            return value[0]
    return torch.empty(0)


def _numbered(container: nn.Module) -> bool:
    """Whether it is a list of modules whose names are their places; others may be called by name."""
    names = [name for name, _ in container.named_children()]
    return isinstance(container, (nn.ModuleList, nn.Sequential)) and names == [str(i) for i in range(len(container))]


def _inside(name: str, block: Block) -> bool:
    return f"{name}.".startswith(f"{path_of(block)}.")


def _output_shapes(flat: FlatModule) -> dict[str, torch.Size] | None:
    """The shapes of the outputs, or None where the module does not run."""
    try:
        with torch.no_grad():
            return {name: value.shape for name, value in flat.compute(dict(flat.example)).items()}
    except Exception:  # a block that something else reaches into
        return None
