"""What the rounding of floating-point arithmetic alone changes in each part of an output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.tracing.flat_module import FlatModule, Tensors
from runtimes import parts
from runtimes.compare import RELATIVE_TOLERANCE

DRAWS = 8
"""Sets of chances in all, one for each sample at least."""
WHOLE = 2048.0
"""Up to here every whole number is one of float16, too."""
TYPES = {"float32": torch.float32, "float16": torch.float16}

Errors = Mapping[str, Sequence[np.ndarray]]
"""By floating-point output: one array of differences for each sample of each run."""


def rounding_errors(
    flat: FlatModule, compute: str, samples: Sequence[Tensors], exact: Sequence[Tensors]
) -> dict[str, list[np.ndarray]]:
    """By how much rounding in arithmetic of the type `compute` changes the outputs, `exact` being PyTorch's own.

    Monte Carlo arithmetic (Parker, "Monte Carlo Arithmetic", 1997): the inputs and the result of every operation are
    moved by chance within one unit in the last place, DRAWS times, always by the same chances. So an output that is a
    small difference of large numbers shows it, whatever order a runtime adds in.

    Samples for which that is beyond what the whole output may be off are left out: moving each number by itself tears
    apart what arithmetic leaves equal, as the -1e9 at every place of a mask that is empty. Without any, it is infinite.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name, value in exact[0].items() if value.is_floating_point()}
    most = {n: RELATIVE_TOLERANCE[compute] * max(float(_largest(outputs[n])) for outputs in exact) for n in found}
    for run in range(-(-DRAWS // len(samples))):
        mode = _Rounded(TYPES[compute], run)
        for sample, wanted in zip(samples, exact, strict=True):
            moved = {name: mode.moved(value) for name, value in sample.items()}
            with torch.no_grad(), _operations_one_by_one(flat), mode:
                outputs = flat.compute(moved)
            for name, errors in found.items():
                error = outputs[name].double() - wanted[name].double()
                if bool(_largest(error) <= most[name]):
                    errors.append(error.numpy())
    return {n: errors or [np.full(exact[0][n].shape, np.inf)] for n, errors in found.items()}


def _largest(value: Tensor) -> Tensor:
    return value.double().abs().max() if value.numel() else torch.zeros(())


def noise_of(errors: Errors, exact: Sequence[Tensors], margin: float) -> dict[str, dict[int, np.ndarray]]:
    """output -> axis -> `margin` times what `errors` may be in each part, for golden.npz."""
    found = {}
    for name, seen in errors.items():
        samples = [outputs[name].numpy() for outputs in exact]
        axes = parts.judged_axes(samples)
        found[name] = {axis: (margin * parts.noise(seen, samples, axis)).astype(np.float32) for axis in axes}
    return found


def larger(
    one: Mapping[str, Mapping[int, np.ndarray]], other: Mapping[str, Mapping[int, np.ndarray]]
) -> dict[str, dict[int, np.ndarray]]:
    """Part by part the larger of two noises of the same outputs."""
    return {name: {axis: np.maximum(rows, other[name][axis]) for axis, rows in one[name].items()} for name in one}


class _Rounded(TorchDispatchMode):
    """Moves what every operation returns by up to one unit in the last place of `dtype`."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        super().__init__()
        self._dtype, self._generator = dtype, torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(value.alias_info is not None for value in func._schema.returns):
            return found  # a view, or written in place: moved where it was computed
        return pytree.tree_map_only(Tensor, self.moved, found)

    def moved(self, value: Tensor) -> Tensor:
        """The same value in other digits; what is not float32, or not finite, stays.

        So do small whole numbers: a mask, and 1 - mask, is computed without rounding, and is multiplied by -1e38.
        """
        if value.dtype != torch.float32:
            return value
        unit = torch.finfo(self._dtype)
        chance = torch.rand(value.shape, generator=self._generator).mul_(2.0).sub_(1.0)
        moved = value + chance * (value.abs() + unit.smallest_normal) * unit.eps
        if self._dtype == torch.float16:  # what is too large for one is no matter of rounding
            moved = moved.clamp(unit.min, unit.max).half().float()
        exact = (value == value.round()) & (value.abs() <= WHOLE)
        return torch.where(torch.isfinite(value) & torch.isfinite(moved) & ~exact, moved, value)


@contextlib.contextmanager
def _operations_one_by_one(flat: FlatModule) -> Iterator[None]:
    """While it is active, torch computes no whole layer in one operation, whose inside nothing would round."""
    recurrent = any(isinstance(module, torch.nn.RNNBase) for module in flat.modules())
    fast: Callable[[bool], None] = torch.backends.mha.set_fastpath_enabled
    before = torch.backends.mha.get_fastpath_enabled()
    fast(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False) if recurrent else contextlib.nullcontext():
            yield
    finally:
        fast(before)
