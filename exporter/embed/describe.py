"""What a template is told of a bundle: names that are safe in code, tensors, golden values and where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle.versions import tool_versions
from runtimes.bundle import damage, read_manifest
from runtimes.compare import limits_of
from runtimes.errors import BadInput, ParityFailed
from runtimes.golden import Golden, read_golden
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
from runtimes.types import Artifact, BundleFile, Manifest

if TYPE_CHECKING:
    import numpy as np

    from runtimes.processing.tokenizers.wordpiece import WordPiece

DTYPES = ("float32", "int32", "int64")
"""What generated code can hand over; int64 becomes int32 where the artifact takes that."""
GOLDEN_ALIGNMENT = 8
TOKENIZER = "tokenizer.json"
KEYWORDS = frozenset(
    """abstract alignas alignof and any arguments as assert async auto await base become bool boolean break byte case
    catch char class close const continue data debugger def default defer deinit del delete do double elif else
    enum eval except export extends extension extern false fileprivate final finally float for friend from func
    function global goto guard if implements import in init inline inout instanceof int interface internal is
    lambda let long match module mutable namespace native new nil none nonlocal not null operator or override
    package pass private protected protocol public raise register return run self short signed sizeof static
    strictfp struct subscript super switch synchronized template this throw throws transient true try type
    typedef typename typeof undefined union unsigned using val var virtual void volatile when where while with
    xor yield""".split()  # noqa: SIM905
)
"""Words that are no name in some language here; a name that is one of them gets an underscore."""


@dataclass(frozen=True)
class Tensor:
    """An input or output: `name` as the model has it, `field` an identifier, `count` its number of elements."""

    name: str
    field: str
    dtype: str
    shape: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class GoldenTensor:
    """A golden value: `count` elements at byte `offset` of golden.bin."""

    name: str
    field: str
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
    """All that the templates of a platform are told, and the data files to lie beside the code."""

    name: str
    cls: str
    package: str
    title: str
    version: str
    manifest: Manifest
    method: str
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
    _check_intact(bundle, manifest, chosen)
    preprocessor = _preprocessor(bundle, manifest)
    tokenizer = _tokenizer(bundle, preprocessor)
    files: dict[str, bytes] = {}
    if tokenizer:
        files["vocab.txt"] = "".join(f"{token}\n" for token in tokenizer.vocabulary).encode()
        files["unicode.txt"] = _unicode_tables()
    for entry in preprocessor.inputs:
        if isinstance(entry, Audio):
            from runtimes.processing.audio import tables

            files["audio.bin"] = tables(entry)
    golden_file = _GoldenFile()
    artifacts = tuple(_embedded(bundle, manifest, artifact, golden_file) for artifact in chosen)
    files["golden.bin"] = bytes(golden_file.content)
    own = snake(name or manifest.name)
    outputs = _tensors(manifest.signature.outputs, bundle)
    results = preprocessor.outputs
    return Library(
        name=own,
        cls=pascal(own),
        package=_checked_package(package or f"pocketship.{own}"),
        title=manifest.name,
        version=tool_versions()["pocketship"],
        manifest=manifest,
        method="embed" if [r.kind for r in results] == ["embedding"] and len(outputs) == 1 else "predict",
        artifacts=artifacts,
        inputs=_tensors(manifest.signature.inputs, bundle),
        outputs=outputs,
        entries=preprocessor.inputs,
        results=results,
        text=_text_options(tokenizer) if tokenizer else None,
        kinds=frozenset(entry.kind for entry in (*preprocessor.inputs, *results)),
        files=files,
    )


def snake(name: str) -> str:
    """An identifier in snake_case for any name; never empty, a keyword or starting with a digit."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+", name)
    plain = "_".join(words).lower() or "model"
    plain = f"n{plain}" if plain[0].isdigit() else plain
    return f"{plain}_" if plain in KEYWORDS else plain


def camel(name: str) -> str:
    """The same in camelCase."""
    first, *others = snake(name).rstrip("_").split("_")
    joined = first + "".join(word.capitalize() for word in others)
    return f"{joined}_" if joined in KEYWORDS else joined


def pascal(name: str) -> str:
    """The same in PascalCase."""
    return "".join(word.capitalize() for word in snake(name).rstrip("_").split("_"))


def unique(names: Iterable[str]) -> list[str]:
    """An identifier for each name, in order: a number is added where two would be the same in any case style."""
    found: list[str] = []
    for name in names:
        plain, number = snake(name), 2
        while camel(plain) in map(camel, found):
            plain, number = f"{snake(name).rstrip('_')}_{number}", number + 1
        found.append(plain)
    return found


