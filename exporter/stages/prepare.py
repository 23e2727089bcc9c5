"""The first child of an export: load the source, check it, trace it, run the recipe, keep a snapshot of every step."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.tasks.task import Task
from exporter.compression.recipe import from_words
from exporter.load import load
from exporter.sources.described import NOTHING, described, preprocessor_of
from exporter.sources.inputs import check_task, golden_inputs, with_free_axes, with_shapes
from exporter.sources.preprocessing import fitted, named
from exporter.sources.source import Source, SourceOptions, arguments
from exporter.sources.weights import weights_facts
from exporter.stages.compress import Proofs, compress
from exporter.stages.progress import SourceFacts
from exporter.stages.snapshot import DATA, folder_of
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.tracing.program import DynamicAxis
from runtimes import grammar
from runtimes.bundle import GOLDEN
from runtimes.errors import BadInput
from runtimes.golden import read_golden
from runtimes.processing.preprocessor import PREPROCESSOR, Text, check_signature, read_preprocessor, to_bytes
from runtimes.records import from_json
from runtimes.signature import Signature
from runtimes.types import Origin

Emit = Callable[[dict[str, Any]], None]


def prepare(job: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """The child's side: from the user's words to the snapshots and the source's files in `job["work"]`."""
    started = time.monotonic()
    source = load(job["source"], SourceOptions(**job["options"]))
    return prepare_source(source, job, emit, started)


def prepare_module(module: torch.nn.Module, example: Any, job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """The same for a module that the caller holds; `example` as a factory would return it."""
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"{type(module).__name__} is no torch.nn.Module", remedy="give (module, example_inputs)")
    module = _own_copy(module)
    args, kwargs = arguments(pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu().clone(), example))
    source = Source(
        name=type(module).__name__.lower(),
        kind="module",
        module=module,
        args=args,
        kwargs=kwargs,
        weights="as given",
        task=job["options"]["task"],
        **weights_facts(module),
    )
    return prepare_source(source, job, emit, time.monotonic())


def _own_copy(module: torch.nn.Module) -> torch.nn.Module:
    """The caller's module on the CPU, and apart: what is done to it here, the caller never sees.

    Raises BadInput for one that cannot be copied.
    """
    try:
        return copy.deepcopy(module).cpu()
    except Exception as error:  # whatever a module of the user's raises
        raise BadInput(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {str(error)[:160]})",
            remedy="call it before under torch.no_grad(), or give FILE.py:FACTORY",
        ) from error


def prepare_source(source: Source, job: Mapping[str, Any], emit: Emit, started: float) -> dict[str, Any]:
    """Check the module, then trace it and compute golden values, before and after each pass of the recipe.

    What the rest of the export must know of the source, JSON-ready; the snapshots are told as events while they come.
    """
    from benchmarks.tasks import load_task
    from benchmarks.tasks.raw_data import is_raw

    work = Path(job["work"])
    module = source.module
    make_ready(module)
    raw = is_raw(job["data"])
    task = load_task(job["data"]) if job["data"] and not raw else None
    detail = f"{source.parameters:,} parameters, weights {source.weights}"
    emit({"stage": "load", "seconds": time.monotonic() - started, "detail": detail})
    origin = Origin(
        source=job["source"],
        kind=source.kind,
        weights_sha256=source.weights_sha256,
        weights=source.weights,
        parameters=source.parameters,
        task=source.task,
        license=source.license,
    )
    unsaid = "rename it (a licence: write its SPDX identifier into the model card)"
    grammar.check(SourceFacts(source.name, origin), source.kind, unsaid)
    emit({"source": {"name": source.name, "origin": asdict(origin)}})
    (work / "files").mkdir()
    for name, content in source.files.items():
        (work / "files" / name).write_bytes(content)

    def told(event: dict[str, Any]) -> None:
        if event.get("snapshot", {}).get("index") == 0:
            signature = json.loads(json.dumps(event["snapshot"]["signature"]))  # lists, not tuples
            _describe_inputs(source, from_json(Signature, signature), job, emit)
        emit(event)

    flat = FlatModule(module, source.args, source.kwargs)
    dynamic = [DynamicAxis(*axis) for axis in job["dynamic"]]
    given = with_shapes(flat.example, {k: tuple(v) for k, v in job["input_shapes"].items()}, dynamic)
    example = with_free_axes(given, dynamic)
    task = _raw_task(source, given, job, emit) if raw else task
    warning = check_task(flat, task, example) if task else ""
    if warning:
        emit({"stage": "data", "seconds": 0.0, "detail": warning})

    def say(detail: str) -> None:
        emit({"stage": "golden", "seconds": 0.0, "detail": detail})

    inputs = golden_inputs(flat, source, task, example, given, dynamic, say)
    proofs = Proofs(inputs, example, dynamic, job["targets"], work)
    compress(flat, from_words(job["recipe"]), task, job["seed"], proofs, told)
    return {}


