"""What a template is told of a bundle: names that are safe in code, tensors, golden values and where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle.versions import tool_versions
from exporter.embed import names
from exporter.embed.escape import Safe
from exporter.lowering.target import TARGETS
from runtimes.bundle import read_manifest
from runtimes.compare import limits_of
from runtimes.errors import BadInput
from runtimes.files import read_regular
from runtimes.golden import read_golden
from runtimes.processing.preprocessor import (
    PREPROCESSOR,
    Audio,
    Entry,
    Preprocessor,
    Result,
    Text,
    check_signature,
    read_preprocessor,
)
from runtimes.signature import TensorSpec
from runtimes.types import Artifact, Manifest
from runtimes.verify import check_bundle

if TYPE_CHECKING:
    import numpy as np

    from runtimes.processing.tokenizers.wordpiece import WordPiece

DTYPES = ("float32", "int32", "int64")
"""What generated code can hand over; int64 becomes int32 where the artifact takes that."""
GOLDEN_ALIGNMENT = 8
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Tensor:
    """An input or output: `name` as the model has it, `field` an identifier, `count` its number of elements."""

    name: str
    field: Safe
    dtype: str
    shape: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class GoldenTensor:
    """A golden value: `count` elements at byte `offset` of golden.bin."""

    name: str
    field: Safe
    dtype: str
    shape: tuple[int, ...]
    count: int
    offset: int


@dataclass(frozen=True)
class Sample:
    """Golden inputs and the outputs that belong to them."""

    inputs: tuple[GoldenTensor, ...]
    outputs: tuple[GoldenTensor, ...]


@dataclass(frozen=True)
class EmbeddedArtifact:
    """An artifact in the library; `tolerances` by output name is the largest absolute error that the self-test passes.

    `allowed` says it for each element of each output: a column or channel may be off by less than the whole.
    `max_abs_error` and `computed_by` are the manifest's: what this artifact's parity was when it was exported.
    """

    format: str
    file: str
    source: Path
    size_bytes: int
    sha256: str
    precision: str
    max_abs_error: float
    computed_by: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    samples: tuple[Sample, ...]
    tolerances: Mapping[str, float]
    allowed: tuple[GoldenTensor, ...]


@dataclass(frozen=True)
class TextOptions:
    """How the text is tokenized, as read from tokenizer.json; `special` are texts of one token, with their ids."""

    lowercase: bool
    strip_accents: bool
    clean_text: bool
    handle_chinese_chars: bool
    prefix: str
    max_chars: int
    unk: int
    cls: int
    sep: int
    pad: int
    special: tuple[tuple[str, int], ...]
    max_tokens: int


@dataclass(frozen=True)
class Library:
    """All that the templates of a platform are told, and the data files to lie beside the code.

    `entries` and `results` are the preprocessor's in its order, but named as in the code.
    """

    name: Safe
    cls: Safe
    package: Safe
    title: str
    version: str
    manifest: Manifest
    method: Safe
    artifacts: tuple[EmbeddedArtifact, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    entries: tuple[Entry, ...]
    results: tuple[Result, ...]
    text: TextOptions | None
    kinds: frozenset[str]
    files: Mapping[str, bytes]


def describe(bundle: Path, formats: tuple[str, ...], name: str | None = None, package: str | None = None) -> Library:
    """The library of a bundle for a platform that can run `formats`.

    `name` replaces the bundle's; `package` is a dotted name. Raises BadInput where the bundle has none of the formats,
    dynamic axes, element types other than `DTYPES` or a preprocessor that is not this model's, and ParityFailed where a
    file has changed or an artifact was never proven.
    """
    manifest = read_manifest(bundle)
    chosen = [artifact for artifact in manifest.artifacts if artifact.format in formats]
    if not chosen:
        has = ", ".join(artifact.format for artifact in manifest.artifacts)
        raise BadInput(
            f"the bundle has {has}; the library needs {' or '.join(formats)}",
            where=str(bundle),
            remedy=f"export it with --target {','.join(formats)}",
        )
    check_bundle(bundle, manifest, chosen)
    preprocessor = _preprocessor(bundle, manifest)
    tokenizer = _tokenizer(bundle, manifest, preprocessor)
    files: dict[str, bytes] = {}
    if tokenizer:
        files["vocab.txt"] = _vocabulary(tokenizer, bundle)
        files["unicode.txt"] = _unicode_tables()
    for entry in preprocessor.inputs:
        if isinstance(entry, Audio):
            from runtimes.processing.audio import tables

            files["audio.bin"] = tables(entry)
    golden_file = _GoldenFile()
    allowed = [_allowed(bundle, manifest, artifact, golden_file) for artifact in chosen]
    artifacts = tuple(_embedded(bundle, *each, golden_file) for each in zip(chosen, allowed, strict=True))
    files["golden.bin"] = bytes(golden_file.content)
    own = names.library(name or manifest.name)
    outputs = _tensors(manifest.signature.outputs, bundle)
    entries, results = _named(preprocessor, outputs)
    return Library(
        name=own,
        cls=names.class_of(own),
        package=_checked_package(package or f"pocketship.{own}"),
        title=manifest.name,
        version=tool_versions()["pocketship"],
        manifest=manifest,
        method=_method(entries, results, outputs),
        artifacts=artifacts,
        inputs=_tensors(manifest.signature.inputs, bundle),
        outputs=outputs,
        entries=entries,
        results=results,
        text=_text_options(tokenizer) if tokenizer else None,
        kinds=frozenset(entry.kind for entry in (*entries, *results)),
        files=files,
    )


def _method(entries: Sequence[Entry], results: Sequence[Result], outputs: Sequence[Tensor]) -> Safe:
    """What an app calls: with nothing said of its inputs, what takes and gives tensors."""
    if not entries:
        return Safe("run")
    return Safe("embed" if [r.kind for r in results] == ["embedding"] and len(outputs) == 1 else "predict")


def _checked_package(package: str) -> Safe:
    words = package.split(".")
    plain = all(re.fullmatch(r"[a-z][a-z0-9_]*", word, re.ASCII) and word not in names.PACKAGE_WORDS for word in words)
    if not plain or len(words) < 2 or len(package) > 2 * names.LONGEST:
        raise BadInput(f"{package!a:.60} is no package name", where="--package", remedy="write it as com.example.model")
    return Safe(package)


def _preprocessor(bundle: Path, manifest: Manifest) -> Preprocessor:
    """The bundle's own, or an empty one."""
    if PREPROCESSOR not in {file.path for file in manifest.files}:
        return Preprocessor(())
    preprocessor = read_preprocessor(bundle / PREPROCESSOR)
    check_signature(preprocessor, manifest.signature, str(bundle / PREPROCESSOR))
    return preprocessor


