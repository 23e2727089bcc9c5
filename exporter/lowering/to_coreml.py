"""Core ML (ML Program) through coremltools, from the decomposed program."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._decomp import core_aten_decompositions  # noqa: F401  (registers the decompositions of RNNs)
from torch.fx import Node
from torch.utils._sympy.value_ranges import ValueRanges

from exporter.lowering.attention import keep_empty_rows
from exporter.lowering.decompositions import (
    ACTIVATIONS,
    ALPHA,
    INEXACT,
    QUADRANTS,
    QUOTIENTS,
    REFUSED,
    REMAINDERS,
    SHIFTS,
)
from exporter.lowering.integers import keep_remainders_small
from exporter.lowering.low_bit_coreml import carry
from exporter.lowering.representation import Carried, with_carried
from exporter.lowering.settings import CoreMlSettings
from exporter.lowering.target import Unsupported, refusals
from exporter.tracing.program import Program, functional
from runtimes.errors import UnsupportedOperation

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program as MilProgram

FLOAT16_LOWEST = -1e4
"""Stands for a mask's "minus infinity" in fp16, where float32's lowest overflows and 0 * -inf gives NaN."""

CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"
"""Where coremltools writes the day into a package."""

INPUT_DTYPES = ("float32", "int32", "int64")
"""Those of Core ML's arrays, which have at least one axis; int64 becomes int32."""
INPUTS = "take it as int32 or float32 of one axis or more and convert it in forward(), or leave out --target coreml"

