"""From snapshots to proven artifacts: one child a target lowers every snapshot as soon as it lies there."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from exporter.bundle.versions import tool_versions
from exporter.bundle.writer import writing_errors
from exporter.compression.recipe import to_json
from exporter.lowering.target import SLOWEST_FIRST, TARGETS
from exporter.processes.children import memory_limit_bytes, value_of
from exporter.processes.messages import post
from exporter.processes.signals import deferred_signals
from exporter.stages.options import Options
from exporter.stages.progress import SourceFacts, Stage
from exporter.stages.run import Run
from exporter.stages.snapshot import PROGRAM, Snapshot, TargetNeeds, folder_of
from runtimes import child, parity
from runtimes.bundle import digest
from runtimes.compare import NOTHING_PROVEN, RELATIVE_TOLERANCE, Limits
from runtimes.errors import ParityFailed, UnsupportedOperation
from runtimes.facts import METADATA
from runtimes.signature import agree
from runtimes.types import SCHEMA_VERSION, Artifact, Parity

LOWER_TIMEOUT_S = 3600.0
TRAINING_TIMEOUT_S = 48 * 3600.0
"""The targets' children wait for the passes of a recipe, which may train for long."""


@dataclass(frozen=True)
class Proven:
    """An artifact of a snapshot that passed the gate, and where its file lies."""

    snapshot: Snapshot
    artifact: Artifact
    path: Path


class Targets:
    """The targets of one export: a thread and a child process each, the snapshots as they come, what each lacks.

    `submit` hands a snapshot to all targets; `wait` returns once every snapshot has its artifacts; `cancel` ends all.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._options = run, run.options
        self._count = 1 if run.dry_run else len(run.options.recipe.steps) + 1
        self.source: SourceFacts
        self.snapshots: list[Snapshot] = []
        self.proven: list[Proven] = []
        self._submitted_at: list[float] = []
        self._lacking: dict[str, list[dict[str, str]]] = {}
        self._lock = threading.Lock()
        order = sorted(run.options.targets, key=SLOWEST_FIRST.index)
        # A queue in C and plain threads: Ctrl-C inside a Condition, which all of concurrent.futures is made of, can
        # leave its lock taken, and what waits for that lock never ends.
        self._ended: SimpleQueue[list[Proven] | BaseException] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, args=(target,), daemon=True) for target in order]
        with deferred_signals():
            for thread in self._threads:
                thread.start()

    def submit(self, snapshot: Snapshot) -> None:
        """Tell every target's child of a snapshot, with the settings to lower it with."""
        settings = {target: self._settings(target, snapshot) for target in self._options.targets}
        self.snapshots.append(snapshot)
        self._submitted_at.append(time.monotonic())
        with writing_errors(self._run.partial):
            post(self._run.message(snapshot.index), settings)

    def wait(self) -> None:
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
                self._run.children.kill()
        self.raise_lacking()
        if error:
            raise error
        targets = self._options.targets
        self.proven.sort(key=lambda proven: (proven.snapshot.index, targets.index(proven.artifact.format)))

    def cancel(self) -> None:
        """End everything; the threads end as soon as their children do."""
        self._run.children.kill()
        for thread in self._threads:
            thread.join()

    def raise_lacking(self) -> None:
        """Raise UnsupportedOperation when targets lack operations."""
        if not any(self._lacking.values()):
            return
        remedies = [rows[0]["remedy"] for rows in self._lacking.values() if rows]
        several = "rewrite those lines with operations that these targets have, or leave the targets out"
        raise UnsupportedOperation(_table(self._lacking), remedy=several if len(remedies) > 1 else remedies[0])

    def _settings(self, target: str, snapshot: Snapshot) -> dict[str, Any] | None:
        """What to lower a snapshot with; None where it is the one before, and is not lowered again."""
        if snapshot.same_as is not None:
            return None
        settings = self._options.settings[target].raised_to(snapshot.targets[target].version)
        inside = json.dumps(self._inside(target, snapshot), sort_keys=True)
        return {"settings": asdict(settings), "metadata": {METADATA: inside}}

    def _inside(self, target: str, snapshot: Snapshot) -> dict[str, Any]:
        """What goes into every file of the bundle as well as into the manifest."""
        noise = {"noise": snapshot.targets[target].noise} if snapshot.index else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.source.name,
            "origin": asdict(self.source.origin),
            "signature": asdict(snapshot.signature),
            "precision": precision_of(target, snapshot, self._options),
            "settings": export_settings(self._options, snapshot),
            "recipe": to_json(self._options.recipe)[: snapshot.index],
            "tool_versions": tool_versions(),
            **noise,
        }

    def _place(self, target: str, index: int) -> Path:
        """Where an artifact is written: that of the last snapshot is the bundle's."""
        last = index == len(self._options.recipe.steps)
        return (self._run.bundle if last else self._run.work / folder_of(index)) / TARGETS[target].file_name

    def _serve(self, target: str) -> None:
        try:
            self._ended.put(self._lower_all(target))
        except BaseException as error:
            self._ended.put(error)

    def _lower_all(self, target: str) -> list[Proven]:
        """Lower every snapshot to one target, and prove each artifact while the child lowers the next."""
        proven: list[Proven] = []

        def on_event(event: dict[str, Any]) -> None:
            for difference in event.get("differences", ()):
                self._run.on_stage(Stage(target, 0.0, f"warning: {difference}"))
            if "unsupported" in event:
                self._checked(target, event["unsupported"])
            if "lowered" in event:
                proven.append(self._prove(target, event["lowered"], event["carried"]))
            if "unchanged" in event:
                proven.append(self._as_before(target, event["unchanged"], proven[-1]))

        work = self._run.work
        outcome = child.call(
            "exporter.lowering.child:lower",
            {
                "target": target,
                "dry_run": self._run.dry_run,
                "snapshots": [
                    {
                        "message": str(self._run.message(index)),
                        "program": str(work / folder_of(index) / PROGRAM),
                        "output": str(self._place(target, index)),
                    }
                    for index in range(self._count)
                ],
            },
            timeout_s=TRAINING_TIMEOUT_S if self._options.recipe.steps else LOWER_TIMEOUT_S,
            memory_limit_bytes=memory_limit_bytes(),
            log_path=work / f"{target}.log",
            scratch=work,
            on_event=on_event,
            on_start=self._run.children.add,
        )
        value_of(outcome, f"{target}: the converter")
        return proven

    def _checked(self, target: str, rows: list[dict[str, str]]) -> None:
        """Take down what a target lacks; once all have said it of the original, or one of a later snapshot, end."""
        with self._lock:
            later = target in self._lacking
            self._lacking[target] = self._lacking.get(target, []) + rows
            if any(self._lacking.values()) and (later or len(self._lacking) == len(self._options.targets)):
                self._run.children.kill()

    def _prove(self, target: str, index: int, carried: dict[str, dict[str, str]]) -> Proven:
        lowered = time.monotonic()
        snapshot, path, options = self.snapshots[index], self._place(target, index), self._options
        needs: TargetNeeds = snapshot.targets[target]
        compute = options.settings[target].compute
        signature, proof = parity.prove(
            path,
            self._run.work / snapshot.folder / needs.golden,
            Limits(RELATIVE_TOLERANCE[compute], options.atol, needs.noise),
            log_path=self._run.work / f"{target}.log",
            scratch=self._run.work,
            on_start=self._run.children.add,
        )
        ended = time.monotonic()
        after = f" after {snapshot.name}" if index else ""
        if proof.verdict != "pass":
            raise ParityFailed(
                proof.reason,
                where=f"{path.name}{after} in {proof.executed_by.runtime} {proof.executed_by.version}",
                remedy=mend(proof, quantized=bool(needs.noise)),
            )
        if options.strict and proof.not_proven:
            raise ParityFailed(
                f"not proven: {'; '.join(proof.not_proven)}",
                where=f"{path.name}{after}",
                remedy="nothing was written; give inputs that move it (--data, the example), or leave out --strict",
            )
        started = self._submitted_at[index]
        detail = f"lowered in {lowered - started:.1f} s, proven in {ended - lowered:.1f} s{after}"
        self._run.on_stage(Stage(target, ended - started, detail))
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
            representations=carried["representations"],
            left_float=carried["left_float"],
        )
        return Proven(snapshot, artifact, path)

    def _as_before(self, target: str, index: int, before: Proven) -> Proven:
        """The artifact of the snapshot before, which is the same model's; a copy where the bundle's is to lie."""
        path = self._place(target, index)
        if path.parent != self._run.bundle:
            path = before.path
        else:
            with writing_errors(self._run.partial):
                shutil.copytree(before.path, path) if before.path.is_dir() else shutil.copyfile(before.path, path)
        return Proven(self.snapshots[index], before.artifact, path)


