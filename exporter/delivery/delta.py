"""Make an update: what an app needs to turn the bundle it has into a new one. `pocketship delta`."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle.writer import write_manifest
from exporter.delivery import task_vector, update_file
from exporter.delivery.update_file import Header, Part
from runtimes import child
from runtimes.bundle import GOLDEN, MANIFEST, damage, digest, read_manifest
from runtimes.errors import BadInput, LimitNotMet, NotInstalled, ParityFailed
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.parity import MEMORY_FLOOR_BYTES, MEMORY_PER_ARTIFACT_BYTE, TIMEOUT_S, prove, size_bytes
from runtimes.session import open_session
from runtimes.types import Accuracy, Artifact, BundleFile, Manifest, RecipeStep

if TYPE_CHECKING:
    from benchmarks.tasks import Task

UPDATE = "update"
"""The setting of a manifest that counts its updates, so that an old one is never applied again."""
ALPHAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MOST_OTHER_BYTES, MOST_OTHER_SHARE = 4096, 200
"""A fine-tune may differ outside of its tensors by so many bytes of binary diff, and one in so many of the file."""
LEVEL, LARGEST_WINDOW = 19, 31
"""zstd's level, and the binary logarithm of its largest window, which must reach back over both files."""


@dataclass(frozen=True)
class FileCost:
    """A file of the new bundle: its size, gzipped, as a generic binary diff (zstd --patch-from), in the update."""

    path: str
    kind: str
    size_bytes: int
    gzip_bytes: int
    diff_bytes: int
    update_bytes: int


@dataclass(frozen=True)
class Delta:
    """An update that was written.

    `alpha` is the factor of the task vector, None where there is none; accuracies are by artifact and bundle ("old",
    "new", "delivered"), `distances` by artifact the largest difference to the new model's golden outputs.
    """

    path: Path
    size_bytes: int
    exact: bool
    density: float | None
    alpha: float | None
    files: tuple[FileCost, ...]
    accuracies: Mapping[str, Mapping[str, Accuracy]]
    distances: Mapping[str, float]
    header: Header


Say = Callable[[str], None]


def delta(
    old: Path,
    new: Path,
    output: Path,
    *,
    density: float = 0.1,
    task: Task | None = None,
    exact: bool = False,
    max_drop: float | None = None,
    sign: Path | None = None,
    encrypt: Path | None = None,
    force: bool = False,
    say: Say = lambda line: None,
) -> Delta:
    """Write the update that turns the bundle `old` into `new`.

    Where their artifacts have the same structure and differ in floating-point weights alone, it is a task vector with a
    share `density` of each tensor's elements, and what is delivered approximates `new`; with `exact`, and everywhere
    else, it is a binary patch. `task` tunes the vector on its calibration split and scores it on its test split;
    `max_drop` refuses a larger loss there (a share of 1). The key `sign` signs the update and the bundle that it makes,
    `encrypt` encrypts the update.

    Raises BadInput for bundles that are none or equal and for keys that are none, ParityFailed for a damaged bundle,
    LimitNotMet, and NotInstalled without a library that is needed.
    """
    from exporter.delivery.sealing import seal, sign_bundle

    _zstandard()
    if not 0.0 < density <= 0.5:
        raise BadInput(f"a density of {density:g} is none", where="--density", remedy="give 0.1% to 50%")
    if max_drop is not None and task is None:
        raise BadInput("a limit needs a task", where="--max-drop", remedy="add --data")
    if output.exists() and not force:
        raise BadInput("the update exists", where=str(output), remedy="add --force to replace it")
    if not output.absolute().parent.is_dir():  # refused before all the work, too
        raise BadInput("there is no such folder", where=str(output.parent), remedy="give another -o")
    seal(b"", kind="update", sign=sign, encrypt=encrypt)  # a key that cannot be used is refused before all the work
    before, after = _intact(old), _intact(new)
    base = manifest_hash(old)
    if base == manifest_hash(new):
        raise BadInput("both bundles are the same", where=str(new), remedy="give the old one, then the new one")
    with tempfile.TemporaryDirectory(prefix="pocketship-") as scratch:
        plan = _Plan(old, new, before, after, density, exact, Path(scratch))
        alpha = plan.tuned(task, say)
        delivered = Path(scratch) / "delivered"
        manifest, distances, accuracies = plan.deliver(delivered, alpha, task, say)
        _check_drop(accuracies, max_drop)
        if sign:
            sign_bundle(delivered, sign)
        header, data, files = _packed(old, new, delivered, plan.vectors(alpha), base, before, manifest)
    content = update_file.write(header, data)
    if sign or encrypt:
        content = seal(content, kind="update", sign=sign, encrypt=encrypt)
    _write(content, output)
    kept = None if alpha is None else density
    is_exact = alpha is None
    return Delta(output, len(content), is_exact, kept, alpha, files, accuracies, distances, header)


