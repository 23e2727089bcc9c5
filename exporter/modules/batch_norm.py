"""Fold batch normalization into the layer before it, as every runtime does: int8 codes are of the folded weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exporter.modules.weight_uses import Use, watched_weights
from exporter.tracing.flat_module import FlatModule

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Foldable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def fold_batch_norms(flat: FlatModule, keep: Collection[str] = ()) -> FlatModule:
    """A copy of `flat` in which each BatchNorm that alone reads the output of one layer is part of that layer.

    With running mean m, variance v, gain g and shift b of a channel, a = g / sqrt(v + eps): the layer's weight becomes
    a * weight and its bias a * (bias - m) + b (Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", 2018, equation 14). Which layer a norm reads is seen by running the
    example. Not folded, since it would change the outputs: a norm that takes its statistics from the batch, a layer
    that is called twice or whose output is used elsewhere too. A weight in `keep` stays as it is.
    """
    folded = flat.copy()
    for name, norm in _pairs(folded):
        owner, _, attribute = name.rpartition(".")
        layer = folded.module.get_submodule(owner)
        if attribute != "weight" or name in keep or not isinstance(layer, Foldable):
            continue
        _fold(layer, norm)
        _replace(folded.module, norm)
    return folded


class _Readers(TorchDispatchMode):
    """Counts how many operations read each tensor, by its identity, from `begin` on: before, another had it."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def begin(self, tensor: Tensor) -> None:
        self.count[id(tensor)] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.update({id(v) for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)})
        return func(*args, **(kwargs or {}))


def _pairs(flat: FlatModule) -> list[tuple[str, _BatchNorm]]:
    """The weights whose only output goes to a norm alone, and that norm, as one run of the example shows it."""
    made: list[tuple[Use, Tensor]] = []  # holds the tensors, lest an identity is given twice
    read: list[tuple[_BatchNorm, Tensor]] = []
    readers = _Readers()

    def after(use: Use, output: Tensor) -> Tensor:
        readers.begin(output)
        made.append((use, output))
        return output

    def before(norm: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(norm, _BatchNorm) and args:
            read.append((norm, args[0]))

    hooks = [m.register_forward_pre_hook(before) for m in flat.module.modules() if isinstance(m, _BatchNorm)]
    try:
        with torch.no_grad(), watched_weights(flat.module, after=after), readers:
            outputs = flat.compute(dict(flat.example))
    finally:
        for hook in hooks:
            hook.remove()
    readers.count.update(id(value) for value in outputs.values())
    calls = Counter(use.name for use, _ in made)
    norm_calls = Counter(id(norm) for norm, _ in read)
    homes = Counter(id(p) for _, p in flat.module.named_parameters(remove_duplicate=False))
    parameters = dict(flat.module.named_parameters())
    by_output = {id(output): use.name for use, output in made}
    found = []
    for norm, value in read:
        name = by_output.get(id(value), "")
        once = name and calls[name] == norm_calls[id(norm)] == readers.count[id(value)] == 1
        if once and homes[id(parameters[name])] == 1 and _foldable(norm, parameters[name], value):
            found.append((name, norm))
    return found


def _foldable(norm: _BatchNorm, weight: Tensor, output: Tensor) -> bool:
    """Whether the norm has statistics of its own for each of the layer's channels, and the channels on axis 1."""
    fixed = not norm.training and norm.running_mean is not None and norm.running_var is not None
    return fixed and output.ndim == weight.ndim and norm.num_features == len(weight) == output.shape[1]


def _fold(layer: Foldable, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    trained = layer.weight.requires_grad
    weight, bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    layer.weight, layer.bias = weight.requires_grad_(trained), bias.requires_grad_(trained)


def _replace(module: nn.Module, norm: _BatchNorm) -> None:
    """Take the norm out; a subclass, which may do more, stays and normalizes nothing."""
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if type(norm) in PLAIN:
        rest: nn.Module = nn.Identity()
    elif isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        rest = nn.Sequential(drop, act)  # timm's BatchNormAct2d
    else:
        _neutralize(norm)
        return
    for parent in module.modules():
        for name, child in parent.named_children():
            if child is norm:
                setattr(parent, name, rest)


def _neutralize(norm: _BatchNorm) -> None:
    """Make a norm compute (x - 0) / sqrt((1 - eps) + eps) * 1 + 0."""
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)
        if norm.affine:
            norm.weight.fill_(1.0)
            norm.bias.zero_()
