"""Change a bundle in ten thousand ways, one at a time, and see whether `verify` refuses it: `make mutations`.

A change that is accepted must be harmless: every leaf of the manifest that it touched is one that docs/manifest.md
calls the exporter's word, and every artifact computes on 64 fresh inputs, drawn as the golden ones are, what the
original does, within its tolerance.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np

from runtimes import child, evidence
from runtimes import verify as verification
from runtimes.bundle import digest, read_manifest
from runtimes.compare import Limits, limits_of
from runtimes.errors import ParityFailed, PocketshipError
from runtimes.facts import read_facts
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.parity import prove
from runtimes.paths import walk
from runtimes.session import open_session
from runtimes.types import Manifest

ROOT = Path(__file__).resolve().parents[2]
FRESH = 64
TIMEOUT_S = 300.0
Change = Callable[[random.Random, Path], bool]
"""Changes the copy of a bundle at random; False where it found nothing to change."""


# --- the manifest -----------------------------------------------------------------------------------------------------


def leaves_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values that hold no others; of empty ones as well."""
    if isinstance(value, (dict, list)) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves_of(inner, (*path, key))
    else:
        yield path


def at(document: Any, path: tuple[Any, ...]) -> Any:
    return functools.reduce(lambda value, key: value[key], path, document)


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    at(document, path[:-1])[path[-1]] = value


def edited(folder: Path, edit: Callable[[Any], bool]) -> bool:
    """Change manifest.json; False where nothing is another than before."""
    document = json.loads((folder / "manifest.json").read_text())
    before = json.dumps(document, sort_keys=True)
    if not edit(document) or json.dumps(document, sort_keys=True) == before:
        return False
    (folder / "manifest.json").write_text(json.dumps(document))
    return True


TEXTS = (
    "",
    "x",
    "pass",
    "fail",
    "float16",
    "float32",
    "int8",
    "onnx",
    "coreml",
    "output",
    "physical",
    "random",
    "../x",
)
TEXTS += (
    "/etc/passwd",
    "\x1b[2J",
    '"""',
    "*/",
    "0" * 64,
    "x" * 300,
    "golden.npz",
    "model.onnx",
    "1.0",
    "MIT",
    "module",
)
NUMBERS = (0, 1, -1, 2, 3, 16, 255, 10**6, 2**31, 2**53, 10**30, 0.0, 0.5, -0.5, 1e-9, 1e9, 1e300)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [1], {"a": 1})


def another(value: Any, rng: random.Random) -> Any:
    """A value near to this one, of the same type more often than of another."""
    if isinstance(value, str) and rng.random() < 0.7:
        kind = rng.randrange(4)
        at_ = rng.randrange(len(value) + 1)
        if kind == 0 and value:
            return value[:at_] + rng.choice("0aZ_.-/ ") + value[at_ + 1 :]
        return (value + "x", value[:-1], rng.choice(TEXTS))[rng.randrange(3)]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.7:
        near = (value + 1, value - 1, value * 2, value / 2, -value, value * 1.01, value + 1e-6)
        return rng.choice((*near, *NUMBERS))
    if isinstance(value, bool):
        return not value
    return rng.choice((*TEXTS, *NUMBERS, *OTHERS))


def change_leaf(rng: random.Random, folder: Path) -> bool:
    """One leaf alone gets another value."""

    def edit(document: Any) -> bool:
        path = rng.choice(list(leaves_of(document)))
        put(document, path, another(at(document, path), rng))
        return True

    return edited(folder, edit)


def copy_leaf(rng: random.Random, folder: Path) -> bool:
    """One leaf gets the value of another leaf of the same type."""

    def edit(document: Any) -> bool:
        paths = list(leaves_of(document))
        path = rng.choice(paths)
        alike = [p for p in paths if type(at(document, p)) is type(at(document, path))]
        put(document, path, copy.deepcopy(at(document, rng.choice(alike))))
        return True

    return edited(folder, edit)


def change_structure(rng: random.Random, folder: Path) -> bool:
    """A field is removed, added or renamed; an item removed, doubled, moved or emptied."""

    def edit(document: Any) -> bool:
        holders = [path[:-1] for path in leaves_of(document)]
        holder = at(document, rng.choice(holders))
        if isinstance(holder, dict):
            key = rng.choice(list(holder))
            kind = rng.randrange(3)
            if kind == 0:
                del holder[key]
            elif kind == 1:
                holder[f"{key}x"] = holder[key]
            else:
                holder[f"{key}x"] = holder.pop(key)
            return True
        change_items(rng, holder)
        return True

    return edited(folder, edit)


