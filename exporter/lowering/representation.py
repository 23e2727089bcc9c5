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
"""By bits: where INT8, INT4 and INT2 are; the constants become int8 when the file is loaded."""
ONNX = {
    ("linear", "float"): Representation(
        "codes, Cast, Mul",
        "folded to a float weight at load, and as fast as one; MatMulNBits is 0.04x to 0.96x",
    ),
    ("linear", "dynamic"): Representation(
        "codes, MatMulInteger",
        "int8 kernels, 2.1x to 3.5x; MatMulNBits, which quantizes activations too, is 1.0x to 3.0x",
        activations="dynamic",
    ),
    ("linear", "static"): Representation(
        "codes, MatMulIntegerToFloat",
        "int8 kernels, 2.0x to 3.6x, with a float output; QDQ with a quantized output is slower and less accurate",
        activations="static",
    ),
    ("conv", "float"): Representation("codes, Cast, Mul", "folded to a float weight at load, and as fast as one"),
    ("conv", "dynamic"): Representation("codes, Cast, Mul", "ConvInteger is 0.1x, so convolutions stay float"),
    ("conv", "static"): Representation("codes, QDQ", "int8 kernels", activations="static"),
    ("embedding", "float"): Representation("codes, Gather", "only the rows looked up become float"),
}

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
    ("linear", 8, "static"): ("int8, static", "int8 kernels: 3.5x on a BERT of 128 tokens, 3.3x on an MLP-Mixer"),
    ("linear", 8, "dynamic"): ("int8, dynamic", "int8 kernels: 3.5x on a BERT of 128 tokens, 3.2x on an MLP-Mixer"),
    ("linear", 8, "float"): ("int8, DEQUANTIZE", "folded to a float weight at load: as fast as one, 1.0x"),
    ("linear", 4, "static"): ("int4, static", "kernels read codes: 3.2x on a BERT, 3.1x on an MLP-Mixer"),
    ("linear", 4, "dynamic"): ("int4, dynamic", "kernels read codes: 3.3x on a BERT, 3.1x on an MLP-Mixer"),
    ("linear", 4, "float"): ("int4, DEQUANTIZE", "small and exact, but made float at each run: 0.35x to 0.4x"),
    ("linear", 2, "static"): ("int2, static", "kernels read codes: 1.6x on a BERT, 1.7x on an MLP-Mixer"),
    ("linear", 2, "dynamic"): ("int2, dynamic", "kernels read codes: 1.4x on a BERT, 1.7x on an MLP-Mixer"),
    ("linear", 2, "float"): ("int2, DEQUANTIZE", "small and exact, but made float at each run: 0.35x"),
    ("conv", 8, "static"): ("int8, static", "int8 kernels: CNNs"),
    ("conv", 8, "dynamic"): ("int8, dynamic", "int8 kernels: CNNs"),
    ("conv", 8, "float"): ("int8, DEQUANTIZE", "folded to a float weight at load: as fast as one, 1.0x"),
    ("conv", 4, "static"): ("int4, static", "half of int8's size"),
    ("conv", 4, "dynamic"): ("int4, dynamic", "half of int8's size"),
    ("conv", 4, "float"): ("int4, DEQUANTIZE", "small and exact, but made float at each run: 0.35x"),
    ("conv", 2, "static"): ("int4, static", "INT2"),
    ("conv", 2, "dynamic"): ("int4, dynamic", "INT2"),
    ("conv", 2, "float"): ("int2, DEQUANTIZE", "x"),
    ("embedding", 8, "float"): ("int8, EMBEDDING_LOOKUP", "only the rows looked up become float"),
    ("embedding", 4, "float"): ("int4, EMBEDDING_LOOKUP", "only the rows looked up become float"),
    ("embedding", 2, "float"): ("int2, EMBEDDING_LOOKUP", "only the rows looked up become float"),
}

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
