"""The whole road on one screen: source -> traced program -> artifacts -> parity -> bundle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.bundle_readme import bundle_readme
from exporter.bundle_writer import (
    NEW_BUNDLE,
    WORK,
    commit,
    explain_full_disk,
    partial_folder,
    write_manifest,
    writing_errors,
)
from exporter.lowering import TARGETS
from exporter.options import Options, check_installed, check_options, parse_targets
from runtimes import child, parity
from runtimes.bundle import GOLDEN, digest, from_json
from runtimes.errors import BadInput, ParityFailed, PocketshipError, UnsupportedOperation
from runtimes.types import SCHEMA_VERSION, Artifact, BundleFile, Manifest, Origin, Signature, TensorSpec

if TYPE_CHECKING:
    import torch

PREPARE_TIMEOUT_S = 3600.0
LOWER_TIMEOUT_S = 3600.0
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-litert", "coremltools", "numpy")
SLOWEST_FIRST = ("tflite", "coreml", "onnx")
LOG = "export.log"
SETTINGS = "settings.json"

ModuleAndInputs = tuple["torch.nn.Module", Any]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Prepared:
    """What the trace found: the model's name, its origin and its signature."""

    name: str
    origin: Origin
    signature: Signature


@dataclass(frozen=True)
class Stage:
    """A stage that ended: its name, how long it took, and what came of it."""

    name: str
    seconds: float
    detail: str


OnStage = Callable[[Stage], None]


def export(
    source: str | ModuleAndInputs,
    targets: str | Sequence[str] = "all",
    output: str | Path | None = None,
    *,
    on_stage: OnStage = lambda stage: None,
    **options: Any,
) -> Bundle:
    """Export a model to every target and write a bundle of the artifacts that were proven equal to it.

    `source` is what `pocketship export` takes, or a pair `(module, example_inputs)`; `targets` are names or "all";
    `options` are the other fields of `Options` (force=True, atol=1e-3, ...). Nothing is written unless all pass.

    Raises BadInput, UnsupportedOperation or ParityFailed, each with its cause and mend.
    """
    chosen = parse_targets([targets] if isinstance(targets, str) else targets)
    place = None if output is None else Path(output)
    return export_with(source, Options(targets=chosen, output=place, **options), on_stage=on_stage)


def export_with(source: str | ModuleAndInputs, options: Options, *, on_stage: OnStage) -> Bundle:
    """See `export`."""
    check_options(options)
    check_installed(options)
    output = (options.output or Path(f"{default_name(source)}-bundle")).absolute()
    with Children() as children, partial_folder(output, options.force) as partial, explain_full_disk(output):
        prepared, artifacts = travel(source, options, partial, children, on_stage, dry_run=False)
        with writing_errors(output):
            manifest = _finish(prepared, options, artifacts, partial)
        commit(partial, output)
    return Bundle(output, manifest)


def plan(source: str | ModuleAndInputs, options: Options, *, on_stage: OnStage) -> Prepared:
    """Load, trace and check every target for operations that it lacks, and write nothing: `--dry-run`."""
    check_options(options)
    check_installed(options)
    with tempfile.TemporaryDirectory() as folder, Children() as children:
        (Path(folder) / WORK).mkdir()
        return travel(source, options, Path(folder), children, on_stage, dry_run=True)[0]


def prepare(
    source: str | ModuleAndInputs, options: Options, work: Path, children: Children, on_stage: OnStage
) -> Prepared:
    """Load and trace the source in a child process (in this one when it is a module); the program stays in `work`."""
    job = {
        "source": source if isinstance(source, str) else type(source[0]).__name__,
        "options": {"task": options.task, "weights": options.weights, "trust_remote_code": options.trust_remote_code},
        "work": str(work),
        "input_shapes": {name: list(shape) for name, shape in options.input_shapes.items()},
        "dynamic": [list(axis) for axis in options.dynamic],
    }

    def tell(event: dict[str, Any]) -> None:
        on_stage(Stage(event["stage"], event["seconds"], event["detail"]))

    if isinstance(source, str):
        outcome = child.call(
            "exporter.prepare:prepare",
            job,
            timeout_s=PREPARE_TIMEOUT_S,
            log_path=work / LOG,
            scratch=work,
            on_event=tell,
            on_start=children.add,
        )
        facts = _value(outcome, f"{source}: loading and tracing")
    else:
        from exporter.prepare import prepare_module

        facts = json.loads(json.dumps(prepare_module(*source, job, tell)))  # as if it came from a child
    return Prepared(facts["name"], from_json(Origin, facts["origin"]), from_json(Signature, facts["signature"]))


