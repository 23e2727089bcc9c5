"""What a manifest says of an artifact, held against the file, its golden values, and what its runtime found."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from runtimes import child
from runtimes.compare import Limits, limits_of
from runtimes.errors import ParityFailed
from runtimes.facts import Facts
from runtimes.files import parse_json
from runtimes.golden import Golden
from runtimes.records import from_json
from runtimes.signature import Signature, TensorSpec, agree
from runtimes.types import Artifact, Manifest

TIMEOUT_S, MEMORY_BYTES = 120.0, 1 << 30
MOST_METADATA = 1 << 24
SAME = ("schema_version", "name", "origin", "signature", "tool_versions")
"""What is in the file as it is in the manifest."""
OF_THE_ARTIFACT = ("precision", "noise", "representations", "left_float")
"""The same of the manifest's entry for it; files of a recipe that were made before these were written have but the
first."""
UPDATE = "update"
"""The setting that counts a bundle's updates, so that none is applied twice; they change no file's own metadata."""
NARROW = frozenset(("int8", "uint8", "int4", "uint4", "int2", "uint2", "uint1", "uint3", "uint6"))
CHOSEN = "loss"
"""The setting that a pass chooses itself where it is "auto": the manifest says what it chose."""
HERE = ("physical", "emulated")
EXECUTED: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "onnx": {"onnxruntime": HERE},
    "tflite": {"LiteRT": HERE, "tflite-runtime": HERE},
    "coreml": {"Core ML": ("physical",), "pocketship MIL evaluator on numpy": ("off-device",)},
}
"""By format the runtimes that prove, and how each of them may execute."""
SLACK = 1e-6
"""A figure that was derived on another machine may differ in its last digits."""


def facts_of(path: Path) -> Facts:
    """The facts of an artifact, read in a child process with limits.

    Raises ParityFailed for a file that cannot be read.
    """
    outcome = child.call(
        "runtimes.facts:answer_facts",
        {"artifact": str(path)},
        timeout_s=TIMEOUT_S,
        memory_limit_bytes=MEMORY_BYTES,
    )
    if isinstance(outcome, child.Completed):
        return from_json(Facts, outcome.value)
    fault = outcome.error.what if isinstance(outcome, child.Refused) else f"reading it {child.describe(outcome)}"
    raise ParityFailed(fault, where=path.name, remedy="the artifact is refused")


def of_facts(manifest: Manifest, artifact: Artifact, facts: Facts) -> Iterator[str]:
    """Where the file itself says something else than the manifest."""
    listed = {file.path for file in manifest.files}
    for name in facts.external:
        if name not in listed:
            yield f"it reads the file {name!r:.60}, which the manifest does not list"
    if facts.compute is not None and facts.compute != artifact.compute:
        yield f"it computes in {facts.compute}, the manifest says {artifact.compute}"
    narrow = {"float16"} if artifact.precision == "float16" else NARROW
    if artifact.representations and not narrow & set(facts.stored):
        yield "it holds no low-bit weights, the manifest says it does"
    said = _said(facts)
    if said is None:
        yield "it holds no facts of its own to hold the manifest against"
        return
    written = json.loads(json.dumps(asdict(manifest)))
    entry = json.loads(json.dumps(asdict(artifact)))
    for key in SAME:
        if _other(said.get(key), written[key]):
            yield f"its own {_first(said.get(key), written[key], key)} is not the manifest's"
    settings = {key: value for key, value in written["settings"].items() if key != UPDATE}
    if _other(said.get("settings"), settings):
        yield f"its own {_first(said.get('settings'), settings, 'settings')} is not the manifest's"
    recipe = said.get("recipe")
    fault = _recipe_fault(recipe, written["recipe"])
    if fault:
        yield f"its own {fault} is not the manifest's"
    # Of a model that no recipe changed, nothing is noted: it has no low-bit weights, and nothing is rounded.
    unchanged: Dict[str, Any] = {} if recipe else {key: {} for key in OF_THE_ARTIFACT[1:]}
    for key, own in ((key, {**unchanged, **said}.get(key)) for key in OF_THE_ARTIFACT):
        if own is not None and _other(own, entry[key]):
            yield f"its own {_first(own, entry[key], key)} is not the manifest's"


def _recipe_fault(own: Any, steps: Any) -> str:
    """Where a file's recipe, as it was asked for, is not how the manifest's begins, as it was used."""
    if not isinstance(own, list) or len(own) > len(steps):
        return "recipe"
    for i, (asked, step) in enumerate(zip(own, steps)):
        if not isinstance(asked, dict) or asked.get("pass") != step["name"]:
            return f"recipe[{i}]"
        settings = asked.get("settings")
        if not isinstance(settings, dict):
            return f"recipe[{i}].settings"
        used = dict(step["settings"])
        if settings.get(CHOSEN) == "auto" and CHOSEN in used:
            used[CHOSEN] = "auto"
        if _other(settings, used):
            return _first(settings, used, f"recipe[{i}].settings")
    return ""


def _said(facts: Facts) -> Any:
    if facts.metadata is None or len(facts.metadata) > MOST_METADATA:
        return None
    try:
        said = parse_json(facts.metadata.encode())
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _other(own: Any, other: Any) -> bool:
    """Whether two values of JSON differ, true from 1 and 1 from 1.0 as well."""
    return json.dumps(own, sort_keys=True) != json.dumps(other, sort_keys=True)


def _first(own: Any, other: Any, place: str) -> str:
    """Where two values first differ."""
    if isinstance(own, dict) and isinstance(other, dict):
        for key in sorted({*own, *other}):
            if _other(own.get(key), other.get(key)) or (key in own) != (key in other):
                return _first(own.get(key), other.get(key), f"{place}.{key:.60}")
    return place


def of_golden(manifest: Manifest, artifact: Artifact, golden: Golden) -> Iterator[str]:
    """Where golden values are not those of the model's signature, or prove less than the manifest claims."""
    proof = artifact.parity
    if len(golden.inputs) != proof.samples:
        yield f"the manifest says {proof.samples} samples, {artifact.golden} has {len(golden.inputs)}"
    for sample, (inputs, outputs) in enumerate(zip(golden.inputs, golden.outputs)):
        lengths: Dict[str, int] = {}
        for role, values in (("inputs", inputs), ("outputs", outputs)):
            model, own = getattr(manifest.signature, role), getattr(artifact.signature, role)
            if set(values) != {spec.name for spec in model}:
                yield f"sample {sample} of {artifact.golden} has other {role} than the model"
                return
            for spec, narrow in zip(model, own):
                value = values[spec.name]
                known = (spec.dtype,) if role == "inputs" else (spec.dtype, narrow.dtype)
                if value.dtype.name not in known or not _fits(spec, value.shape, lengths):
                    found = f"{value.dtype.name}{list(value.shape)}"
                    yield f"{spec.name!r} of sample {sample} in {artifact.golden} is {found}, not {_words(spec)}"
                    return
    yield from _of_claims(manifest, artifact, golden)


