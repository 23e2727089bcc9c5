"""Which representation a low-bit weight gets in each format, and why; what is wrong or crashes there is refused.

What they bring on the models of the zoo is printed by `python -m benchmarks.peers compress`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter.low_bit.weight import ACTIVATIONS, KINDS, LARGEST_CODE, LowBit, LowBitWeight
from runtimes.errors import BadInput


@dataclass(frozen=True)
class Representation:
    """How a format stores and computes a kind of layer: `name` for the lowering, `why` for the reader.

    `activations` is how the layer really computes there, which may be simpler than the recipe asked for: "float",
    "dynamic" or "static". `opset` and `min_ios` are the least versions of the format that have it.
    """

    name: str
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
    """How an artifact stores a low-bit weight: by a representation's name, or "float32" with the reason why."""

    name: str
    representation: str
    reason: str = ""


TABLE: dict[tuple[str, str, int, str], Representation | Refusal] = {}
"""(format, layer kind, bits, activations) -> representation or refusal; every combination has a row."""

COREML_PALETTE = "2-bit palette"
COREML = {
    8: Representation("int8 per channel", "codes and a scale per channel, which iOS 16 already knows", min_ios=16),
    4: Representation("int4 per channel", "half of int8's size; iOS 18 is the first with four-bit codes", min_ios=18),
    2: Representation(
        COREML_PALETTE,
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
ONNX = {
    ("linear", "float"): Representation(
        "codes, Cast, Mul", "made float once, at load, so as fast as fp32; MatMulNBits with float activations is slower"
    ),
    ("linear", "dynamic"): Representation(
        "codes, MatMulInteger",
        "int8 kernels; MatMulNBits with int8 activations gains less, but for a single row",
        activations="dynamic",
    ),
    ("linear", "static"): Representation(
        "codes, MatMulIntegerToFloat",
        "int8 kernels; QDQ, which quantizes the output too, is no faster and loses accuracy in transformers",
        activations="static",
    ),
    ("conv", "float"): Representation("codes, Cast, Mul", "made float once, at load, so as fast as fp32"),
    ("conv", "dynamic"): Representation(
        "codes, Cast, Mul", "made float once, at load; ConvInteger is many times slower"
    ),
    ("conv", "static"): Representation(
        "codes, QDQ",
        "int8 kernels where one convolution follows another; between HardSwish and products it is float, since going "
        "to and fro between int8 and float costs more than int8 gains",
        activations="static",
    ),
    ("embedding", "float"): Representation(
        "codes, Gather",
        "only the rows looked up become float; GatherBlockQuantized gains nothing at 8 bits, and less at 4",
    ),
}
"""All of them as onnxruntime 1.32 computes them on x86-64; the same at every width, as codes become int8 at load."""

TABLE.update(
    {
        ("onnx", kind, bits, activations): replace(
            stored := ONNX[kind, "float" if kind == "embedding" else activations],
            name=f"int{bits} {stored.name}",
            opset=opset,
        )
        for kind in KINDS
        for bits, opset in ONNX_OPSETS.items()
        for activations in ACTIVATIONS
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
    ("embedding", 8, "float"): ("int8, EMBEDDING_LOOKUP", "only the rows looked up become float"),
    ("embedding", 4, "float"): ("int4, EMBEDDING_LOOKUP", "only the rows looked up become float; exact in whole bytes"),
    ("embedding", 2, "float"): ("int2, EMBEDDING_LOOKUP", "only the rows looked up become float; exact in whole bytes"),
}
"""All of them as ai-edge-litert 2.3 computes them on x86-64."""

TABLE.update(
    {
        ("tflite", kind, bits, asked): Representation(*TFLITE[kind, bits, used], activations=used)
        for kind in KINDS
        for bits in LARGEST_CODE
        for asked in ACTIVATIONS
        for used in ["float" if kind == "embedding" else asked]
    }
)


WHOLE_TENSOR = ("onnx",)
"""Formats whose dynamic range is that of the whole tensor, which a calibrated one is as near as, and faster."""


def representation(target: str, weight: LowBitWeight) -> Representation:
    """The representation of one weight: in a format of WHOLE_TENSOR, a dynamic one with ranges is static.

    Raises BadInput for a combination that is refused.
    """
    calibrated = target in WHOLE_TENSOR and weight.activations == "dynamic" and weight.inputs is not None
    found = TABLE[target, weight.kind, weight.bits, "static" if calibrated else weight.activations]
    if isinstance(found, Refusal):
        raise BadInput(found.reason, where=target, remedy=found.remedy)
    return found


def check_representations(targets: tuple[str, ...], low_bit: LowBit) -> None:
    """Raise BadInput for the first weight that a target refuses."""
    for target in targets:
        for weight in low_bit.values():
            representation(target, weight)
