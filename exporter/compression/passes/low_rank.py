"""Low-rank factors: a linear layer of weight W [out, in] becomes two, of rank r, with r * (in + out) weights.

Three rules choose r: PELA's, a rank for all layers, or a share of the energy. Two methods choose the factors: the
truncated SVD, whose error in the Frobenius norm no other factors of that rank beat (Eckart and Young, 1936), and FWSVD,
"Language model compression with weighted low-rank factorization" (Hsu et al., 2022), which weights each input by what
the loss says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from benchmarks.tasks.task import Task
from exporter.compression.model import Model, PassReport, differs
from exporter.modules.weight_uses import left_out, weight_uses
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.training.batches import batches
from exporter.training.context import Context
from exporter.training.losses import class_output, label_loss
from exporter.training.settings import CHECKED, Count, Patterns
from runtimes.errors import BadInput

NAME = "low-rank"
Factorable = nn.Linear | nn.Conv2d
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LEAST_FISHER = 1e-6
"""Of the largest: an input that the loss never felt keeps this weight, so that dividing by it stays possible."""


@dataclass(frozen=True, config=CHECKED)
class Settings:
    """How a weight is factored, and to which rank: by `ratio` unless `rank` or `energy` is given.

    `ratio` is by how much a layer's parameters shrink (PELA's rule); `rank` a rank for all layers; `energy` the share
    of the sum of squared singular values to keep. With `pointwise`, 1x1 convolutions are factored too. `layers_out` are
    patterns (as of a shell) of the layers or weights that stay; so do those with fewer than `smallest_out` outputs, as
    in PELA. "fwsvd" looks at the first `samples` samples of the train split.
    """

    method: Literal["svd", "fwsvd"] = "svd"
    ratio: Annotated[float, Field(gt=1)] = 3.0
    rank: Annotated[int | None, Field(ge=1)] = None
    energy: Annotated[float | None, Field(gt=0, lt=1)] = None
    pointwise: bool = False
    smallest_out: Count = 10
    samples: Count = 128
    layers_out: Patterns = ()

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise BadInput("rank and energy are both given", remedy="give one of them")


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Factor every linear layer that this makes smaller; the others stay and are named.

    Raises BadInput where no layer would be smaller, a pattern in `layers_out` fits none, or FWSVD has no data.
    """
    factored = model.copy()
    flat, before = factored.flat, _parameters(model.flat)
    layers, notes = candidates(flat, settings)
    fisher: dict[str, Tensor] = {}
    if settings.method == "fwsvd":
        fisher = input_fisher(flat, tuple(layers), settings.samples, context)
        notes.insert(0, _fisher_note(flat, settings, context))
    smaller = 0
    for i, (name, layer) in enumerate(layers.items()):
        context.progress(NAME, i, len(layers))
        u, s, v = weighted_svd(layer.weight.detach().flatten(1), fisher.get(name))
        rank = _rank(s, len(v), len(u), settings)
        if rank * (len(v) + len(u)) < len(v) * len(u):
            _replace(flat, name, _two_layers(layer, u[:, :rank], s[:rank], v[:, :rank]))
            smaller += 1
        else:
            notes.append(f"left whole: {name} [{len(u)}, {len(v)}], no smaller at rank {rank}")
    if not smaller:
        raise BadInput(
            f"no layer would be smaller ({'; '.join(notes) or 'the model has no linear layer'})",
            where=NAME,
            remedy="give a larger ratio, a lower rank or less energy, or leave the pass out",
        )
    done = f"{smaller} layers factored: {before:,} parameters became {_parameters(flat):,}"
    return factored, PassReport(NAME, asdict(settings), differs(model, factored), (done, *notes))


def pela_rank(in_features: int, out_features: int, ratio: float) -> int:
    """floor(in * out / (ratio * (in + out))): the rank at which two factors have 1 / ratio of the parameters.

    "PELA: Learning Parameter-Efficient Models with Low-Rank Approximation" (Guo et al., 2024); one at the least.
    """
    return max(1, int(in_features * out_features / (ratio * (in_features + out_features))))


