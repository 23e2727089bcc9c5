"""The operations of Core ML's MIL (iOS15 to iOS18) on numpy arrays, so that a Core ML artifact can be checked anywhere.

Keyword inputs and defaults are MIL's own (coremltools/converters/mil/mil/ops/defs). Half-precision tensors arrive here
as float32 and are rounded to half where `mil_evaluator` stores the result, as Apple's kernels accumulate.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

Array = np.ndarray
OPERATIONS: Dict[str, Callable[..., Any]] = {}
"""MIL's name of an operation -> its function; a list or tuple result is several outputs."""

LAYOUT_ONLY = frozenset(
    ("concat", "crop", "expand_dims", "fill", "fill_like", "gather", "gather_along_axis", "gather_nd", "identity")
    + ("pad", "reshape", "reverse", "select", "shape", "slice_by_index", "slice_by_size", "slice_update", "split")
    + ("squeeze", "stack", "tile", "transpose")
)
"""Operations that only move values: they take half-precision tensors as they are."""


def _operation(function: Callable[..., Any]) -> Callable[..., Any]:
    OPERATIONS[function.__name__] = function
    return function


def _ints(values: Any) -> Tuple[int, ...]:
    return tuple(int(value) for value in np.ravel(values))


def _along(vector: Array, axis: int, rank: int) -> Array:
    """`vector` [n], or a scalar, shaped to broadcast along `axis` of a tensor of `rank`."""
    shape = [1] * rank
    shape[axis] = -1
    return np.reshape(vector, shape)


def _channels(vector: Array, x: Array) -> Array:
    return _along(vector, 1, x.ndim)


# Elementwise


def erf(x: Array) -> Array:
    """Gauss's error function to float32's last two digits, as the ratio of polynomials that Eigen and XLA use."""
    x = np.clip(np.asarray(x, np.float32), -4, 4)  # the ratio leaves [-1, 1] beyond, where erf is +-1 in float32
    square = x * x
    above = np.float32(-2.72614225801306e-10)
    for term in (
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ):
        above = above * square + np.float32(term)
    below = np.float32(-1.45660718464996e-05)
    for term in (-2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02):
        below = below * square + np.float32(term)
    return x * above / below


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _gelu(x: Array, mode: str = "EXACT") -> Array:
    if mode == "TANH_APPROXIMATION":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * _sigmoid(1.702 * x)
    return 0.5 * x * (1 + erf(x * np.float32(math.sqrt(0.5))))


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: function(x)


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: function(x, y)


_UNARY: Dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "erf": erf,
    "exp": np.exp,
    "exp2": np.exp2,
    "floor": np.floor,
    "identity": np.asarray,
    "logical_not": np.logical_not,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "round": np.round,
    "shape": lambda x: np.array(x.shape),
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "silu": lambda x: x * _sigmoid(x),
    "sin": np.sin,
    "sinh": np.sinh,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}
_BINARY: Dict[str, Callable[..., Any]] = {
    "add": np.add,
    "equal": np.equal,
    "floor_div": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "mul": np.multiply,
    "not_equal": np.not_equal,
    "pow": np.power,
    "real_div": np.true_divide,
    "sub": np.subtract,
}
OPERATIONS.update({name: _unary(function) for name, function in _UNARY.items()})
OPERATIONS.update({name: _binary(function) for name, function in _BINARY.items()})
OPERATIONS.update(
    {
        "cast": lambda x, dtype: x,  # the declared type of the result does it
        "clamped_relu": lambda x, alpha, beta: np.minimum(np.where(x >= 0, x, alpha * x), beta),
        "clip": lambda x, alpha, beta: np.minimum(np.maximum(x, alpha), beta),
        "elu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        "gelu": _gelu,
        "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
        "leaky_relu": lambda x, alpha: np.where(x >= 0, x, alpha * x),
        "linear_activation": lambda x, alpha, beta: alpha * x + beta,
        "log": lambda x, epsilon=1e-45: np.log(x + epsilon),
        "prelu": lambda x, alpha: np.where(x > 0, x, _channels(alpha, x) * x),
        "rsqrt": lambda x, epsilon=1e-12: 1 / np.sqrt(x + epsilon),
        "scaled_tanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
        "select": lambda cond, a, b: np.where(cond, a, b),
        "sigmoid_hard": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
        "softplus_parametric": lambda x, alpha, beta: _channels(alpha, x) * _softplus(_channels(beta, x) * x),
        "threshold": lambda x, alpha: np.maximum(x, alpha),
        "thresholded_relu": lambda x, alpha: np.where(x >= alpha, x, 0),
    }
)