def travel(
    source: str | ModuleAndInputs,
    options: Options,
    partial: Path,
    children: Children,
    on_stage: OnStage,
    *,
    dry_run: bool,
) -> tuple[Prepared, tuple[Artifact, ...]]:
    """Prepare the source, lower it to all targets at once, prove each artifact as soon as it lies there.

    Each target has a child process of its own, which imports its converter while the source is being prepared. An
    operation that any target lacks stops all of them, once every target has said what it lacks.
    """
    ready: Future[Prepared] = Future()
    lacking: dict[str, list[dict[str, str]]] = {}
    lock = threading.Lock()

    def checked(target: str, event: dict[str, Any]) -> None:
        with lock:
            lacking[target] = event["unsupported"]
            if len(lacking) == len(options.targets) and any(lacking.values()):
                children.kill()

    def one(target: str) -> Artifact | None:
        return _lower(target, ready, options, partial, children, on_stage, checked, dry_run)

    order = sorted(options.targets, key=SLOWEST_FIRST.index)
    with ThreadPoolExecutor(len(order)) as pool:
        futures = {target: pool.submit(one, target) for target in order}
        try:
            prepared = prepare(source, options, partial / WORK, children, on_stage)
            with writing_errors(partial):
                _hand_over(prepared, options, partial / WORK)
            ready.set_result(prepared)
            error = _first_error(futures, children)
        except BaseException:  # Ctrl-C too: the threads end as soon as their children do
            children.kill()
            ready.cancel()
            raise
    if any(lacking.values()):
        remedies = [rows[0]["remedy"] for rows in lacking.values() if rows]
        several = "rewrite those lines with operations that these targets have, or leave the targets out"
        raise UnsupportedOperation(_table(lacking), remedy=several if len(remedies) > 1 else remedies[0])
    if error:
        raise error
    artifacts = [futures[target].result() for target in options.targets]
    return prepared, tuple(artifact for artifact in artifacts if artifact)


def _hand_over(prepared: Prepared, options: Options, work: Path) -> None:
    """Write the settings of every target in one step: the lowering children wait for this file."""
    settings = {
        target: {
            "opset": options.opset,
            "min_ios": options.min_ios,
            "coreml_precision": options.coreml_precision,
            "metadata": {
                "pocketship": json.dumps(_facts(prepared, options, _precision(target, options)), sort_keys=True)
            },
        }
        for target in options.targets
    }
    (work / "settings.partial").write_text(json.dumps(settings), encoding="utf-8")
    (work / "settings.partial").rename(work / SETTINGS)


def _precision(target: str, options: Options) -> str:
    return options.coreml_precision if target == "coreml" else "float32"


def _first_error(futures: dict[str, Future[Artifact | None]], children: Children) -> BaseException | None:
    """Wait for all; the first error ends the others."""
    pending, error = set(futures.values()), None
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            if future.exception() and error is None:
                error = future.exception()
                children.kill()
    return error


def _lower(
    target: str,
    ready: Future[Prepared],
    options: Options,
    partial: Path,
    children: Children,
    on_stage: OnStage,
    checked: Callable[[str, dict[str, Any]], None],
    dry_run: bool,
) -> Artifact | None:
    """Lower to one target and prove the artifact; None after a dry run or a refusal."""
    started: list[float] = []
    ready.add_done_callback(lambda prepared: started.append(time.monotonic()))
    work, path = partial / WORK, partial / NEW_BUNDLE / TARGETS[target].file_name
    refused: list[Any] = []

    def on_event(event: dict[str, Any]) -> None:
        refused.extend(event["unsupported"])
        checked(target, event)

    outcome = child.call(
        "exporter.lowering:lower",
        {
            "target": target,
            "program": str(work / "program.pt2"),
            "output": str(path),
            "dry_run": dry_run,
            "settings": str(work / SETTINGS),
        },
        timeout_s=LOWER_TIMEOUT_S,
        log_path=work / f"{target}.log",
        scratch=work,
        on_event=on_event,
        on_start=children.add,
    )
    _value(outcome, f"{target}: the converter")
    if refused or dry_run:
        return None
    lowered = time.monotonic()
    signature, proof = parity.prove(
        path,
        work / GOLDEN,
        precision=_precision(target, options),
        atol=options.atol,
        log_path=work / f"{target}.log",
        scratch=work,
        on_start=children.add,
    )
    ended = time.monotonic()
    if proof.verdict != "pass":
        raise ParityFailed(
            proof.reason,
            where=f"{path.name} in {proof.executed_by.runtime} {proof.executed_by.version}",
            remedy="nothing was written; leave out this target, or give --atol if the model can bear that error",
        )
    size, sha256 = digest(path)
    detail = f"lowered in {lowered - started[0]:.1f} s, proven in {ended - lowered:.1f} s"
    on_stage(Stage(target, ended - started[0], detail))
    agreed = agree(ready.result().signature, signature, path.name)
    return Artifact(target, path.name, size, sha256, _precision(target, options), agreed, proof)


