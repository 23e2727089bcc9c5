"""Which representation a low-bit weight gets in each format, and why; what is wrong or crashes there is refused.

What they bring on the models of the zoo is printed by `python -m benchmarks.peers compress`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from exporter.low_bit.weight import ACTIVATIONS, HALF_BITS, KINDS, LARGEST_CODE, OTHER_USE, LowBitWeight
from runtimes.errors import BadInput
from runtimes.facts import METADATA


@dataclass(frozen=True)
class Representation:
    """How a format stores and computes a kind of layer: `name` for the manifest, `why` for the reader.

    `bits` is what a code takes in the file. `activations` is how the layer really computes there, which may be simpler
    than the recipe asked for: "float", "dynamic" or "static". `opset` and `min_ios` are the least versions of the
    format that have it.
    """

    name: str
    bits: int
    why: str
    activations: str = "float"
    opset: int = 18
    min_ios: int = 15


@dataclass(frozen=True)
class Refusal:
    """Why a combination is never tried on the user, and what to do instead."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Carried:
    """How an artifact stores a low-bit weight: None where it stays float; `reason` says why it is no better."""

    name: str
    stored: Representation | None
    reason: str = ""


def in_words(carried: Iterable[Carried]) -> dict[str, dict[str, str]]:
    """How each weight is stored, and why one is not, as the manifest and the artifact's own metadata say it."""
    stored: dict[str, str] = {}
    left: dict[str, str] = {}
    for row in carried:
        if row.stored is None:
            left[row.name] = row.reason
        else:
            stored[row.name] = row.stored.name + (f" ({row.reason})" if row.reason else "")
    return {"representations": stored, "left_float": left}


def with_carried(metadata: Mapping[str, str], carried: Iterable[Carried]) -> dict[str, str]:
    """The metadata of an artifact with how it stores its weights; as it is where no recipe changed the model."""
    facts = json.loads(metadata.get(METADATA, "{}"))
    if not facts.get("recipe"):
        return dict(metadata)
    return {**metadata, METADATA: json.dumps({**facts, **in_words(carried)}, sort_keys=True)}


TABLE: dict[tuple[str, str, int, str], Representation] = {}
"""(format, layer kind, bits, activations) -> representation; every combination has a row."""

PER_CHANNEL_REMEDY = "quantize it per channel"
GROUPS: dict[tuple[str, str], Refusal | None] = {
    **{
        ("onnx", kind): Refusal(
            "what is written for ONNX multiplies all codes of a channel by one scale",
            PER_CHANNEL_REMEDY,
        )
        for kind in KINDS
    },
    **{
        ("tflite", kind): Refusal(
            "what is written for TFLite has one scale for all codes of a channel",
            PER_CHANNEL_REMEDY,
        )
        for kind in KINDS
    },
    ("coreml", "linear"): None,
    ("coreml", "embedding"): None,
    **{
        ("coreml", kind): Refusal(
            "Core ML's blocks run along one axis, and a group of a convolution's values runs along several",
            PER_CHANNEL_REMEDY,
        )
        for kind in ("conv", "conv_transpose")
    },
}
"""(format, layer kind) -> why scales for groups of a channel's values are refused there; None where they are stored."""
COREML_GROUPS_IOS = 18
"""The first with scales for blocks."""

COREML = {
    8: Representation("int8 per channel", 8, "codes and a scale per channel, which iOS 16 already knows", min_ios=16),
    4: Representation(
        "int4 per channel", 4, "half of int8's size; iOS 18 is the first with four-bit codes", min_ios=18
    ),
    2: Representation(
        "2-bit palette",
        2,
        "a palette of -1, 0 and 1 and a scale per channel: a ternary weight exactly, in half of int4's size",
        min_ios=18,
    ),
}
"""By bits, for every kind of layer: Core ML decompresses weights for all its operations alike."""
COREML_ACTIVATIONS = "; activations stay float: int8 ones need recent Apple chips, and macOS to calibrate them"