def change_items(rng: random.Random, items: list[Any]) -> None:
    """One is lost or doubled, or all change places or go."""
    kind = rng.randrange(4)
    if kind == 0:
        items.pop(rng.randrange(len(items)))
    elif kind == 1:
        items.append(copy.deepcopy(rng.choice(items)))
    elif kind == 2:
        items.reverse()
    else:
        items.clear()


def change_list(rng: random.Random, folder: Path) -> bool:
    """A list of the manifest's own (artifacts, files, recipe, inputs, outputs) loses, doubles or swaps its items."""

    def edit(document: Any) -> bool:
        lists = [document["artifacts"], document["files"], document["recipe"], document["ledger"]]
        signatures = [document["signature"], *(artifact["signature"] for artifact in document["artifacts"])]
        lists += [signature[role] for signature in signatures for role in ("inputs", "outputs")]
        change_items(rng, rng.choice([each for each in lists if each]))
        return True

    return edited(folder, edit)


def change_signatures(rng: random.Random, folder: Path) -> bool:
    """A name, type or shape, the same in the model's signature and in every artifact's."""

    def edit(document: Any) -> bool:
        role, key = rng.choice(("inputs", "outputs")), rng.choice(("name", "dtype", "shape"))
        place = rng.randrange(len(document["signature"][role]))
        value = another(copy.deepcopy(document["signature"][role][place][key]), rng)
        if key == "shape":
            value = [rng.choice((1, 2, 4, 8, 16, 0, -16, 10**30, "n")) for _ in range(rng.randrange(4))]
        for holder in (document, *document["artifacts"]):
            if place < len(holder["signature"][role]):
                holder["signature"][role][place][key] = value
        return True

    return edited(folder, edit)


# --- files ------------------------------------------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def content_files(folder: Path) -> list[Path]:
    return [path for path in files_in(folder) if path.name != "manifest.json"]


def sealed(folder: Path) -> bool:
    """Make the sizes and hashes of the manifest those of the files."""
    document = json.loads((folder / "manifest.json").read_text())
    for entry in (*document["artifacts"], *document["files"]):
        entry["size_bytes"], entry["sha256"] = digest(folder / entry["path"])
    for row in document["ledger"]:
        sizes = {a["format"]: a["size_bytes"] for a in document["artifacts"]}
        if row["index"] == len(document["recipe"]):
            row["waterfall"]["graph and metadata"] += sizes[row["format"]] - row["size_bytes"]
            row["size_bytes"] = sizes[row["format"]]
    (folder / "manifest.json").write_text(json.dumps(document))
    return True


def flipped(rng: random.Random, folder: Path, files: list[Path]) -> bool:
    path = rng.choice([file for file in files if file.stat().st_size])
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    before = path.read_bytes()
    path.write_bytes(content)
    return bytes(content) != before


def flip(rng: random.Random, folder: Path) -> bool:
    """Bits of a file, whose hash is no longer the manifest's."""
    return flipped(rng, folder, files_in(folder))


def flip_and_seal(rng: random.Random, folder: Path) -> bool:
    """Bits of a file, and the manifest agrees with its bytes."""
    return flipped(rng, folder, content_files(folder)) and sealed(folder)


def cut_and_seal(rng: random.Random, folder: Path) -> bool:
    """A file ends early, and the manifest agrees with its bytes."""
    path = rng.choice([file for file in content_files(folder) if file.stat().st_size])
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    return sealed(folder)


def change_files(rng: random.Random, folder: Path) -> bool:
    """A file or folder is added, removed, renamed, linked, or replaced by something else."""
    paths = [folder, *(path for path in folder.rglob("*"))]
    path, kind = rng.choice(paths[1:]), rng.randrange(8)
    where = rng.choice([p for p in paths if p.is_dir()])
    name = rng.choice(
        ("more", "LICENSE", "weights.bin", ".hidden", "manifest.json.bak", "a\nb", "\x1b[2J", "GOLDEN.npz")
    )
    if kind == 0:
        (where / name).write_bytes(rng.randbytes(rng.randrange(3)))
    elif kind == 1:
        (where / name).mkdir()
    elif kind == 2:
        (where / name).symlink_to(rng.choice(("/etc/hostname", "manifest.json", "nowhere", "..")))
    elif kind == 3:
        os.mkfifo(where / name)
    elif kind == 4:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif kind == 5:
        path.rename(path.with_name(f"{path.name}x"))
    elif kind == 6:
        outside = folder.parent / "outside"
        path.rename(outside)
        path.symlink_to(outside)
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.mkdir() if rng.random() < 0.5 else os.mkfifo(path)
    return True


