"""`preprocessor.json`: what a model needs before it and after it, as data; docs/preprocessor.md specifies it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple, Union

from runtimes import grammar
from runtimes.errors import BadInput
from runtimes.files import parse_json, read_regular
from runtimes.records import from_json
from runtimes.signature import Signature, TensorSpec

PREPROCESSOR = "preprocessor.json"
PREPROCESSOR_VERSION = 1
MOST_ENTRIES = 1000
"""Of inputs, and of outputs: no model has more, and each is compared with the others."""
REMEDY = "see docs/preprocessor.md"


@dataclass(frozen=True)
class Text:
    """A text becomes token ids, and a mask and types where the model takes them, each `[1, max_tokens]`."""

    max_tokens: int
    ids: str
    mask: Optional[str] = None
    types: Optional[str] = None
    tokenizer: str = "tokenizer.json"
    name: str = "text"
    kind: str = "text"


@dataclass(frozen=True)
class Image:
    """Pixels become `[1, C, height, width]` or `[1, height, width, C]`: grey, resize, crop, then numbers."""

    input: str
    width: int
    height: int
    channels: str = "rgb"
    layout: str = "nchw"
    resize: str = "stretch"
    shortest_edge: int = 0
    interpolation: str = "bilinear"
    crop_rounding: str = "even"
    fill: Tuple[int, ...] = (0, 0, 0)
    divisor: float = 1.0
    mean: Tuple[float, ...] = (0.0,)
    std: Tuple[float, ...] = (1.0,)
    name: str = "image"
    kind: str = "image"

    @property
    def planes(self) -> int:
        """The number of channels that the model sees."""
        return 1 if self.channels == "gray" else 3


@dataclass(frozen=True)
class Audio:
    """A mono sound becomes its log-mel spectrogram, `[1, mels, T]` or `[1, T, mels]`."""

    input: str
    sample_rate: int
    samples: int
    frame: int
    hop: int
    fft: int
    mels: int
    low_hz: float
    high_hz: float
    window: str = "hann"
    centered: bool = True
    padding: str = "reflect"
    power: float = 2.0
    mel_scale: str = "htk"
    mel_norm: str = "none"
    log: str = "log"
    floor: float = 1e-10
    drop_last: bool = False
    range: Optional[float] = None
    mean: float = 0.0
    std: float = 1.0
    layout: str = "mel_time"
    name: str = "sound"
    kind: str = "audio"

    @property
    def frames(self) -> int:
        """The number of frames, T."""
        length = self.samples + (self.frame // 2 * 2 if self.centered else 0)
        return 1 + (length - self.frame) // self.hop - (1 if self.drop_last else 0)


@dataclass(frozen=True)
class Series:
    """`channels x n` numbers become `[1, channels, steps]`: cut or padded, and scaled."""

    input: str
    channels: int
    steps: int
    keep: str = "last"
    pad: float = 0.0
    scaling: str = "none"
    mean: Tuple[float, ...] = ()
    std: Tuple[float, ...] = ()
    low: Tuple[float, ...] = ()
    high: Tuple[float, ...] = ()
    epsilon: float = 1e-5
    name: str = "series"
    kind: str = "series"


@dataclass(frozen=True)
class Classes:
    """An output `[1, labels]` becomes scores with labels."""

    output: str
    labels: Tuple[str, ...]
    activation: str = "none"
    threshold: float = 0.0
    name: str = "classes"
    kind: str = "classes"


@dataclass(frozen=True)
class Embedding:
    """An output becomes one vector; `mask` is the model's input that says which tokens count."""

    output: str
    pooling: str = "none"
    mask: Optional[str] = None
    normalize: bool = False
    name: str = "embedding"
    kind: str = "embedding"


@dataclass(frozen=True)
class Values:
    """An output is handed out flat."""

    output: str
    name: str = "values"
    kind: str = "values"


Entry = Union[Text, Image, Audio, Series]
Result = Union[Classes, Embedding, Values]
ENTRIES: Dict[str, Any] = {"text": Text, "image": Image, "audio": Audio, "series": Series}
RESULTS: Dict[str, Any] = {"classes": Classes, "embedding": Embedding, "values": Values}