TABLE.update(
    {
        ("coreml", kind, bits, activations): replace(
            stored, why=stored.why + (COREML_ACTIVATIONS if activations != "float" else "")
        )
        for kind in KINDS
        for bits, stored in COREML.items()
        for activations in ACTIVATIONS
    }
)


ONNX_OPSETS = {8: 18, 4: 21, 2: 25}
"""By bits: the first that has INT8, INT4 and INT2."""
ONLY_FLOAT = ("embedding", "conv_transpose")
"""Layers that compute in floating point whatever a recipe asks of their activations."""
ONNX = {
    ("linear", "float"): (
        "codes, Cast, Mul",
        "float",
        "made float once, at load, so as fast as fp32; MatMulNBits with float activations is slower",
    ),
    ("linear", "dynamic"): (
        "codes, MatMulInteger",
        "dynamic",
        "int8 kernels; MatMulNBits with int8 activations gains less, but for a single row",
    ),
    ("linear", "static"): (
        "codes, MatMulIntegerToFloat",
        "static",
        "int8 kernels; QDQ, which quantizes the output too, is no faster and loses accuracy in transformers",
    ),
    ("conv", "float"): ("codes, Cast, Mul", "float", "made float once, at load, so as fast as fp32"),
    ("conv", "dynamic"): ("codes, Cast, Mul", "float", "made float once, at load; ConvInteger is many times slower"),
    ("conv", "static"): (
        "codes, QDQ",
        "static",
        "int8 kernels where one convolution follows another; between HardSwish and products it is float, since going "
        "to and fro between int8 and float costs more than int8 gains",
    ),
    ("conv_transpose", "float"): (
        "codes, Cast, Mul",
        "float",
        "made float once, at load, so as fast as fp32; onnxruntime has no integer kernel of ConvTranspose for a CPU",
    ),
    ("embedding", "float"): (
        "codes, Gather",
        "float",
        "only the rows looked up become float; GatherBlockQuantized gains nothing at 8 bits, and less at 4",
    ),
}
"""(layer kind, activations) -> name, activations as computed, why.

All of them as onnxruntime 1.32 computes them on x86-64; the same at every width, as codes become int8 at load.
"""

TABLE.update(
    {
        ("onnx", kind, bits, asked): Representation(f"int{bits} {name}", bits, why, used, opset)
        for kind in KINDS
        for bits, opset in ONNX_OPSETS.items()
        for asked in ACTIVATIONS
        for name, used, why in [ONNX[kind, "float" if kind in ONLY_FLOAT else asked]]
    }
)