def agree(model: Signature, artifact: Signature, where: str) -> Signature:
    """The artifact's signature in the model's order, with the model's names for dynamic axes.

    Raises ParityFailed when the artifact has other inputs or outputs than the model.
    """

    def match(wanted: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...], role: str) -> tuple[TensorSpec, ...]:
        by_name = {spec.name: spec for spec in found}
        if set(by_name) != {spec.name for spec in wanted}:
            raise ParityFailed(
                f"its {role}s are {', '.join(sorted(by_name))} instead of {', '.join(s.name for s in wanted)}",
                where=where,
                remedy="the artifact is refused",
            )
        return tuple(
            replace(
                by_name[spec.name],
                shape=tuple(
                    m if isinstance(f, str) else f for m, f in zip(spec.shape, by_name[spec.name].shape, strict=True)
                ),
            )
            for spec in wanted
        )

    return Signature(match(model.inputs, artifact.inputs, "input"), match(model.outputs, artifact.outputs, "output"))


def _facts(prepared: Prepared, options: Options, precision: str) -> dict[str, Any]:
    """What goes into every file of the bundle as well as into the manifest."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": prepared.name,
        "origin": asdict(prepared.origin),
        "signature": asdict(prepared.signature),
        "precision": precision,
        "settings": _settings(options),
        "tool_versions": tool_versions(),
    }


def _settings(options: Options) -> dict[str, str | int | float | bool]:
    settings: dict[str, str | int | float | bool] = {"opset": options.opset, "min_ios": options.min_ios}
    if options.atol is not None:
        settings["atol"] = options.atol
    return settings


def _finish(prepared: Prepared, options: Options, artifacts: tuple[Artifact, ...], partial: Path) -> Manifest:
    """Put golden values, tokenizer, README, log and manifest beside the artifacts."""
    work, new = partial / WORK, partial / NEW_BUNDLE
    (work / GOLDEN).rename(new / GOLDEN)
    for file in sorted((work / "files").iterdir()):
        file.rename(new / file.name)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=prepared.name,
        origin=prepared.origin,
        signature=prepared.signature,
        artifacts=artifacts,
        files=(),
        tool_versions=tool_versions(),
        settings=_settings(options),
    )
    (new / "README.md").write_text(bundle_readme(manifest), encoding="utf-8")
    artifact_names = {artifact.path for artifact in artifacts}
    names = sorted(p.name for p in new.iterdir() if p.name not in artifact_names)
    manifest = replace(manifest, files=tuple(BundleFile(name, *digest(new / name)) for name in names))
    with open(new / LOG, "wb") as log:
        for part in (LOG, *(f"{a.format}.log" for a in artifacts)):
            if (work / part).exists():
                log.write(f"===== {part}\n".encode())
                with open(work / part, "rb") as stream:
                    shutil.copyfileobj(stream, log)
    write_manifest(manifest, new)
    return manifest


def tool_versions() -> dict[str, str]:
    """The versions of pocketship and of the tools that make artifacts, as far as they are installed."""
    versions = {}
    for tool in ("pocketship", *TOOLS):
        with suppress(metadata.PackageNotFoundError):
            versions[tool] = metadata.version(tool)
    return versions


def default_name(source: str | ModuleAndInputs) -> str:
    """A folder name for a source as the user typed it."""
    if not isinstance(source, str):
        return type(source[0]).__name__.lower()
    last = source.rstrip("/").split("/")[-1].split(":")[-1]
    return last.removesuffix(".pt2") or "model"


def _value(outcome: child.Outcome, what: str) -> dict[str, Any]:
    """The value of a call that completed; else the error it stands for."""
    if isinstance(outcome, child.Completed):
        return outcome.value
    if isinstance(outcome, child.Refused):
        raise outcome.error
    error = PocketshipError(f"{what} {child.describe(outcome)}", remedy="run it again with --debug to see its log")
    error.log_tail = getattr(outcome, "log_tail", "")
    raise error


def _table(lacking: dict[str, list[dict[str, str]]]) -> str:
    rows = [row for target in TARGETS if target in lacking for row in lacking[target]]
    return ", ".join(
        f"{row['target']} lacks {row['operation']}" + (f" of {row['line']}" if row["line"] else "") for row in rows
    )


class Children:
    """The child processes of one export, so that the first error, or Ctrl-C, ends all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed = False

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """Take a process in; one that starts after the kill is killed at once."""
        with self._lock:
            self._processes.append(process)
            if self._killed:
                _kill(process)

    def kill(self) -> None:
        """Kill all processes, and those that are yet to start."""
        with self._lock:
            self._killed = True
            for process in self._processes:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


__all__ = ["BadInput", "Bundle", "Prepared", "Stage", "export", "plan"]