aten = torch.ops.aten
RECURRENT = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
MISREAD = (aten.rms_norm.default, aten.cosine_similarity.default)
"""Operations that coremltools has, but cannot read with their default arguments."""
LOGICAL = {
    aten.__and__.Tensor: aten.logical_and.default,
    aten.__or__.Tensor: aten.logical_or.default,
    aten.__xor__.Tensor: aten.logical_xor.default,
    aten.bitwise_and.Tensor: aten.logical_and.default,
    aten.bitwise_or.Tensor: aten.logical_or.default,
    aten.bitwise_xor.Tensor: aten.logical_xor.default,
}
"""Operations on bits, and what they are on booleans, which is all that coremltools knows."""
MAX_POOLS = (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
ALIASES = (aten.clone.default, aten.detach.default, aten.contiguous.default)
"""Operations that coremltools takes for their own input."""


def prepare(program: Program, settings: CoreMlSettings) -> Program:
    """Decompose composite operations, and those that coremltools takes from no exported program, or takes wrongly."""
    known = {**torch._decomp.decomposition_table, **torch.export.default_decompositions()}
    table = {op: known[op] for op in (*RECURRENT, *MISREAD)}
    for ours in (ALPHA, ACTIVATIONS, INEXACT, REFUSED, QUADRANTS, QUOTIENTS, REMAINDERS, SHIFTS):
        table.update(ours)
    exported = functional(program).exported
    keep_remainders_small(exported)
    exported = exported.run_decompositions(table)
    keep_empty_rows(exported)
    _adapt(exported)
    before: set[Any] = set()
    while (lacking := {n.target for n in _unknown(exported)} & set(known)) != before:  # some stay as they are
        exported = exported.run_decompositions({op: known[op] for op in lacking})
        _adapt(exported)
        before = lacking
    _separate_outputs(exported)
    exported.graph_module.recompile()
    if settings.coreml_precision == "float16":
        _clamp_masks(exported)
    return Program(exported, program.signature, program.low_bit)


def _unknown(exported: torch.export.ExportedProgram) -> list[Node]:
    """The calls that coremltools' front end and we have no translation for."""
    from coremltools.converters.mil.frontend.torch import is_torch_fx_node_supported

    import exporter.lowering.coreml_operations  # noqa: F401  (registers ours)

    return [
        n
        for n in exported.graph.nodes
        if n.op == "call_function" and (_is_dunder(n.target.__name__) or not is_torch_fx_node_supported(n))
    ]


def _is_dunder(name: str) -> bool:
    """Whether it is one of Python's operators, `__rshift__.Scalar`, which coremltools takes for a call in place."""
    return name.split(".")[0].endswith("__")


def _adapt(exported: torch.export.ExportedProgram) -> None:
    """Say it so that coremltools understands: names, a max pooling's default stride, a dynamic axis that may be 1."""
    for node in exported.graph.nodes:
        if node.target is aten.alias.default:
            node.target = aten.clone.default
        elif node.target in LOGICAL and node.meta["val"].dtype == torch.bool:
            node.target = LOGICAL[node.target]
        elif node.target in MAX_POOLS and len(node.args) == 2:
            node.args = (*node.args, node.args[1])
    for symbol, allowed in exported.range_constraints.items():
        if allowed.lower == 2:  # torch.export's own least length, which says nothing about the model
            exported.range_constraints[symbol] = ValueRanges(1, allowed.upper)


def _separate_outputs(exported: torch.export.ExportedProgram) -> None:
    """Turn an output that aliases an input, a weight or another output into an identity, which Core ML keeps apart."""

    def root(node: Node) -> Node:
        return root(node.all_input_nodes[0]) if node.target in ALIASES else node

    outputs: list[Node] = list(exported.graph.output_node().args[0])
    roots = [root(node) for node in outputs]
    for node, source in zip(outputs, roots, strict=True):
        if node.target in ALIASES and (source.op == "placeholder" or roots.count(source) > 1):
            node.target, node.args, node.kwargs = aten.type_as.default, (node.args[0], node.args[0]), {}


def _clamp_masks(exported: torch.export.ExportedProgram) -> None:
    """Bring scalars beyond float16's range, as attention masks use them, to what stays finite in sums and products."""
    limit = torch.finfo(torch.float16).max
    for node in exported.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(
                (FLOAT16_LOWEST if a < 0 else -FLOAT16_LOWEST) if isinstance(a, float) and abs(a) > limit else a
                for a in node.args
            )
    exported.graph_module.recompile()


def unsupported(program: Program) -> tuple[Unsupported, ...]:
    """The operations of a prepared program that coremltools' front end lacks, and inputs of types Core ML lacks."""
    nodes = _unknown(program.exported)
    inputs = tuple(
        Unsupported(
            "coreml", f"input {spec.name!r} of type {spec.dtype}[{', '.join(map(str, spec.shape))}]", "", INPUTS
        )
        for spec in program.signature.inputs
        if spec.dtype not in INPUT_DTYPES or not spec.shape
    )
    remedy = "rewrite that line with operations Core ML has, or leave out --target coreml"
    return (*inputs, *refusals("coreml", nodes, remedy))


def lower(program: Program, path: Path, settings: CoreMlSettings, metadata: Mapping[str, str]) -> tuple[Carried, ...]:
    """Write a prepared program as an .mlpackage folder at `path`, with the same bytes for the same program.

    Raises UnsupportedOperation where coremltools refuses an operation.
    """
    import coremltools as ct

    target = getattr(ct.target, f"iOS{settings.version}")
    converted = _converted(program, settings, target)
    carried = carry(converted, program.low_bit, settings)
    model = ct.convert(
        converted,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,  # all are done
        skip_model_load=True,
    )
    model.user_defined_metadata.update(with_carried(metadata, carried))
    model.save(str(path))
    _settle(path)
    return carried


def _converted(program: Program, settings: CoreMlSettings, target: Any) -> MilProgram:
    import coremltools as ct

    from exporter.lowering.coreml_operations import types_as_traced

    half = settings.coreml_precision == "float16"
    try:
        with types_as_traced():
            return ct.convert(
                program.exported,
                convert_to="milinternal",
                outputs=[ct.TensorType(name=spec.name) for spec in program.signature.outputs],
                minimum_deployment_target=target,
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            )
    except (NotImplementedError, ValueError, RuntimeError, TypeError, KeyError, AssertionError) as error:
        raise UnsupportedOperation(
            f"coremltools cannot convert the model: {str(error)[:300]}",
            where="coreml",
            remedy="rewrite the operation it names, raise --min-ios, or leave out --target coreml",
        ) from error


def _settle(package: Path) -> None:
    """Make the package repeat byte for byte: identifiers from names, no date of today, the protobuf's maps in order."""
    from coremltools.proto import Model_pb2

    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # coremltools' own, of no use in an app
    manifest_path = package / "Manifest.json"
    manifest = json.loads(manifest_path.read_text())
    renamed = {
        key: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for key, entry in manifest["itemInfoEntries"].items()
    }
    manifest["itemInfoEntries"] = {renamed[key]: entry for key, entry in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    manifest_path.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")
    root = package / "Data" / manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    spec = Model_pb2.Model.FromString(root.read_bytes())
    spec.description.metadata.userDefined.pop(CONVERSION_DATE, None)
    root.write_bytes(spec.SerializeToString(deterministic=True))
