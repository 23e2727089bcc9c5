"""The share of a Core ML package's weights that is stored low-bit, on programs whose values can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.inspection.coreml_kernels import kernels
from runtimes.errors import BadInput

CODES = np.arange(-20, 20, dtype=np.int8).reshape(4, 10)
SCALE = np.full((4, 1), 0.5, np.float32)
FLOATS = np.linspace(-1, 1, 40, dtype=np.float32).reshape(4, 10)


def plain(mb, types):
    return mb.const(val=FLOATS)


def scaled(mb, types):
    return mb.constexpr_blockwise_shift_scale(data=CODES, scale=SCALE)


def palettized(mb, types):
    palette = np.array([0, 1, 0, -1], np.float32).reshape(1, 1, 4, 1)
    indices = (CODES & 3).astype(types.np_uint2_dtype)
    return mb.constexpr_blockwise_shift_scale(data=mb.constexpr_lut_to_dense(indices=indices, lut=palette), scale=SCALE)


def sparse(mb, types):
    mask = (FLOATS > 0).astype(types.np_uint1_dtype)
    return mb.constexpr_sparse_to_dense(nonzero_data=FLOATS[FLOATS > 0], mask=mask)


def sparse_codes(mb, types):
    mask, nonzero = (CODES != 0).astype(types.np_uint1_dtype), CODES[CODES != 0]
    parts = mb.constexpr_sparse_blockwise_shift_scale(data_mask=mask, nonzero_data=nonzero, scale=SCALE)
    return mb.constexpr_sparse_to_dense(nonzero_data=parts[1], mask=parts[0])


@pytest.fixture
def package(tmp_path):
    """A linear layer [4, 10] with a bias of 4 values after a floating-point one of 10 by 10, as a package."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    def make(weight):
        @mb.program(input_specs=[mb.TensorSpec((1, 10))], opset_version=ct.target.iOS18)
        def program(x):
            y = mb.matmul(x=x, y=np.eye(10, dtype=np.float32))
            return mb.linear(x=y, weight=weight(mb, types), bias=np.ones(4, np.float32))

        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        model.save(str(tmp_path / "m.mlpackage"))
        return tmp_path / "m.mlpackage"

    return make


@pytest.mark.parametrize(
    ("weight", "low_bit"), [(plain, 0), (scaled, 40), (palettized, 40), (sparse, 0), (sparse_codes, 40)]
)
def test_each_weight_counts_once_however_many_operations_make_it(weight, low_bit, package):
    found = kernels(package(weight))
    assert found.dequantized_share == low_bit / (40 + 4 + 100) == 1.0 - found.float_share
    assert found.low_bit_share == 0.0 and found.time_share is None
    assert found.note.startswith("off-device: Core ML decompresses low-bit weights to floating point")


def test_a_package_that_is_none(tmp_path):
    with pytest.raises(BadInput, match="not a readable Core ML package"):
        kernels(tmp_path / "m.mlpackage")
