"""Where a module uses its weights: every linear, convolution and embedding that it calls, by the parameter's name."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from exporter.tracing.flat_module import FlatModule, Tensors
from runtimes.errors import BadInput

CONVOLUTIONS = ("conv", "conv_transpose")
FUNCTIONS: Mapping[Callable[..., Any], str] = {
    nn.functional.linear: "linear",
    nn.functional.conv1d: "conv",
    nn.functional.conv2d: "conv",
    nn.functional.conv3d: "conv",
    nn.functional.conv_transpose1d: "conv_transpose",
    nn.functional.conv_transpose2d: "conv_transpose",
    nn.functional.conv_transpose3d: "conv_transpose",
    nn.functional.embedding: "embedding",
}
"""Functions of torch that take (input, weight, ...) and, if they are convolutions, groups as the seventh."""


@dataclass(frozen=True)
class Use:
    """One call: the parameter's name, its kind (see FUNCTIONS), and the call's groups (1 but for convolutions).

    A weight is `[out, in / groups, ...]`; of the kind "conv_transpose" it is `[in, out / groups, ...]`.
    """

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

    It holds for this thread alone and replaces nothing, so that other threads, and the module itself, see torch as it
    is; `before` and `after` are not watched. Fused calls that hide their linears are off meanwhile (torch.nn takes them
    only where nobody watches). A weight that is computed from parameters (weight normalization, a chunk of a packed
    one) is not seen, and stays as it is.
    """
    with _Watch({id(p): name for name, p in module.named_parameters()}, before, after):
        yield


class _Watch(TorchFunctionMode):
    """Sees every function of torch that is called in this thread, from wherever its name was taken."""

    def __init__(self, names: Mapping[int, str], before: Before, after: After) -> None:
        super().__init__()
        self.names, self.before, self.after = names, before, after

    def __torch_function__(self, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        kind = FUNCTIONS.get(func)
        if kind is not None:
            return self._used(kind, func, *args, **named)
        body = _body(func) if isinstance(func, types.FunctionType) else None
        if body is not None and any(id(argument) in self.names for argument in (*args, *named.values())):
            with self:  # as it is off in here
                return body(*args, **named)
        return func(*args, **named)

    def _used(self, kind: str, func: Any, input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Any:
        if id(weight) not in self.names:
            return func(input, weight, *rest, **named)
        groups = named.get("groups", rest[4] if len(rest) > 4 else 1) if kind in CONVOLUTIONS else 1
        use = Use(self.names[id(weight)], kind, groups)
        return self.after(use, func(*self.before(use, input, weight), *rest, **named))


@functools.cache
def _body(function: types.FunctionType) -> Callable[..., Any] | None:
    """A function of torch.nn.functional that is written in Python, without its question whether anybody watches.

    To that question it would answer by calling the watcher again. So nn.MultiheadAttention's packed projection, which
    is a linear inside of such a function, is one as any other.
    """
    if function.__module__ != nn.functional.__name__:
        return None
    questions = [name for name in function.__code__.co_names if name.startswith("has_torch_function")]
    scope = {**function.__globals__, **dict.fromkeys(questions, lambda *tensors: False)}
    body = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


def weight_uses(flat: FlatModule, inputs: Tensors | None = None) -> dict[str, tuple[Use, ...]]:
    """The uses of every weight in one forward pass on `inputs`, by default the example, in order of first use."""
    found: dict[str, tuple[Use, ...]] = {}

    def record(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        found[use.name] = (*found.get(use.name, ()), use)
        return value, weight

    with torch.no_grad(), watched_weights(flat.module, record):
        flat.compute(dict(inputs or flat.example))
    return found


def uses_to_round(flat: FlatModule, low_bit: Collection[str]) -> dict[str, tuple[Use, ...]]:
    """The uses of every weight that is none of `low_bit` yet."""
    return {name: used for name, used in weight_uses(flat).items() if name not in low_bit}


def output_first(weight: Tensor, groups: int) -> Tensor:
    """A transposed convolution's `[in, out / groups, ...]` as `[out, in / groups, ...]`; and the other way around."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def multiply_adds(flat: FlatModule) -> int:
    """The multiply-adds of all linear layers and convolutions in one forward pass on the example, its batch included.

    A call with the output y and the weight `[out, in / groups, ...]` takes y.numel() * weight[0].numel(), a transposed
    convolution of the input x and the weight `[in, out / groups, ...]` x.numel() * weight[0].numel(); the products of
    two activations, as in attention, are not counted.
    """
    sizes = {name: p[0].numel() for name, p in flat.module.named_parameters() if p.ndim > 1}
    total = 0

    def count_inputs(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal total
        total += value.numel() * sizes[use.name] if use.kind == "conv_transpose" else 0
        return value, weight

    def count_outputs(use: Use, output: Tensor) -> Tensor:
        nonlocal total
        total += output.numel() * sizes[use.name] if use.kind in ("linear", "conv") else 0
        return output

    with torch.no_grad(), watched_weights(flat.module, count_inputs, count_outputs):
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