def change_package(rng: random.Random, folder: Path) -> bool:
    """The Manifest.json of the Core ML package, and the bundle's manifest agrees with its bytes."""
    path = folder / "model.mlpackage" / "Manifest.json"
    document = json.loads(path.read_text())
    items = document["itemInfoEntries"]
    entry, kind = rng.choice(list(items.values())), rng.randrange(5)
    outside = ("../../../outside/model.mlmodel", "/etc/hostname", "..", ".", "", "com.apple.CoreML", "a\\b", 3, None)
    if kind == 0:
        entry["path"] = rng.choice(outside)
        (folder.parent / "outside").mkdir(exist_ok=True)
        source = folder / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
        shutil.copyfile(source, folder.parent / "outside" / "model.mlmodel")
    elif kind == 1:
        document["rootModelIdentifier"] = rng.choice([*items, "other"])
    elif kind == 2:
        items["more"] = {**entry, "path": rng.choice(outside)}
    elif kind == 3:
        del items[rng.choice(list(items))]
    else:
        place = rng.choice(list(leaves_of(document)))
        put(document, place, another(at(document, place), rng))
    path.write_text(json.dumps(document))
    return sealed(folder)


# --- golden values ----------------------------------------------------------------------------------------------------


def change_golden(rng: random.Random, folder: Path) -> bool:
    """Names, types, shapes, values or samples of golden values, and the manifest agrees with their bytes."""
    path = folder / rng.choice([p.name for p in folder.glob("golden*.npz")])
    golden = read_golden(path)
    inputs, outputs = ([dict(each) for each in side] for side in (golden.inputs, golden.outputs))
    samples = rng.choice((inputs, outputs))
    chosen = rng.randrange(len(samples))
    name = rng.choice(list(samples[chosen]))
    value, kind = samples[chosen][name], rng.randrange(7)
    if kind == 0:
        for sample in samples:
            sample[f"{name}x"] = sample.pop(name)
    elif kind == 1:
        dtype = rng.choice(("float64", "float16", "int32"))
        for sample in samples:
            sample[name] = sample[name].astype(dtype)
    elif kind == 2:
        for sample in samples:
            sample[name] = sample[name][..., :-1]
    elif kind == 3:
        samples[chosen][name] = (value * np.float32(rng.choice((1 + 1e-7, 1.001, 2.0, 0.0, 1e30, np.nan)))).astype(
            value.dtype
        )
    elif kind == 4:
        del inputs[-1], outputs[-1]
    elif kind == 5:
        inputs.append(inputs[0]), outputs.append(outputs[0])
    else:
        samples[:] = [samples[0]] * len(samples)
    write_golden(Golden(tuple(inputs), tuple(outputs)), path)
    return sealed(folder)


# --- artifacts, by the rules of their formats -------------------------------------------------------------------------


def change_onnx(rng: random.Random, folder: Path) -> bool:
    """What an ONNX file says of itself, its inputs and outputs, its weights, or where its data lie; hashes agree."""
    import onnx
    from onnx import numpy_helper

    path = folder / "model.onnx"
    model = onnx.load(path)
    kind = rng.randrange(6)
    if kind == 0:
        change_said(rng, model)
    elif kind == 1:
        value = rng.choice([*model.graph.input, *model.graph.output])
        old, value.name = value.name, f"{value.name}x"
        for node in model.graph.node:
            node.input[:] = [value.name if n == old else n for n in node.input]
            node.output[:] = [value.name if n == old else n for n in node.output]
    elif kind == 2:
        value = rng.choice([*model.graph.input, *model.graph.output])
        value.type.tensor_type.shape.dim[0].dim_value += rng.choice((1, -1, 100))
    elif kind == 3:
        tensor = rng.choice([t for t in model.graph.initializer if t.data_type == 1])
        array = numpy_helper.to_array(tensor).copy()
        array.flat[rng.randrange(array.size)] *= np.float32(rng.choice((1 + 1e-7, 1.0001, 1.01, -1.0, 0.0, 3.0)))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    elif kind == 4:
        tensor = rng.choice(list(model.graph.initializer))
        place = rng.choice(("../weights.bin", "weights.bin", "/etc/hostname", "golden.npz"))
        tensor.external_data.add(key="location", value=place)
        if rng.random() < 0.5:
            tensor.data_location = onnx.TensorProto.EXTERNAL
        if rng.random() < 0.5 and place == "weights.bin":
            (folder / place).write_bytes(tensor.raw_data)
    else:
        del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    return sealed(folder)


