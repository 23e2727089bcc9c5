"""Compressed weights in the Core ML evaluator, against coremltools' own decompression and whole compressed packages.

`test_mil_evaluator.py` has each of these operations beside values computed by hand.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402
from coremltools.converters.mil.mil.ops.defs.iOS16 import constexpr_ops as ios16  # noqa: E402
from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as ios18  # noqa: E402
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry  # noqa: E402
from coremltools.optimize import coreml as cto  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra.numpy import arrays  # noqa: E402

from runtimes.coreml_runtime import open_session, read_specification  # noqa: E402
from runtimes.errors import UnsupportedOperation  # noqa: E402
from runtimes.mil.operations import OPERATIONS  # noqa: E402

logging.getLogger("coremltools").setLevel(logging.ERROR)

IOS16, IOS18 = ct.target.iOS16, ct.target.iOS18
INT8 = st.integers(-128, 127)
SCALE = st.floats(2**-10, 2**10, width=32)


def test_every_operation_on_constants_that_coremltools_has_is_here() -> None:
    theirs = {op for op in SSAOpRegistry.core_ops if op.startswith("constexpr_")}
    assert len(theirs) == 7 and theirs <= set(OPERATIONS)


# Each operation beside the static method with which coremltools decompresses it


@st.composite
def blocks(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a tensor, and how many blocks each axis is cut into."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    return tuple(n * draw(st.integers(1, 3)) for n in counts), tuple(counts)


@settings(max_examples=40, deadline=None)
@given(st.data(), blocks(), st.booleans())
def test_scales_of_blocks(data: Any, shapes: Any, shifted: bool) -> None:
    shape, counts = shapes
    codes = data.draw(arrays(np.int8, shape, elements=INT8))
    scale = data.draw(arrays(np.float32, counts, elements=SCALE))
    offset = data.draw(arrays(np.int8, counts, elements=INT8)) if shifted else None
    mask = data.draw(arrays(np.int8, shape, elements=st.integers(0, 1)))
    wide = None if offset is None else offset.astype(np.float32)  # theirs subtracts in int8, which wraps around
    wanted = ios18.constexpr_blockwise_shift_scale.decompress(codes, scale, wide)
    assert np.array_equal(OPERATIONS["constexpr_blockwise_shift_scale"](codes, scale, offset), wanted)
    sparse = OPERATIONS["constexpr_sparse_blockwise_shift_scale"](mask, codes[mask != 0], scale, offset)
    assert np.array_equal(sparse[0], mask) and np.array_equal(sparse[1], wanted[mask != 0])


@settings(max_examples=40, deadline=None)
@given(st.data(), blocks(), st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(1, 3))
def test_palettes_of_blocks(data: Any, shapes: Any, bits: int, vector: int) -> None:
    shape, counts = shapes
    axis = data.draw(st.integers(-len(shape), len(shape) - 1)) if vector > 1 else None
    indices = data.draw(arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    palettes = np.random.default_rng(bits).standard_normal((*counts, 2**bits, vector)).astype(np.float32)
    wanted = ios18.constexpr_lut_to_dense.decompress(indices, palettes, axis)
    assert np.array_equal(OPERATIONS["constexpr_lut_to_dense"](indices, palettes, vector_axis=axis), wanted)


@settings(max_examples=40, deadline=None)
@given(st.data(), blocks(), st.integers(1, 2))
def test_palettes_of_the_nonzero(data: Any, shapes: Any, vector: int) -> None:
    shape, counts = shapes
    axis = data.draw(st.integers(0, len(shape) - 1)) if vector > 1 else None
    mask = data.draw(arrays(np.int8, shape, elements=st.integers(0, 1)))
    indices = data.draw(arrays(np.uint8, int(mask.sum()), elements=st.integers(0, 3)))
    palettes = np.random.default_rng(0).standard_normal((*counts, 4, vector)).astype(np.float32)
    wanted = ios18.constexpr_lut_to_sparse.decompress(mask, indices, palettes, axis)
    got = OPERATIONS["constexpr_lut_to_sparse"](mask, indices, palettes, axis)
    assert np.array_equal(got[0], wanted[0]) and np.array_equal(got[1], wanted[1])
    dense = ios18.constexpr_sparse_to_dense.decompress(wanted[1], wanted[0])
    assert np.array_equal(OPERATIONS["constexpr_sparse_to_dense"](got[1], got[0]), dense)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_scales_of_channels(data: Any, shape: list[int], one: bool) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    codes = data.draw(arrays(np.int8, shape, elements=INT8))
    scale = np.float32(0.37) if one else data.draw(arrays(np.float32, shape[axis], elements=SCALE))
    zero = np.int8(-5) if one else data.draw(arrays(np.int8, shape[axis], elements=INT8))
    wanted = ios16.constexpr_affine_dequantize.decompress(codes, zero, scale, axis)
    assert np.array_equal(OPERATIONS["constexpr_affine_dequantize"](codes, zero, scale, axis), wanted)


# Whole packages


@pytest.fixture
def outputs_of(save, tmp_path: Path) -> Any:
    """What a program adds to an input of zero, through the saved package; and the operations there."""

    def compute(build: Any, target: Any) -> tuple[np.ndarray, list[str]]:
        @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=target)
        def program(x: Any) -> Any:
            return mb.add(x=x, y=build(), name="y")

        path = save(program, tmp_path / "m.mlpackage", target, ct.PassPipeline.EMPTY)
        specification, _ = read_specification(path)
        block = next(iter(specification.mlProgram.functions["main"].block_specializations.values()))
        return open_session(path).run({"x": np.zeros(1, np.float32)})["y"], [op.type for op in block.operations]

    return compute


CODES = np.array([[-1, 0, 1, 1, -1], [0, 0, -1, 1, 0]])
SCALES = np.array([[0.3], [1.7]], np.float32)
UINT1, UINT2 = types.np_uint1_dtype, types.np_uint2_dtype


def palette_and_scale() -> Any:
    palette = np.array([0, 1, 0, -1], np.float32).reshape(1, 1, 4, 1)
    dense = mb.constexpr_lut_to_dense(indices=(CODES & 3).astype(UINT2), lut=palette)
    return mb.constexpr_blockwise_shift_scale(data=dense, scale=SCALES)


def integer_palette_and_scale() -> Any:
    palette = np.array([0, 1, 0, -1], np.int8).reshape(1, 1, 4, 1)
    dense = mb.constexpr_lut_to_dense(indices=(CODES & 3).astype(UINT2), lut=palette)
    return mb.constexpr_blockwise_shift_scale(data=dense, scale=SCALES)


def scaled_palettes() -> Any:
    lut = np.array([-1, 0, 1, 0], np.int8).reshape(1, 1, 4, 1).repeat(2, 0)
    palettes = mb.constexpr_blockwise_shift_scale(data=lut, scale=SCALES[:, :, None, None])
    return mb.constexpr_lut_to_dense(indices=(CODES + 1).astype(UINT2), lut=palettes)


def sparse_signs() -> Any:
    mask, signs = (CODES != 0).astype(UINT1), (CODES[CODES != 0] > 0).astype(UINT1)
    palettes = np.stack([-SCALES, SCALES], 2).reshape(2, 1, 2, 1)
    parts = mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=signs, lut=palettes)
    return mb.constexpr_sparse_to_dense(nonzero_data=parts[1], mask=parts[0])


def sparse_scaled() -> Any:
    mask, nonzero = (CODES != 0).astype(UINT1), CODES[CODES != 0].astype(types.np_int4_dtype)
    parts = mb.constexpr_sparse_blockwise_shift_scale(data_mask=mask, nonzero_data=nonzero, scale=SCALES)
    return mb.constexpr_sparse_to_dense(nonzero_data=parts[1], mask=parts[0])


@pytest.mark.parametrize(
    "build", [palette_and_scale, integer_palette_and_scale, scaled_palettes, sparse_signs, sparse_scaled]
)
def test_operations_that_feed_one_another(build: Any, outputs_of: Any) -> None:
    got, operations = outputs_of(build, IOS18)
    assert np.array_equal(got, CODES.astype(np.float32) * SCALES)
    assert sum(op.startswith("constexpr_") for op in operations) == 2


def test_a_scale_of_half_precision_gives_a_weight_of_half_precision(outputs_of: Any) -> None:
    def build() -> Any:
        data = np.array([[100, -127, 3]], np.int8)
        return mb.cast(
            x=mb.constexpr_blockwise_shift_scale(data=data, scale=np.array([[0.1]], np.float16)), dtype="fp32"
        )

    got, _ = outputs_of(build, IOS18)
    assert np.array_equal(got, (np.array([[100, -127, 3]], np.float16) * np.float16(0.1)).astype(np.float32))


GROUPED = {"granularity": "per_grouped_channel", "group_size": 1}
BLOCKWISE = {"granularity": "per_block", "block_size": 4}
COMPRESSIONS = {
    "linear int8": (cto.linear_quantize_weights, cto.OpLinearQuantizerConfig("linear", "int8", weight_threshold=0)),
    "blocks of int4": (
        cto.linear_quantize_weights,
        cto.OpLinearQuantizerConfig(dtype="int4", weight_threshold=0, **BLOCKWISE),
    ),
    "palettes of channels": (
        cto.palettize_weights,
        cto.OpPalettizerConfig("uniform", nbits=2, weight_threshold=0, **GROUPED),
    ),
    "palette and scales": (
        cto.palettize_weights,
        cto.OpPalettizerConfig("uniform", nbits=4, weight_threshold=0, enable_per_channel_scale=True),
    ),
    "pruned": (cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)),
}


@pytest.fixture(scope="module")
def dense() -> Any:
    """A linear layer and an embedding of coremltools' own making, for it to compress."""
    rng = np.random.default_rng(0)
    table, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 16), (12, 16)))

    @mb.program(input_specs=[mb.TensorSpec((3,), dtype=types.int32)], opset_version=IOS18)
    def program(ids: Any) -> Any:
        return mb.linear(x=mb.gather(x=table, indices=ids, axis=0), weight=weight, name="y")

    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=IOS18,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )


