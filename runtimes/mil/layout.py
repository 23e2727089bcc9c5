"""MIL's operations that move values: shapes, slices, padding, gathering, scattering, sorting; and those that fill."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from runtimes.mil.table import Array, Table, ints

LAYOUT = Table()


# Shape and layout


@LAYOUT.add
def reshape(x: Array, shape: Any) -> Array:
    """x in a new shape; 0 copies the length of x's axis at the same place from the right, -1 takes the rest."""
    wanted = list(ints(shape))
    for place, length in enumerate(wanted):
        own = place + x.ndim - len(wanted)
        if length == 0 and x.size:
            wanted[place] = x.shape[own] if own >= 0 else 1
    return np.reshape(x, wanted)


def _several(values: Any) -> Sequence[Array]:
    return values if isinstance(values, list) else [values]


@LAYOUT.add
def expand_dims(x: Array, axes: Any) -> Array:
    """x with new axes of length 1."""
    return np.expand_dims(x, ints(axes))


@LAYOUT.add
def squeeze(x: Array, axes: Any = None) -> Array:
    """x without the given axes of length 1; longer ones stay, as in PyTorch."""
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in ints(axes)]
    return np.squeeze(x, tuple(axis for axis in chosen if x.shape[axis] == 1))


@LAYOUT.add
def transpose(x: Array, perm: Any) -> Array:
    """x with its axes in another order."""
    return np.transpose(x, ints(perm))


def _slices(x: Array, begin: Any, end: Any, stride: Any, begin_mask: Any, end_mask: Any, squeeze_mask: Any) -> Tuple:
    none = (False,) * x.ndim
    rows = zip(
        ints(begin),
        ints(end),
        (1,) * x.ndim if stride is None else ints(stride),
        none if begin_mask is None else np.ravel(begin_mask),
        none if end_mask is None else np.ravel(end_mask),
        none if squeeze_mask is None else np.ravel(squeeze_mask),
    )
    return tuple(
        (0 if from_start else first) if single else slice(None if from_start else first, None if to_end else last, step)
        for first, last, step, from_start, to_end, single in rows
    )


