"""Fixtures: Core ML packages made by coremltools, and what equal means for float32."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A result is a sum of up to a hundred rounded terms, in another order than PyTorch's: 64 epsilons of its largest value.
FLOAT32_TOLERANCE = 64 * float(np.finfo(np.float32).eps)


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Checks an array against another or a tensor: the same shape, finite, within `tolerance` of the largest value."""

    def check(got: np.ndarray, wanted: Any, tolerance: float = FLOAT32_TOLERANCE) -> None:
        wanted = wanted.detach().numpy() if hasattr(wanted, "detach") else np.asarray(wanted)
        assert got.shape == wanted.shape
        if wanted.dtype.kind != "f":
            assert np.array_equal(got, wanted)
            return
        limit = tolerance * max(1.0, float(np.max(np.abs(wanted), initial=0)))
        assert np.isfinite(got).all()
        assert np.max(np.abs(got - wanted), initial=0) <= limit

    return check


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """Converts a MIL or exported program to a package in single precision, and returns its path."""
    import coremltools as ct

    def convert(program: Any, path: Path, target: Any, pipeline: Any = None, **options: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=target,
                skip_model_load=True,
                **{"compute_precision": ct.precision.FLOAT32, "pass_pipeline": pipeline, **options},
            )
            model.save(str(path))
        return path

    return convert
