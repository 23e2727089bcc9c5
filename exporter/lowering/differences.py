"""Where a format cannot agree with PyTorch on every input, whatever the gate saw: said at export, a line a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from exporter.lowering.integers import INT32, Integers, fits, keep_remainders_small
from exporter.lowering.traced_graph import constants_of, name_of
from exporter.tracing.program import Program
from exporter.tracing.user_code import user_line

Exported = torch.export.ExportedProgram


@dataclass(frozen=True)
class Difference:
    """What formats do otherwise than PyTorch, in words after the format's name, and the nodes that it is about."""

    targets: tuple[str, ...]
    what: str
    nodes: Callable[[Exported], Iterable[Node]]


def differences(program: Program, target: str) -> tuple[str, ...]:
    """What a user must know of a functional program in a format, with the first of the lines that each is about."""
    chosen = [kind for kind in KINDS if target in kind.targets]
    if target in NARROW:
        keep_remainders_small(program.exported)  # what can be mended is not a difference
    found = [(kind.what, _lines(kind.nodes(program.exported))) for kind in chosen]
    return tuple(f"{target} {what}{_in_words(lines)}" for what, lines in found if lines is not None)


def _lines(nodes: Iterable[Node]) -> list[str] | None:
    """The lines of the user's code that call them, each once; None where there is no node."""
    lines = [user_line(node.meta.get("stack_trace") or "") for node in nodes]
    return [line for line in dict.fromkeys(lines) if line] if lines else None


def _in_words(lines: list[str]) -> str:
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return f": {lines[0]}{more}" if lines else ""


def _calls(exported: Exported, *names: str) -> list[Node]:
    return [n for n in exported.graph.nodes if n.op == "call_function" and name_of(n) in names]


def _large_products(exported: Exported) -> Iterable[Node]:
    of = Integers(exported)
    for node in _calls(exported, "mul", "pow", "__lshift__", "bitwise_left_shift"):
        if _is_int64(node) and not fits(of.bounds(node)) and all(fits(of.bounds(n)) for n in node.args[:2]):
            yield node


def _large_numbers(exported: Exported) -> Iterable[Node]:
    stored = {n for n, v in constants_of(exported).items() if v.dtype == torch.int64 and _is_large(v)}
    for node in exported.graph.nodes:
        if node.op == "call_function" and name_of(node) not in ("slice", "slice_scatter"):  # to the end: 2**63 - 1
            given = [a for a in node.args if isinstance(a, int) and not fits((a, a))]
            integers = any(_is_int64(n) for n in (node, *node.all_input_nodes))
            if integers and (given or stored.intersection(node.all_input_nodes)):
                yield node


def _is_large(value: torch.Tensor) -> bool:
    return bool(((value < INT32[0]) | (value > INT32[1])).any())


def _is_int64(node: Node) -> bool:
    made = node.meta.get("val")
    return isinstance(made, torch.Tensor) and made.dtype == torch.int64


def _orders(exported: Exported) -> Iterable[Node]:
    """Of those that give values and places, the ones whose places are used."""
    for node in _calls(exported, "topk", "sort", "argsort", "kthvalue", "median", "mode"):
        places = name_of(node) == "argsort" or any(user.args[1:] == (1,) and user.users for user in node.users)
        if places and not node.kwargs.get("stable"):
            yield node


def _quotients_of_floats(exported: Exported) -> Iterable[Node]:
    for node in _calls(exported, "floor_divide", "remainder", "fmod", "div"):
        floats = isinstance(node.meta.get("val"), torch.Tensor) and node.meta["val"].is_floating_point()
        if floats and (name_of(node) != "div" or node.kwargs.get("rounding_mode") == "floor"):
            yield node


def _logarithms(exported: Exported) -> Iterable[Node]:
    for node in _calls(exported, "log"):
        source: Any = node.args[0]
        if isinstance(source, Node) and name_of(source) in ("sigmoid", "softmax", "_softmax"):
            yield node


NARROW = ("tflite", "coreml")
ALL = ("onnx", *NARROW)
KINDS = (
    Difference(NARROW, "computes int64 products in 32 bits, right while they stay below 2**31", _large_products),
    Difference(NARROW, "keeps int64 numbers in 32 bits, and this one needs more", _large_numbers),
    Difference(ALL, "may name other places than torch where values are equal", _orders),
    Difference(
        ("coreml",),
        "may be 1 off on Apple's own kernels where a quotient of floats is nearly whole",
        _quotients_of_floats,
    ),
    Difference(ALL, "is -inf sooner than torch; write logsigmoid or log_softmax for this log of one", _logarithms),
)
