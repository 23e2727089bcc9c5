"""Labels and preprocessing of a user's own model, in words: by options, or as the third thing of a factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.sources.preprocessing import NotDescribed, fitted, of_tokenizer
from runtimes.errors import BadInput
from runtimes.files import read_regular
from runtimes.processing.preprocessor import Classes, Image, Preprocessor
from runtimes.signature import Signature, TensorSpec

IMAGE_FORM = "write it as size=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
IMAGE_WORDS = ("size", "mean", "std", "divisor", "resize", "shortest_edge", "interpolation", "channels")
PIXELS = 255.0
"""What pixels are divided by where nothing is said."""


@dataclass(frozen=True)
class Described:
    """What a user says of a model: the names of its classes, how a picture becomes its input, its tokenizer.json.

    `image` has the words of IMAGE_WORDS; a size that is left out is that of the model's input.
    """

    labels: tuple[str, ...] = ()
    image: Mapping[str, Any] | None = None
    tokenizer: bytes = b""

    def over(self, other: Described) -> Described:
        """These words, and the other's where these say nothing."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in ((), None, b"")}
        return replace(other, **said)


NOTHING = Described()


def described(
    labels: str | Path | Sequence[str] | None = None,
    image: str | Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> Described:
    """Labels as a file of one a line or as a list, an image as words or by name, the path of a tokenizer.json.

    Raises BadInput for a file that cannot be read, and for unknown words.
    """
    return Described(
        () if labels is None else _labels(labels),
        None if image is None else _image_words(image),
        b"" if tokenizer is None else _read(tokenizer, "--tokenizer") or b"{}",  # an empty file is a wrong one
    )


def of_factory(value: Any, where: str) -> Described:
    """What a factory returned beside module and inputs: a dict with labels, image and tokenizer, or some of them.

    Raises BadInput for anything else.
    """
    known = [f.name for f in fields(Described)]
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        said = f"keys {', '.join(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
        raise BadInput(
            f"the third thing that the factory returned has {said:.200}",
            where=where,
            remedy=f"return a dict with some of {', '.join(known)}",
        )
    return described(**value)


def preprocessor_of(
    said: Described, own: Preprocessor | None, signature: Signature, outputs: Mapping[str, np.ndarray]
) -> Preprocessor:
    """The preprocessor that the words mean for a model of this signature, over the source's `own`.

    `outputs` are computed ones: scores that lie between 0 and 1 are handed out as they are, others by softmax.

    Raises BadInput where they do not fit the model.
    """
    inputs = own.inputs if own else ()
    if said.image is not None:
        inputs = (_image(said.image, signature),)
    if said.tokenizer:
        try:
            inputs = of_tokenizer(said.tokenizer, [spec.name for spec in signature.inputs], ()).inputs
        except NotDescribed as error:
            raise BadInput(f"there are no words for {error}", where="--tokenizer", remedy="leave it out") from error
    if not inputs:
        remedy = "add --image, --tokenizer or --preprocessor, which say so"
        raise BadInput("nothing says how the model's input is made", where="--labels", remedy=remedy)
    results = (_classes(said.labels, signature, outputs),) if said.labels else own.outputs if own else ()
    try:
        return fitted(Preprocessor(inputs, results), signature)
    except BadInput as error:
        where = "--labels, --image or --tokenizer"
        raise BadInput(error.what, where=where, remedy="say it in a file, with --preprocessor") from error


def _labels(labels: str | Path | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(labels, (str, Path)):
        if not labels or not all(isinstance(label, str) for label in labels):
            raise BadInput("the labels are no list of texts", where="labels", remedy="give the name of each class")
        return tuple(labels)
    try:
        lines = _read(labels, "--labels").decode().splitlines()
    except UnicodeDecodeError as error:
        raise BadInput("the file is not in UTF-8", where=str(labels), remedy="write it in UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise BadInput("the file is empty", where=str(labels), remedy="write one label a line, in the model's order")
    return tuple(line.strip() for line in lines)


def _read(path: str | Path, option: str) -> bytes:
    try:
        return read_regular(Path(path))
    except OSError as error:
        raise BadInput(
            f"cannot read it ({error.strerror or error})", where=f"{option} {path}", remedy="check the path"
        ) from error


def _image_words(image: str | Mapping[str, Any]) -> dict[str, Any]:
    """The words of `size=224,mean=0.5,std=0.5`, or of a dict, as Image has them."""
    if isinstance(image, str):
        pairs = [word.partition("=") for word in image.split(",")]
        if not all(name and equals and value for name, equals, value in pairs):
            raise BadInput(f"cannot read {image!r:.100}", where="--image", remedy=IMAGE_FORM)
        image = {name.strip(): value.strip() for name, _, value in pairs}
    unknown = [name for name in image if name not in IMAGE_WORDS]
    if unknown:
        raise BadInput(f"unknown word {unknown[0]!r:.60}", where="--image", remedy=f"it takes {', '.join(IMAGE_WORDS)}")
    return {key: value for name, given in image.items() for key, value in _image_word(name, given).items()}


def _image_word(name: str, given: Any) -> dict[str, Any]:
    try:
        if name == "size":
            sides = str(given).split("x") if isinstance(given, str) else np.ravel(given).tolist()
            width, height = (int(side) for side in (sides * 2 if len(sides) == 1 else sides))
            return {"width": width, "height": height}
        if name in ("mean", "std"):
            values = given.split(":") if isinstance(given, str) else np.ravel(given).tolist()
            return {name: tuple(_finite(value) for value in values)}
        if name == "divisor":
            return {name: _finite(given)}
        return {name: int(given) if name == "shortest_edge" else str(given)}
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot read {name} {given!r:.60}", where="--image", remedy=IMAGE_FORM) from error


def _finite(value: Any) -> float:
    """A number; raises ValueError for NaN and infinity, which no file of ours holds."""
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{number} is no number")
    return number


def _image(words: Mapping[str, Any], signature: Signature) -> Image:
    """The entry for the model's only picture; layout, size and planes are the input's where nothing else is said."""
    found = [(spec, layout) for spec in signature.inputs if (layout := _layout(spec))]
    if len(found) != 1:
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in signature.inputs)
        raise BadInput(
            f"{'several inputs are' if found else 'no input is'} a picture ({shapes})",
            where="--image",
            remedy="say it in a file, with --preprocessor",
        )
    [(spec, layout)] = found
    planes, height, width = spec.shape[1:] if layout == "nchw" else (spec.shape[3], *spec.shape[1:3])
    sizes = {"width": width, "height": height}
    for side, size in sizes.items():
        if side not in words and not isinstance(size, int):
            raise BadInput(f"the model takes any {side}", where="--image", remedy="add size=WIDTHxHEIGHT")
    gray = {"channels": "gray"} if planes == 1 else {}
    return Image(**{"input": spec.name, "layout": layout, "divisor": PIXELS, **gray, **sizes, **words})


def _layout(spec: TensorSpec) -> str:
    """Whether an input is a picture, with its planes before or after height and width; "" where it is none."""
    if len(spec.shape) != 4 or not spec.dtype.startswith("float"):
        return ""
    return "nchw" if spec.shape[1] in (1, 3) else "nhwc" if spec.shape[3] in (1, 3) else ""


def _classes(labels: tuple[str, ...], signature: Signature, outputs: Mapping[str, np.ndarray]) -> Classes:
    fitting = [spec.name for spec in signature.outputs if list(spec.shape[1:]) == [len(labels)]]
    if not fitting:
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in signature.outputs)
        raise BadInput(
            f"no output has {len(labels)} values for the labels ({shapes})",
            where="--labels",
            remedy="give one label for each of them",
        )
    scores = outputs[fitting[0]]
    shares = bool(np.all((scores >= 0.0) & (scores <= 1.0)))
    return Classes(output=fitting[0], labels=labels, activation="none" if shares else "softmax")