def change_said(rng: random.Random, model: Any) -> None:
    (entry,) = [entry for entry in model.metadata_props if entry.key == "pocketship"]
    said = json.loads(entry.value)
    place = rng.choice(list(leaves_of(said)))
    put(said, place, another(at(said, place), rng))
    entry.value = json.dumps(said)


def change_float16(rng: random.Random, folder: Path) -> bool:
    """A manifest that says float16 of everything, and values of a sample that only that tolerance takes."""

    def edit(document: Any) -> bool:
        for artifact in document["artifacts"]:
            artifact["compute"] = "float16"
            if artifact["precision"] == "float32" and rng.random() < 0.5:
                artifact["precision"] = "float16"
        return True

    return edited(folder, edit) and (rng.random() < 0.5 or change_golden(rng, folder))


KINDS: dict[str, tuple[Change, int]] = {
    "a leaf of the manifest": (change_leaf, 40),
    "a leaf copied over another": (copy_leaf, 12),
    "a field or item of the manifest": (change_structure, 8),
    "a list of the manifest": (change_list, 4),
    "all signatures alike": (change_signatures, 5),
    "bits of a file": (flip, 6),
    "bits of a file, hashes agree": (flip_and_seal, 8),
    "a file cut off, hashes agree": (cut_and_seal, 2),
    "files added, removed, linked": (change_files, 6),
    "the package's Manifest.json": (change_package, 3),
    "golden values, hashes agree": (change_golden, 3),
    "an ONNX file, hashes agree": (change_onnx, 2),
    "float16 of float32 files": (change_float16, 1),
}
"""What is changed, how, and how often in a hundred."""


# --- the judge --------------------------------------------------------------------------------------------------------


def words_of_the_exporter(kind: str = "the exporter's word") -> list[re.Pattern[str]]:
    """The leaves that docs/manifest.md says are the exporter's word, or another kind, as patterns of their paths."""
    text = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `([\w.\[\]*]+)` \|[^|]*\| {kind}[^|\n]*\|$", text, re.M)
    assert rows, "docs/manifest.md has no table of what is checked"
    return [re.compile(re.escape(row).replace(r"\[\]", r"\[\d+\]").replace(r"\.\*", r"(\..*|\[.*)?")) for row in rows]


def document_of(manifest: Manifest) -> Any:
    """A manifest as JSON, its files and artifacts by their paths: no order of theirs means anything."""
    document = json.loads(json.dumps(asdict(manifest)))
    for key in ("artifacts", "files"):
        document[key].sort(key=lambda entry: entry["path"])
    return document


def changed_leaves(before: Any, after: Any) -> list[str]:
    """The leaves in which two documents differ."""

    def words(document: Any) -> dict[str, str]:
        return {named(path): json.dumps(at(document, path)) for path in leaves_of(document)}

    a, b = words(before), words(after)
    return sorted(path for path in {*a, *b} if a.get(path) != b.get(path))


