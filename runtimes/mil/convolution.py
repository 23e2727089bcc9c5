"""MIL's operations on neighbourhoods of x [n, c, *in]: convolution, pooling, resizing and sampling."""

from __future__ import annotations

import math
from typing import Any, Callable, List, Sequence, Tuple

import numpy as np

from runtimes.mil.table import Array, Table, ints, per_channel, shaped_along

CONVOLUTIONS = Table()


# Convolution and pooling over x [n, c, *in]


def _per_axis(values: Any, rank: int) -> Tuple[int, ...]:
    return (1,) * rank if values is None else ints(values)


def _paddings(
    pad_type: str, pad: Any, lengths: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> List[Tuple[int, int]]:
    """(before, after) of each spatial axis; `extents` are the lengths that a dilated kernel covers."""
    if pad_type == "custom":
        amounts = ints(pad)
        return list(zip(amounts[::2], amounts[1::2]))
    if pad_type == "valid":
        return [(0, 0)] * len(lengths)
    totals = [max(0, (math.ceil(n / s) - 1) * s + e - n) for n, e, s in zip(lengths, extents, strides)]
    pairs = [(total // 2, total - total // 2) for total in totals]
    return pairs if pad_type == "same" else [(after, before) for before, after in pairs]  # or "same_lower"


def _padded(x: Array, pairs: Sequence[Tuple[int, int]], value: Any = 0) -> Array:
    if not any(before or after for before, after in pairs):
        return x
    return np.pad(x, [(0, 0), (0, 0), *pairs], constant_values=value)


def _window(offset: Sequence[int], lengths: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tuple:
    """The index of the elements that one kernel position meets, over all outputs."""
    starts = [o * d for o, d in zip(offset, dilations)]
    return (slice(None), slice(None)) + tuple(
        slice(start, start + (n - 1) * s + 1, s) for start, n, s in zip(starts, lengths, strides)
    )


def _depthwise(x: Array, weight: Array, lengths: Tuple[int, ...], strides: Any, dilations: Any) -> Array:
    """Output channel o is channel o // (out / c) of x by weight[o, 0], summed over the kernel's positions."""
    x = np.repeat(x, weight.shape[0] // x.shape[1], axis=1)
    result = np.zeros(x.shape[:2] + lengths, x.dtype)
    product = np.empty_like(result)
    for offset in np.ndindex(*weight.shape[2:]):
        factor = per_channel(weight[(slice(None), 0) + offset], x)
        np.multiply(x[_window(offset, lengths, strides, dilations)], factor, out=product)
        result += product
    return result


def _columns(x: Array, kernel: Tuple[int, ...], lengths: Tuple[int, ...], strides: Any, dilations: Any) -> Array:
    """im2col: x [n, c, *in] -> [n, c, *kernel, *out]."""
    if all(k == 1 for k in kernel):
        return x[_window((0,) * len(kernel), lengths, strides, dilations)]
    columns = np.empty(x.shape[:2] + kernel + lengths, x.dtype)
    for offset in np.ndindex(*kernel):
        columns[(slice(None), slice(None)) + offset] = x[_window(offset, lengths, strides, dilations)]
    return columns


@CONVOLUTIONS.add
def conv(
    x: Array,
    weight: Array,
    bias: Any = None,
    strides: Any = None,
    pad_type: str = "valid",
    pad: Any = None,
    dilations: Any = None,
    groups: Any = 1,
) -> Array:
    """Convolution of x [n, c, *in] by weight [out, c / groups, *kernel], in one to three dimensions."""
    kernel, groups = weight.shape[2:], int(groups)
    strides, dilations = _per_axis(strides, len(kernel)), _per_axis(dilations, len(kernel))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    x = _padded(x, _paddings(pad_type, pad, x.shape[2:], extents, strides))
    lengths = tuple((n - e) // s + 1 for n, e, s in zip(x.shape[2:], extents, strides))
    if groups == x.shape[1]:
        result = _depthwise(x, weight, lengths, strides, dilations)
    else:
        columns = _columns(x, kernel, lengths, strides, dilations)
        columns = columns.reshape(len(x), groups, -1, math.prod(lengths))  # [n, g, c / g * kernel, out]
        filters = weight.reshape(groups, weight.shape[0] // groups, -1)  # [g, o / g, c / g * kernel]
        result = np.matmul(filters, columns).reshape((len(x), weight.shape[0]) + lengths)
    if bias is not None:
        result += per_channel(bias, x)
    return result


@CONVOLUTIONS.add
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Any = None,
    pad: Any = None,
    output_shape: Any = None,
    pad_type: str = "valid",
    strides: Any = None,
    dilations: Any = None,
    groups: Any = 1,
) -> Array:
    """Transposed convolution of x [n, c, *in] by weight [c, out / groups, *kernel]; `pad` is cut off the result."""
    kernel, groups, lengths = weight.shape[2:], int(groups), x.shape[2:]
    strides, dilations = _per_axis(strides, len(kernel)), _per_axis(dilations, len(kernel))
    full = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in zip(lengths, kernel, strides, dilations)]
    if pad_type == "same":
        cuts = [(max(0, f - n * s) // 2, 0) for f, n, s in zip(full, lengths, strides)]
        wanted = [n * s for n, s in zip(lengths, strides)]
    else:
        cuts = _paddings(pad_type, pad, lengths, full, strides)
        wanted = [f - before - after for f, (before, after) in zip(full, cuts)]
    if output_shape is not None:
        wanted = list(ints(output_shape)[2:])
    filters = np.swapaxes(weight.reshape(groups, x.shape[1] // groups, -1), -1, -2)  # [g, o / g * kernel, c / g]
    columns = np.matmul(filters, x.reshape(len(x), groups, x.shape[1] // groups, -1))
    columns = columns.reshape((len(x), groups * weight.shape[1]) + kernel + lengths)  # [n, o, *kernel, *in]
    room = tuple(max(f, before + w) for f, (before, _), w in zip(full, cuts, wanted))
    result = np.zeros(columns.shape[:2] + room, x.dtype)
    for offset in np.ndindex(*kernel):
        result[_window(offset, lengths, strides, dilations)] += columns[(slice(None), slice(None)) + offset]
    result = result[(slice(None),) * 2 + tuple(slice(before, before + w) for (before, _), w in zip(cuts, wanted))]
    return result if bias is None else result + per_channel(bias, x)


class _Pooling:
    """The geometry of one pooling: paddings, and the overhang that ceil_mode adds behind them."""

    def __init__(self, x: Array, kernel_sizes: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: Any) -> None:
        self.kernel = ints(kernel_sizes)
        self.strides = _per_axis(strides, len(self.kernel))
        self.pads = _paddings(str(pad_type), pad, x.shape[2:], self.kernel, self.strides)
        lengths, self.overhang = [], []
        for n, k, s, (before, after) in zip(x.shape[2:], self.kernel, self.strides, self.pads):
            span = n + before + after
            length = (span - k + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and (length - 1) * s >= n + before and before + after > 0:
                length -= 1  # a window that would start in the padding behind
            lengths.append(length)
            self.overhang.append((0, max(0, (length - 1) * s + k - span)))
        self.lengths = tuple(lengths)

    def combine(self, x: Array, function: Callable[..., Any], fill: float) -> Array:
        """`function` over the windows of x, which is padded already but for the overhang."""
        x = _padded(x, self.overhang, fill)
        ones = (1,) * len(self.kernel)
        result = np.full(x.shape[:2] + self.lengths, fill, x.dtype)
        for offset in np.ndindex(*self.kernel):
            function(result, x[_window(offset, self.lengths, self.strides, ones)], out=result)
        return result


@CONVOLUTIONS.add
def max_pool(
    x: Array, kernel_sizes: Any, pad_type: str, strides: Any = None, pad: Any = None, ceil_mode: Any = False
) -> Array:
    """The largest value of each window; padding never wins."""
    pooling = _Pooling(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return pooling.combine(_padded(x, pooling.pads, -np.inf), np.maximum, -np.inf)


@CONVOLUTIONS.add
def avg_pool(
    x: Array,
    kernel_sizes: Any,
    pad_type: str,
    strides: Any = None,
    pad: Any = None,
    exclude_padding_from_average: Any = False,
    ceil_mode: Any = False,
) -> Array:
    """The mean of each window; the overhang of ceil_mode never counts, padding counts unless it is excluded."""
    pooling = _Pooling(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    total = pooling.combine(_padded(x, pooling.pads), np.add, 0)
    counted = _padded(np.ones((1, 1) + x.shape[2:], x.dtype), pooling.pads, 0 if exclude_padding_from_average else 1)
    return total / pooling.combine(counted, np.add, 0)


# Resizing


def _positions(length: int, target: int, mode: str) -> Array:
    """Where each of `target` outputs samples an axis of `length`; the formulas are those of MIL's resize_bilinear."""
    steps = np.arange(target, dtype=np.float64)
    if mode.endswith("ALIGN_CORNERS") and mode != "UNALIGN_CORNERS":
        alone = (length - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        places = steps * (length - 1) / (target - 1) if target > 1 else np.full(1, alone)
    elif mode == "DEFAULT":
        places = steps * length / target
    elif mode == "OFFSET_CORNERS":
        places = (steps + 0.5) * max(1, length - 1) / target
    else:  # UNALIGN_CORNERS
        places = (steps + 0.5) * length / target - 0.5
    return np.clip(places, 0, length - 1)


def _linear_along(x: Array, axis: int, target: int, mode: str) -> Array:
    places = _positions(x.shape[axis], target, mode)
    low = np.floor(places).astype(np.intp)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = shaped_along((places - low).astype(np.float32), axis, x.ndim)
    return np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share


def _nearest_along(x: Array, axis: int, target: int, mode: str) -> Array:
    places = _positions(x.shape[axis], target, mode)
    return np.take(x, np.floor(places if mode == "DEFAULT" else places + 0.5).astype(np.intp), axis)


def _resized(x: Array, targets: Sequence[int], along: Callable[..., Array], mode: str) -> Array:
    """x with its last axes brought to `targets`, one axis at a time."""
    for axis, target in zip(range(x.ndim - len(targets), x.ndim), targets):
        x = along(x, axis, int(target), mode)
    return x


def _scaled(x: Array, height: Any, width: Any) -> Tuple[int, int]:
    return int(np.floor(height * x.shape[-2])), int(np.floor(width * x.shape[-1]))


@CONVOLUTIONS.add
def upsample_nearest_neighbor(x: Array, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Array:
    """The last two axes scaled; each output repeats the input at floor(i * in / out)."""
    return _resized(x, _scaled(x, scale_factor_height, scale_factor_width), _nearest_along, "DEFAULT")


@CONVOLUTIONS.add
def upsample_bilinear(
    x: Array,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: Any = True,
    half_pixel_centers: Any = None,
) -> Array:
    """The last two axes scaled by linear interpolation; half_pixel_centers (iOS16) is by default not align_corners."""
    centred = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return _resized(x, _scaled(x, scale_factor_height, scale_factor_width), _linear_along, mode)


@CONVOLUTIONS.add
def resize_nearest_neighbor(x: Array, target_size_height: Any, target_size_width: Any) -> Array:
    """The last two axes brought to a size; each output repeats the input at floor(i * in / out)."""
    return _resized(x, (target_size_height, target_size_width), _nearest_along, "DEFAULT")


@CONVOLUTIONS.add
def resize_bilinear(
    x: Array, target_size_height: Any = 1, target_size_width: Any = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    """The last two axes brought to a size by linear interpolation."""
    return _resized(x, (target_size_height, target_size_width), _linear_along, sampling_mode)


@CONVOLUTIONS.add
def resize(
    x: Array, shape: Array, resized_dims: Any, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Array:
    """The last `resized_dims` axes brought to the end of `shape` (iOS17), where 0 keeps an axis."""
    count = int(resized_dims)
    targets = [wanted or own for wanted, own in zip(ints(shape)[-count:], x.shape[-count:])]
    return _resized(x, targets, _linear_along if interpolation_mode == "LINEAR" else _nearest_along, sampling_mode)


def _reflected(places: Array, length: int, padding_mode: str) -> Array:
    """Coordinates outside [0, length - 1] folded back, about the edge pixel (reflection) or its outer side."""
    low, span = (0.0, length - 1.0) if padding_mode == "reflection" else (-0.5, float(length))
    if span <= 0:
        return np.zeros_like(places)
    folded = np.mod(places - low, 2 * span)
    return np.minimum(folded, 2 * span - folded) + low


def _pixel(x: Array, row: Array, column: Array, padding_mode: str, padding_value: Any) -> Array:
    """x [b, c, h, w] at whole coordinates [b, i, j] -> [b, c, i, j]."""
    height, width = x.shape[2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    batch = np.arange(len(x))[:, None, None]
    safe_row, safe_column = np.clip(row, 0, height - 1).astype(int), np.clip(column, 0, width - 1).astype(int)
    values = np.moveaxis(x[batch, :, safe_row, safe_column], -1, 1)
    return np.where(inside[:, None], values, padding_value) if padding_mode == "constant" else values


@CONVOLUTIONS.add
def resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: Any,
) -> Array:
    """x [b, c, h, w] at coordinates [b, i, j, (x, y)] -> [b, c, i, j]; PyTorch's grid_sample."""
    places = []
    for axis, length in ((1, x.shape[2]), (0, x.shape[3])):
        place: Array = coordinates[..., axis].astype(np.float32)
        if coordinates_mode == "normalized_minus_one_to_one":
            place = (place + 1) / 2
        if coordinates_mode != "unnormalized":
            place = place * (length - 1) if align_corners else place * length - 0.5
        if padding_mode in ("reflection", "symmetric"):
            place = _reflected(place, length, padding_mode)
        places.append(place)
    row, column = places
    if sampling_mode == "nearest":
        return _pixel(x, np.round(row), np.round(column), padding_mode, padding_value)
    top, left = np.floor(row), np.floor(column)
    total: Array = np.zeros((1,), x.dtype)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - (row - top)) * np.abs(1 - right - (column - left))
            total = total + share[:, None] * _pixel(x, top + down, left + right, padding_mode, padding_value)
    return total
