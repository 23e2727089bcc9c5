"""Make an update: what an app needs to turn the bundle it has into a new one. `pocketship delta`."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.delivery import update_file
from exporter.delivery.files import check_whole, files_of, manifest_hash, names_of, update_of
from exporter.delivery.fine_tune import FineTune, Say
from exporter.delivery.patch import compressed, zstandard_library
from exporter.delivery.task_vector import MOST_DENSITY
from exporter.delivery.update_file import Header, Part
from runtimes.bundle import GOLDEN, MANIFEST, read_manifest
from runtimes.errors import BadInput, LimitNotMet
from runtimes.scratch import scratch_folder
from runtimes.types import Accuracy, Manifest
from runtimes.writing import write_file

if TYPE_CHECKING:
    from benchmarks.tasks.task import Task


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
    sequence: int | None = None,
    encrypt: Path | None = None,
    force: bool = False,
    say: Say = lambda line: None,
) -> Delta:
    """Write the update that turns the bundle `old` into `new`.

    Where their artifacts have the same structure and differ in floating-point weights alone, it is a task vector with a
    share `density` of each tensor's elements, and what is delivered approximates `new`; with `exact`, and everywhere
    else, it is a binary patch. `task` tunes the vector on its calibration split and scores it on its test split;
    `max_drop` refuses a larger loss there (a share of 1). The key `sign` signs the update and the bundle that it makes,
    whose `sequence` (see `sign_bundle`) is by default the time, and higher than the old one's; `encrypt` encrypts the
    update.

    Raises BadInput for bundles that are none or equal, for keys that are none, and where no `apply` would take the
    update; ParityFailed for a damaged bundle, LimitNotMet, and NotInstalled without a library that is needed.
    """
    from exporter.delivery.sealing import seal
    from exporter.delivery.signature import following, sign_bundle

    zstandard_library()
    if not 0.0 < density <= MOST_DENSITY:
        raise BadInput(f"a density of {density:g} is none", where="--density", remedy="give 0.1% to 50%")
    if max_drop is not None and task is None:
        raise BadInput("a limit needs a task", where="--max-drop", remedy="add --data")
    if output.exists() and not force:
        raise BadInput("the update exists", where=str(output), remedy="add --force to replace it")
    if not output.absolute().parent.is_dir():  # refused before all the work, too
        raise BadInput("there is no such folder", where=str(output.parent), remedy="give another -o")
    seal(io.BytesIO(), 0, kind="update", sign=sign, encrypt=encrypt)  # a useless key is refused before all the work
    number = following(old, sign, sequence)
    before, after = _intact(old), _intact(new)
    base = manifest_hash(old)
    if base == manifest_hash(new):
        raise BadInput("both bundles are the same", where=str(new), remedy="give the old one, then the new one")
    with scratch_folder() as scratch:
        plan = FineTune(old, new, before, after, density, exact, scratch)
        alpha = plan.tuned(task, say)
        delivered = scratch / "delivered"
        manifest, distances, accuracies = plan.deliver(delivered, alpha, task, say)
        _check_drop(accuracies, max_drop)
        if sign:
            sign_bundle(delivered, sign, number)
        header, data, files = _packed(old, new, delivered, plan.vectors(alpha), base, before, manifest)
    content = update_file.write(header, data)
    base_bytes = sum((old / name).stat().st_size for name in (MANIFEST, *files_of(old, before)))
    update_file.check_growth(header, base_bytes, len(content), where=str(new))
    written: Iterable[bytes] = [content]
    if sign or encrypt:
        written = seal(io.BytesIO(content), len(content), kind="update", sign=sign, encrypt=encrypt)
    size = write_file(output, written)
    kept = None if alpha is None else density
    return Delta(output, size, alpha is None, kept, alpha, files, accuracies, distances, header)


def _intact(bundle: Path) -> Manifest:
    manifest = read_manifest(bundle)
    check_whole(bundle, manifest)
    return manifest


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