def named(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def forked(function: str, job: Any, *, timeout_s: float, memory_limit_bytes: int | None = None, **_: Any) -> Any:
    """As `runtimes.child.call`, in a fork of this process, which has imported what the work needs."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(function, job, memory_limit_bytes, write)
    os.close(write)
    answer, deadline = b"", time.monotonic() + timeout_s
    with open(read, "rb", buffering=0) as stream:
        while True:
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return child.TimedOut(timeout_s)
            part = stream.read(1 << 16)
            if not part:
                break
            answer += part
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return child._outcome(json.loads(answer) if answer else {}, code, "", memory_limit_bytes or 0)


def _work(function: str, job: Any, memory_limit_bytes: int | None, write: int) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        child._limit_memory(memory_limit_bytes)
        module, name = function.split(":")
        try:
            answer = {"value": getattr(importlib.import_module(module), name)(job, lambda event: None)}
        except PocketshipError as error:
            said = {"what": error.what, "where": error.where, "remedy": error.remedy}
            answer = {"refused": {"class": type(error).__name__, **said}}
        except MemoryError:
            answer = {"out_of_memory": True}
        except Exception as error:
            answer = {"exception": f"{type(error).__name__}: {error}"}
        with open(write, "wb") as stream:
            stream.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def fresh_outputs(job: dict[str, Any], emit: Any) -> dict[str, Any]:
    """A child's work: what an artifact computes for fresh inputs."""
    session = open_session(Path(job["artifact"]))
    found = []
    for seed in range(FRESH):
        rng = np.random.default_rng(seed)
        inputs = {}
        for spec in session.signature.inputs:
            shape = [axis if isinstance(axis, int) else 2 for axis in spec.shape]
            inputs[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        found.append({name: value.ravel().tolist() for name, value in session.run(inputs).items()})
    return {"outputs": found}


@dataclass
class Judge:
    """Runs `verify` on changed bundles in this process; what was proven once is remembered by its content.

    `call` is what stands for `runtimes.child.call`.
    """

    bundle: Path
    call: Callable[..., Any] = forked

    def __post_init__(self) -> None:
        self.manifest = read_manifest(self.bundle)
        self._document = document_of(self.manifest)
        self._proofs: dict[Any, Any] = {}
        self._facts: dict[Any, Any] = {}
        self._words = words_of_the_exporter()
        self._fresh = {
            artifact.format: self._outputs(self.bundle / artifact.path) for artifact in self.manifest.artifacts
        }

    def faults(self, folder: Path) -> str:
        """Why `verify` refuses a bundle, empty where it does not; an error that is none of ours is raised."""
        with (
            mock.patch.object(child, "call", self.call),
            mock.patch.object(verification, "prove", self._prove),
            mock.patch.object(evidence, "facts_of", self._facts_of),
        ):
            try:
                checks = verification.verify(folder, read_manifest(folder))
            except PocketshipError as error:
                return str(error)
        return next((check.fault for check in checks if check.fault), "")

    def harm(self, folder: Path) -> str:
        """What is wrong with an accepted bundle, empty where nothing is."""
        manifest = read_manifest(folder)
        for leaf in changed_leaves(self._document, document_of(manifest)):
            if not self._is_word(leaf, manifest):
                return f"{leaf} is not what it was"
        original = {artifact.format: artifact for artifact in self.manifest.artifacts}
        for artifact in manifest.artifacts:
            if digest(folder / artifact.path)[1] == original[artifact.format].sha256:
                continue
            try:
                found = self._outputs(folder / artifact.path)
            except ParityFailed as error:
                return str(error)
            limits = limits_of(self.manifest, original[artifact.format])
            off = self._off(found, self._fresh[artifact.format], limits)
            if off:
                return f"{artifact.path}: {off}"
        return ""

    def _is_word(self, leaf: str, manifest: Manifest) -> bool:
        """Whether docs/manifest.md leaves a leaf to the exporter, or it is of a file, which is judged itself."""
        step = re.match(r"recipe\[(\d+)\]", leaf)
        return (
            any(word.fullmatch(leaf) for word in self._words)
            or re.search(r"\.(sha256|size_bytes)$", leaf) is not None
            or (leaf.startswith("ledger") and not manifest.ledger)
            or (step is not None and int(step[1]) >= len(self.manifest.recipe))  # it says that it changed nothing
        )

    def _off(self, found: Any, wanted: Any, limits: Limits) -> str:
        for name in wanted[0]:
            ours, theirs = (np.array([sample.get(name) for sample in side], float) for side in (wanted, found))
            allowed = limits.tolerance(name, float(np.max(np.abs(ours))))
            if not np.max(np.abs(ours - theirs)) <= allowed:
                return f"on fresh inputs {name} is off by {np.max(np.abs(ours - theirs)):.3g}, allowed is {allowed:.3g}"
        return ""

    def _outputs(self, artifact: Path) -> Any:
        job = {"artifact": str(artifact)}
        outcome = self.call(f"{__name__}:fresh_outputs", job, timeout_s=TIMEOUT_S, memory_limit_bytes=4 << 30)
        if not isinstance(outcome, child.Completed):
            raise ParityFailed(f"cannot run fresh inputs: {child.describe(outcome)}", where=artifact.name)
        return outcome.value["outputs"]

    def _prove(self, artifact: Path, golden: Path, limits: Limits) -> Any:
        key = content_of(artifact), digest(golden)[1], json.dumps(asdict(limits), sort_keys=True)
        return remembered(self._proofs, key, lambda: prove(artifact, golden, limits))

    def _facts_of(self, path: Path) -> Any:
        def read() -> Any:
            try:
                return read_facts(path)  # pure Python: what it raises of its own is a find
            except PocketshipError as error:
                raise ParityFailed(error.what, where=path.name) from error

        return remembered(self._facts, content_of(path), read)


def content_of(artifact: Path) -> tuple[Any, ...]:
    """What an artifact is remembered by: a hash covers no folder that is empty."""
    folders = tuple(walk(artifact)) if artifact.is_dir() else ()
    return artifact.suffix, digest(artifact)[1], folders


def remembered(known: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """The value, or the refusal, of a key."""
    if key not in known:
        try:
            known[key] = make()
        except PocketshipError as error:
            known[key] = error
    if isinstance(known[key], PocketshipError):
        raise known[key]
    return known[key]


def kind_of(number: int) -> str:
    """The kind of a mutation, the same for every run."""
    return random.Random(f"kind {number}").choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]


@dataclass(frozen=True)
class Tried:
    """What became of one change: `refused` says why, `harm` what is wrong with it where it was accepted."""

    kind: str
    number: int
    refused: str
    harm: str


def mutate(judge: Judge, number: int, place: Path) -> Tried:
    """Make change `number` to a copy of the bundle, and judge it."""
    kind = kind_of(number)
    for attempt in range(100):
        folder = place / "case" / "bundle"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(judge.bundle, folder)
        if KINDS[kind][0](random.Random(f"{number} {attempt}"), folder):
            break
    try:
        refused = judge.faults(folder)
        harm = "" if refused else judge.harm(folder)
    except Exception as error:  # an error that is none of ours is a find
        refused, harm = "", f"internal error: {type(error).__name__}: {error}"
    if refused and not refused.isprintable():
        refused, harm = "", f"the refusal holds control characters: {refused!r}"
    return Tried(kind, number, refused, harm)


def table(tried: list[Tried]) -> str:
    """By kind of change how many were tried, refused, accepted and harmless, accepted and wrong."""
    rows = [("change", "tried", "refused", "harmless", "wrong")]
    columns = (
        lambda t: True,
        lambda t: bool(t.refused),
        lambda t: not t.refused and not t.harm,
        lambda t: bool(t.harm),
    )
    for kind in (*KINDS, "all"):
        of_kind = [t for t in tried if kind in (t.kind, "all")]
        rows.append((kind, *(str(sum(map(column, of_kind))) for column in columns)))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join((f"{row[0]:<{widths[0]}}", *(f"{v:>{w}}" for v, w in zip(row[1:], widths[1:], strict=True))))
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first change, to repeat one")
    parser.add_argument("--bundle", type=Path, help="instead of an export of tests/models.py:mlp")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutations-") as name:
        place = Path(name)
        bundle = words.bundle or place / "mlp"
        if not words.bundle:
            source = f"{ROOT}/tests/models.py:mlp"
            command = [
                sys.executable,
                "-P",
                "-m",
                "exporter",
                "export",
                source,
                "--quantize",
                "int8",
                "-o",
                str(bundle),
            ]
            subprocess.run([*command, "--quiet"], check=True, cwd=ROOT)
        judge, tried = Judge(bundle), []
        for number in range(words.first, words.first + words.count):
            tried.append(mutate(judge, number, place))
            if tried[-1].harm:
                print(f"{tried[-1].kind} {number}: {tried[-1].harm}", flush=True)
            if number % 250 == 249:
                print(f"{table(tried)}\nafter {len(tried)} of {words.count}", file=sys.stderr, flush=True)
    print(table(tried))
    return 1 if any(t.harm for t in tried) else 0


if __name__ == "__main__":
    sys.exit(main())
