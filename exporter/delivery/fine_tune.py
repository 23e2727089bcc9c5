"""What an update of a fine-tune delivers: task vectors, tuned, scored and proven."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle.writer import write_manifest
from exporter.delivery import task_vector
from exporter.delivery.files import files_of, update_of
from exporter.delivery.patch import compressed
from runtimes import child
from runtimes.bundle import TASK_VECTOR, digest
from runtimes.compare import limits_of
from runtimes.errors import NotInstalled, ParityFailed
from runtimes.evidence import UPDATE
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.parity import MEMORY_FLOOR_BYTES, MEMORY_PER_ARTIFACT_BYTE, TIMEOUT_S, prove, size_bytes
from runtimes.session import open_session
from runtimes.types import Accuracy, Artifact, BundleFile, Manifest, RecipeStep

if TYPE_CHECKING:
    from benchmarks.tasks.task import Task

ALPHAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MOST_OTHER_BYTES, MOST_OTHER_SHARE = 4096, 200
"""A fine-tune may differ outside of its tensors by so many bytes of binary diff, and one in so many of the file."""
Say = Callable[[str], None]


class FineTune:
    """Which files of the new bundle become task vectors, and what they give."""

    def __init__(
        self, old: Path, new: Path, before: Manifest, after: Manifest, density: float, exact: bool, scratch: Path
    ) -> None:
        self._old, self._new, self._before, self._after = old, new, before, after
        self._density, self._scratch = density, scratch
        self._regions: dict[str, tuple[task_vector.Region, ...]] = {}  # of the new file
        self._skeletons: dict[str, bytes] = {}
        self._units: dict[str, bytes] = {}  # task vectors whose factor is 1
        known = set(files_of(old, before))
        for name in () if exact else files_of(new, after):
            if name in known:
                self._consider(name)

    def _consider(self, name: str) -> None:
        """Take a file as a fine-tune where it has the old one's tensors, and next to nothing else that differs."""
        old, new = ((bundle / name).read_bytes() for bundle in (self._old, self._new))
        before, after = (task_vector.regions_of(name, content) for content in (old, new))
        if old == new or not after or [(r.count, r.dtype) for r in before] != [(r.count, r.dtype) for r in after]:
            return
        if not task_vector.is_finite_change(old, before, new, after):
            return
        skeleton = bytearray(new)
        for mine, theirs in zip(after, before, strict=True):
            skeleton[mine.offset : mine.end] = old[theirs.offset : theirs.end]
        if len(compressed(bytes(skeleton), old)) <= MOST_OTHER_BYTES + len(new) // MOST_OTHER_SHARE:
            self._regions[name], self._skeletons[name] = after, bytes(skeleton)
            self._units[name] = task_vector.encode(bytes(skeleton), new, after, self._density)

    def vectors(self, alpha: float | None) -> dict[str, tuple[bytes, bytes]]:
        """By file the new one with the old tensors in it, and the task vector to add to those."""
        if alpha is None:
            return {}
        return {
            name: (skeleton, task_vector.scaled(self._units[name], alpha)) for name, skeleton in self._skeletons.items()
        }

    def tuned(self, task: Task | None, say: Say) -> float | None:
        """The factor of the task vector that is best on the calibration split, else nearest to the new weights."""
        if not self._regions:
            say("more than floating-point weights differ: a binary patch of each file")
            return None
        nearest = self._nearest()
        with_a_vector = [artifact for artifact in self._after.artifacts if artifact.path in self._regions]
        if task:
            for artifact in with_a_vector:
                try:
                    score, _, alpha = min(self._score(artifact, alpha, task, nearest) for alpha in ALPHAS)
                except NotInstalled:
                    continue
                say(f"task vector: alpha {alpha:g} of {len(ALPHAS)} tried, {-score:.1%} on the calibration split")
                return alpha
        say(f"task vector: alpha {nearest:.3g}, the nearest to the new weights; --data tunes it on a task")
        return nearest

    def _score(self, artifact: Artifact, alpha: float, task: Task, nearest: float) -> tuple[float, float, float]:
        """What the best `alpha` has the least of: the negative score on the calibration split, then the distance."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as place:
            self._write_artifact(artifact, Path(place), alpha)
            return -_calibration_score(Path(place) / artifact.path, task), abs(alpha - nearest), alpha

    def _nearest(self) -> float:
        """The factor with the least squared error of the weights, which is a parabola of it."""
        product = square = 0.0
        for name, skeleton in self._skeletons.items():
            new, made = (self._new / name).read_bytes(), task_vector.apply(skeleton, self._units[name])
            for region in self._regions[name]:
                if region.count > task_vector.SMALL:  # the others are whole
                    zero, wanted, one = (task_vector.values(file, region) for file in (skeleton, new, made))
                    changed = np.flatnonzero(one != zero)
                    step = one[changed].astype(np.float64) - zero[changed]
                    product += float(step @ (wanted[changed].astype(np.float64) - zero[changed]))
                    square += float(step @ step)
        return product / square if square else 1.0

    def _write_artifact(self, artifact: Artifact, folder: Path, alpha: float | None) -> None:
        """The artifact as it will be delivered."""
        source, place = self._new / artifact.path, folder / artifact.path
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place)
        for name, (skeleton, vector) in self.vectors(alpha).items():
            if name == artifact.path or name.startswith(f"{artifact.path}/"):
                (folder / name).write_bytes(task_vector.apply(skeleton, vector))

    def deliver(
        self, folder: Path, alpha: float | None, task: Task | None, say: Say
    ) -> tuple[Manifest, dict[str, float], dict[str, dict[str, Accuracy]]]:
        """Write the delivered bundle; its manifest, its distance from the new model's outputs, and how good it is."""
        folder.mkdir()
        for file in self._after.files:
            shutil.copyfile(self._new / file.path, folder / file.path)
        artifacts, distances = [], {}
        for artifact in self._after.artifacts:
            self._write_artifact(artifact, folder, alpha)
            changed = any(n == artifact.path or n.startswith(f"{artifact.path}/") for n in self._regions)
            if alpha is None or not changed:
                artifacts.append(artifact)
                continue
            made, distance = _proven(folder, artifact, self._after)
            artifacts.append(made)
            distances[artifact.path] = distance
        accuracies = self._scored(folder, task, say) if task else {}
        manifest = self._manifest(folder, tuple(artifacts), alpha, distances, accuracies)
        write_manifest(manifest, folder)
        return manifest, distances, accuracies

    def _scored(self, folder: Path, task: Task, say: Say) -> dict[str, dict[str, Accuracy]]:
        """Of every artifact over the test split, in the old bundle where that has it, in the new and the delivered.

        The three are scored on the samples that all had time for.
        """
        from benchmarks.evaluate import accuracy_of, answers, judged, on_the_same
        from benchmarks.results.words import samples_of

        found: dict[str, dict[str, Accuracy]] = {}
        for artifact in self._after.artifacts:
            places = {"old": self._old, "new": self._new, "delivered": folder}
            paths = {w: bundle / artifact.path for w, bundle in places.items() if (bundle / artifact.path).exists()}
            given = on_the_same([answers(path, task) for path in paths.values()])
            for (which, path), each in zip(paths.items(), given, strict=True):
                a = replace(accuracy_of(judged(path.name, task, each)), others={})
                found.setdefault(artifact.path, {})[which] = a
                interval = f"{a.low:.1%} to {a.high:.1%}, {samples_of(a)}"
                say(f"{artifact.path}: {which} {a.metric} {a.value:.1%} ({interval})")
        return found

    def _manifest(
        self,
        folder: Path,
        artifacts: tuple[Artifact, ...],
        alpha: float | None,
        distances: Mapping[str, float],
        accuracies: Mapping[str, Mapping[str, Accuracy]],
    ) -> Manifest:
        recipe = self._after.recipe
        if alpha is not None:
            notes = [f"{name}: {error:.3g} from the new model's golden outputs" for name, error in distances.items()]
            for name, scores in accuracies.items():
                a = {which: f"{score.value:.4f}" for which, score in scores.items()}
                notes.append(f"{name}: {', '.join(f'{which} {value}' for which, value in a.items())}")
            settings = {"density": self._density, "alpha": alpha}
            recipe = (*recipe, RecipeStep(TASK_VECTOR, settings, tuple(notes)))
        names = sorted({*(f.path for f in self._after.files), *(a.golden for a in artifacts)})
        return replace(
            self._after,
            artifacts=artifacts,
            files=tuple(BundleFile(name, *digest(folder / name)) for name in names),
            settings={**self._after.settings, UPDATE: update_of(self._before) + 1},
            recipe=recipe,
        )