def energy_rank(singular: Tensor, energy: float) -> int:
    """The smallest r for which the r largest of the singular values `[n]`, squared, have the share `energy` of all."""
    share = singular.square().cumsum(0) / singular.square().sum()
    return min(len(singular), int((share < energy).sum()) + 1)


def weighted_svd(weight: Tensor, fisher: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, n], S [n] and V [in, n], float64, of a weight W [out, in]: W = U diag(S) V^T.

    With `fisher` [in], the sums over the outputs of the weights' Fisher information, it is FWSVD's, with
    D = diag(sqrt(fisher)): W D = U S V'^T and V = D^-1 V'. Then U_r S_r V_r^T minimizes
    sum_ij fisher_j (W - U_r S_r V_r^T)_ij^2 over all matrices of rank r; a uniform `fisher` gives the plain SVD.
    """
    w = weight.double()
    if fisher is None or not bool((fisher > 0).any()):
        u, s, vt = torch.linalg.svd(w, full_matrices=False)
        return u, s, vt.T
    d = fisher.double().clamp_min(LEAST_FISHER * float(fisher.max())).sqrt()
    u, s, vt = torch.linalg.svd(w * d, full_matrices=False)
    return u, s, (vt / d).T


def candidates(flat: FlatModule, settings: Settings) -> tuple[dict[str, Factorable], list[str]]:
    """The layers to factor by their weight's name, and notes on those that stay.

    Those stay that share their weight, have few outputs, or are not called as a module of their own: what reads a
    layer's weight itself, as nn.MultiheadAttention does, would not find it. Raises BadInput where a pattern in
    `layers_out` fits no layer.
    """
    uses = weight_uses(flat)
    excluded = left_out(tuple(uses), settings.layers_out, NAME)
    homes = Counter(id(p) for _, p in flat.module.named_parameters(remove_duplicate=False))
    calls = _calls(flat)
    found: dict[str, Factorable] = {}
    notes = []
    for name, used in uses.items():
        weight, owner = flat.module.get_parameter(name), flat.get_submodule(_path(name))
        kinds = {use.kind for use in used}
        pointwise = settings.pointwise and weight[0, 0].numel() == 1 and used[0].groups == 1
        if "linear" not in kinds and not (kinds & {"conv", "conv_transpose"} and pointwise):
            continue
        if "conv_transpose" in kinds:
            notes.append(f"left whole: {name}, a transposed convolution")
        elif name in excluded:
            notes.append(f"left whole: {name}, as asked")
        elif homes[id(weight)] > 1 or len(kinds) > 1:
            notes.append(f"left whole: {name}, which is shared")
        elif len(weight) < settings.smallest_out:
            notes.append(f"left whole: {name}, of {len(weight)} outputs")
        elif type(owner) not in (nn.Linear, nn.Conv2d) or calls[owner] != len(used) or _of_torch(flat, name):
            notes.append(f"left whole: {name}, which another module than a plain layer reads")
        else:
            found[name] = cast(Factorable, owner)
    return found, notes


def input_fisher(flat: FlatModule, names: tuple[str, ...], samples: int, context: Context) -> dict[str, Tensor]:
    """For each weight `[out, in]` the sums [in] over the outputs of F_ij, the mean over samples of g_ij^2.

    g is the gradient of one sample's loss: of the cross-entropy where the task has labels for the model's outputs (as
    FWSVD has it, the empirical Fisher information). Else it is that of sum(e * y) over the floating-point outputs y,
    with e drawn from N(0, 1): its squares have the expectation of the diagonal of J^T J, the Fisher information of
    outputs with Gaussian noise, and the curvature of the squared distance to the model's own outputs, as in
    self-distillation, whose gradient itself is zero here.

    Raises BadInput without a task, or where its inputs do not fit, are none or give gradients that are not finite.
    """
    if context.task is None:
        raise BadInput("fwsvd needs data", where=NAME, remedy="name a task with --data, or use the method svd")
    if not len(context.task.train):
        raise BadInput(
            "the train split is empty", where=context.task.name, remedy="give samples, or use the method svd"
        )
    flat = flat.copy()
    weights = [flat.module.get_parameter(name).requires_grad_() for name in names]
    sums = {name: torch.zeros(w.shape[1], dtype=torch.float64) for name, w in zip(names, weights, strict=True)}
    split = context.task.train.rows(slice(samples))
    by_labels, from_labels = labelled(flat, context.task), label_loss(context)
    generator = torch.Generator().manual_seed(context.seed)
    with torch.enable_grad():
        for i, (inputs, labels) in enumerate(batches(flat, split, 1)):
            context.progress(f"{NAME}: Fisher information", i, len(split))
            outputs = flat.compute(inputs)
            loss = from_labels(outputs, inputs, labels) if by_labels else _random_projection(outputs, generator)
            for name, g in zip(names, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if g is not None:
                    sums[name] += g.flatten(1).double().square().sum(0) / len(split)
    for name, fisher in sums.items():
        if not bool(fisher.isfinite().all()):
            raise BadInput(f"the gradient of {name} is no finite number", where=NAME, remedy="clean the data")
    return sums


def labelled(flat: FlatModule, task: Task) -> bool:
    """Whether the task has labels, and the model an output with one column a class."""
    with torch.no_grad():
        return task.train.labels is not None and class_output(flat.compute(flat.example), task.classes) is not None


def _random_projection(outputs: Tensors, generator: torch.Generator) -> Tensor:
    floating = [y for y in outputs.values() if y.is_floating_point()]
    return torch.stack([(torch.randn(y.shape, generator=generator) * y).sum() for y in floating]).sum()


def _fisher_note(flat: FlatModule, settings: Settings, context: Context) -> str:
    assert context.task is not None
    seen = min(settings.samples, len(context.task.train))
    source = "labels" if labelled(flat, context.task) else "random projections of the outputs: no labels belong to them"
    return f"Fisher information of {seen} samples, by {source}"


def _parameters(flat: FlatModule) -> int:
    return sum(p.numel() for p in flat.module.parameters())


def _rank(singular: Tensor, in_features: int, out_features: int, settings: Settings) -> int:
    if settings.energy is not None:
        return energy_rank(singular, settings.energy)
    return settings.rank or pela_rank(in_features, out_features, settings.ratio)


def _two_layers(layer: Factorable, u: Tensor, s: Tensor, v: Tensor) -> nn.Sequential:
    """diag(sqrt(S)) V^T, then U diag(sqrt(S)) with the bias: the roots on both sides, as in PELA."""
    rank, bias = len(s), layer.bias is not None
    down: Factorable
    up: Factorable
    if isinstance(layer, nn.Linear):
        down = nn.Linear(len(v), rank, bias=False, device="meta")
        up = nn.Linear(rank, len(u), bias=bias, device="meta")
    else:
        moves = {"stride": layer.stride, "padding": layer.padding, "padding_mode": layer.padding_mode}
        down = nn.Conv2d(len(v), rank, 1, bias=False, device="meta", **moves)  # type: ignore[arg-type]
        up = nn.Conv2d(rank, len(u), 1, bias=bias, device="meta")
    down.weight = nn.Parameter((v * s.sqrt()).T.float().reshape(down.weight.shape))
    up.weight = nn.Parameter((u * s.sqrt()).float().reshape(up.weight.shape))
    up.bias = layer.bias
    return nn.Sequential(down, up).train(layer.training)


def _path(weight: str) -> str:
    """The module that holds a weight, as the FlatModule names it."""
    return f"module.{weight}".rpartition(".")[0]


def _replace(flat: FlatModule, weight: str, layer: nn.Module) -> None:
    owner, _, attribute = _path(weight).rpartition(".")
    setattr(flat.get_submodule(owner), attribute, layer)


def _calls(flat: FlatModule) -> Mapping[nn.Module, int]:
    """How often each module is called in one forward pass."""
    calls: Counter[nn.Module] = Counter()
    hooks = [m.register_forward_hook(lambda module, *_: calls.update([module])) for m in flat.module.modules()]
    try:
        weight_uses(flat)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _of_torch(flat: FlatModule, weight: str) -> bool:
    """Whether the layer belongs to one of torch's own, like nn.TransformerEncoderLayer, which looks into its parts."""
    parent = flat.get_submodule(_path(weight).rpartition(".")[0])
    return type(parent).__module__.startswith("torch.nn.") and not isinstance(parent, CONTAINERS)
