"""Inputs like an example, drawn so that they reach what it does not: other signs and sizes, both ends, empty masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.tracing.flat_module import FlatModule, Tensors

FEWEST, MOST = 4, 8
"""Sets of inputs, the example among them: every way to draw once, and more where they are small."""
SMALL_BYTES = 2**20
"""As many sets as this holds."""
LARGER = 2.0
"""How much further the floats of one set lie from their mean."""

LARGEST = 2**61
"""torch draws from no wider range than this and its negative."""
MASK = (0, 1)
"""What integers in this range are taken for."""

Ranges = Mapping[str, tuple[int, int]]
"""By integer input: the least and the largest index of what it picks rows of."""
Fault = Callable[[Tensors], str]
"""Why a model cannot take a set of inputs; empty where it can."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """One way to draw a set of inputs; `says` is what is special about it."""

    says: str
    spread: float
    booleans: Callable[[Tensor, torch.Generator], Tensor]
    integers: Callable[[int, int, Tensor, torch.Generator], Tensor]
    negative: bool = False


def drawn(example: Tensors, ranges: Ranges, fault: Fault, say: Say) -> tuple[Tensors, ...]:
    """The example, and sets of other inputs in its shapes: FEWEST to MOST of them, always the same.

    Where the model gives no finite outputs for a set, its masks and integers are left as in the example, then its
    floats kept within the example's, too; what even so cannot be computed is left out. Each reason is said in one line.
    """
    size = sum(value.numel() * value.element_size() for value in example.values())
    count = min(MOST, max(FEWEST, SMALL_BYTES // max(1, size)))
    found, said = [example], set()
    for seed, way in zip(range(1, count), _ways(), strict=False):
        whole = randomized(example, seed, ranges, way)
        milder = {name: whole[name] if whole[name].is_floating_point() else value for name, value in example.items()}
        reason = fault(whole)
        if not reason:
            found.append(whole)
            continue
        usable = next((each for each in (milder, _within(example, seed)) if not fault(each)), None)
        if reason not in said:
            instead = "left out" if usable is None else "left out, and milder ones taken"
            say(f"golden inputs with {way.says} are {instead}: {reason}")
            said.add(reason)
        if usable is not None:
            found.append(usable)
    return tuple(found)


def randomized(example: Tensors, seed: int, ranges: Ranges | None = None, way: Way | None = None) -> Tensors:
    """Other inputs like `example`: floats of its mean and spread, integers of its range or of the one that is known.

    An integer input that is constant, a mask of ones, gets zeros too.
    """
    generator, way, known = torch.Generator().manual_seed(seed), way or LIKE, ranges or {}

    def like(name: str, value: Tensor) -> Tensor:
        if value.is_floating_point():
            spread = float(value.std()) if value.numel() > 1 and value.std() > 0 else 1.0
            return torch.randn(value.shape, generator=generator) * spread * way.spread + float(value.mean())
        if value.dtype == torch.bool:
            return way.booleans(value, generator)
        low, high = known.get(name) or _range_of(value, way.negative)
        return way.integers(low, high, value, generator).to(value.dtype)

    return {name: like(name, value) for name, value in example.items()}


def _range_of(value: Tensor, negative: bool) -> tuple[int, int]:
    """Where no table says it: from zero, or from the negative of the largest, to the largest of the example."""
    low, high = (int(value.min()), int(value.max())) if value.numel() else (0, 0)
    low, high = max(low, -LARGEST), min(high, LARGEST)
    high = max(high, 1 if low == 0 else low)
    is_mask = low >= 0 and high == 1
    if negative and not is_mask and value.dtype != torch.uint8:
        return min(low, -high), high
    return min(low, 0), high


def _within(example: Tensors, seed: int) -> Tensors:
    """Floats between the example's least and largest value; all else as it is."""
    generator = torch.Generator().manual_seed(seed)

    def like(value: Tensor) -> Tensor:
        if not value.is_floating_point() or not value.numel():
            return value
        low, high = float(value.min()), float(value.max())
        return torch.rand(value.shape, generator=generator) * (high - low) + low

    return {name: like(value) for name, value in example.items()}


def _uniform(low: int, high: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high + 1, like.shape, generator=generator)


def _ends_or_full_mask(low: int, high: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Half of them the least or the largest; a mask is full."""
    if (low, high) == MASK:
        return torch.ones(like.shape, dtype=torch.int64)
    values = _uniform(low, high, like, generator)
    chance = torch.rand(like.shape, generator=generator)
    values = torch.where(chance < 0.25, low, torch.where(chance > 0.75, high, values))
    flat = values.reshape(-1)
    if flat.numel() > 1:
        flat[0], flat[-1] = high, low
    return flat.reshape(like.shape)


def _empty_mask(low: int, high: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """The same, but a mask is empty."""
    is_mask = (low, high) == MASK
    return torch.zeros(like.shape, dtype=torch.int64) if is_mask else _ends_or_full_mask(low, high, like, generator)


def _flipped(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator) < 0.5


def _full(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.ones_like(like)


def _empty(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.zeros_like(like)


LIKE = Way("other values", 1.0, _flipped, _uniform)
WAYS = (
    LIKE,
    Way("larger values, full masks and both ends of integers", LARGER, _full, _ends_or_full_mask),
    Way("empty masks and negative integers", 1.0, _empty, _empty_mask, negative=True),
)


def _ways() -> Iterator[Way]:
    yield from WAYS
    while True:
        yield LIKE


def index_ranges(flat: FlatModule, example: Tensors) -> Ranges:
    """The integer inputs that pick rows of a table, an embedding most often, and the range that all tables allow.

    None is known of a model whose operations torch cannot watch.
    """
    integers = {n: v for n, v in example.items() if not v.is_floating_point() and v.dtype != torch.bool}
    if not integers:
        return {}
    watch = _Watch(integers)
    try:
        with torch.no_grad(), watch:
            flat.compute(dict(example))
    except Exception:  # whatever a forward() raises that is watched, and does not else
        return {}
    return {name: (0, rows - 1) for name, rows in watch.rows.items()}


SAME_VALUES = frozenset(
    """_to_copy clone view _unsafe_view slice select unsqueeze squeeze expand reshape permute transpose t alias detach
    contiguous flatten""".split()  # noqa: SIM905
)
"""Operations of aten whose result holds values of their first argument, and no others."""


class _Watch(TorchDispatchMode):
    """Sees which of `inputs` are used as they are to index a table; `rows` is the shortest table of each."""

    def __init__(self, inputs: Tensors) -> None:
        super().__init__()
        self.rows: dict[str, int] = {}
        self._names = {id(value): name for name, value in inputs.items()}
        self._kept: list[Tensor] = []  # an id must not be given again meanwhile

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        operation = func.overloadpacket.__name__
        if operation in SAME_VALUES and id(args[0]) in self._names:
            for value in pytree.tree_leaves(found):
                self._names[id(value)] = self._names[id(args[0])]
                self._kept.append(value)
        if operation == "embedding":
            self._indexed(args[1], len(args[0]))
        elif operation == "index_select":
            self._indexed(args[2], args[0].shape[args[1]])
        elif operation == "index":
            for axis, indices in enumerate(args[1]):
                self._indexed(indices, args[0].shape[axis])
        return found

    def _indexed(self, indices: Tensor | None, rows: int) -> None:
        name = self._names.get(id(indices))
        if name is not None:
            self.rows[name] = min(rows, self.rows.get(name, rows))