def _proven(folder: Path, artifact: Artifact, manifest: Manifest) -> tuple[Artifact, float]:
    """The delivered artifact with golden values of its own, which its runtime here computed, and how far it lies from
    the new model's."""
    golden = f"golden-delivered-{artifact.format}.npz"
    places = {"artifact": folder / artifact.path, "golden": folder / artifact.golden, "output": folder / golden}
    outcome = child.call(
        "exporter.delivery.fine_tune:write_delivered_golden",
        {name: str(place) for name, place in places.items()},
        timeout_s=TIMEOUT_S,
        memory_limit_bytes=MEMORY_FLOOR_BYTES + MEMORY_PER_ARTIFACT_BYTE * size_bytes(places["artifact"]),
    )
    if isinstance(outcome, child.Refused):
        raise outcome.error
    if not isinstance(outcome, child.Completed):
        raise ParityFailed(f"the runtime {child.describe(outcome)}", where=artifact.path, remedy="add --exact")
    pairs = zip(read_golden(places["golden"]).outputs, read_golden(places["output"]).outputs, strict=True)
    distance = max(float(np.max(np.abs(w[name].astype(float) - g[name]), initial=0)) for w, g in pairs for name in w)
    _, parity = prove(folder / artifact.path, folder / golden, limits_of(manifest, artifact))
    size, sha256 = digest(folder / artifact.path)
    return replace(artifact, size_bytes=size, sha256=sha256, golden=golden, parity=parity), distance


def write_delivered_golden(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `_proven`: golden inputs with the outputs that an artifact computes for them."""
    golden = read_golden(Path(job["golden"]))
    session = open_session(Path(job["artifact"]))
    outputs = tuple(session.run(each) for each in golden.inputs)
    write_golden(Golden(golden.inputs, outputs, golden.noise), Path(job["output"]))
    return {}


def _calibration_score(artifact: Path, task: Task) -> float:
    """The task's metric on its calibration split, never on the test split."""
    from benchmarks.evaluate import evaluate

    return evaluate(artifact, replace(task, test=task.calibration)).value