def _fits(spec: TensorSpec, shape: Sequence[int], lengths: Dict[str, int]) -> bool:
    """Whether a shape is that of a tensor, an axis of one name having one length in all of a sample."""
    return len(shape) == len(spec.shape) and all(
        found == (lengths.setdefault(axis, found) if isinstance(axis, str) else axis)
        for axis, found in zip(spec.shape, shape)
    )


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _of_claims(manifest: Manifest, artifact: Artifact, golden: Golden) -> Iterator[str]:
    """Figures of the manifest's parity that no artifact can have which passed on these golden values."""
    proof = artifact.parity
    known = EXECUTED[artifact.format]
    if proof.executed_by.kind not in known.get(proof.executed_by.runtime, ()):
        yield f"no runtime {proof.executed_by.runtime!r:.60} executes {artifact.format} {proof.executed_by.kind}"
    allowed, spread = _bounds(limits_of(manifest, artifact), golden.outputs)
    for name, value, most in (
        ("tolerance", proof.tolerance, allowed),
        ("max_abs_error", proof.max_abs_error, allowed),
        ("nearest_error", proof.nearest_error or 0.0, allowed),
        ("sensitivity", proof.sensitivity, spread),
    ):
        if value > most * (1 + SLACK):
            yield f"its parity.{name} is {value:.3g}, its golden values allow {most:.3g}"


def _bounds(limits: Limits, outputs: Tuple[Mapping[str, np.ndarray], ...]) -> Tuple[float, float]:
    """The largest tolerance of an output, and the most that one changes between samples."""
    allowed, spread = 0.0, 0.0
    for name in outputs[0]:
        largest = max(_largest(sample[name]) for sample in outputs)
        if not math.isfinite(largest):
            return math.inf, math.inf
        exact = outputs[0][name].dtype.kind in "biu"
        allowed = max(allowed, 0.0 if exact else limits.tolerance(name, largest))
        spread = max(spread, 2.0 * largest, 1.0)  # 1: of samples that have no shape in common
    return allowed, spread


def _largest(value: np.ndarray) -> float:
    """The largest absolute value, NaN where there is one, without a copy of what may be large."""
    if not value.size:
        return 0.0
    low, high = float(value.min()), float(value.max())
    return high if math.isnan(high) else max(abs(low), abs(high))


def of_runtime(manifest: Manifest, artifact: Artifact, found: Signature) -> Iterator[str]:
    """Where the runtime finds other inputs and outputs in the file than the manifest says."""
    try:
        agreed = agree(manifest.signature, found, artifact.path)
    except ParityFailed as error:
        yield error.what
        return
    for role in ("inputs", "outputs"):
        for said, really in zip(getattr(artifact.signature, role), getattr(agreed, role)):
            if said != really:
                yield f"its {role[:-1]} {really.name} is {_words(really)}, the manifest says {_words(said)}"