TFLITE = {
    ("linear", 8, "static"): ("int8, static", "int8 kernels, on ranges that are known before"),
    ("linear", 8, "dynamic"): ("int8, dynamic", "int8 kernels, on ranges taken at each run"),
    ("linear", 8, "float"): ("int8, DEQUANTIZE", "made float once, at load, so as fast as fp32"),
    ("linear", 4, "static"): ("int4, static", "kernels read codes, nearly as fast as int8"),
    ("linear", 4, "dynamic"): ("int4, dynamic", "kernels read codes, nearly as fast as int8"),
    ("linear", 4, "float"): ("int4, DEQUANTIZE", "exact, but made float at each run, so slower than fp32"),
    ("linear", 2, "static"): ("int2, static", "kernels read codes, slower than int4: the gain is the size"),
    ("linear", 2, "dynamic"): ("int2, dynamic", "kernels read codes, slower than int4: the gain is the size"),
    ("linear", 2, "float"): ("int2, DEQUANTIZE", "exact, but made float at each run, so slower than fp32"),
    ("conv", 8, "static"): ("int8, static", "int8 kernels; depthwise layers and the stem of a MobileNet stay float"),
    ("conv", 8, "dynamic"): ("int8, dynamic", "int8 kernels; depthwise layers and the stem of a MobileNet stay float"),
    ("conv", 8, "float"): ("int8, DEQUANTIZE", "made float once, at load, so as fast as fp32"),
    ("conv", 4, "static"): (
        "int4, static",
        "half of int8's size, but hardly faster than fp32, and slower in a MobileNet",
    ),
    ("conv", 4, "dynamic"): ("int4, dynamic", "half of int8's size, but hardly faster than fp32"),
    ("conv", 4, "float"): ("int4, DEQUANTIZE", "exact, but made float at each run, so slower than fp32"),
    ("conv", 2, "static"): ("int4, static", "exact in int4: CONV_2D with INT2 weights is refused by LiteRT"),
    ("conv", 2, "dynamic"): ("int4, dynamic", "exact in int4: CONV_2D with INT2 weights gives NaN"),
    ("conv", 2, "float"): ("int2, DEQUANTIZE", "exact, but made float at each run, so slower than fp32"),
    ("conv_transpose", 8, "static"): ("int8, static", "int8 kernels, on ranges that are known before"),
    ("conv_transpose", 8, "float"): ("int8, DEQUANTIZE", "made float once, at load, so as fast as fp32"),
    ("conv_transpose", 4, "float"): ("int4, DEQUANTIZE", "exact, but made float at each run, so slower than fp32"),
    ("conv_transpose", 2, "float"): ("int2, DEQUANTIZE", "exact, but made float at each run, so slower than fp32"),
    ("embedding", 8, "float"): ("int8, EMBEDDING_LOOKUP", "only the rows looked up become float"),
    ("embedding", 4, "float"): ("int4, EMBEDDING_LOOKUP", "only the rows looked up become float; exact in whole bytes"),
    ("embedding", 2, "float"): ("int2, EMBEDDING_LOOKUP", "only the rows looked up become float; exact in whole bytes"),
}
"""All of them as ai-edge-litert 2.3 computes them on x86-64."""

TABLE.update(
    {
        ("tflite", kind, bits, asked): Representation(name, int(name[3]), why, activations=used)
        for kind in KINDS
        for bits in LARGEST_CODE
        for asked in ACTIVATIONS
        for used in [asked if (kind, bits, asked) in TFLITE else "float"]
        for name, why in [TFLITE[kind, bits, used]]
    }
)


FLOAT16 = {
    "onnx": (
        "float16, Cast",
        "made float32 once, at load, so as fast as fp32; onnxruntime computes no faster in float16",
    ),
    "tflite": ("float16, DEQUANTIZE", "made float32 once, at load, so as fast as fp32"),
    "coreml": ("float16", "computed with as --coreml-precision says"),
}
"""Format -> name, why."""

TABLE.update(
    {
        (target, kind, HALF_BITS, "float"): Representation(name, HALF_BITS, why, min_ios=16)
        for target, (name, why) in FLOAT16.items()
        for kind in (*KINDS, OTHER_USE)
    }
)

WHOLE_TENSOR = ("onnx",)
"""Formats whose dynamic range is that of the whole tensor, which a calibrated one is as near as, and faster."""


def representation(target: str, weight: LowBitWeight) -> Representation:
    """The representation of one weight: in a format of WHOLE_TENSOR, a dynamic one with ranges is static.

    Raises BadInput for groups that the format cannot store.
    """
    calibrated = target in WHOLE_TENSOR and weight.activations == "dynamic" and weight.inputs is not None
    stored = TABLE[target, weight.kind, weight.bits, "static" if calibrated else weight.activations]
    if weight.granularity.group is None:
        return stored
    refusal = GROUPS[target, weight.kind]
    if refusal:
        raise BadInput(refusal.reason, where=target, remedy=refusal.remedy)
    name = f"{stored.name.removesuffix(' per channel')} in groups of {weight.granularity.group}"
    return replace(stored, name=name, min_ios=max(stored.min_ios, COREML_GROUPS_IOS))