def _raw_task(source: Source, given: Tensors, job: Mapping[str, Any], emit: Emit) -> Task:
    """The task of pictures, sounds or texts for this model; its arrays are kept for whoever scores the artifacts."""
    from benchmarks.tasks.raw_data import ModelInputs, load_raw, save

    started = time.monotonic()
    shapes = {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in given.items()}
    preprocessor, tokenizer = source.preprocessor, source.files.get("tokenizer.json")
    if job["preprocessor"]:
        place = Path(job["preprocessor"])
        preprocessor = read_preprocessor(place)
        text = next((entry for entry in preprocessor.inputs if isinstance(entry, Text)), None)
        tokenizer = place.with_name(text.tokenizer).read_bytes() if text else None
    elif preprocessor:
        preprocessor = named(preprocessor, {name: shape for name, (_, shape) in shapes.items()})
    task = load_raw(Path(job["data"]), ModelInputs(shapes, preprocessor, tokenizer), job["seed"])
    save(task, Path(job["work"]) / DATA)
    emit({"stage": "data", "seconds": time.monotonic() - started, "detail": task.description})
    return task


def _describe_inputs(source: Source, signature: Signature, job: Mapping[str, Any], emit: Emit) -> None:
    """Lay preprocessor.json beside the artifacts: the user's, which must fit, or the source's, where it does."""
    files = Path(job["work"]) / "files"
    said = described(**job["described"]).over(source.described)
    if job["preprocessor"]:
        given = Path(job["preprocessor"])
        preprocessor = read_preprocessor(given)
        check_signature(preprocessor, signature, str(given))
        for entry in preprocessor.inputs:
            if isinstance(entry, Text):
                _take_tokenizer(given.with_name(entry.tokenizer), files / entry.tokenizer, entry.max_tokens)
        (files / PREPROCESSOR).write_bytes(to_bytes(preprocessor))
        return
    if said != NOTHING:
        [outputs, *_] = read_golden(Path(job["work"]) / folder_of(0) / GOLDEN).outputs
        preprocessor = preprocessor_of(said, source.preprocessor, signature, outputs)
        if said.tokenizer:
            (files / Text.tokenizer).write_bytes(said.tokenizer)
        (files / PREPROCESSOR).write_bytes(to_bytes(preprocessor))
        return
    reason = source.not_described
    if source.preprocessor:
        try:
            (files / PREPROCESSOR).write_bytes(to_bytes(fitted(source.preprocessor, signature)))
        except BadInput as error:
            reason = f"this signature ({error.what})"
    if reason:
        emit({"stage": "preprocess", "seconds": 0.0, "detail": f"no preprocessor.json: it has no words for {reason}"})


def _take_tokenizer(given: Path, place: Path, max_tokens: int) -> None:
    from runtimes.processing.tokenizers.wordpiece import WordPiece

    try:
        content = given.read_bytes()
    except OSError as error:
        raise BadInput(
            f"cannot read the tokenizer ({error.strerror})", where=str(given), remedy="lay it beside preprocessor.json"
        ) from error
    WordPiece.from_tokenizer_json(content, max_tokens)
    place.write_bytes(content)


def make_ready(module: torch.nn.Module) -> None:
    """Put a module into evaluation mode, and raise BadInput for weights that cannot be exported."""
    with contextlib.suppress(NotImplementedError):  # an exported program keeps the mode it was traced in
        module.eval()
    check_weights(module)


def check_weights(module: torch.nn.Module) -> None:
    """Raise BadInput for weights that are not float32 on the CPU, or not finite; buffers may hold infinity, not NaN."""
    for name, tensor in module.named_parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise BadInput(f"weight {name!r} is {tensor.dtype}", remedy="call module.float() in the factory")
        if not torch.isfinite(tensor).all():
            raise BadInput(
                f"weight {name!r} holds NaN or infinity", remedy="export a checkpoint from before it diverged"
            )
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and torch.isnan(buffer).any():
            raise BadInput(f"buffer {name!r} holds NaN", remedy="export a checkpoint from before it diverged")