# Reductions and normalisation


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # all -inf: log(0), not -inf - -inf
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis=axis)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
        return function(x, axis=None if axes is None else _ints(axes), keepdims=bool(keep_dims))

    return reduce


def _arg_reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Array, axis: Any = -1, keep_dims: Any = False, output_dtype: str = "int32") -> Array:
        found = function(x, axis=int(axis))
        return np.expand_dims(found, int(axis)) if keep_dims else found

    return reduce


OPERATIONS.update(
    {
        "reduce_argmax": _arg_reduction(np.argmax),
        "reduce_argmin": _arg_reduction(np.argmin),
        "reduce_l1_norm": _reduction(lambda x, **over: np.sum(np.abs(x), **over)),
        "reduce_l2_norm": _reduction(lambda x, **over: np.sqrt(np.sum(np.square(x), **over))),
        "reduce_log_sum": _reduction(lambda x, **over: np.log(np.sum(x, **over))),
        "reduce_log_sum_exp": _reduction(_log_sum_exp),
        "reduce_max": _reduction(np.max),
        "reduce_mean": _reduction(np.mean),
        "reduce_min": _reduction(np.min),
        "reduce_prod": _reduction(np.prod),
        "reduce_sum": _reduction(np.sum),
        "reduce_sum_square": _reduction(lambda x, **over: np.sum(np.square(x), **over)),
    }
)


@_operation
def softmax(x: Array, axis: Any = -1) -> Array:
    """exp(x) over its sum; entries of -inf weigh nothing, a row of only -inf is NaN, as in PyTorch and on Apple's."""
    weights = np.exp(x - np.max(x, axis=int(axis), keepdims=True))
    weights /= np.sum(weights, axis=int(axis), keepdims=True)
    return weights


def _standardised(x: Array, axes: Tuple[int, ...], epsilon: Any) -> Array:
    centred = x - np.mean(x, axis=axes, keepdims=True)
    centred /= np.sqrt(np.mean(np.square(centred), axis=axes, keepdims=True) + epsilon)
    return centred


@_operation
def layer_norm(x: Array, axes: Any, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5) -> Array:
    """Zero mean and unit variance over `axes`, then gamma and beta of shape x.shape[axes]."""
    over = tuple(axis % x.ndim for axis in _ints(axes))
    shape = [length if axis in over else 1 for axis, length in enumerate(x.shape)]
    result = _standardised(x, over, epsilon)
    if gamma is not None:
        result *= np.reshape(gamma, shape)
    if beta is not None:
        result += np.reshape(beta, shape)
    return result


@_operation
def instance_norm(x: Array, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5) -> Array:
    """Zero mean and unit variance over the spatial axes of x [n, c, *in]; gamma and beta are [c]."""
    result = _standardised(x, tuple(range(2, x.ndim)), epsilon)
    if gamma is not None:
        result *= _channels(gamma, x)
    if beta is not None:
        result += _channels(beta, x)
    return result


@_operation
def batch_norm(
    x: Array, mean: Array, variance: Array, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5
) -> Array:
    """x [n, c, *in] scaled and shifted per channel; all parameters are [c]."""
    scale = (1 if gamma is None else gamma) / np.sqrt(variance + epsilon)
    shift = (0 if beta is None else beta) - mean * scale
    return x * _channels(scale, x) + _channels(shift, x)


@_operation
def l2_norm(x: Array, epsilon: Any = 1e-6) -> Array:
    """x over the root of the sum of squares of its last three axes."""
    return x / np.sqrt(np.sum(np.square(x), axis=(-3, -2, -1), keepdims=True) + epsilon)


# Products


