"""TFLite through litert-torch, from the program that was traced once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporter.formats.tflite_file import read
from exporter.formats.tflite_writer import write
from exporter.lowering.attention import keep_empty_rows
from exporter.lowering.decompositions import ALPHA, DOUBLED, FOLDED, QUOTIENTS, SHIFTS, TRUNCATED
from exporter.lowering.integers import keep_remainders_small
from exporter.lowering.low_bit_tflite import carry
from exporter.lowering.representation import Carried, with_carried
from exporter.lowering.settings import TfliteSettings
from exporter.lowering.target import Unsupported, refusals
from exporter.tracing.program import Program, functional
from runtimes.errors import UnsupportedOperation

SIGNATURE_KEY = "serving_default"


def prepare(program: Program, settings: TfliteSettings) -> Program:
    """Decompose into the operations litert-torch lowers, and run its graph passes (litert_torch.convert's own road)."""
    from litert_torch import fx_infra
    from litert_torch._convert import core

    exported = fx_infra.graph_utils.reset_from_node_meta(functional(program).exported)
    keep_empty_rows(exported)
    keep_remainders_small(exported)
    table = dict(fx_infra.decomp.pre_convert_decomp())
    for ours in (ALPHA, DOUBLED, QUOTIENTS, SHIFTS, TRUNCATED, FOLDED if program.low_bit else {}):
        table.update(ours)
    exported = fx_infra.safe_run_decompositions(exported, table, can_skip=False)
    _drop_assertions(exported)
    return Program(core._run_convert_passes(exported), program.signature, program.low_bit)


def _drop_assertions(exported: torch.export.ExportedProgram) -> None:
    """Remove PyTorch's own checks of values (one_hot has some), which compute nothing."""
    for node in list(exported.graph.nodes):
        if node.target is torch.ops.aten._assert_async.msg:
            exported.graph.erase_node(node)
    exported.graph.eliminate_dead_code()
    exported.graph_module.recompile()


def unsupported(program: Program) -> tuple[Unsupported, ...]:
    """The operations of a prepared program without a lowering in litert-torch."""
    from litert_torch import fx_infra
    from litert_torch.backend import lowerings

    decomposed_later = fx_infra.decomp.pre_lower_decomp()
    nodes = (
        n
        for n in program.exported.graph.nodes
        if n.op == "call_function"
        and isinstance(n.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
        and lowerings.lookup(n.target) is None
        and n.target not in decomposed_later
    )
    return refusals("tflite", nodes, "rewrite that line with operations TFLite has, or leave out --target tflite")


def lower(program: Program, path: Path, settings: TfliteSettings, metadata: Mapping[str, str]) -> tuple[Carried, ...]:
    """Write a prepared program as a TFLite file at `path`, with one signature and the metadata.

    Returns how each of the program's low-bit weights is stored. Raises UnsupportedOperation where the converter refuses
    an operation.
    """
    from litert_torch._convert import litert_converter, signature

    _store_apart(program.exported)
    tensors = {s.name: torch.empty(0) for s in program.signature.inputs}  # only the names are read
    try:
        converted = litert_converter.exported_programs_to_flatbuffer(
            [program.exported], [signature.Signature(SIGNATURE_KEY, None, (), tensors)]
        )
        content = converted.to_bytes()
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
        specs = (*program.signature.inputs, *program.signature.outputs)
        axes = dict.fromkeys(axis for spec in specs for axis in spec.shape if isinstance(axis, str))
        if axes:
            raise UnsupportedOperation(
                f"litert-torch cannot convert the model with the dynamic axis {', '.join(axes)} "
                f"({' '.join(str(error).split())[:160]})",
                where="tflite",
                remedy="leave out --dynamic, or leave out --target tflite",
            ) from error
        raise UnsupportedOperation(
            f"litert-torch cannot convert the model: {str(error)[:300]}",
            where="tflite",
            remedy="rewrite the operation it names, or leave out --target tflite",
        ) from error
    content, carried = carry(content, program.low_bit)
    path.write_bytes(_with_metadata(content, with_carried(metadata, carried)))
    return carried


def _store_apart(exported: torch.export.ExportedProgram) -> None:
    """Bring every constant into the order of its axes, in memory of its own unless it is the very same tensor.

    litert-torch tells constants apart by shape, strides and address: a view that it has to copy first gets that of a
    copy which is gone when the next one takes its place, and is taken for it.
    """
    kept: dict[tuple[Any, ...], torch.Tensor] = {}
    addresses: dict[int, tuple[Any, ...]] = {}

    def own(tensor: torch.Tensor) -> torch.Tensor:
        place = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tensor.stride(),
            tensor.shape,
            tensor.dtype,
        )
        if place not in kept:
            taken = addresses.setdefault(tensor.data_ptr(), place) != place
            stored = tensor.detach()
            kept[place] = stored.clone(memory_format=torch.contiguous_format) if taken else stored.contiguous()
        return kept[place]

    for stored in (exported.state_dict, exported.constants):
        for name, value in stored.items():
            if isinstance(value, torch.nn.Parameter):
                stored[name] = torch.nn.Parameter(own(value), requires_grad=value.requires_grad)
            elif isinstance(value, torch.Tensor):
                stored[name] = own(value)


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same model with each entry as a metadata buffer of its own."""
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    model.metadata = model.metadata or []
    for name, value in sorted(metadata.items()):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.encode(), dtype=np.uint8)
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    return write(model)
