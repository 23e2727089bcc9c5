"""Weights in float16, half of their size: runtimes make them float32 at load and compute in that.

IEEE 754-2019's binary16: 11 significant bits, from 6.1e-5 (below it, fewer) to 65504.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import numpy as np
import torch
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from exporter.compression.model import Model, PassReport, differs, listed
from exporter.low_bit.weight import HALF_BITS, OTHER_USE, LowBitWeight
from exporter.modules.batch_norm import fold_batch_norms
from exporter.modules.weight_uses import left_out, weight_uses
from exporter.training.context import Context
from exporter.training.settings import CHECKED, Patterns
from runtimes.errors import BadInput

NAME = "float16"
MOST_ERROR = 2.0**-10
"""Of a weight's norm: rounding to 11 significant bits changes it by 2**-11 at most, but for values below 6.1e-5."""


@checked_dataclass(frozen=True, config=CHECKED)
class Settings:
    """Every weight of two or more axes becomes float16, but one that float16 cannot hold; biases and norms do not.

    `layers_out` are patterns (as of a shell) of the layers or weights that stay float32.
    """

    layers_out: Patterns = ()


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Round every weight of two or more axes, that is not low-bit yet, to float16.

    Batch normalization is folded into the layer before it first: converters do so, and a product of a float16 weight
    is none any more. What would become infinite, or lose more than MOST_ERROR of its norm, stays float32 and is named.

    Raises BadInput where nothing is left to round, or a pattern fits no layer.
    """
    flat = fold_batch_norms(model.flat, keep=model.low_bit)
    kinds = {name: uses[0].kind for name, uses in weight_uses(flat).items()}
    weights = {n: p for n, p in flat.module.named_parameters() if p.ndim > 1 and n not in model.low_bit}
    out = left_out(tuple(weights), settings.layers_out, NAME)
    beyond = [name for name, weight in weights.items() if name not in out and not _holds(weight.detach())]
    halves = {name: weight.detach().half() for name, weight in weights.items() if name not in {*out, *beyond}}
    if not halves:
        raise BadInput(
            "there is no weight to round",
            where=NAME,
            remedy="it must have two or more axes, not be left out, and lie within float16's range of 65504",
        )
    parameters = dict(flat.module.named_parameters())
    with torch.no_grad():
        for name, half in halves.items():
            parameters[name].copy_(half)
    low_bit = {
        name: LowBitWeight(half.numpy(), np.ones(len(half), np.float32), HALF_BITS, kinds.get(name, OTHER_USE))
        for name, half in halves.items()
    }
    rounded = Model(flat, {**model.low_bit, **low_bit})
    notes = [", ".join(f"{n} {kind} float16" for kind, n in Counter(w.kind for w in low_bit.values()).items())]
    notes += [f"{what}: {listed(names)}" for what, names in _kept(rounded, sorted(out), beyond).items() if names]
    return rounded, PassReport(NAME, asdict(settings), differs(model, rounded), tuple(notes))


def _holds(weight: Tensor) -> bool:
    error = (weight.half().float() - weight).double().norm()
    return bool(error <= MOST_ERROR * weight.double().norm())  # NaN, where a value became infinite, is no less


def _kept(model: Model, out: list[str], beyond: list[str]) -> dict[str, list[str]]:
    """What stays float32, by the reason."""
    parameters = dict(model.flat.module.named_parameters())
    short = [name for name, parameter in parameters.items() if parameter.ndim < 2 and parameter.is_floating_point()]
    return {
        "left out, stay float32": out,
        "beyond what float16 holds, stay float32": beyond,
        f"of one axis, stay float32 ({sum(parameters[n].numel() for n in short):,} values)": short,
    }
