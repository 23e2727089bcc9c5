"""MIL's compressed weights: packed bits, palettes, sparse masks, scales and zero points."""

from __future__ import annotations

import math
from typing import Any, List, Sequence

import numpy as np

from runtimes.mil.table import Array, Table, ints, shaped_along

WEIGHTS = Table()


def unpack_bits(packed: Array, bits: int, count: int, signed: bool = False) -> Array:
    """`count` integers of `bits` bits from bytes filled lowest bit first -> uint8, or int8 when signed."""
    digits = np.unpackbits(packed.view(np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    values = np.packbits(digits, axis=1, bitorder="little")[:, 0]
    if not signed:
        return values
    top = 1 << (bits - 1)  # counts negative
    return ((values.astype(np.int16) ^ top) - top).astype(np.int8)


def _blocks(parameter: Array, shape: Sequence[int]) -> Array:
    """A parameter given for blocks, repeated until it covers `shape`."""
    for axis, length in enumerate(shape):
        parameter = np.repeat(parameter, length // parameter.shape[axis], axis)
    return parameter


def _wide(x: Array) -> Array:
    return x.astype(np.float32)


@WEIGHTS.add
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """scale * (data - zero_point), both along `axis` or for the whole tensor."""
    rank, axis = quantized_data.ndim, int(axis)
    scale, zero_point = (shaped_along(p, axis, rank) if np.ndim(p) else p for p in (_wide(scale), _wide(zero_point)))
    return (quantized_data - zero_point) * scale


@WEIGHTS.add
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Any = None) -> Array:
    """scale * (data - offset), both given for blocks of data (iOS18)."""
    shift = 0 if offset is None else _blocks(_wide(offset), data.shape)
    return _blocks(_wide(scale), data.shape) * (_wide(data) - shift)


@WEIGHTS.add
def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """A half-precision weight as float32."""
    return _wide(source_val)


@WEIGHTS.add
def constexpr_lut_to_dense(indices: Array, lut: Array, shape: Any = None, vector_axis: Any = None) -> Array:
    """Weights looked up in a palette: iOS16 packs the indices of one palette, iOS18 has palettes for blocks.

    iOS18: indices [*s], lut [*blocks, palette, vector]; a vector's entries lie along `vector_axis`.
    """
    if shape is not None:
        wanted = ints(shape)
        bits = (len(lut) - 1).bit_length()
        return lut[unpack_bits(indices, bits, math.prod(wanted))].reshape(wanted)
    palettes = lut.reshape((-1,) + lut.shape[-2:])
    which = _blocks(np.arange(len(palettes)).reshape(lut.shape[:-2]), indices.shape)
    found = palettes[which, indices]  # [*s, vector]
    if found.shape[-1] == 1:
        return found[..., 0]
    axis = int(vector_axis) % indices.ndim
    lengths = list(indices.shape)
    lengths[axis] *= found.shape[-1]
    return np.moveaxis(found, -1, axis + 1).reshape(lengths)


@WEIGHTS.add
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Any = None) -> Array:
    """Values put where the mask has a one, zeros elsewhere; iOS16 packs the mask's bits."""
    if shape is not None:
        mask = unpack_bits(mask, 1, math.prod(ints(shape))).reshape(ints(shape))
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


@WEIGHTS.add
def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Any = None
) -> List[Array]:
    """The palette applied to the nonzero entries only: the mask, and the values where it has ones."""
    indices = constexpr_sparse_to_dense(indices_nonzero_data, indices_mask)
    dense = constexpr_lut_to_dense(indices, lut, vector_axis=vector_axis)
    mask = indices_mask
    if dense.shape != mask.shape:
        mask = np.repeat(mask, lut.shape[-1], int(vector_axis))
    return [mask, dense[mask != 0]]


@WEIGHTS.add
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Any = None
) -> List[Array]:
    """Scale and offset applied to the nonzero entries only: the mask, and the values where it has ones."""
    dense = constexpr_blockwise_shift_scale(constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return [data_mask, dense[data_mask != 0]]


@WEIGHTS.add
def quantize(input: Array, scale: Array, output_dtype: str, zero_point: Any = None, axis: Any = None) -> Array:
    """clip(round(input / scale) + zero_point) in the integers of `output_dtype`."""
    shift = np.zeros((), np.float32) if zero_point is None else zero_point
    scale, shift = (shaped_along(p, int(axis), input.ndim) if np.ndim(p) else p for p in (scale, shift))
    limits = np.iinfo(output_dtype)
    return np.clip(np.round(input / scale) + shift, limits.min, limits.max)


@WEIGHTS.add
def dequantize(input: Array, scale: Array, zero_point: Any = None, axis: Any = None) -> Array:
    """scale * (input - zero_point)."""
    shift = np.zeros((), np.float32) if zero_point is None else zero_point
    return constexpr_affine_dequantize(input, shift, scale, 0 if axis is None else axis)