def _named(preprocessor: Preprocessor, outputs: tuple[Tensor, ...]) -> tuple[tuple[Entry, ...], tuple[Result, ...]]:
    """Entries and results, in their order, with names that the code may have."""
    decoded = {result.output for result in preprocessor.outputs}
    taken = (*names.RESULT_WORDS, *(tensor.field for tensor in outputs if tensor.name not in decoded))
    entries = names.unique((entry.name for entry in preprocessor.inputs), names.ENTRY_WORDS, names.SUFFIXES)
    results = names.unique((result.name for result in preprocessor.outputs), taken, names.SUFFIXES)
    return (
        tuple(replace(entry, name=name) for entry, name in zip(preprocessor.inputs, entries, strict=True)),
        tuple(replace(result, name=name) for result, name in zip(preprocessor.outputs, results, strict=True)),
    )


def _tokenizer(bundle: Path, manifest: Manifest, preprocessor: Preprocessor) -> WordPiece | None:
    texts = [entry for entry in preprocessor.inputs if isinstance(entry, Text)]
    if not texts:
        return None
    if len(texts) > 1:
        raise BadInput("two texts in one model", where=str(bundle / PREPROCESSOR), remedy="see docs/preprocessor.md")
    from runtimes.processing.tokenizers.wordpiece import WordPiece

    path = bundle / TOKENIZER
    if TOKENIZER not in {file.path for file in manifest.files}:
        raise BadInput("the tokenizer is missing", where=str(path), remedy="export the bundle again")
    return WordPiece.from_tokenizer_json(read_document(path), texts[0].max_tokens)


def read_document(path: Path) -> bytes:
    """A file of a bundle that is text; raises BadInput for one that is larger than any of ours."""
    try:
        return read_regular(path)
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise BadInput(what, where=str(path), remedy="export the bundle again") from error


def _vocabulary(tokenizer: WordPiece, bundle: Path) -> bytes:
    """A token a line, so none may hold what ends one."""
    if any("\n" in token for token in tokenizer.vocabulary):
        what, where = "a token of the vocabulary has a line break", str(bundle / TOKENIZER)
        raise BadInput(what, where=where, remedy="take it out of the vocabulary")
    return "".join(f"{token}\n" for token in tokenizer.vocabulary).encode()


def _unicode_tables() -> bytes:
    from runtimes.processing.tokenizers import wordpiece

    return (Path(wordpiece.__file__).parent / "unicode.txt").read_bytes()


def _text_options(tokenizer: WordPiece) -> TextOptions:
    return TextOptions(**vars(tokenizer.options), max_tokens=tokenizer.max_tokens)


