"""From snapshots to proven artifacts: one child a target lowers every snapshot as soon as it lies there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from exporter.bundle.versions import tool_versions
from exporter.bundle.writer import NEW_BUNDLE, WORK, writing_errors
from exporter.compression.recipe import to_json
from exporter.lowering.target import TARGETS
from exporter.processes.children import Children, value_of
from exporter.processes.signals import deferred_signals
from exporter.stages.options import Options, version_for
from exporter.stages.snapshot import PROGRAM, SETTINGS, Snapshot, TargetNeeds, folder_of
from runtimes import child, parity
from runtimes.bundle import digest
from runtimes.errors import ParityFailed, UnsupportedOperation
from runtimes.signature import Signature, TensorSpec
from runtimes.types import SCHEMA_VERSION, Artifact, Origin

LOWER_TIMEOUT_S = 3600.0
TRAINING_TIMEOUT_S = 48 * 3600.0
"""The targets' children wait for the passes of a recipe, which may train for long."""
SLOWEST_FIRST = ("tflite", "coreml", "onnx")


@dataclass(frozen=True)
class Stage:
    """A stage that ended: its name, how long it took, and what came of it."""

    name: str
    seconds: float
    detail: str


@dataclass(frozen=True)
class SourceFacts:
    """The model's name and where it came from."""

    name: str
    origin: Origin


@dataclass(frozen=True)
class Proven:
    """An artifact of a snapshot that passed the gate, and where its file lies."""

    snapshot: Snapshot
    artifact: Artifact
    path: Path


OnStage = Callable[[Stage], None]
OnProgress = Callable[[str, int, int], None]
"""(what is running, done, total)"""