CHOICES: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "image": {
        "channels": ("rgb", "bgr", "gray", "gray3"),
        "layout": ("nchw", "nhwc"),
        "resize": ("stretch", "cover", "fit"),
        "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
        "crop_rounding": ("even", "down"),
    },
    "audio": {
        "window": ("hann", "hamming", "ones"),
        "padding": ("reflect", "zero"),
        "mel_scale": ("htk", "slaney"),
        "mel_norm": ("none", "slaney"),
        "log": ("log", "log10", "db"),
        "layout": ("mel_time", "time_mel"),
    },
    "series": {"keep": ("last", "first"), "scaling": ("none", "standard", "instance", "minmax")},
    "classes": {"activation": ("none", "softmax", "sigmoid")},
    "embedding": {"pooling": ("none", "mean", "max", "cls")},
}
"""By kind, the words that a field may hold."""


@dataclass(frozen=True)
class Preprocessor:
    """What `preprocessor.json` holds: each of the model's inputs is made by one entry."""

    inputs: Tuple[Entry, ...]
    outputs: Tuple[Result, ...] = ()
    schema_version: int = PREPROCESSOR_VERSION


def read_preprocessor(path: Path) -> Preprocessor:
    """The preprocessor of a file.

    Raises BadInput where it cannot be read or says anything that docs/preprocessor.md does not.
    """
    try:
        return parse_preprocessor(read_regular(path), str(path))
    except OSError as error:
        raise BadInput(
            f"cannot read the preprocessor ({error.strerror})", where=str(path), remedy="check the path"
        ) from error


def parse_preprocessor(data: bytes, where: str = PREPROCESSOR) -> Preprocessor:
    """The preprocessor in the bytes of a file; raises BadInput as `read_preprocessor`."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise BadInput(f"not JSON ({error})", where=where, remedy=REMEDY) from error
    if not isinstance(value, dict) or value.get("schema_version") != PREPROCESSOR_VERSION:
        version = value.get("schema_version") if isinstance(value, dict) else None
        raise BadInput(
            f"its schema version is {version!r:.60}, this pocketship reads {PREPROCESSOR_VERSION}",
            where=where,
            remedy=REMEDY,
        )
    unknown = sorted(set(value) - {"schema_version", "inputs", "outputs"})
    if unknown:
        raise BadInput(f"unknown field {unknown[0]!r:.60}", where=where, remedy=REMEDY)
    preprocessor = Preprocessor(
        _parsed(value.get("inputs"), ENTRIES, "inputs", where),
        _parsed(value.get("outputs", []), RESULTS, "outputs", where),
    )
    for fault in _faults(preprocessor):
        raise BadInput(fault, where=where, remedy=REMEDY)
    return preprocessor


def to_bytes(preprocessor: Preprocessor) -> bytes:
    """The file's bytes: the same for the same preprocessor."""
    from dataclasses import asdict

    value = {"schema_version": preprocessor.schema_version, **asdict(preprocessor)}
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def check_signature(preprocessor: Preprocessor, signature: Signature, where: str = PREPROCESSOR) -> None:
    """Raise BadInput where the preprocessor is not one for a model of this signature."""
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    made = [made for entry in preprocessor.inputs for made in made_by(entry)]
    for name, shape in made:
        if name not in inputs:
            raise BadInput(f"the model has no input {name!r}", where=where, remedy=f"it has {', '.join(inputs)}")
        if not _fits(inputs[name], shape):
            wanted, has = (list(s) for s in (shape, inputs[name].shape))
            raise BadInput(f"it makes {name!r} of shape {wanted}, the model takes {has}", where=where, remedy=REMEDY)
    names = Counter(name for name, _ in made)
    for name in inputs:
        if names[name] != 1:
            times = "nothing" if name not in names else "more than one entry"
            raise BadInput(f"{times} makes the model's input {name!r}", where=where, remedy=REMEDY)
    for result in preprocessor.outputs:
        if result.output not in outputs:
            raise BadInput(
                f"the model has no output {result.output!r}", where=where, remedy=f"it has {', '.join(outputs)}"
            )
        _check_result(result, outputs[result.output], inputs, where)