def manifest_hash(bundle: Path) -> str:
    """The identity of a bundle: the SHA-256 of its manifest.json."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def update_of(manifest: Manifest) -> int:
    """How many updates a bundle has had.

    Raises BadInput where the manifest has a count that is none.
    """
    count = manifest.settings.get(UPDATE, 0)
    if type(count) is not int or count < 0:
        raise BadInput(f"settings.{UPDATE} is {count!r:.40}", where=MANIFEST, remedy="export the bundle again")
    return count


def intact_files(bundle: Path, manifest: Manifest) -> None:
    """Raise ParityFailed where a file of the bundle is not the manifest's."""
    entries: tuple[Artifact | BundleFile, ...] = (*manifest.files, *manifest.artifacts)
    for entry in entries:
        fault = damage(bundle, entry)
        if fault:
            raise ParityFailed(fault, where=str(bundle), remedy="get the whole bundle again")


def files_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Every file that the manifest covers, those of package folders one by one."""
    names = [file.path for file in manifest.files]
    for artifact in manifest.artifacts:
        path = bundle / artifact.path
        inner = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        names += [p.relative_to(bundle).as_posix() for p in inner]
    return tuple(names)


def names_of(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Every file that an update makes: the manifest, its signature where there is one, and what the manifest covers."""
    from exporter.delivery.sealing import SIGNATURE

    signature = (SIGNATURE,) if (bundle / SIGNATURE).is_file() else ()
    return (MANIFEST, *signature, *files_of(bundle, manifest))


def _intact(bundle: Path) -> Manifest:
    manifest = read_manifest(bundle)
    intact_files(bundle, manifest)
    return manifest


class _Plan:
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
        if old == new or not after or [r.count for r in before] != [r.count for r in after]:
            return
        if not task_vector.is_finite_change(old, before, new, after):
            return
        skeleton = bytearray(new)
        for mine, theirs in zip(after, before, strict=True):
            skeleton[mine.offset : mine.offset + 4 * mine.count] = old[theirs.offset : theirs.offset + 4 * theirs.count]
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
            say("the new bundle is no fine-tune of the old one: a binary patch of each file")
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
        """Of every artifact over the test split, in the old bundle where that has it, in the new and the delivered."""
        from benchmarks.evaluate import evaluate

        found: dict[str, dict[str, Accuracy]] = {}
        for artifact in self._after.artifacts:
            for which, bundle in (("old", self._old), ("new", self._new), ("delivered", folder)):
                if not (bundle / artifact.path).exists():
                    continue
                e = evaluate(bundle / artifact.path, task)
                accuracy = Accuracy(e.metric, e.value, e.low, e.high, e.samples)
                found.setdefault(artifact.path, {})[which] = accuracy
                say(f"{artifact.path}: {which} {e.metric} {e.value:.1%} ({e.low:.1%} to {e.high:.1%}, n={e.samples})")
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
            recipe = (*recipe, RecipeStep("task vector", settings, tuple(notes)))
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
        "exporter.delivery.delta:write_delivered_golden",
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
    atol = manifest.settings.get("atol")
    _, parity = prove(
        folder / artifact.path,
        folder / golden,
        compute=artifact.compute,
        atol=None if atol is None else float(atol),
        noise=artifact.noise,
    )
    size, sha256 = digest(folder / artifact.path)
    return replace(artifact, size_bytes=size, sha256=sha256, golden=golden, parity=parity), distance


