"""Which representation a low-bit weight gets in each format, and why; what is wrong or crashes there is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter.low_bit import ACTIVATIONS, KINDS, LARGEST_CODE, LowBit, LowBitWeight
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
        "codes, Cast, Mul",
        "made float once, at load: 1.0x; MatMulNBits with float activations has 0.5x to 0.95x, 0.04x to 0.9x at one",
    ),
    ("linear", "dynamic"): Representation(
        "codes, MatMulInteger",
        "int8 kernels: 3.2x to 3.5x, 2.1x to 2.5x at one row; MatMulNBits with int8 activations has 1.05x to 1.8x and "
        "2.2x to 2.8x",
        activations="dynamic",
    ),
    ("linear", "static"): Representation(
        "codes, MatMulIntegerToFloat",
        "int8 kernels: 3.3x to 3.6x, 2.0x to 2.5x at one row; QDQ, which quantizes the output too, has 2.9x to 3.4x "
        "and takes minilm's cosine from .995 to .957",
        activations="static",
    ),
    ("conv", "float"): Representation("codes, Cast, Mul", "made float once, at load: 1.0x"),
    ("conv", "dynamic"): Representation("codes, Cast, Mul", "made float once, at load; ConvInteger has 0.1x"),
    ("conv", "static"): Representation(
        "codes, QDQ",
        "int8 kernels where one convolution follows another: a ResNet has 1.8x, a MobileNetV2 2.0x; between HardSwish "
        "and products it is float, since a MobileNetV3 of int8 ones has 0.75x",
        activations="static",
    ),
    ("embedding", "float"): Representation(
        "codes, Gather",
        "only the rows looked up become float: 0.5x, 19 us for 128 rows of 384 values, where GatherBlockQuantized "
        "takes 17 us at 8 bits and 44 us at 4 and 2",
    ),
}
"""Speed against fp32 at 128 rows (or images of 224 x 224), one thread, onnxruntime 1.32, AVX-512 VNNI; the same at
every width, as codes become int8 at load."""

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
    ("linear", 8, "static"): ("int8, static", "int8 kernels: 3.5x on a BERT, 3.3x on an MLP-Mixer"),
    ("linear", 8, "dynamic"): ("int8, dynamic", "int8 kernels: 3.6x on a BERT, 3.2x on an MLP-Mixer"),
    ("linear", 8, "float"): ("int8, DEQUANTIZE", "made float once, at load: 1.0x"),
    ("linear", 4, "static"): ("int4, static", "kernels read codes: 3.2x on a BERT, 3.1x on an MLP-Mixer"),
    ("linear", 4, "dynamic"): ("int4, dynamic", "kernels read codes: 3.3x on a BERT, 3.1x on an MLP-Mixer"),
    ("linear", 4, "float"): ("int4, DEQUANTIZE", "exact, but made float at each run: 0.35x to 0.4x"),
    ("linear", 2, "static"): ("int2, static", "kernels read codes: 1.6x on a BERT, 1.7x on an MLP-Mixer"),
    ("linear", 2, "dynamic"): ("int2, dynamic", "kernels read codes: 1.4x on a BERT, 1.7x on an MLP-Mixer"),
    ("linear", 2, "float"): ("int2, DEQUANTIZE", "exact, but made float at each run: 0.35x"),
    ("conv", 8, "static"): (
        "int8, static",
        "what a CNN should have: 3.5x on a ResNet, 1.65x on a MobileNetV3, whose depthwise layers and stem stay float",
    ),
    ("conv", 8, "dynamic"): (
        "int8, dynamic",
        "3.4x on a ResNet, 1.4x on a MobileNetV3, whose depthwise layers and stem stay float",
    ),
    ("conv", 8, "float"): ("int8, DEQUANTIZE", "made float once, at load: 0.9x to 1.05x"),
    ("conv", 4, "static"): ("int4, static", "half of int8's size: 1.1x on a ResNet, but 0.55x on a MobileNetV3"),
    ("conv", 4, "dynamic"): ("int4, dynamic", "half of int8's size: 1.0x on a ResNet"),
    ("conv", 4, "float"): ("int4, DEQUANTIZE", "exact, but made float at each run: 0.3x"),
    ("conv", 2, "static"): (
        "int4, static",
        "exact in int4: CONV_2D with INT2 weights is refused by LiteRT; 1.1x, 0.55x",
    ),
    ("conv", 2, "dynamic"): ("int4, dynamic", "exact in int4: CONV_2D with INT2 weights gives NaN"),
    ("conv", 2, "float"): ("int2, DEQUANTIZE", "exact, but made float at each run: 0.3x"),
    ("embedding", 8, "float"): ("int8, EMBEDDING_LOOKUP", "only the rows looked up become float"),
    ("embedding", 4, "float"): ("int4, EMBEDDING_LOOKUP", "only the rows looked up become float; exact in whole bytes"),
    ("embedding", 2, "float"): ("int2, EMBEDDING_LOOKUP", "only the rows looked up become float; exact in whole bytes"),
}
"""Speed against fp32 with ai-edge-litert 2.3, one thread, x86-64 with AVX-512 VNNI, random weights: a BERT of 4 layers,
384 wide, at 128 tokens; a ResNet-10; a MobileNetV3-Small. Medians of runs in turns; for the BERT, the fastest runs."""

TABLE.update(
    {
        ("tflite", kind, bits, asked): Representation(*TFLITE[kind, bits, used], activations=used)
        for kind in KINDS
        for bits in LARGEST_CODE
        for asked in ACTIVATIONS
        for used in ["float" if kind == "embedding" else asked]
    }
)


def representation(target: str, weight: LowBitWeight) -> Representation:
    """The representation of one weight.

    Raises BadInput for a combination that is refused.
    """
    found = TABLE[target, weight.kind, weight.bits, weight.activations]
    if isinstance(found, Refusal):
        raise BadInput(found.reason, where=target, remedy=found.remedy)
    return found


def check_representations(targets: tuple[str, ...], low_bit: LowBit) -> None:
    """Raise BadInput for the first weight that a target refuses."""
    for target in targets:
        for weight in low_bit.values():
            representation(target, weight)
