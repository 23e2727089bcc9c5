"""Integers of 64 bits in formats that have 32: how large a traced program's may become, and remainders that stay small.

(ids * 100003) % 53 needs 64 bits; ((ids % 53) * (100003 % 53)) % 53 is the same number and never leaves 32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from exporter.lowering.traced_graph import call, constants_of, name_of

aten = torch.ops.aten
Bounds = tuple[int, int]

INT32: Bounds = (-(2**31), 2**31 - 1)
LONGEST_AXIS = 2**24
"""How long a dynamic axis may be."""
REMAINDERS = (aten.remainder.Scalar, aten.remainder.Tensor)
COPIES = ("clone", "detach", "alias", "lift_fresh_copy", "contiguous")
RING = ("add", "sub", "rsub", "mul", "neg")
"""Operations whose remainder is that of their operands' remainders."""


def fits(bounds: Bounds) -> bool:
    """Whether 32 bits hold these integers."""
    return INT32[0] <= bounds[0] and bounds[1] <= INT32[1]


def _is_between(bounds: Bounds) -> bool:
    """Whether 32 bits do not hold these integers and 64 do; beyond, PyTorch's own wrap around."""
    return not fits(bounds) and bounds[0] >= -(2**63) and bounds[1] < 2**63


class Integers:
    """The bounds of a program's integers as far as they show in it. An input may be any of 32 bits, as in such formats.

    A sum of what fits counts as what fits: only products are likely to need more.
    """

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        self._constants = constants_of(exported)
        self._known: dict[Node, Bounds] = {}

    def whole(self, value: Any) -> int | None:
        """A whole number, as such or as a stored tensor without axes; None for all else."""
        while isinstance(value, Node) and name_of(value) in COPIES:
            value = value.args[0]
        if isinstance(value, Node) and value in self._constants and self._constants[value].ndim == 0:
            value = self._constants[value].item()
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def bounds(self, value: Any) -> Bounds:
        """The least and the greatest that a number or an integer tensor may be."""
        if isinstance(value, int):
            return int(value), int(value)
        if not isinstance(value, Node):
            return INT32
        if value not in self._known:
            self._known[value] = self._found(value)
        return self._known[value]

    def _found(self, node: Node) -> Bounds:
        made = node.meta.get("val")
        if not isinstance(made, torch.Tensor) or made.is_floating_point() or made.is_complex():
            return INT32
        if made.dtype == torch.bool:
            return 0, 1
        if node in self._constants:
            stored = self._constants[node]
            return (int(stored.min()), int(stored.max())) if stored.numel() else (0, 0)
        if node.op == "placeholder":
            return _of_input(node, torch.iinfo(made.dtype))
        rule = RULES.get(name_of(node))
        return rule(self, node) if rule else INT32


def _of_input(node: Any, of_type: torch.iinfo) -> Bounds:
    """That of its type in 32 bits; what is looked up in a table is one of its rows."""
    rows = [
        int(user.args[0].meta["val"].shape[0])
        for user in node.users
        if user.target is aten.embedding.default and user.args[1] is node
    ]
    return (0, min(rows) - 1) if rows else (max(of_type.min, INT32[0]), min(of_type.max, INT32[1]))


def _length(node: Any, axis: int) -> int:
    shape = node.meta["val"].shape or (1,)
    return shape[axis] if isinstance(shape[axis], int) else LONGEST_AXIS


def _sum(*parts: Bounds) -> Bounds:
    total = sum(low for low, _ in parts), sum(high for _, high in parts)
    return (max(total[0], INT32[0]), min(total[1], INT32[1])) if all(map(fits, parts)) else total


def _product(a: Bounds, b: Bounds) -> Bounds:
    ends = [x * y for x in a for y in b]
    return min(ends), max(ends)


def _union(*parts: Bounds) -> Bounds:
    return min(low for low, _ in parts), max(high for _, high in parts)