def made_by(entry: Entry) -> List[Tuple[str, Tuple[int, ...]]]:
    """The model's inputs that an entry makes, each with its shape."""
    if isinstance(entry, Text):
        return [(name, (1, entry.max_tokens)) for name in (entry.ids, entry.mask, entry.types) if name is not None]
    if isinstance(entry, Image):
        size = (entry.height, entry.width)
        return [(entry.input, (1, entry.planes, *size) if entry.layout == "nchw" else (1, *size, entry.planes))]
    if isinstance(entry, Audio):
        size = (entry.mels, entry.frames) if entry.layout == "mel_time" else (entry.frames, entry.mels)
        return [(entry.input, (1, *size))]
    return [(entry.input, (1, entry.channels, entry.steps))]


def _check_result(result: Result, spec: TensorSpec, inputs: Dict[str, TensorSpec], where: str) -> None:
    shape = list(spec.shape)
    if isinstance(result, Classes) and shape[1:] != [len(result.labels)]:
        raise BadInput(
            f"output {spec.name!r} has shape {shape}, and there are {len(result.labels)} labels",
            where=where,
            remedy=REMEDY,
        )
    if isinstance(result, Embedding) and result.pooling != "none" and len(shape) != 3:
        raise BadInput(f"output {spec.name!r} of shape {shape} has no tokens to pool", where=where, remedy=REMEDY)
    mask = result.mask if isinstance(result, Embedding) else None
    if mask is not None and mask not in inputs:
        raise BadInput(f"the model has no input {mask!r} for a mask", where=where, remedy=REMEDY)
    if mask is not None and len(shape) == 3 and inputs[mask].shape[-1] != shape[1]:
        length = inputs[mask].shape[-1]
        raise BadInput(f"the mask {mask!r} has {length} places for {shape[1]} tokens", where=where, remedy=REMEDY)


def _fits(spec: TensorSpec, shape: Sequence[int]) -> bool:
    """Whether the shape is that of the input: a named axis takes any length, a spectrogram may have one more of 1."""
    wanted = list(spec.shape)
    if len(wanted) == len(shape) + 1 and 1 in wanted[1:2]:
        wanted.pop(1)
    return len(wanted) == len(shape) and all(isinstance(w, str) or w == s for w, s in zip(wanted, shape))


def _parsed(values: Any, kinds: Dict[str, Any], field: str, where: str) -> Any:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise BadInput(f"{field!r} is no list of objects", where=where, remedy=REMEDY)
    if len(values) > MOST_ENTRIES:
        raise BadInput(f"{field!r} has {len(values)} entries", where=where, remedy=f"{MOST_ENTRIES} are the most")
    parsed = []
    for i, value in enumerate(values):
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise BadInput(f"{field}[{i}].kind is {kind!r:.40}, none of {', '.join(kinds)}", where=where, remedy=REMEDY)
        try:
            parsed.append(from_json(kinds[kind], value, f"{field}[{i}]"))
        except BadInput as error:
            raise BadInput(f"{error.where}: {error.what}", where=where, remedy=REMEDY) from error
    return tuple(parsed)


def _faults(preprocessor: Preprocessor) -> List[str]:
    """What is wrong with the values themselves, a line each."""
    if not preprocessor.inputs:
        return ["there is no entry in 'inputs'"]
    faults = list(grammar.faults(preprocessor, ""))
    for entry in (*preprocessor.inputs, *preprocessor.outputs):
        for name, allowed in CHOICES.get(entry.kind, {}).items():
            value = getattr(entry, name)
            if value not in allowed:
                faults.append(f"{entry.kind}: {name} is {value!r:.40}, none of {', '.join(allowed)}")
        faults += [f"{entry.kind}: {fault}" for fault in _FAULTS.get(type(entry), lambda entry: [])(entry)]
    for entries in (preprocessor.inputs, preprocessor.outputs):
        seen: Set[str] = set()
        for entry in entries:
            if entry.name in seen:
                faults.append(f"the name {entry.name!r} occurs twice")
            seen.add(entry.name)
    outputs = Counter(result.output for result in preprocessor.outputs)
    faults += [f"output {name!r} occurs twice" for name in sorted(outputs) if outputs[name] > 1]
    return faults


