"""Which channels, attention heads and hidden neurons of a module can only be removed together.

torch-pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023) finds them in the autograd graph of one
forward pass. It takes what it does not know for an operation on each element alone, so no group is believed before a
trial: half of its units are cut out, and the module must compute what it computes when nothing reads them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.modules.structure import HEAD_COUNTS, HEAD_WIDTHS, TRANSPOSED, Cut, Group, masked, sliced
from exporter.modules.weight_uses import weight_uses
from exporter.tracing.flat_module import FlatModule
from runtimes.errors import BadInput

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)
CUT = (nn.Linear, *CONVOLUTIONS, *NORMS, nn.PReLU, nn.Embedding, nn.Parameter)
"""What can be cut; a group that reaches another kind of layer with weights stays whole."""
TRIAL_TOLERANCE = 1e-4
"""Of the largest output: sums of fewer terms round differently, by about 1e-6; a wrong cut is off by far more."""
Members = list[tuple[Any, str, list[int], list[int]]]
"""Of a raw group: a module or parameter, its side, its indices there, and the unit that each belongs to."""


def find_groups(flat: FlatModule) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """The groups of units that can be removed, in the order of the graph, and notes on those that cannot.

    Raises BadInput for a module that torch-pruning cannot trace.
    """
    traced = flat.copy()  # modules may keep what belongs to the trace
    shared = _shared(traced)
    found: list[Group] = []
    notes: list[str] = []
    for name, members in _raw_groups(traced):
        reason = _obstacle(members, shared)
        group = None if reason else _group(traced, name, members)
        if group and group.size > 1:
            found.append(group)
        elif reason:
            notes.append(f"left whole: {name}, {reason}")
    if not _cuts_well(flat, found):
        sound = [group for group in found if _cuts_well(flat, [group])]
        notes += [f"left whole: {g.name}, whose {g.kind} do not come apart" for g in found if g not in sound]
        found = sound
    return tuple(found), tuple(notes)


def _raw_groups(flat: FlatModule) -> list[tuple[str, Members]]:
    """The groups that start at the outputs of linear layers and convolutions, each once, as torch-pruning has them."""
    from torch_pruning import DependencyGraph

    def run(module: nn.Module, example: Any) -> list[Tensor]:
        outputs = flat.compute(dict(flat.example)).values()
        return [output * 1.0 for output in outputs if output.requires_grad]  # so that each output is a node of its own

    for parameter in flat.module.parameters():
        parameter.requires_grad_()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = DependencyGraph().build_dependency(flat.module, flat.example, forward_fn=run, verbose=False)
            return _starting_at_outputs(flat, graph)
    except Exception as error:  # whatever its tracing trips over
        raise BadInput(
            f"torch-pruning cannot trace the model ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
            where="prune-structured",
            remedy="use prune or low-rank, which need no trace, or only layers in what",
        ) from error


def _starting_at_outputs(flat: FlatModule, graph: Any) -> list[tuple[str, Members]]:
    found: list[tuple[str, Members]] = []
    visited: set[int] = set()
    for name, module in flat.module.named_modules():
        if not isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            continue
        if module not in graph.module2node or id(module) in visited:
            continue
        start = graph.get_pruner_of_module(module).prune_out_channels
        outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        members: Members = []
        for item in graph.get_pruning_group(module, start, list(range(outputs))).items:
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            members.append((item.dep.target.module, side, item.idxs, item.root_idxs))
        visited |= {id(m) for m, side, _, _ in members if side == "out"}
        if any(side == "in" for _, side, _, _ in members):  # what no layer reads is an output
            found.append((name, members))
    return found


def _shared(flat: FlatModule) -> set[int]:
    """The parameters that two modules have, or that are used twice: to cut them for one would cut them for both."""
    homes = Counter(id(p) for _, p in flat.module.named_parameters(remove_duplicate=False))
    twice = {id(flat.module.get_parameter(name)) for name, uses in weight_uses(flat).items() if len(uses) > 1}
    return twice | {identity for identity, count in homes.items() if count > 1}


def _obstacle(members: Members, shared: set[int]) -> str | None:
    """Why a group cannot be cut."""
    from torch_pruning import ops

    for module, _, _, _ in members:
        kind = type(module).__name__
        if ops.module2type(module) == ops.OPTYPE.OUTPUT:
            return "which reaches an output of the model"
        if not isinstance(module, CUT):
            if kind.startswith("_") or not isinstance(module, nn.Module):
                continue  # an operation without weights
            return f"which reaches a {kind}"
        if isinstance(module, CONVOLUTIONS) and module.groups > 1 and not _depthwise(module):
            return "which reaches a grouped convolution"
        parameters = [module] if isinstance(module, nn.Parameter) else module.parameters(recurse=False)
        if any(id(p) in shared for p in parameters):
            return "which reaches a weight that is used twice"
    return None


def _depthwise(module: Any) -> bool:
    return bool(module.groups == module.in_channels == module.out_channels)


def _group(flat: FlatModule, name: str, members: Members) -> Group | None:
    attention = _heads(flat, name, members)
    if attention:
        return attention
    modules = {id(m): n for n, m in flat.module.named_modules()}
    parameters = {id(p): n for n, p in flat.module.named_parameters()}
    size = 1 + max(unit for _, _, _, units in members for unit in units)
    cuts, kinds = [], set()
    for module, side, indices, units in members:
        if not isinstance(module, CUT) or (side == "out" and _outputs(module) == 1 < size):
            continue  # one value, broadcast over the channels
        places: list[list[int]] = [[] for _ in range(size)]
        for index, unit in zip(indices, units, strict=True):
            places[unit].append(index)
        spread = tuple(map(tuple, places))
        if isinstance(module, nn.Parameter):
            axis = [axis for axis, length in enumerate(module.shape) if length > 1][-1]
            cuts.append(Cut(parameters[id(module)], "parameter", spread, axis))
        else:
            cuts.append(Cut(modules[id(module)], side, spread))
        kinds.add(type(module))
    return Group("neurons" if kinds <= {nn.Linear, nn.PReLU} else "channels", name, tuple(cuts))


def _outputs(module: Any) -> int:
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(module, nn.Linear) and weight is not None else 0


def _heads(flat: FlatModule, name: str, members: Members) -> Group | None:
    """The group as attention heads: one linear layer [3 * w, ...] or three [w, ...], and one that reads w inputs."""
    layers = [(m, side) for m, side, _, _ in members if isinstance(m, nn.Linear)]
    makers, readers = ([m for m, s in layers if s == side] for side in ("out", "in"))
    if len(readers) != 1 or any(isinstance(m, CUT) and not isinstance(m, nn.Linear) for m, _, _, _ in members):
        return None
    names = {id(m): n for n, m in flat.module.named_modules()}
    width = readers[0].in_features
    if [m.out_features for m in makers] not in ([3 * width], [width] * 3):
        return None
    owner = names[id(makers[0])].rpartition(".")[0]
    head = _head_width(flat.module.get_submodule(owner), width)
    if not head:
        return None
    heads = range(width // head)
    cuts = [Cut(names[id(readers[0])], "in", tuple(tuple(range(h * head, (h + 1) * head)) for h in heads))]
    for maker in makers:
        starts = range(0, maker.out_features, width)  # query, key and value one after the other
        units = tuple(tuple(s + h * head + i for s in starts for i in range(head)) for h in heads)
        cuts.append(Cut(names[id(maker)], "out", units))
    return Group("heads", name, tuple(cuts), owner)


def _head_width(attention: nn.Module, width: int) -> int:
    """The width of a head as the module's attributes give it, or 0."""
    widths = [getattr(attention, name, None) for name in HEAD_WIDTHS]
    counts = [getattr(attention, name, None) for name in HEAD_COUNTS]
    found = [w for w in widths if isinstance(w, int)] + [width // c for c in counts if isinstance(c, int) and c > 0]
    return found[0] if found and found[0] > 0 and width % found[0] == 0 else 0


@torch.no_grad()
def _cuts_well(flat: FlatModule, groups: Sequence[Group]) -> bool:
    """Whether the sliced module computes what the masked one does, for a random half of the units."""
    generator = torch.Generator().manual_seed(0)
    removal = [(g, torch.randperm(g.size, generator=generator)[: g.size // 2].tolist()) for g in groups]
    try:
        wanted, got = (
            changed.compute(dict(flat.example)) for changed in (masked(flat, removal), sliced(flat, removal))
        )
    except Exception:  # the user's own forward, at sizes that do not fit, raises anything
        return False
    return all(
        got[name].shape == value.shape
        and bool(((got[name] - value).abs() <= TRIAL_TOLERANCE * value.abs().max()).all())
        for name, value in wanted.items()
        if value.is_floating_point()
    )
