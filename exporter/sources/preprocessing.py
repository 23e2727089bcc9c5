"""How a source's inputs are made, as preprocessor.json has it, out of timm's and Hugging Face's configurations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runtimes.errors import BadInput
from runtimes.processing.preprocessor import (
    PREPROCESSOR,
    Classes,
    Image,
    Preprocessor,
    Text,
    check_signature,
    parse_preprocessor,
    to_bytes,
)
from runtimes.signature import Signature

PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of its resampling filters, as Hugging Face's configurations have them."""
IMAGENET_CLASSES = 1000


class NotDescribed(Exception):
    """A source prepares its inputs in a way that preprocessor.json has no words for; says which."""


def of_timm(config: Mapping[str, Any], trained: bool) -> Preprocessor:
    """timm's evaluation transform: shortest edge, centre crop, normalization; labels where it knows ImageNet's.

    Raises NotDescribed for another one.
    """
    _, height, width = config["input_size"]
    if config.get("crop_mode", "center") != "center" or height != width:
        raise NotDescribed(f"timm's crop mode {config.get('crop_mode')!r} for {height}x{width}")
    if config["interpolation"] not in PILLOW.values():
        raise NotDescribed(f"timm's interpolation {config['interpolation']!r}")
    image = Image(
        input="",
        width=width,
        height=height,
        resize="cover",
        shortest_edge=math.floor(height / config["crop_pct"]),
        interpolation=config["interpolation"],
        divisor=255.0,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    labels = tuple(config.get("label_names") or ())
    if not labels and trained and config.get("num_classes") == IMAGENET_CLASSES:
        from timm.data import ImageNetInfo

        labels = tuple(ImageNetInfo().label_names())
    return Preprocessor((image,), (Classes(output="", labels=labels, activation="softmax"),) if labels else ())


def of_image_processor(config: Mapping[str, Any], labels: Sequence[str]) -> Preprocessor:
    """A Hugging Face image processor's configuration, as its `to_dict` gives it.

    Raises NotDescribed for steps that are not resize, centre crop, rescale and normalize.
    """
    known = {
        "ViTImageProcessor",
        "CLIPImageProcessor",
        "DeiTImageProcessor",
        "MobileNetV2ImageProcessor",
        "BitImageProcessor",
    }
    kind = str(config.get("image_processor_type", "")).removesuffix("Fast")
    if kind not in known:
        raise NotDescribed(f"the image processor {kind or 'without a name'}")
    size, crop = config.get("size") or {}, config.get("crop_size") or {}
    cropped = bool(config.get("do_center_crop"))
    width, height = ((crop if cropped else size).get(side) for side in ("width", "height"))
    interpolation = PILLOW.get(config.get("resample", -1))
    if not config.get("do_resize") or interpolation is None or not width or not height:
        raise NotDescribed(f"how the {kind} resizes")
    shortest = size.get("shortest_edge")
    if cropped and (not shortest or shortest < max(width, height)):
        raise NotDescribed(f"how the {kind} crops")
    normalized = bool(config.get("do_normalize"))
    image = Image(
        input="",
        width=width,
        height=height,
        resize="cover" if cropped else "stretch",
        shortest_edge=int(shortest or 0) if cropped else 0,
        interpolation=interpolation,
        crop_rounding="down",
        divisor=_divisor(config["rescale_factor"]) if config.get("do_rescale") else 1.0,
        mean=tuple(config["image_mean"]) if normalized else (0.0,),
        std=tuple(config["image_std"]) if normalized else (1.0,),
    )
    return Preprocessor((image,), _classes(labels))


def of_tokenizer(tokenizer_json: bytes, names: Sequence[str], labels: Sequence[str]) -> Preprocessor:
    """The text entry of a WordPiece tokenizer for the model's inputs `names`.

    Raises NotDescribed for another tokenizer, and for inputs that no text makes.
    """
    from runtimes.processing.tokenizers.wordpiece import WordPiece

    known = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
    unknown = [name for name in names if name not in known]
    if unknown or "input_ids" not in names:
        raise NotDescribed(f"the input {(unknown or ['input_ids'])[0]}")
    try:
        WordPiece.from_tokenizer_json(tokenizer_json, 128)
    except BadInput as error:
        raise NotDescribed(f"the tokenizer ({error.what})") from error
    fields: dict[str, Any] = {known[name]: name for name in names}
    return Preprocessor((Text(max_tokens=128, **fields),), _classes(labels))


def _classes(labels: Sequence[str]) -> tuple[Classes, ...]:
    distinct = len(labels) > 1 and len(set(labels)) == len(labels)
    return (Classes(output="logits", labels=tuple(labels), activation="softmax"),) if distinct else ()


def _divisor(factor: float) -> float:
    """255 for 1/255: dividing is what rescaling means, and is what torchvision does."""
    nearest = float(round(1 / factor))
    return nearest if math.isclose(nearest * factor, 1.0, rel_tol=1e-6) else 1 / factor


def fitted(preprocessor: Preprocessor, signature: Signature) -> Preprocessor:
    """A source's preprocessor with the names and the number of tokens that the traced model has.

    Raises BadInput where it is not one for this signature all the same.
    """
    last = signature.outputs[0].name
    inputs = named(preprocessor, {spec.name: spec.shape for spec in signature.inputs}).inputs
    result = Preprocessor(inputs, tuple(replace(old, output=old.output or last) for old in preprocessor.outputs))
    result = parse_preprocessor(to_bytes(result))
    check_signature(result, signature)
    return result


def named(preprocessor: Preprocessor, shapes: Mapping[str, Sequence[Any]]) -> Preprocessor:
    """With the names and the number of tokens of inputs of these shapes, by name and in order."""
    first = next(iter(shapes))

    def entry(old: Any) -> Any:
        if isinstance(old, Text):
            tokens = shapes[old.ids][-1] if shapes.get(old.ids) else None
            return replace(old, max_tokens=tokens) if isinstance(tokens, int) else old
        return replace(old, input=old.input or first)

    return replace(preprocessor, inputs=tuple(map(entry, preprocessor.inputs)))


__all__ = ["PREPROCESSOR", "NotDescribed", "fitted", "named", "of_image_processor", "of_timm", "of_tokenizer"]