def _tensors(specs: Iterable[TensorSpec], bundle: Path) -> tuple[Tensor, ...]:
    specs = list(specs)
    fields = names.unique((spec.name for spec in specs), names.TENSOR_WORDS)
    return tuple(_tensor(spec, field, bundle) for spec, field in zip(specs, fields, strict=True))


def _tensor(spec: TensorSpec, field: Safe, bundle: Path) -> Tensor:
    shape = tuple(length for length in spec.shape if isinstance(length, int))
    if len(shape) != len(spec.shape):
        raise BadInput(
            f"{spec.name!r} has a dynamic axis, and a library needs fixed shapes",
            where=str(bundle),
            remedy="export it again without --dynamic",
        )
    if spec.dtype not in DTYPES:
        raise BadInput(
            f"{spec.name!r} is {spec.dtype}, and generated code takes {', '.join(DTYPES)}",
            where=str(bundle),
            remedy="convert it inside the model's forward()",
        )
    count = 1
    for length in shape:
        count *= length
    return Tensor(spec.name, field, spec.dtype, shape, count)


def _embedded(bundle: Path, artifact: Artifact, allowed: _Allowed, file: _GoldenFile) -> EmbeddedArtifact:
    golden = read_golden(bundle / artifact.golden)
    proof = artifact.parity
    by = proof.executed_by
    inputs, outputs = (_tensors(specs, bundle) for specs in (artifact.signature.inputs, artifact.signature.outputs))
    samples = tuple(
        Sample(
            file.add(inputs, values, artifact.golden, f"{i}/input"),
            file.add(outputs, wanted, artifact.golden, f"{i}/output"),
        )
        for i, (values, wanted) in enumerate(zip(golden.inputs, golden.outputs, strict=True))
    )
    return EmbeddedArtifact(
        format=artifact.format,
        file=TARGETS[artifact.format].file_name,
        source=bundle / artifact.path,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        precision=artifact.precision,
        max_abs_error=proof.max_abs_error,
        computed_by=f"{by.runtime} {by.version} ({by.kind})",
        inputs=inputs,
        outputs=outputs,
        samples=samples,
        tolerances=allowed.whole,
        allowed=allowed.elements,
    )


@dataclass(frozen=True)
class _Allowed:
    """By output the largest error of all, and of each element, as runtimes.compare.compare_output has them."""

    whole: Mapping[str, float]
    elements: tuple[GoldenTensor, ...]


def _allowed(bundle: Path, manifest: Manifest, artifact: Artifact, file: _GoldenFile) -> _Allowed:
    import numpy as np

    golden, limits, whole = read_golden(bundle / artifact.golden), limits_of(manifest, artifact), {}
    outputs = _tensors(artifact.signature.outputs, bundle)
    elements = {}
    for tensor in outputs:
        values = [np.asarray(sample[tensor.name]) for sample in golden.outputs]
        largest = max(float(np.max(np.abs(v.astype(np.float64)), initial=0.0)) for v in values)
        whole[tensor.name] = limits.tolerance(tensor.name, largest) if values[0].dtype.kind == "f" else 0.0
        allowed = np.full(values[0].shape, whole[tensor.name])
        for axis in limits.axes(tensor.name, values, golden.noise.get(artifact.format)):
            lengths = [-1 if each == axis.axis else 1 for each in range(allowed.ndim)]
            allowed = np.minimum(allowed, axis.tolerance.reshape(lengths))
        narrow = allowed.astype(np.float32)
        elements[tensor.name] = np.where(narrow < allowed, np.nextafter(narrow, np.float32(np.inf)), narrow)
    return _Allowed(whole, file.add(outputs, elements, artifact.format, "allowed"))


class _GoldenFile:
    """golden.bin: arrays one after the other, little-endian, each at a multiple of 8 bytes, none twice."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._places: dict[tuple[str, str], int] = {}

    def add(
        self, tensors: tuple[Tensor, ...], values: Mapping[str, np.ndarray], golden: str, role: str
    ) -> tuple[GoldenTensor, ...]:
        return tuple(self._add(tensor, values[tensor.name], golden, f"{role}/{tensor.name}") for tensor in tensors)

    def _add(self, tensor: Tensor, value: np.ndarray, golden: str, key: str) -> GoldenTensor:
        place = self._places.get((golden, key))
        if place is None:
            self.content += bytes(-len(self.content) % GOLDEN_ALIGNMENT)
            place = self._places[golden, key] = len(self.content)
            self.content += value.astype(value.dtype.newbyteorder("<")).tobytes()
        shape = tuple(value.shape)
        return GoldenTensor(tensor.name, tensor.field, value.dtype.name, shape, value.size, place)