@pytest.mark.parametrize("names", [*((name,) for name in COMPRESSIONS), ("pruned", "linear int8")], ids=" ".join)
def test_what_coremltools_compresses_is_computed_as_what_it_decompresses(
    names: tuple[str, ...], dense: Any, assert_close: Any, tmp_path: Path
) -> None:
    small = dense
    for name in names:
        compress, config = COMPRESSIONS[name]
        small = compress(small, cto.OptimizationConfig(config), joint_compression=small is not dense)
    results = []
    for label, model in (("small", small), ("dense", cto.decompress_weights(small))):
        model.save(str(tmp_path / f"{label}.mlpackage"))
        session = open_session(tmp_path / f"{label}.mlpackage")
        results.append(session.run({"ids": np.array([0, 19, 7], np.int32)})["y"])
    specification, _ = read_specification(tmp_path / "small.mlpackage")
    block = next(iter(specification.mlProgram.functions["main"].block_specializations.values()))
    assert sum(op.type.startswith("constexpr_") for op in block.operations) >= 2
    assert_close(*results)


def test_an_unknown_operation_on_constants_is_named(save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        data = np.array([[1, 2]], np.int8)
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=SCALES[:1], name="weight"))

    path = save(program, tmp_path / "m.mlpackage", IOS18, ct.PassPipeline.EMPTY)
    monkeypatch.delitem(OPERATIONS, "constexpr_blockwise_shift_scale")
    with pytest.raises(
        UnsupportedOperation, match="lacks 1 of its operations: constexpr_blockwise_shift_scale 'weight'"
    ):
        open_session(path)