def _checked_package(package: str) -> str:
    words = package.split(".")
    if not all(re.fullmatch(r"[a-z][a-z0-9_]*", word) and word not in KEYWORDS for word in words) or len(words) < 2:
        raise BadInput(f"{package!r:.60} is no package name", where="--package", remedy="write it as com.example.model")
    return package


def _check_intact(bundle: Path, manifest: Manifest, chosen: list[Artifact]) -> None:
    entries: tuple[Artifact | BundleFile, ...] = (*chosen, *manifest.files)
    for entry in entries:
        fault = damage(bundle, entry)
        if fault:
            raise ParityFailed(fault, where=str(bundle), remedy="do not ship it, export it again")
    for artifact in chosen:
        if artifact.parity.verdict != "pass":
            raise ParityFailed(f"{artifact.path} was never proven", where=str(bundle), remedy="export it again")


def _preprocessor(bundle: Path, manifest: Manifest) -> Preprocessor:
    """The bundle's own, or an empty one."""
    if PREPROCESSOR not in {file.path for file in manifest.files}:
        return Preprocessor(())
    preprocessor = read_preprocessor(bundle / PREPROCESSOR)
    check_signature(preprocessor, manifest.signature, str(bundle / PREPROCESSOR))
    return preprocessor


def _tokenizer(bundle: Path, preprocessor: Preprocessor) -> WordPiece | None:
    texts = [entry for entry in preprocessor.inputs if isinstance(entry, Text)]
    if not texts:
        return None
    if len(texts) > 1:
        raise BadInput("two texts in one model", where=str(bundle / PREPROCESSOR), remedy="see docs/preprocessor.md")
    from runtimes.processing.tokenizers.wordpiece import WordPiece

    path = bundle / TOKENIZER
    if not path.is_file():
        raise BadInput("the tokenizer is missing", where=str(path), remedy="export the bundle again")
    return WordPiece.from_tokenizer_json(path.read_bytes(), texts[0].max_tokens)


def _unicode_tables() -> bytes:
    from runtimes.processing.tokenizers import wordpiece

    return (Path(wordpiece.__file__).parent / "unicode.txt").read_bytes()


def _text_options(tokenizer: WordPiece) -> TextOptions:
    return TextOptions(**vars(tokenizer.options), max_tokens=tokenizer.max_tokens)


def _tensors(specs: Iterable[TensorSpec], bundle: Path) -> tuple[Tensor, ...]:
    specs = list(specs)
    return tuple(_tensor(spec, field, bundle) for spec, field in zip(specs, unique(s.name for s in specs), strict=True))


def _tensor(spec: TensorSpec, field: str, bundle: Path) -> Tensor:
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


def _embedded(bundle: Path, manifest: Manifest, artifact: Artifact, file: _GoldenFile) -> EmbeddedArtifact:
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
        file=artifact.path,
        source=bundle / artifact.path,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        precision=artifact.precision,
        max_abs_error=proof.max_abs_error,
        computed_by=f"{by.runtime} {by.version} ({by.kind})",
        inputs=inputs,
        outputs=outputs,
        samples=samples,
        tolerances=_tolerances(manifest, artifact, golden),
    )


def _tolerances(manifest: Manifest, artifact: Artifact, golden: Golden) -> dict[str, float]:
    """By output, as runtimes.compare.compare_output has it."""
    import numpy as np

    limits, tolerances = limits_of(manifest, artifact), {}
    for spec in artifact.signature.outputs:
        values = [np.asarray(outputs[spec.name]) for outputs in golden.outputs]
        largest = max(float(np.max(np.abs(v.astype(np.float64)), initial=0.0)) for v in values)
        tolerances[spec.name] = limits.tolerance(spec.name, largest) if values[0].dtype.kind == "f" else 0.0
    return tolerances


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
        if value.dtype.name not in DTYPES:
            raise BadInput(
                f"the golden values of {tensor.name!r} are {value.dtype}, and generated code takes {', '.join(DTYPES)}",
                where=golden,
                remedy="convert it inside the model's forward()",
            )
        place = self._places.get((golden, key))
        if place is None:
            self.content += bytes(-len(self.content) % GOLDEN_ALIGNMENT)
            place = self._places[golden, key] = len(self.content)
            self.content += value.astype(value.dtype.newbyteorder("<")).tobytes()
        shape = tuple(value.shape)
        return GoldenTensor(tensor.name, tensor.field, value.dtype.name, shape, value.size, place)
