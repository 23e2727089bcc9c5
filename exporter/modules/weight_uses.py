"""Where a module uses its weights: every linear, convolution and embedding that it calls, by the parameter's name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from exporter.tracing.program import FlatModule, Tensors
from runtimes.errors import BadInput

CONVOLUTIONS = ("conv", "conv_transpose")
FUNCTIONS = {
    "linear": "linear",
    **{f"{kind}{axes}d": kind for kind in CONVOLUTIONS for axes in (1, 2, 3)},
    "embedding": "embedding",
}
"""Functions of torch.nn.functional that take (input, weight, ...), and the kind of layer each is."""


@dataclass(frozen=True)
class Use:
    """One call: the parameter's name, its kind (a value of FUNCTIONS), and its groups (1 but for convolutions)."""

    name: str
    kind: str
    groups: int = 1


Before = Callable[[Use, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(use, input, weight) -> the input and the weight to compute with; an embedding's input are its indices."""
After = Callable[[Use, Tensor], Tensor]
"""(use, output with bias) -> the output to go on with."""


@contextlib.contextmanager
def watched_weights(
    module: nn.Module,
    before: Before = lambda use, value, weight: (value, weight),
    after: After = lambda use, output: output,
) -> Iterator[None]:
    """While it is active, each use of a parameter of `module` as a weight goes through `before` and `after`.

    The functions of torch.nn.functional are replaced, so that nn.MultiheadAttention's packed projection is a linear as
    any other (a TorchFunctionMode does not look into it); this is for one thread of a process of one's own. A weight
    that is computed from parameters (weight normalization, a chunk of a packed one) or that the module gives to an
    imported name of its own is not seen, and stays as it is.
    """
    names = {id(p): name for name, p in module.named_parameters()}
    originals = {function: getattr(nn.functional, function) for function in FUNCTIONS}

    def wrapped(function: str) -> Callable[..., Any]:
        original, kind = originals[function], FUNCTIONS[function]

        def call(*args: Any, **kwargs: Any) -> Any:
            named = dict(kwargs)
            value = args[0] if args else named.pop("input")
            weight = args[1] if len(args) > 1 else named.pop("weight")
            rest = args[2:]
            if id(weight) not in names:
                return original(value, weight, *rest, **named)
            groups = named.get("groups", rest[4] if len(rest) > 4 else 1) if kind in CONVOLUTIONS else 1
            use = Use(names[id(weight)], kind, groups)
            return after(use, original(*before(use, value, weight), *rest, **named))

        return call

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused call that hides its linears
    try:
        for function in FUNCTIONS:
            setattr(nn.functional, function, wrapped(function))
        yield
    finally:
        for function, original in originals.items():
            setattr(nn.functional, function, original)
        torch.backends.mha.set_fastpath_enabled(fast_path)


def weight_uses(flat: FlatModule, inputs: Tensors | None = None) -> dict[str, tuple[Use, ...]]:
    """The uses of every weight in one forward pass on `inputs`, by default the example, in order of first use."""
    found: dict[str, tuple[Use, ...]] = {}

    def record(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        found[use.name] = (*found.get(use.name, ()), use)
        return value, weight

    with torch.no_grad(), watched_weights(flat.module, record):
        flat.compute(dict(inputs or flat.example))
    return found


def multiply_adds(flat: FlatModule) -> int:
    """The multiply-adds of all linear layers and convolutions in one forward pass on the example, its batch included.

    A call with the output y and the weight `[out, in / groups, ...]` takes y.numel() * weight[0].numel(), a transposed
    one with the input x and the weight `[in, out / groups, ...]` x.numel() * weight[0].numel(); the products of two
    activations, as in attention, are not counted.
    """
    sizes = {name: p[0].numel() for name, p in flat.module.named_parameters() if p.ndim > 1}
    total = 0

    def before(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal total
        total += value.numel() * sizes[use.name] if use.kind == "conv_transpose" else 0
        return value, weight

    def after(use: Use, output: Tensor) -> Tensor:
        nonlocal total
        total += output.numel() * sizes[use.name] if use.kind in ("linear", "conv") else 0
        return output

    with torch.no_grad(), watched_weights(flat.module, before, after):
        flat.compute(dict(flat.example))
    return total


def left_out(names: Collection[str], patterns: Sequence[str], where: str) -> set[str]:
    """The weights that a pattern (as of a shell) fits, by their own name or their layer's.

    Raises BadInput for a pattern that fits none.
    """
    found: set[str] = set()
    for pattern in patterns:
        fitting = {n for n in names if any(fnmatchcase(x, pattern) for x in (n, n.rpartition(".")[0]))}
        if not fitting:
            raise BadInput(
                f"layers_out {pattern!r} fits no layer", where=where, remedy=f"the layers are {', '.join(names)[:400]}"
            )
        found |= fitting
    return found
