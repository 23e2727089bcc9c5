"""What a user may choose of each target; read before anything starts, so nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtimes.errors import BadInput
from runtimes.types import COMPUTE_TYPES

if TYPE_CHECKING:
    from exporter.lowering.representation import Representation

OPSETS = range(18, 24)
"""The ONNX opsets that torch 2.13 writes: its operator library starts at 18, its highest is 23."""
DEFAULT_OPSET = 20
"""Where neither the user nor the recipe asks for more."""

IOS_VERSIONS = range(15, 19)
"""The iOS versions that coremltools 9 names for ML Programs."""
DEFAULT_MIN_IOS = 16
"""Where neither the user nor the recipe asks for more."""


@dataclass(frozen=True)
class OnnxSettings:
    """`opset` is None where the user leaves it to us."""

    opset: int | None = None

    @property
    def version(self) -> int:
        """The opset of the file."""
        return self.opset or DEFAULT_OPSET

    @property
    def compute(self) -> str:
        """The precision that a float model is computed in."""
        return "float32"

    @property
    def facts(self) -> dict[str, int]:
        """What the manifest says of it."""
        return {"opset": self.version}

    def faults(self) -> list[str]:
        """What is out of its range."""
        return _out_of_range("--opset", self.opset, OPSETS)

    def raised_to(self, needed: int) -> OnnxSettings:
        """As chosen, by default as low as `needed` allows; raises BadInput where less was chosen."""
        return OnnxSettings(_at_least("opset", self.opset, needed, DEFAULT_OPSET))

    @staticmethod
    def version_of(representation: Representation) -> int:
        """The opset that a low-bit representation needs."""
        return representation.opset


@dataclass(frozen=True)
class TfliteSettings:
    """Nothing to choose: a file of any version runs wherever its operations are known."""

    @property
    def compute(self) -> str:
        """The precision that a float model is computed in."""
        return "float32"

    @property
    def facts(self) -> dict[str, int]:
        """What the manifest says of it."""
        return {}

    def faults(self) -> list[str]:
        """What is out of its range."""
        return []

    def raised_to(self, needed: int) -> TfliteSettings:
        """The same: there are no versions."""
        return self

    @staticmethod
    def version_of(representation: Representation) -> int:
        """No version is needed."""
        return 0


@dataclass(frozen=True)
class CoreMlSettings:
    """`min_ios` is None where the user leaves it to us; `coreml_precision` is that of weights and activations."""

    min_ios: int | None = None
    coreml_precision: str = "float32"

    @property
    def version(self) -> int:
        """The least iOS version that takes the package."""
        return self.min_ios or DEFAULT_MIN_IOS

    @property
    def compute(self) -> str:
        """The precision that a float model is computed in."""
        return self.coreml_precision

    @property
    def facts(self) -> dict[str, int]:
        """What the manifest says of it; it has the precision of each artifact elsewhere."""
        return {"min_ios": self.version}

    def faults(self) -> list[str]:
        """What is out of its range."""
        precision = self.coreml_precision
        known = precision in COMPUTE_TYPES
        return _out_of_range("--min-ios", self.min_ios, IOS_VERSIONS) + (
            [] if known else [f"--coreml-precision {precision} is none of {', '.join(COMPUTE_TYPES)}"]
        )

    def raised_to(self, needed: int) -> CoreMlSettings:
        """As chosen, by default as low as `needed` allows; raises BadInput where less was chosen."""
        return CoreMlSettings(_at_least("min_ios", self.min_ios, needed, DEFAULT_MIN_IOS), self.coreml_precision)

    @staticmethod
    def version_of(representation: Representation) -> int:
        """The iOS version that a low-bit representation needs."""
        return representation.min_ios


Settings = OnnxSettings | TfliteSettings | CoreMlSettings


def _out_of_range(option: str, value: int | None, allowed: range) -> list[str]:
    return [] if value is None or value in allowed else [f"{option} {value} is none of {allowed[0]} to {allowed[-1]}"]


def _at_least(name: str, chosen: int | None, needed: int, default: int) -> int:
    """A version as it was chosen, by default as low as what is needed allows."""
    if chosen is not None and chosen < needed:
        option = f"--{name.replace('_', '-')}"
        raise BadInput(
            f"the recipe's weights need {name.replace('_', ' ')} {needed}, not {chosen}",
            where=option,
            remedy=f"leave {option} out, or choose another precision",
        )
    return max(chosen or default, needed)
