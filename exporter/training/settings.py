"""Types of settings with their bounds, for training and for passes: pydantic refuses what lies outside them."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Of every dataclass of settings: what is declared, in the type that is declared, and nothing else."""

Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Patterns = Annotated[tuple[str, ...], Field(strict=False, description="a list of patterns")]
"""As of a shell. Not strict, since a list in YAML is no tuple."""