@LAYOUT.add
def slice_by_index(
    x: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    """x[begin:end:stride] on every axis; a mask leaves that bound out, squeeze_mask takes one element."""
    return x[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


@LAYOUT.add
def slice_update(
    x: Array,
    update: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    """x with what slice_by_index would take replaced by `update`."""
    result = x.copy()
    result[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)] = update
    return result


@LAYOUT.add
def slice_by_size(x: Array, begin: Any, size: Any) -> Array:
    """`size` elements from `begin` on every axis; a size of -1 goes to the end."""
    starts = [first + length if first < 0 else first for first, length in zip(ints(begin), x.shape)]
    return x[tuple(slice(a, None if n == -1 else a + n) for a, n in zip(starts, ints(size)))]


@LAYOUT.add
def concat(values: Any, axis: Any, interleave: Any = False) -> Array:
    """Tensors one after the other along `axis`, or element by element in turn."""
    parts = [np.atleast_1d(value) for value in _several(values)]
    if not interleave:
        return np.concatenate(parts, int(axis))
    axis = int(axis) % parts[0].ndim
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return np.stack(parts, axis + 1).reshape(shape)


@LAYOUT.add
def stack(values: Any, axis: Any) -> Array:
    """Tensors side by side along a new axis."""
    return np.stack(_several(values), int(axis))


@LAYOUT.add
def split(x: Array, axis: Any, num_splits: Any = None, split_sizes: Any = None) -> List[Array]:
    """x in parts along `axis`, equal ones or of the given sizes."""
    if split_sizes is None:
        return np.split(x, int(num_splits), int(axis))
    return np.split(x, np.cumsum(ints(split_sizes))[:-1], int(axis))


@LAYOUT.add
def tile(x: Array, reps: Any) -> Array:
    """x repeated along every axis."""
    return np.tile(x, ints(reps))


@LAYOUT.add
def pad(x: Array, pad: Any, mode: str = "constant", constant_val: Any = 0) -> Array:
    """x with (before, after) more elements on its last axes."""
    amounts = ints(pad)
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + list(zip(amounts[::2], amounts[1::2]))
    if mode == "constant":
        return np.pad(x, pairs, constant_values=constant_val)
    return np.pad(x, pairs, mode="edge" if mode == "replicate" else "reflect")


@LAYOUT.add
def reverse(x: Array, axes: Any = None) -> Array:
    """x backwards along the given axes, or all."""
    return np.flip(x, None if axes is None else ints(axes))


@LAYOUT.add
def pixel_shuffle(x: Array, upscale_factor: Any) -> Array:
    """[n, c * f * f, h, w] -> [n, c, h * f, w * f], the channel slowest."""
    (n, c, h, w), f = x.shape, int(upscale_factor)
    return x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


@LAYOUT.add
def pixel_unshuffle(x: Array, downscale_factor: Any) -> Array:
    """[n, c, h * f, w * f] -> [n, c * f * f, h, w], the channel slowest."""
    (n, c, h, w), f = x.shape, int(downscale_factor)
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


@LAYOUT.add
def depth_to_space(x: Array, block_size: Any) -> Array:
    """[n, b * b * c, h, w] -> [n, c, h * b, w * b], the place in the block slowest, as in TensorFlow."""
    (n, c, h, w), b = x.shape, int(block_size)
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@LAYOUT.add
def space_to_depth(x: Array, block_size: Any) -> Array:
    """[n, c, h * b, w * b] -> [n, b * b * c, h, w], the place in the block slowest, as in TensorFlow."""
    (n, c, h, w), b = x.shape, int(block_size)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


@LAYOUT.add
def crop(x: Array, crop_height: Any, crop_width: Any) -> Array:
    """x without the given rows (before, after) and columns."""
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


# Indices


def _index(values: Array) -> Array:
    return np.asarray(values).astype(np.intp)


@LAYOUT.add
def gather(x: Array, indices: Array, axis: Any = 0, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    """x's slices at `indices` along `axis`, the first `batch_dims` axes of both going together."""
    axis, batch = int(axis) % x.ndim, int(batch_dims)
    if batch == 0:
        return np.take(x, _index(indices), axis)
    shared = x.shape[:batch]
    tables = x.reshape((-1,) + x.shape[batch:])
    rows = _index(indices).reshape((-1,) + indices.shape[batch:])
    taken = np.stack([np.take(table, row, axis - batch) for table, row in zip(tables, rows)])
    return taken.reshape(shared + taken.shape[1:])


@LAYOUT.add
def gather_along_axis(x: Array, indices: Array, axis: Any = 0, validate_indices: Any = False) -> Array:
    """x[..., indices[...], ...] along `axis`; the result has the shape of `indices`."""
    return np.take_along_axis(x, _index(indices), int(axis))


@LAYOUT.add
def gather_nd(x: Array, indices: Array, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    """x at the index vectors in the last axis of `indices`."""
    own = np.indices(indices.shape[:-1], sparse=True)[: int(batch_dims)]
    return x[tuple(own) + tuple(np.moveaxis(_index(indices), -1, 0))]


_MODES: Dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _scattered(data: Array, index: Tuple, updates: Array, mode: str) -> Array:
    result = data.copy()
    if mode == "update":
        result[index] = updates
    else:
        _MODES[mode].at(result, index, updates)
    return result


@LAYOUT.add
def scatter(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: str = "add", validate_indices: Any = False
) -> Array:
    """data with `updates` combined into its slices at `indices` along `axis`."""
    return _scattered(data, (slice(None),) * (int(axis) % data.ndim) + (_index(indices),), updates, mode)


@LAYOUT.add
def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: str = "add", validate_indices: Any = False
) -> Array:
    """data with `updates` combined in at indices[...] along `axis`; `updates` has the shape of `indices`."""
    index: List[Array] = list(np.indices(indices.shape, sparse=True))
    index[int(axis)] = _index(indices)
    return _scattered(data, tuple(index), updates, mode)


@LAYOUT.add
def scatter_nd(data: Array, indices: Array, updates: Array, mode: str = "add", validate_indices: Any = False) -> Array:
    """data with `updates` combined in at the index vectors in the last axis of `indices`."""
    return _scattered(data, tuple(np.moveaxis(_index(indices), -1, 0)), updates, mode)


def _order(x: Array, axis: int, ascending: Any) -> Array:
    """The indices that sort x; equal values keep their order."""
    keys = x if x.dtype.kind == "f" else x.astype(np.int64)  # -x must not wrap around
    return np.argsort(keys if ascending else -keys, axis=axis, kind="stable")


@LAYOUT.add
def argsort(x: Array, axis: Any = -1, ascending: Any = False) -> Array:
    """The indices that sort x along `axis`, largest first."""
    return _order(x, int(axis), ascending)


@LAYOUT.add
def topk(
    x: Array,
    k: Any = 1,
    axis: Any = -1,
    ascending: Any = False,
    sort: Any = True,
    return_indices: Any = True,
    output_indices_dtype: str = "int32",
) -> List[Array]:
    """The k largest (or smallest) values along `axis` in order, and where they stand."""
    axis = int(axis) % x.ndim
    chosen = _order(x, axis, ascending)[(slice(None),) * axis + (slice(int(k)),)]
    values = np.take_along_axis(x, chosen, axis)
    return [values, chosen] if return_indices else [values]


@LAYOUT.add
def non_zero(x: Array) -> Array:
    """[count, rank]: the indices of what is not zero."""
    return np.argwhere(x)


@LAYOUT.add
def one_hot(indices: Array, one_hot_vector_size: Any, axis: Any = -1, on_value: Any = 1, off_value: Any = 0) -> Array:
    """A new axis with on_value at the index and off_value elsewhere."""
    hot = _index(indices)[..., None] == np.arange(int(one_hot_vector_size))
    return np.where(np.moveaxis(hot, -1, int(axis)), on_value, off_value)


@LAYOUT.add
def band_part(x: Array, lower: Any = -1, upper: Any = -1) -> Array:
    """x's last two axes with zeros outside a band about the diagonal; a negative width keeps all of that side."""
    gap = np.arange(x.shape[-2])[:, None] - np.arange(x.shape[-1])
    lower, upper = int(lower), int(upper)
    kept = (gap <= lower if lower >= 0 else gap == gap) & (-gap <= upper if upper >= 0 else gap == gap)
    return np.where(kept, x, np.zeros((), x.dtype))


@LAYOUT.add
def cumsum(x: Array, axis: Any = 0, exclusive: Any = False, reverse: Any = False) -> Array:
    """Running sums along `axis`, without the element itself when exclusive, from the end when reversed."""
    x = np.flip(x, int(axis)) if reverse else x
    total = np.cumsum(x, int(axis), dtype=x.dtype)
    total = total - x if exclusive else total
    return np.flip(total, int(axis)) if reverse else total


@LAYOUT.add
def fill(shape: Any, value: Any = 0.0) -> Array:
    """A tensor of one value."""
    return np.full(ints(shape), value)


@LAYOUT.add
def fill_like(ref_tensor: Array, value: Any = 0.0) -> Array:
    """A tensor of one value in the shape of another."""
    return np.full(np.shape(ref_tensor), value)


@LAYOUT.add
def range_1d(start: Any, end: Any, step: Any) -> Array:
    """start, start + step, ... below end."""
    return np.arange(start, end, step)
