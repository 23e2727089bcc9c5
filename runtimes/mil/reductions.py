"""MIL's operations that sum over axes: reductions, normalisation, softmax and products of matrices."""

from __future__ import annotations

import math
from typing import Any, Callable, Sequence, Tuple

import numpy as np

from runtimes.mil.table import Array, Table, ints, per_channel

REDUCTIONS = Table()


# Reductions and normalisation


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # all -inf: log(0), not -inf - -inf
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis=axis)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
        return function(x, axis=None if axes is None else ints(axes), keepdims=bool(keep_dims))

    return reduce


def _arg_reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Array, axis: Any = -1, keep_dims: Any = False, output_dtype: str = "int32") -> Array:
        found = function(x, axis=int(axis))
        return np.expand_dims(found, int(axis)) if keep_dims else found

    return reduce


REDUCTIONS.update(
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


@REDUCTIONS.add
def softmax(x: Array, axis: Any = -1) -> Array:
    """exp(x) over its sum; entries of -inf weigh nothing, a row of only -inf is NaN, as in PyTorch and on Apple's."""
    weights = np.exp(x - np.max(x, axis=int(axis), keepdims=True))
    weights /= np.sum(weights, axis=int(axis), keepdims=True)
    return weights


def _standardised(x: Array, axes: Tuple[int, ...], epsilon: Any) -> Array:
    centred = x - np.mean(x, axis=axes, keepdims=True)
    centred /= np.sqrt(np.mean(np.square(centred), axis=axes, keepdims=True) + epsilon)
    return centred


@REDUCTIONS.add
def layer_norm(x: Array, axes: Any, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5) -> Array:
    """Zero mean and unit variance over `axes`, then gamma and beta of shape x.shape[axes]."""
    over = tuple(axis % x.ndim for axis in ints(axes))
    shape = [length if axis in over else 1 for axis, length in enumerate(x.shape)]
    result = _standardised(x, over, epsilon)
    if gamma is not None:
        result *= np.reshape(gamma, shape)
    if beta is not None:
        result += np.reshape(beta, shape)
    return result


@REDUCTIONS.add
def instance_norm(x: Array, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5) -> Array:
    """Zero mean and unit variance over the spatial axes of x [n, c, *in]; gamma and beta are [c]."""
    result = _standardised(x, tuple(range(2, x.ndim)), epsilon)
    if gamma is not None:
        result *= per_channel(gamma, x)
    if beta is not None:
        result += per_channel(beta, x)
    return result


@REDUCTIONS.add
def batch_norm(
    x: Array, mean: Array, variance: Array, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5
) -> Array:
    """x [n, c, *in] scaled and shifted per channel; all parameters are [c]."""
    scale = (1 if gamma is None else gamma) / np.sqrt(variance + epsilon)
    shift = (0 if beta is None else beta) - mean * scale
    return x * per_channel(scale, x) + per_channel(shift, x)


@REDUCTIONS.add
def l2_norm(x: Array, epsilon: Any = 1e-6) -> Array:
    """x over the root of the sum of squares of its last three axes."""
    return x / np.sqrt(np.sum(np.square(x), axis=(-3, -2, -1), keepdims=True) + epsilon)


# Products


@REDUCTIONS.add
def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    """Matrix product of the last two axes, the others broadcast."""
    x = np.swapaxes(x, -1, -2) if transpose_x else x
    y = np.swapaxes(y, -1, -2) if transpose_y else y
    return np.matmul(x, y)


@REDUCTIONS.add
def linear(x: Array, weight: Array, bias: Any = None) -> Array:
    """x [*, in] times weight [out, in] transposed, plus bias [out]."""
    result = np.matmul(x.reshape(-1, x.shape[-1]), weight.T).reshape(x.shape[:-1] + weight.shape[:1])
    return result if bias is None else result + bias


@REDUCTIONS.add
def einsum(values: Sequence[Array], equation: str) -> Array:
    """MIL has one: nchw,nwhu->nchu (n may be missing, letters differ), sizes of 1 broadcast."""
    left, right = (np.swapaxes(value, -3, -2) for value in values)  # [n, h, c, w], [n, h, w, u]
    return np.swapaxes(np.matmul(left, right), -3, -2)


@REDUCTIONS.add
def scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Any = None) -> Array:
    """softmax(query @ key.T / sqrt(e) + mask) @ value; a boolean mask keeps where it is true."""
    scores = np.matmul(query * np.float32(1 / math.sqrt(query.shape[-1])), np.swapaxes(key, -1, -2))
    if attn_mask is not None and attn_mask.dtype == bool:
        scores = np.where(attn_mask, scores, np.float32(-np.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return np.matmul(softmax(scores), value)