def write_delivered_golden(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `_proven`: golden inputs with the outputs that an artifact computes for them."""
    inputs = read_golden(Path(job["golden"])).inputs
    session = open_session(Path(job["artifact"]))
    write_golden(Golden(inputs, tuple(session.run(each) for each in inputs)), Path(job["output"]))
    return {}


def _calibration_score(artifact: Path, task: Task) -> float:
    """The task's metric on its calibration split, never on the test split."""
    from benchmarks.evaluate import evaluate

    return evaluate(artifact, replace(task, test=task.calibration)).value


def _check_drop(accuracies: Mapping[str, Mapping[str, Accuracy]], max_drop: float | None) -> None:
    for name, scores in accuracies.items():
        drop = scores["new"].value - scores["delivered"].value
        if max_drop is not None and drop > max_drop:
            raise LimitNotMet(
                f"{name} would lose {drop:.1%}, the limit is {max_drop:.1%}",
                where="--max-drop",
                remedy="give a higher --density, or --exact",
            )


def _packed(
    old: Path,
    new: Path,
    delivered: Path,
    vectors: Mapping[str, tuple[bytes, bytes]],
    base: str,
    before: Manifest,
    manifest: Manifest,
) -> tuple[Header, bytes, tuple[FileCost, ...]]:
    """Every file of the delivered bundle as a part, and what the new bundle's own would cost in other ways."""
    known = {*files_of(old, before), MANIFEST}
    parts, costs, data = [], [], bytearray()

    def placed(piece: bytes) -> tuple[int, int]:
        data.extend(piece)
        return len(data) - len(piece), len(piece)

    for name in names_of(delivered, manifest):
        content = (delivered / name).read_bytes()
        source = name if name in known else GOLDEN if name.startswith("golden") and GOLDEN in known else ""
        dictionary = (old / source).read_bytes() if source else b""
        patch = compressed(content, dictionary)
        part = Part(name, "patch", len(content), _sha256(content), source)
        if content == dictionary:
            part, used = replace(part, kind="same"), 0
        elif name in vectors:
            skeleton, vector = vectors[name]
            frame, packed = placed(compressed(skeleton, dictionary)), placed(compressed(vector, b""))
            part = replace(part, kind="vector", offset=frame[0], length=frame[1])
            part, used = replace(part, vector_offset=packed[0], vector_length=packed[1]), frame[1] + packed[1]
        else:
            offset, used = placed(patch)
            part = replace(part, offset=offset, length=used)
        parts.append(part)
        plain = (new / name).read_bytes() if (new / name).is_file() and name != MANIFEST else content
        diff = patch if plain == content else compressed(plain, dictionary)
        costs.append(FileCost(name, part.kind, len(plain), len(gzip.compress(plain, 9)), len(diff), used))
    header = Header(manifest.name, base, manifest_hash(delivered), update_of(before), update_of(manifest), tuple(parts))
    return header, bytes(data), tuple(costs)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _zstandard():  # type: ignore[no-untyped-def]  # a module
    try:
        import zstandard
    except ImportError as error:
        raise NotInstalled("zstandard is not installed", remedy="pip install 'pocketship[delivery]'") from error
    return zstandard


def compressed(content: bytes, dictionary: bytes) -> bytes:
    """A zstd frame; with a dictionary it is a binary diff against that, as `zstd --patch-from` makes it."""
    zstandard = _zstandard()
    window = min(LARGEST_WINDOW, max(10, (len(content) + len(dictionary)).bit_length() + 1))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=window, enable_ldm=bool(dictionary), source_size=len(content)
    )
    given = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=given).compress(content)


def decompressed(frame: bytes, dictionary: bytes, size: int) -> bytes:
    """The `size` bytes of a frame.

    Raises BadInput where it holds anything else.
    """
    zstandard = _zstandard()
    given = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    try:
        if zstandard.frame_content_size(frame) != size:  # before any of it is unpacked
            raise BadInput("a part of the update has another size", remedy=update_file.AGAIN)
        reader = zstandard.ZstdDecompressor(dict_data=given, max_window_size=1 << LARGEST_WINDOW)
        return reader.decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BadInput(f"a part of the update cannot be unpacked ({error})", remedy=update_file.AGAIN) from error


def _write(content: bytes, output: Path) -> None:
    """In one rename.

    Raises BadInput where it cannot be written.
    """
    part = output.with_name(f".{output.name}.part")
    try:
        part.write_bytes(content)
        part.replace(output)
    except OSError as error:
        raise BadInput(f"cannot be written ({error.strerror})", where=str(output), remedy="give another -o") from error
    finally:
        part.unlink(missing_ok=True)