def _of_sum(of: Integers, node: Any, sign: int = 1) -> Bounds:
    factor = sign * int(node.kwargs.get("alpha", 1))
    return _sum(of.bounds(node.args[0]), _product(of.bounds(node.args[1]), (factor, factor)))


def _of_remainder(of: Integers, node: Any) -> Bounds:
    low, high = of.bounds(node.args[1])
    return min(low + 1, 0), max(high - 1, 0)


def _of_clamp(of: Integers, node: Any) -> Bounds:
    low, high = of.bounds(node.args[0])
    least = of.whole(node.args[1] if len(node.args) > 1 else node.kwargs.get("min"))
    most = of.whole(node.args[2] if len(node.args) > 2 else node.kwargs.get("max"))
    low, high = (low, high) if least is None else (max(low, least), max(high, least))
    return (low, high) if most is None else (min(low, most), min(high, most))


def _of_running_sum(of: Integers, node: Any) -> Bounds:
    length = _length(node.args[0], int(node.args[1]))
    return _sum(_union((0, 0), _product(of.bounds(node.args[0]), (1, length))))


def _of_arange(of: Integers, node: Any) -> Bounds:
    numbers = [a if isinstance(a, int) else LONGEST_AXIS for a in node.args]
    return min(0, *numbers), max(0, *numbers)


def _of_first(of: Integers, node: Any) -> Bounds:
    return of.bounds(node.args[0])


def _of_places(of: Integers, node: Any) -> Bounds:
    axes = range(max(node.args[0].meta["val"].ndim, 1))
    return 0, max(_length(node.args[0], axis) for axis in axes) - 1


def _of_power(of: Integers, node: Any) -> Bounds:
    low, high = of.bounds(node.args[0])
    power = of.whole(node.args[1])
    if power is None or power < 0:
        return INT32
    return _union((low**power, low**power), (high**power, high**power), (0, 0))


def _of_shift(of: Integers, node: Any) -> Bounds:
    bits = of.whole(node.args[1])
    return INT32 if bits is None or not 0 <= bits < 64 else _product(of.bounds(node.args[0]), (2**bits, 2**bits))


Rule = Callable[[Integers, Any], Bounds]
RULES: dict[str, Rule] = {
    "add": _of_sum,
    "sub": lambda of, node: _of_sum(of, node, -1),
    "rsub": lambda of, node: _sum(of.bounds(node.args[1]), _product(of.bounds(node.args[0]), (-1, -1))),
    "mul": lambda of, node: _product(of.bounds(node.args[0]), of.bounds(node.args[1])),
    "pow": _of_power,
    "__lshift__": _of_shift,
    "bitwise_left_shift": _of_shift,
    "neg": lambda of, node: _product(of.bounds(node.args[0]), (-1, -1)),
    "remainder": _of_remainder,
    "clamp": _of_clamp,
    "cumsum": _of_running_sum,
    "arange": _of_arange,
    "argmax": _of_places,
    "argmin": _of_places,
    "argsort": _of_places,
    "zeros": lambda of, node: (0, 0),
    "zeros_like": lambda of, node: (0, 0),
    "ones": lambda of, node: (1, 1),
    "ones_like": lambda of, node: (1, 1),
    "full": lambda of, node: of.bounds(node.args[1]),
    "full_like": lambda of, node: of.bounds(node.args[1]),
    "where": lambda of, node: _union(of.bounds(node.args[1]), of.bounds(node.args[2])),
    "masked_fill": lambda of, node: _union(of.bounds(node.args[0]), of.bounds(node.args[2])),
    "copy": lambda of, node: of.bounds(node.args[1]),
    "fill": lambda of, node: of.bounds(node.args[1]),
    "select_scatter": lambda of, node: _union(of.bounds(node.args[0]), of.bounds(node.args[1])),
    "slice_scatter": lambda of, node: _union(of.bounds(node.args[0]), of.bounds(node.args[1])),
    "cat": lambda of, node: _union(*(of.bounds(part) for part in node.args[0])),
    "stack": lambda of, node: _union(*(of.bounds(part) for part in node.args[0])),
    **dict.fromkeys((*COPIES, "_to_copy", "to", "type_as"), _of_first),
    **dict.fromkeys(("view", "reshape", "flatten", "unsqueeze", "squeeze", "expand", "repeat", "permute"), _of_first),
    **dict.fromkeys(("transpose", "select", "slice", "index", "gather", "index_select", "flip", "roll"), _of_first),
}
"""By operation, what its result may be; that of others counts as any of 32 bits."""


