"""ONNX through torch.onnx's exporter for ExportedProgram."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from exporter.lowering.attention import keep_empty_rows
from exporter.lowering.decompositions import LOG_SIGMOID, QUADRANTS, QUOTIENTS, REMAINDERS_OF_FLOATS, decomposed
from exporter.lowering.low_bit_onnx import carry
from exporter.lowering.representation import Carried, with_carried
from exporter.lowering.settings import OnnxSettings
from exporter.lowering.target import Unsupported, refusals
from exporter.tracing.program import Program
from runtimes.errors import UnsupportedOperation

if TYPE_CHECKING:
    import onnx_ir


TORCHLIB_OPSET = 18
"""That of torch's own operator library, from which a higher one is made."""
HIGHEST_OPSET = 23
"""The highest that torch 2.13 writes; low-bit weights may need a higher one (see low_bit_onnx.py)."""


@functools.cache
def translations(opset: int) -> Any:
    """torch's table from operators to their translations, an `ONNXRegistry`: a second of parsing, so it is kept."""
    from torch.onnx._internal.exporter import _registration

    return _registration.ONNXRegistry.from_torchlib(opset)


def _opset_of_torch(settings: OnnxSettings) -> int:
    return min(max(TORCHLIB_OPSET, settings.version), HIGHEST_OPSET)


def prepare(program: Program, settings: OnnxSettings) -> Program:
    """Decompose into the operations that torch.onnx translates (torch.onnx.export's own first step)."""
    from torch.onnx._internal.exporter import _core

    registry = translations(_opset_of_torch(settings))
    exported = decomposed(program.exported, {**LOG_SIGMOID, **QUADRANTS, **QUOTIENTS, **REMAINDERS_OF_FLOATS})
    keep_empty_rows(exported)
    exported = _core._prepare_exported_program_for_export(exported, registry=registry)
    return Program(exported, program.signature, program.low_bit)


def unsupported(program: Program) -> tuple[Unsupported, ...]:
    """The operations of a prepared program without a translation in torch.onnx."""
    registry = translations(TORCHLIB_OPSET)
    nodes = (
        n
        for n in program.exported.graph.nodes
        if n.op == "call_function"
        and isinstance(n.target, torch._ops.OpOverload)
        and not registry.is_registered(n.target)
    )
    return refusals("onnx", nodes, "rewrite that line with operations ONNX has, or leave out --target onnx")


def lower(program: Program, path: Path, settings: OnnxSettings, metadata: Mapping[str, str]) -> tuple[Carried, ...]:
    """Write the program as an ONNX file at `path`; dynamic axes get the names of the signature.

    Returns how each of the program's low-bit weights is stored. Raises UnsupportedOperation where the exporter cannot
    translate a node.
    """
    from onnx_ir.passes.common import DeduplicateInitializersPass, NameFixPass
    from torch.onnx._internal.exporter import _core

    signature = program.signature
    try:
        # What torch.onnx.export(dynamo=True) calls, which would parse the table of translations once more.
        converted = _core.export(
            program.exported,
            (),
            {},
            registry=translations(_opset_of_torch(settings)),
            dynamic_shapes={},
            optimize=True,
            opset_version=_opset_of_torch(settings),
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise UnsupportedOperation(
            f"torch.onnx cannot translate the model: {cause}",
            where="onnx",
            remedy="rewrite the operation it names, or leave out --target onnx",
        ) from error
    assert converted is not None
    model = converted.model
    _name_dynamic_axes(model, program)
    _forget_the_trace(model)
    DeduplicateInitializersPass(size_limit=sys.maxsize)(model)  # folding copies weights that are used twice
    carried = carry(model, program.low_bit)
    NameFixPass()(model)  # an output may have the name of an operation
    model.metadata_props.update(with_carried(metadata, carried))
    model.producer_version = torch.__version__
    converted.save(str(path), external_data=False)
    return carried


def _name_dynamic_axes(model: onnx_ir.Model, program: Program) -> None:
    """Replace the tracer's symbols (s43) by the signature's axis names, on inputs and outputs."""
    import onnx_ir

    for values, specs in (
        (model.graph.inputs, program.signature.inputs),
        (model.graph.outputs, program.signature.outputs),
    ):
        for value, spec in zip(values, specs, strict=True):
            value.shape = onnx_ir.Shape(list(spec.shape))


def _forget_the_trace(model: onnx_ir.Model) -> None:
    """Drop what the exporter notes at each node and value: the user's paths and lines, two thirds of a small file."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