class Road:
    """One export on its way: the snapshots as they come, the targets' threads, and what each target lacks.

    `offer` hands a snapshot over to all targets; `finish` waits for the artifacts of every snapshot.
    """

    def __init__(self, options: Options, partial: Path, children: Children, on_stage: OnStage, dry_run: bool) -> None:
        self._options, self._partial, self._children = options, partial, children
        self._on_stage, self._dry_run = on_stage, dry_run
        self._work = partial / WORK
        self._count = 1 if dry_run else len(options.recipe.steps) + 1
        self.source: SourceFacts
        self.snapshots: list[Snapshot] = []
        self.proven: list[Proven] = []
        self._handed_over: list[float] = []
        self._lacking: dict[str, list[dict[str, str]]] = {}
        self._lock = threading.Lock()
        order = sorted(options.targets, key=SLOWEST_FIRST.index)
        # A queue in C and plain threads: Ctrl-C inside a Condition, which all of concurrent.futures is made of, can
        # leave its lock taken, and what waits for that lock never ends.
        self._ended: SimpleQueue[list[Proven] | BaseException] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, args=(target,), daemon=True) for target in order]
        with deferred_signals():
            for thread in self._threads:
                thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Write the settings of every target beside the snapshot in one step: the children wait for this file."""
        settings = {target: self._settings(target, snapshot) for target in self._options.targets}
        folder = self._work / snapshot.folder
        with writing_errors(self._partial):
            (folder / "settings.partial").write_text(json.dumps(settings), encoding="utf-8")
            self.snapshots.append(snapshot)
            self._handed_over.append(time.monotonic())
            (folder / "settings.partial").rename(folder / SETTINGS)

    def finish(self) -> None:
        """Wait for the artifacts of all snapshots: `proven`, in the order of snapshots and then of targets.

        Raises what stopped a target first; UnsupportedOperation where one lacks an operation, with all that lack any.
        """
        error = None
        for _ in self._threads:
            outcome = self._ended.get()
            if isinstance(outcome, list):
                self.proven += outcome
            elif error is None:
                error = outcome
                self._children.kill()
        self.raise_lacking()
        if error:
            raise error
        targets = self._options.targets
        self.proven.sort(key=lambda proven: (proven.snapshot.index, targets.index(proven.artifact.format)))

    def abandon(self) -> None:
        """End everything; the threads end as soon as their children do."""
        self._children.kill()
        for thread in self._threads:
            thread.join()

    def raise_lacking(self) -> None:
        """Raise UnsupportedOperation when targets lack operations."""
        if not any(self._lacking.values()):
            return
        remedies = [rows[0]["remedy"] for rows in self._lacking.values() if rows]
        several = "rewrite those lines with operations that these targets have, or leave the targets out"
        raise UnsupportedOperation(_table(self._lacking), remedy=several if len(remedies) > 1 else remedies[0])

    def _settings(self, target: str, snapshot: Snapshot) -> dict[str, Any]:
        needs, options = snapshot.targets[target], self._options
        return {
            "opset": version_for("opset", options.opset, needs.opset),
            "min_ios": version_for("min_ios", options.min_ios, needs.min_ios),
            "coreml_precision": options.coreml_precision,
            "metadata": {"pocketship": json.dumps(self._inside(target, snapshot), sort_keys=True)},
        }

    def _inside(self, target: str, snapshot: Snapshot) -> dict[str, Any]:
        """What goes into every file of the bundle as well as into the manifest."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.source.name,
            "origin": asdict(self.source.origin),
            "signature": asdict(snapshot.signature),
            "precision": precision_of(target, snapshot, self._options),
            "settings": export_settings(self._options, snapshot),
            "recipe": to_json(self._options.recipe)[: snapshot.index],
            "tool_versions": tool_versions(),
        }

    def _place(self, target: str, index: int) -> Path:
        """Where an artifact is written: that of the last snapshot is the bundle's."""
        last = index == len(self._options.recipe.steps)
        return (self._partial / NEW_BUNDLE if last else self._work / folder_of(index)) / TARGETS[target].file_name

    def _run(self, target: str) -> None:
        try:
            self._ended.put(self._lower_all(target))
        except BaseException as error:
            self._ended.put(error)

    def _lower_all(self, target: str) -> list[Proven]:
        """Lower every snapshot to one target, and prove each artifact while the child lowers the next."""
        proven: list[Proven] = []

        def on_event(event: dict[str, Any]) -> None:
            if "unsupported" in event:
                self._checked(target, event["unsupported"])
            if "lowered" in event:
                proven.append(self._prove(target, event["lowered"], event["carried"]))

        places = [self._work / folder_of(index) for index in range(self._count)]
        outcome = child.call(
            "exporter.lowering.child:lower",
            {
                "target": target,
                "dry_run": self._dry_run,
                "snapshots": [
                    {
                        "program": str(place / PROGRAM),
                        "settings": str(place / SETTINGS),
                        "output": str(self._place(target, index)),
                    }
                    for index, place in enumerate(places)
                ],
            },
            timeout_s=TRAINING_TIMEOUT_S if self._options.recipe.steps else LOWER_TIMEOUT_S,
            log_path=self._work / f"{target}.log",
            scratch=self._work,
            on_event=on_event,
            on_start=self._children.add,
        )
        value_of(outcome, f"{target}: the converter")
        return proven

    def _checked(self, target: str, rows: list[dict[str, str]]) -> None:
        """Take down what a target lacks; once all have said it of the original, or one of a later snapshot, end."""
        with self._lock:
            later = target in self._lacking
            self._lacking[target] = self._lacking.get(target, []) + rows
            if any(self._lacking.values()) and (later or len(self._lacking) == len(self._options.targets)):
                self._children.kill()

    def _prove(self, target: str, index: int, carried: list[dict[str, Any]]) -> Proven:
        lowered = time.monotonic()
        snapshot, path, options = self.snapshots[index], self._place(target, index), self._options
        needs: TargetNeeds = snapshot.targets[target]
        compute = options.coreml_precision if target == "coreml" else "float32"
        signature, proof = parity.prove(
            path,
            self._work / snapshot.folder / needs.golden,
            compute=compute,
            atol=options.atol,
            noise=needs.noise,
            log_path=self._work / f"{target}.log",
            scratch=self._work,
            on_start=self._children.add,
        )
        ended = time.monotonic()
        after = f" after {snapshot.name}" if index else ""
        if proof.verdict != "pass":
            raise ParityFailed(
                proof.reason,
                where=f"{path.name}{after} in {proof.executed_by.runtime} {proof.executed_by.version}",
                remedy="nothing was written; leave out this target, or give --atol if the model can bear that error",
            )
        started = self._handed_over[index]
        detail = f"lowered in {lowered - started:.1f} s, proven in {ended - lowered:.1f} s{after}"
        self._on_stage(Stage(target, ended - started, detail))
        artifact = Artifact(
            target,
            path.name,
            *digest(path),
            precision_of(target, snapshot, options),
            agree(snapshot.signature, signature, path.name),
            proof,
            compute=compute,
            golden=needs.golden,
            noise=needs.noise,
            representations={row["name"]: _in_words(row) for row in carried if row["stored"]},
            left_float={row["name"]: row["reason"] for row in carried if not row["stored"]},
        )
        return Proven(snapshot, artifact, path)


def _in_words(carried: dict[str, Any]) -> str:
    return carried["stored"]["name"] + (f" ({carried['reason']})" if carried["reason"] else "")


def precision_of(target: str, snapshot: Snapshot, options: Options) -> str:
    """That of the smallest weights."""
    return options.coreml_precision if target == "coreml" and snapshot.precision == "float32" else snapshot.precision


def export_settings(options: Options, snapshot: Snapshot) -> dict[str, str | int | float | bool]:
    """What the manifest says of versions and tolerance: as asked for, or higher where a representation needs it."""
    needs = snapshot.targets.values()
    settings: dict[str, str | int | float | bool] = {
        "opset": version_for("opset", options.opset, max((n.opset for n in needs), default=0)),
        "min_ios": version_for("min_ios", options.min_ios, max((n.min_ios for n in needs), default=0)),
    }
    if options.atol is not None:
        settings["atol"] = options.atol
    return settings


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


def _table(lacking: dict[str, list[dict[str, str]]]) -> str:
    rows = [row for target in TARGETS if target in lacking for row in lacking[target]]
    return ", ".join(
        f"{row['target']} lacks {row['operation']}" + (f" of {row['line']}" if row["line"] else "") for row in rows
    )