def mend(proof: Parity, *, quantized: bool) -> str:
    """What to do about a failed gate: a larger --atol is no mend where the error is within it."""
    unrounded = ", or give --quantize int8-weights, whose activations are not rounded" if quantized else ""
    if proof.reason.endswith(NOTHING_PROVEN):
        return f"nothing was written; load trained weights with --weights, give real inputs with --data{unrounded}"
    if proof.max_abs_error <= proof.tolerance:
        return f"nothing was written; leave out this target{unrounded}"
    return "nothing was written; leave out this target, or give --atol if the model can bear that error"


def precision_of(target: str, snapshot: Snapshot, options: Options) -> str:
    """That of the smallest weights."""
    return options.settings[target].compute if snapshot.precision == "float32" else snapshot.precision


def export_settings(options: Options, snapshot: Snapshot) -> dict[str, str | int | float | bool]:
    """What the manifest says of versions and tolerance: as asked for, or higher where a representation needs it."""
    settings: dict[str, str | int | float | bool] = {}
    for target, chosen in options.settings.items():
        needs = snapshot.targets.get(target, TargetNeeds())
        settings.update(chosen.raised_to(needs.version).facts)
    if options.atol is not None:
        settings["atol"] = options.atol
    return settings


def _table(lacking: dict[str, list[dict[str, str]]]) -> str:
    rows = [row for target in TARGETS if target in lacking for row in lacking[target]]
    return ", ".join(
        f"{row['target']} lacks {row['operation']}" + (f" of {row['line']}" if row["line"] else "") for row in rows
    )
