"""What passes over a traced program share: values of its constants, what a node is computed from, new calls."""

from __future__ import annotations

from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.fx import Node


def constants_of(exported: torch.export.ExportedProgram) -> dict[Node, torch.Tensor]:
    """The placeholders of weights, buffers and constants with their values."""
    stored = {**exported.state_dict, **exported.constants}
    of_name = {
        spec.arg.name: stored[spec.target]
        for spec in exported.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    }
    return {n: of_name[n.name] for n in exported.graph.nodes if n.op == "placeholder" and n.name in of_name}


def ancestors(node: Node) -> dict[Node, None]:
    """A node and all that it is computed from, each once."""
    found, waiting = {node: None}, [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found[source] = None
                waiting.append(source)
    return found


def call(target: Any, tensor: Node, *others: Any, **options: Any) -> Node:
    """A call where the graph inserts, with the fake tensor that it gives."""
    node = tensor.graph.call_function(target, (tensor, *others), options)
    values: list[Any] = [arg.meta["val"] if isinstance(arg, Node) else arg for arg in node.args]
    with values[0].fake_mode:
        node.meta["val"] = target(*values, **options)
    return node


def name_of(node: Node) -> str:
    """The operation that a node calls, without its overload or the mark of a change in place: `add`, `masked_fill`."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    name = str(node.target.overloadpacket).split(".")[-1]
    return name if name.endswith("__") else name.rstrip("_")
