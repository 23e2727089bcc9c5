"""Attention of a row that may attend to nothing: 0 in torch, what the runtimes make NaN or the mean of all values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from exporter.lowering.traced_graph import ancestors, call, constants_of

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
MASK = 3
"""Its place among the arguments of attention."""
TO_MINUS_INFINITY = (aten.log.default, aten.log2.default, aten.log10.default, aten.log1p.default)


def keep_empty_rows(exported: torch.export.ExportedProgram) -> None:
    """Change a program so that attention is 0 in rows whose mask forbids all, whatever a runtime makes of them.

    Such rows get a mask that forbids nothing, which no runtime makes NaN of, and their outputs become 0. Masks that
    always allow something stay as they are, so that a converter still finds the patterns that it knows. The program
    must be functional: what is written in place is not followed.
    """
    rows: dict[Node, tuple[Node, Node]] = {}
    for node in exported.graph.nodes:
        if node.target is not ATTENTION:
            continue
        mask = node.args[MASK] if len(node.args) > MASK else node.kwargs.get("attn_mask")
        if mask is None or not _may_forbid_a_row(mask, exported):
            continue
        with exported.graph.inserting_before(node):
            if mask not in rows:
                rows[mask] = _open_rows(mask)
        opened, filled = rows[mask]
        node.replace_input_with(mask, opened)
        with exported.graph.inserting_after(node):
            # A product keeps the strides of attention, on which views after it rely.
            output = call(aten.mul.Tensor, node, filled)
        node.replace_all_uses_with(output, delete_user_cb=lambda user, output=output: user is not output)
        exported.graph_signature.replace_all_uses(node.name, output.name)
    exported.graph_module.recompile()


def _open_rows(mask: Node) -> tuple[Node, Node]:
    """The mask with its empty rows opened, and 0 for those, 1 for the others: [..., queries, 1]."""
    if mask.meta["val"].dtype == torch.bool:
        forbidden = call(aten.logical_not.default, mask)
    else:
        forbidden = call(aten.le.Scalar, mask, -math.inf)
    empty = call(aten.all.dim, forbidden, -1, True)
    filled = call(aten._to_copy.default, call(aten.logical_not.default, empty), dtype=torch.float32)
    if mask.meta["val"].dtype == torch.bool:
        return call(aten.logical_or.default, mask, empty), filled
    return call(aten.masked_fill.Scalar, mask, empty, 0.0), filled


def _may_forbid_a_row(mask: Node, exported: torch.export.ExportedProgram) -> bool:
    """False for a constant with something allowed in each row, and for a sum of what is never minus infinity."""
    sources, constants = ancestors(mask), constants_of(exported)
    given = [n for n in sources if n.op == "placeholder" and n not in constants]
    if not given:
        value = _computed(mask, constants)
        return bool((~value if value.dtype == torch.bool else value == -math.inf).all(-1).any())
    if mask.meta["val"].dtype == torch.bool or any(n.meta["val"].is_floating_point() for n in given):
        return True
    return any(
        n.target in TO_MINUS_INFINITY
        or -math.inf in n.args
        or (n in constants and bool((constants[n] == -math.inf).any()))
        for n in sources
    )


def _computed(node: Node, constants: dict[Node, torch.Tensor]) -> torch.Tensor:
    """The value of a node that depends on constants only."""
    values: dict[Node, Any] = dict(constants)
    sources = ancestors(node)
    for source in node.graph.nodes:
        if source in sources and source not in values:
            args, kwargs = torch.fx.map_arg((source.args, source.kwargs), lambda one: values[one])
            values[source] = source.target(*args, **kwargs)
    return values[node]