@_operation
def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    """Matrix product of the last two axes, the others broadcast."""
    x = np.swapaxes(x, -1, -2) if transpose_x else x
    y = np.swapaxes(y, -1, -2) if transpose_y else y
    return np.matmul(x, y)


@_operation
def linear(x: Array, weight: Array, bias: Any = None) -> Array:
    """x [*, in] times weight [out, in] transposed, plus bias [out]."""
    result = np.matmul(x.reshape(-1, x.shape[-1]), weight.T).reshape(x.shape[:-1] + weight.shape[:1])
    return result if bias is None else result + bias


@_operation
def einsum(values: Sequence[Array], equation: str) -> Array:
    """MIL has one: nchw,nwhu->nchu (n may be missing, letters differ), sizes of 1 broadcast."""
    left, right = (np.swapaxes(value, -3, -2) for value in values)  # [n, h, c, w], [n, h, w, u]
    return np.swapaxes(np.matmul(left, right), -3, -2)


@_operation
def scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Any = None) -> Array:
    """softmax(query @ key.T / sqrt(e) + mask) @ value; a boolean mask keeps where it is true."""
    scores = np.matmul(query * np.float32(1 / math.sqrt(query.shape[-1])), np.swapaxes(key, -1, -2))
    if attn_mask is not None and attn_mask.dtype == bool:
        scores = np.where(attn_mask, scores, np.float32(-np.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return np.matmul(softmax(scores), value)


# Convolution and pooling over x [n, c, *in]


def _per_axis(values: Any, rank: int) -> Tuple[int, ...]:
    return (1,) * rank if values is None else _ints(values)


def _paddings(
    pad_type: str, pad: Any, lengths: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> List[Tuple[int, int]]:
    """(before, after) of each spatial axis; `extents` are the lengths that a dilated kernel covers."""
    if pad_type == "custom":
        amounts = _ints(pad)
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
        factor = _channels(weight[(slice(None), 0) + offset], x)
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


@_operation
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
        result += _channels(bias, x)
    return result


@_operation
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
        wanted = list(_ints(output_shape)[2:])
    filters = np.swapaxes(weight.reshape(groups, x.shape[1] // groups, -1), -1, -2)  # [g, o / g * kernel, c / g]
    columns = np.matmul(filters, x.reshape(len(x), groups, x.shape[1] // groups, -1))
    columns = columns.reshape((len(x), groups * weight.shape[1]) + kernel + lengths)  # [n, o, *kernel, *in]
    room = tuple(max(f, before + w) for f, (before, _), w in zip(full, cuts, wanted))
    result = np.zeros(columns.shape[:2] + room, x.dtype)
    for offset in np.ndindex(*kernel):
        result[_window(offset, lengths, strides, dilations)] += columns[(slice(None), slice(None)) + offset]
    result = result[(slice(None),) * 2 + tuple(slice(before, before + w) for (before, _), w in zip(cuts, wanted))]
    return result if bias is None else result + _channels(bias, x)


class _Pooling:
    """The geometry of one pooling: paddings, and the overhang that ceil_mode adds behind them."""

    def __init__(self, x: Array, kernel_sizes: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: Any) -> None:
        self.kernel = _ints(kernel_sizes)
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


@_operation
def max_pool(
    x: Array, kernel_sizes: Any, pad_type: str, strides: Any = None, pad: Any = None, ceil_mode: Any = False
) -> Array:
    """The largest value of each window; padding never wins."""
    pooling = _Pooling(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return pooling.combine(_padded(x, pooling.pads, -np.inf), np.maximum, -np.inf)


@_operation
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
    share = _along((places - low).astype(np.float32), axis, x.ndim)
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


@_operation
def upsample_nearest_neighbor(x: Array, scale_factor_height: Any = 1, scale_factor_width: Any = 1) -> Array:
    """The last two axes scaled; each output repeats the input at floor(i * in / out)."""
    return _resized(x, _scaled(x, scale_factor_height, scale_factor_width), _nearest_along, "DEFAULT")


@_operation
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


@_operation
def resize_nearest_neighbor(x: Array, target_size_height: Any, target_size_width: Any) -> Array:
    """The last two axes brought to a size; each output repeats the input at floor(i * in / out)."""
    return _resized(x, (target_size_height, target_size_width), _nearest_along, "DEFAULT")


@_operation
def resize_bilinear(
    x: Array, target_size_height: Any = 1, target_size_width: Any = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    """The last two axes brought to a size by linear interpolation."""
    return _resized(x, (target_size_height, target_size_width), _linear_along, sampling_mode)


@_operation
def resize(
    x: Array, shape: Array, resized_dims: Any, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Array:
    """The last `resized_dims` axes brought to the end of `shape` (iOS17), where 0 keeps an axis."""
    count = int(resized_dims)
    targets = [wanted or own for wanted, own in zip(_ints(shape)[-count:], x.shape[-count:])]
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


@_operation
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


@_operation
def crop(x: Array, crop_height: Any, crop_width: Any) -> Array:
    """x without the given rows (before, after) and columns."""
    (top, bottom), (left, right) = _ints(crop_height), _ints(crop_width)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


# Shape and layout


@_operation
def reshape(x: Array, shape: Any) -> Array:
    """x in a new shape; 0 copies the length of x's axis at the same place from the right, -1 takes the rest."""
    wanted = list(_ints(shape))
    for place, length in enumerate(wanted):
        own = place + x.ndim - len(wanted)
        if length == 0 and x.size:
            wanted[place] = x.shape[own] if own >= 0 else 1
    return np.reshape(x, wanted)


def _several(values: Any) -> Sequence[Array]:
    return values if isinstance(values, list) else [values]


@_operation
def expand_dims(x: Array, axes: Any) -> Array:
    """x with new axes of length 1."""
    return np.expand_dims(x, _ints(axes))


@_operation
def squeeze(x: Array, axes: Any = None) -> Array:
    """x without the given axes of length 1; longer ones stay, as in PyTorch."""
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in _ints(axes)]
    return np.squeeze(x, tuple(axis for axis in chosen if x.shape[axis] == 1))


@_operation
def transpose(x: Array, perm: Any) -> Array:
    """x with its axes in another order."""
    return np.transpose(x, _ints(perm))


def _slices(x: Array, begin: Any, end: Any, stride: Any, begin_mask: Any, end_mask: Any, squeeze_mask: Any) -> Tuple:
    none = (False,) * x.ndim
    rows = zip(
        _ints(begin),
        _ints(end),
        (1,) * x.ndim if stride is None else _ints(stride),
        none if begin_mask is None else np.ravel(begin_mask),
        none if end_mask is None else np.ravel(end_mask),
        none if squeeze_mask is None else np.ravel(squeeze_mask),
    )
    return tuple(
        (0 if from_start else first) if single else slice(None if from_start else first, None if to_end else last, step)
        for first, last, step, from_start, to_end, single in rows
    )


@_operation
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


@_operation
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


@_operation
def slice_by_size(x: Array, begin: Any, size: Any) -> Array:
    """`size` elements from `begin` on every axis; a size of -1 goes to the end."""
    starts = [first + length if first < 0 else first for first, length in zip(_ints(begin), x.shape)]
    return x[tuple(slice(a, None if n == -1 else a + n) for a, n in zip(starts, _ints(size)))]


@_operation
def concat(values: Any, axis: Any, interleave: Any = False) -> Array:
    """Tensors one after the other along `axis`, or element by element in turn."""
    parts = [np.atleast_1d(value) for value in _several(values)]
    if not interleave:
        return np.concatenate(parts, int(axis))
    axis = int(axis) % parts[0].ndim
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return np.stack(parts, axis + 1).reshape(shape)


@_operation
def stack(values: Any, axis: Any) -> Array:
    """Tensors side by side along a new axis."""
    return np.stack(_several(values), int(axis))


@_operation
def split(x: Array, axis: Any, num_splits: Any = None, split_sizes: Any = None) -> List[Array]:
    """x in parts along `axis`, equal ones or of the given sizes."""
    if split_sizes is None:
        return np.split(x, int(num_splits), int(axis))
    return np.split(x, np.cumsum(_ints(split_sizes))[:-1], int(axis))


@_operation
def tile(x: Array, reps: Any) -> Array:
    """x repeated along every axis."""
    return np.tile(x, _ints(reps))


@_operation
def pad(x: Array, pad: Any, mode: str = "constant", constant_val: Any = 0) -> Array:
    """x with (before, after) more elements on its last axes."""
    amounts = _ints(pad)
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + list(zip(amounts[::2], amounts[1::2]))
    if mode == "constant":
        return np.pad(x, pairs, constant_values=constant_val)
    return np.pad(x, pairs, mode="edge" if mode == "replicate" else "reflect")


@_operation
def reverse(x: Array, axes: Any = None) -> Array:
    """x backwards along the given axes, or all."""
    return np.flip(x, None if axes is None else _ints(axes))


@_operation
def pixel_shuffle(x: Array, upscale_factor: Any) -> Array:
    """[n, c * f * f, h, w] -> [n, c, h * f, w * f], the channel slowest."""
    (n, c, h, w), f = x.shape, int(upscale_factor)
    return x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


@_operation
def pixel_unshuffle(x: Array, downscale_factor: Any) -> Array:
    """[n, c, h * f, w * f] -> [n, c * f * f, h, w], the channel slowest."""
    (n, c, h, w), f = x.shape, int(downscale_factor)
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


@_operation
def depth_to_space(x: Array, block_size: Any) -> Array:
    """[n, b * b * c, h, w] -> [n, c, h * b, w * b], the place in the block slowest, as in TensorFlow."""
    (n, c, h, w), b = x.shape, int(block_size)
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


@_operation
def space_to_depth(x: Array, block_size: Any) -> Array:
    """[n, c, h * b, w * b] -> [n, b * b * c, h, w], the place in the block slowest, as in TensorFlow."""
    (n, c, h, w), b = x.shape, int(block_size)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


# Indices


def _index(values: Array) -> Array:
    return np.asarray(values).astype(np.intp)


@_operation
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


@_operation
def gather_along_axis(x: Array, indices: Array, axis: Any = 0, validate_indices: Any = False) -> Array:
    """x[..., indices[...], ...] along `axis`; the result has the shape of `indices`."""
    return np.take_along_axis(x, _index(indices), int(axis))


@_operation
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


@_operation
def scatter(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: str = "add", validate_indices: Any = False
) -> Array:
    """data with `updates` combined into its slices at `indices` along `axis`."""
    return _scattered(data, (slice(None),) * (int(axis) % data.ndim) + (_index(indices),), updates, mode)


@_operation
def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: str = "add", validate_indices: Any = False
) -> Array:
    """data with `updates` combined in at indices[...] along `axis`; `updates` has the shape of `indices`."""
    index: List[Array] = list(np.indices(indices.shape, sparse=True))
    index[int(axis)] = _index(indices)
    return _scattered(data, tuple(index), updates, mode)


@_operation
def scatter_nd(data: Array, indices: Array, updates: Array, mode: str = "add", validate_indices: Any = False) -> Array:
    """data with `updates` combined in at the index vectors in the last axis of `indices`."""
    return _scattered(data, tuple(np.moveaxis(_index(indices), -1, 0)), updates, mode)


def _order(x: Array, axis: int, ascending: Any) -> Array:
    """The indices that sort x; equal values keep their order."""
    keys = x if x.dtype.kind == "f" else x.astype(np.int64)  # -x must not wrap around
    return np.argsort(keys if ascending else -keys, axis=axis, kind="stable")


@_operation
def argsort(x: Array, axis: Any = -1, ascending: Any = False) -> Array:
    """The indices that sort x along `axis`, largest first."""
    return _order(x, int(axis), ascending)


@_operation
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


@_operation
def non_zero(x: Array) -> Array:
    """[count, rank]: the indices of what is not zero."""
    return np.argwhere(x)


@_operation
def one_hot(indices: Array, one_hot_vector_size: Any, axis: Any = -1, on_value: Any = 1, off_value: Any = 0) -> Array:
    """A new axis with on_value at the index and off_value elsewhere."""
    hot = _index(indices)[..., None] == np.arange(int(one_hot_vector_size))
    return np.where(np.moveaxis(hot, -1, int(axis)), on_value, off_value)


@_operation
def band_part(x: Array, lower: Any = -1, upper: Any = -1) -> Array:
    """x's last two axes with zeros outside a band about the diagonal; a negative width keeps all of that side."""
    gap = np.arange(x.shape[-2])[:, None] - np.arange(x.shape[-1])
    lower, upper = int(lower), int(upper)
    kept = (gap <= lower if lower >= 0 else gap == gap) & (-gap <= upper if upper >= 0 else gap == gap)
    return np.where(kept, x, np.zeros((), x.dtype))


@_operation
def cumsum(x: Array, axis: Any = 0, exclusive: Any = False, reverse: Any = False) -> Array:
    """Running sums along `axis`, without the element itself when exclusive, from the end when reversed."""
    x = np.flip(x, int(axis)) if reverse else x
    total = np.cumsum(x, int(axis), dtype=x.dtype)
    total = total - x if exclusive else total
    return np.flip(total, int(axis)) if reverse else total


@_operation
def fill(shape: Any, value: Any = 0.0) -> Array:
    """A tensor of one value."""
    return np.full(_ints(shape), value)


@_operation
def fill_like(ref_tensor: Array, value: Any = 0.0) -> Array:
    """A tensor of one value in the shape of another."""
    return np.full(np.shape(ref_tensor), value)


@_operation
def range_1d(start: Any, end: Any, step: Any) -> Array:
    """start, start + step, ... below end."""
    return np.arange(start, end, step)


# Compressed weights


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


@_operation
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Any) -> Array:
    """scale * (data - zero_point), both along `axis` or for the whole tensor."""
    rank, axis = quantized_data.ndim, int(axis)
    scale, zero_point = (_along(p, axis, rank) if np.ndim(p) else p for p in (_wide(scale), _wide(zero_point)))
    return (quantized_data - zero_point) * scale


@_operation
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Any = None) -> Array:
    """scale * (data - offset), both given for blocks of data (iOS18)."""
    shift = 0 if offset is None else _blocks(_wide(offset), data.shape)
    return _blocks(_wide(scale), data.shape) * (_wide(data) - shift)


@_operation
def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """A half-precision weight as float32."""
    return _wide(source_val)


@_operation
def constexpr_lut_to_dense(indices: Array, lut: Array, shape: Any = None, vector_axis: Any = None) -> Array:
    """Weights looked up in a palette: iOS16 packs the indices of one palette, iOS18 has palettes for blocks.

    iOS18: indices [*s], lut [*blocks, palette, vector]; a vector's entries lie along `vector_axis`.
    """
    if shape is not None:
        wanted = _ints(shape)
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


@_operation
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Any = None) -> Array:
    """Values put where the mask has a one, zeros elsewhere; iOS16 packs the mask's bits."""
    if shape is not None:
        mask = unpack_bits(mask, 1, math.prod(_ints(shape))).reshape(_ints(shape))
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


@_operation
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


@_operation
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Any = None
) -> List[Array]:
    """Scale and offset applied to the nonzero entries only: the mask, and the values where it has ones."""
    dense = constexpr_blockwise_shift_scale(constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return [data_mask, dense[data_mask != 0]]


@_operation
def quantize(input: Array, scale: Array, output_dtype: str, zero_point: Any = None, axis: Any = None) -> Array:
    """clip(round(input / scale) + zero_point) in the integers of `output_dtype`."""
    shift = np.zeros((), np.float32) if zero_point is None else zero_point
    scale, shift = (_along(p, int(axis), input.ndim) if np.ndim(p) else p for p in (scale, shift))
    limits = np.iinfo(output_dtype)
    return np.clip(np.round(input / scale) + shift, limits.min, limits.max)


@_operation
def dequantize(input: Array, scale: Array, zero_point: Any = None, axis: Any = None) -> Array:
    """scale * (input - zero_point)."""
    shift = np.zeros((), np.float32) if zero_point is None else zero_point
    return constexpr_affine_dequantize(input, shift, scale, 0 if axis is None else axis)