def _image_faults(image: Image) -> List[str]:
    lengths = (1, image.planes)
    cover = image.resize == "cover"
    return _false(
        (0 < image.width <= 8192 and 0 < image.height <= 8192, "width and height are 1 to 8192"),
        (
            not cover or max(image.width, image.height) <= image.shortest_edge <= 16384,
            "shortest_edge is too small or large",
        ),
        (cover or image.shortest_edge == 0, "shortest_edge is for resize cover"),
        (len(image.fill) == 3 and all(0 <= f <= 255 for f in image.fill), "fill is three numbers of 0 to 255"),
        (len(image.mean) in lengths and len(image.std) in lengths, "mean and std are one for all channels or one each"),
        (image.divisor > 0 and all(s > 0 for s in image.std), "divisor and std are above 0"),
    )


def _audio_faults(audio: Audio) -> List[str]:
    if not _false((audio.hop > 0 and 0 < audio.frame <= audio.fft, "hop, frame and fft")):
        padded = audio.samples + (audio.frame // 2 * 2 if audio.centered else 0)
        enough = audio.samples > (audio.frame // 2 if audio.centered and audio.padding == "reflect" else 0)
        fits = padded >= audio.frame and audio.frames > 0 and enough
    else:
        fits = False
    return _false(
        (audio.hop > 0 and 0 < audio.frame <= audio.fft <= 16384, "0 < hop, 0 < frame <= fft <= 16384"),
        (fits, "samples are too few for a frame"),
        (0 < audio.mels <= 1024 and audio.sample_rate > 0, "mels are 1 to 1024, sample_rate above 0"),
        (0 <= audio.low_hz < audio.high_hz <= audio.sample_rate / 2, "0 <= low_hz < high_hz <= sample_rate / 2"),
        (audio.power in (1.0, 2.0), "power is 1 or 2"),
        (audio.floor > 0 and audio.std > 0, "floor and std are above 0"),
        (audio.range is None or audio.range > 0, "range is above 0"),
    )


def _series_faults(series: Series) -> List[str]:
    per_channel = {"standard": (series.mean, series.std), "minmax": (series.low, series.high)}
    wanted = per_channel.get(series.scaling, ())
    given = [v for v in (series.mean, series.std, series.low, series.high) if v and not any(v is w for w in wanted)]
    return _false(
        (series.channels > 0 and series.steps > 0, "channels and steps are above 0"),
        (all(len(values) == series.channels for values in wanted), f"{series.scaling} needs its two values a channel"),
        (not given, f"scaling {series.scaling} takes no such values"),
        (series.scaling != "standard" or all(s > 0 for s in series.std), "std is above 0"),
        (series.scaling != "minmax" or all(a < b for a, b in zip(series.low, series.high)), "low is below high"),
        (series.epsilon >= 0, "epsilon is not negative"),
    )


def _text_faults(text: Text) -> List[str]:
    names = [name for name in (text.ids, text.mask, text.types) if name is not None]
    return _false(
        (3 <= text.max_tokens <= 65536, "max_tokens is 3 to 65536"),
        (len(set(names)) == len(names), "ids, mask and types are different inputs"),
        (text.tokenizer == "tokenizer.json", "tokenizer is tokenizer.json"),
    )


def _classes_faults(classes: Classes) -> List[str]:
    return _false(
        (bool(classes.labels), "there is no label"),
        (len(set(classes.labels)) == len(classes.labels), "a label occurs twice"),
    )


def _false(*checks: Tuple[bool, str]) -> List[str]:
    return [fault for holds, fault in checks if not holds]


_FAULTS: Dict[Any, Any] = {
    Text: _text_faults,
    Image: _image_faults,
    Audio: _audio_faults,
    Series: _series_faults,
    Classes: _classes_faults,
}