def keep_remainders_small(exported: torch.export.ExportedProgram) -> None:
    """Change a functional program so that remainders of sums and products by a constant never leave 32 bits.

    What leaves 64 bits is left: there PyTorch wraps around, and what that gives is another number.
    """
    of, changed = Integers(exported), False
    for node in list(exported.graph.nodes):
        divisor = of.whole(node.args[1]) if node.target in REMAINDERS else None
        if divisor is None or not 0 < divisor < 2**29 or node.meta["val"].dtype != torch.int64:
            continue
        if of.whole(node.args[0]) is None and _is_between(of.bounds(node.args[0])):
            with exported.graph.inserting_before(node):
                small = _Small(of, divisor).remainder(node.args[0])
            small.meta["stack_trace"] = node.meta.get("stack_trace")
            node.replace_all_uses_with(small)
            exported.graph_signature.replace_all_uses(node.name, small.name)
            changed = True
    if changed:
        exported.graph.eliminate_dead_code()
        exported.graph_module.recompile()


class _Small:
    """Remainders by one divisor, each of 0 to it, of which sums and products are taken without leaving 32 bits."""

    def __init__(self, of: Integers, divisor: int) -> None:
        self._of, self._divisor = of, divisor

    def remainder(self, value: Any) -> Any:
        """The remainder of a node, as a node, or of a whole number, as a number."""
        whole = self._of.whole(value)
        if whole is not None:
            return whole % self._divisor
        if value.meta["val"].dtype == torch.bool:
            return call(aten._to_copy.default, value, dtype=torch.int64)
        operation = name_of(value)
        fine = operation == "mul" and fits(self._of.bounds(value))  # what is added may be just beyond
        if fine or operation not in RING or value.kwargs or len(value.args) > 2:
            return self._of_node(value)
        parts = [self.remainder(part) for part in value.args]
        if operation == "mul":
            a, b = sorted(parts, key=lambda part: isinstance(part, int))
            return self._product(a, b) or self._of_node(value)
        if operation == "neg":
            return self._of_node(call(aten.neg.default, parts[0]))
        a, b = reversed(parts) if operation == "rsub" else parts
        if isinstance(a, int):  # a number comes second: b + a, or -b + a
            a, b = (b if operation == "add" else call(aten.neg.default, b)), a
            operation = "add"
        return self._of_node(call(aten.add.Tensor if operation == "add" else aten.sub.Tensor, a, b))

    def _of_node(self, node: Node) -> Node:
        return call(aten.remainder.Scalar, node, self._divisor)

    def _product(self, a: Node | int, b: Node | int) -> Node | None:
        """a * b; if that may leave 32 bits, a number b is taken a few bits at a time, the highest first."""
        if isinstance(a, int):
            return None
        if (self._divisor - 1) ** 2 <= INT32[1]:
            return self._of_node(call(aten.mul.Tensor, a, b))
        if isinstance(b, Node):
            return None
        bits = 30 - self._divisor.bit_length()
        digits = [(b >> shift) & (2**bits - 1) for shift in range(0, b.bit_length() or 1, bits)]
        total = call(aten.mul.Tensor, a, digits[-1])
        for digit in reversed(digits[:-1]):
            shifted = call(aten.mul.Tensor, self._of_node(total), 2**bits)
            total = call(aten.add.Tensor, shifted, call(aten.mul.Tensor, a, digit))
        return self._of_node(total)
