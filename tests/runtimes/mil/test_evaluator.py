"""Every operation of the Core ML evaluator against PyTorch or a formula."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry  # noqa: E402
from hypothesis import assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from runtimes import coreml_runtime  # noqa: E402
from runtimes.coreml_runtime import open_session  # noqa: E402
from runtimes.mil.elementwise import erf  # noqa: E402
from runtimes.mil.operations import OPERATIONS  # noqa: E402
from runtimes.mil.weights import unpack_bits  # noqa: E402

torch.set_num_threads(1)
logging.getLogger("coremltools").setLevel(logging.ERROR)

IOS15, IOS16, IOS17, IOS18 = ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18
EVERY, FROM_16, FROM_17 = (IOS15, IOS17), (IOS16, IOS18), (IOS17,)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# One row an operation and variant: MIL's builder beside PyTorch, or beside a formula.


@dataclass(frozen=True)
class Row:
    """`op` built from the group's inputs by `build`; `wanted` takes them as torch tensors."""

    op: str
    build: Callable[..., Any]
    wanted: Callable[..., Any]


@dataclass(frozen=True)
class Group:
    inputs: tuple[np.ndarray, ...]
    rows: tuple[Row, ...]
    targets: tuple = EVERY


def unary(*names: str) -> tuple[Row, ...]:
    special = {
        "relu6": F.relu6, "silu": F.silu, "softplus": F.softplus, "softsign": F.softsign, "identity": lambda x: x,
        "cast": lambda x: x,
    }  # fmt: skip
    return tuple(
        Row(
            name,
            functools.partial(lambda x, op: op(x=x), op=getattr(mb, name)),
            special.get(name) or getattr(torch, name),
        )
        for name in names
    )


def binary(**operations: Callable[..., Any]) -> tuple[Row, ...]:
    return tuple(
        Row(name, functools.partial(lambda x, y, op: op(x=x, y=y), op=getattr(mb, name)), function)
        for name, function in operations.items()
    )


def channels(values: np.ndarray, rank: int = 4) -> torch.Tensor:
    return torch.from_numpy(values).reshape((1, -1) + (1,) * (rank - 2))


def logical(op: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: op(x=mb.greater(x=x, y=0.0), y=mb.greater(x=y, y=0.0))


def sigmoid_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


THREE = np.array([0.3, -0.2, 0.7], np.float32)
FIVE = np.abs(normal(3, seed=9)) + 0.5
OVER = (1, 2)

ELEMENTWISE = {
    "unary": Group(
        (normal(2, 3, 4),),
        unary(
            "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "identity", "relu", "round",
            "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softsign", "square", "tan", "tanh",
        ),
    ),
    "unary of fractions": Group(
        (np.linspace(0.05, 0.95, 24, dtype=np.float32).reshape(2, 3, 4),),
        (
            *unary("acos", "asin", "atanh", "sqrt"),
            Row("log", lambda x: mb.log(x=x), torch.log),
            Row("log", lambda x: mb.log(x=x, epsilon=1.0), torch.log1p),
            Row("rsqrt", lambda x: mb.rsqrt(x=x), torch.rsqrt),
            Row("rsqrt", lambda x: mb.rsqrt(x=x, epsilon=0.5), lambda x: torch.rsqrt(x + 0.5)),
            Row("inverse", lambda x: mb.inverse(x=x), lambda x: 1 / (x + 1e-4)),
            Row("inverse", lambda x: mb.inverse(x=x, epsilon=0.5), lambda x: 1 / (x + 0.5)),
        ),
    ),
    "activations": Group(
        (normal(2, 3, 4, 5) * 3,),
        (
            *unary("relu6"),
            Row("clamped_relu", lambda x: mb.clamped_relu(x=x, alpha=0.3, beta=1.0),
                lambda x: torch.clamp(F.leaky_relu(x, 0.3), max=1.0)),
            Row("elu", lambda x: mb.elu(x=x, alpha=0.7), lambda x: F.elu(x, 0.7)),
            Row("gelu", lambda x: mb.gelu(x=x), F.gelu),
            Row("gelu", lambda x: mb.gelu(x=x, mode="EXACT"), F.gelu),
            Row("gelu", lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"), lambda x: F.gelu(x, approximate="tanh")),
            Row("gelu", lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), sigmoid_gelu),
            Row("leaky_relu", lambda x: mb.leaky_relu(x=x, alpha=0.2), lambda x: F.leaky_relu(x, 0.2)),
            Row("linear_activation", lambda x: mb.linear_activation(x=x, alpha=0.5, beta=-2.0), lambda x: 0.5 * x - 2),
            Row("prelu", lambda x: mb.prelu(x=x, alpha=THREE), lambda x: F.prelu(x, torch.from_numpy(THREE))),
            Row("scaled_tanh", lambda x: mb.scaled_tanh(x=x, alpha=1.7, beta=0.6), lambda x: 1.7 * torch.tanh(0.6 * x)),
            Row("sigmoid_hard", lambda x: mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5), F.hardsigmoid),
            Row("softplus_parametric", lambda x: mb.softplus_parametric(x=x, alpha=THREE, beta=FIVE),
                lambda x: channels(THREE) * F.softplus(channels(FIVE) * x)),
            Row("threshold", lambda x: mb.threshold(x=x, alpha=0.4), lambda x: torch.clamp(x, min=0.4)),
            Row("thresholded_relu", lambda x: mb.thresholded_relu(x=x, alpha=0.4), lambda x: F.threshold(x, 0.4, 0.0)),
            Row("clip", lambda x: mb.clip(x=x, alpha=-0.5, beta=0.8), lambda x: torch.clamp(x, -0.5, 0.8)),
            Row("softmax", lambda x: mb.softmax(x=x), lambda x: torch.softmax(x, -1)),
            Row("softmax", lambda x: mb.softmax(x=x, axis=1), lambda x: torch.softmax(x, 1)),
        ),
    ),
    "binary": Group(
        (normal(2, 3, 4), normal(3, 1, seed=1)),
        (
            *binary(add=torch.add, sub=torch.sub, mul=torch.mul, real_div=torch.div, maximum=torch.maximum,
                    minimum=torch.minimum, floor_div=torch.floor_divide, mod=torch.remainder, greater=torch.gt,
                    greater_equal=torch.ge, less=torch.lt, less_equal=torch.le, equal=torch.eq, not_equal=torch.ne),
            Row("pow", lambda x, y: mb.pow(x=mb.abs(x=x), y=y), lambda x, y: torch.pow(x.abs(), y)),
            Row("logical_and", logical(mb.logical_and), lambda x, y: (x > 0) & (y > 0)),
            Row("logical_or", logical(mb.logical_or), lambda x, y: (x > 0) | (y > 0)),
            Row("logical_xor", logical(mb.logical_xor), lambda x, y: (x > 0) ^ (y > 0)),
            Row("logical_not", lambda x, y: mb.logical_not(x=mb.greater(x=x, y=y)), lambda x, y: ~(x > y)),
            Row("select", lambda x, y: mb.select(cond=mb.greater(x=x, y=0.0), a=x, b=y),
                lambda x, y: torch.where(x > 0, x, y)),
        ),
    ),
    "integers": Group(
        (np.array([[-7, 7, 5], [-1, 0, 3]], np.int32), np.array([2, -3, 3], np.int32)),
        (
            *binary(add=torch.add, sub=torch.sub, mul=torch.mul, floor_div=torch.floor_divide, mod=torch.remainder,
                    equal=torch.eq, not_equal=torch.ne, greater=torch.gt, maximum=torch.maximum),
            Row("pow", lambda x, y: mb.pow(x=x, y=2), lambda x, y: x * x),
            Row("abs", lambda x, y: mb.abs(x=x), lambda x, y: x.abs()),
            Row("sign", lambda x, y: mb.sign(x=x), lambda x, y: x.sign()),
            Row("cast", lambda x, y: mb.cast(x=x, dtype="bool"), lambda x, y: x != 0),
            Row("cast", lambda x, y: mb.cast(x=x, dtype="fp32"), lambda x, y: x.float()),
            Row("reduce_sum", lambda x, y: mb.reduce_sum(x=x, axes=[1]), lambda x, y: x.sum(1, dtype=torch.int32)),
        ),
    ),
    "cast": Group(
        (np.array([-2.7, -0.5, 0.0, 0.3, 1.9, 70.1], np.float32),),
        (
            Row("cast", lambda x: mb.cast(x=x, dtype="int32"), lambda x: x.to(torch.int32)),
            Row("cast", lambda x: mb.cast(x=x, dtype="bool"), lambda x: x.bool()),
            Row("thresholded_relu", lambda x: mb.thresholded_relu(x=x, alpha=np.float32(0.3)),
                lambda x: torch.tensor([0, 0, 0, 0.3, 1.9, 70.1])),
            Row("cast", lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), lambda x: x.half().float()),
        ),
    ),
    "cast to small integers": Group(
        (np.array([-2.7, -0.5, 0.0, 0.3, 1.9, 70.1], np.float32),),
        tuple(
            Row("cast", functools.partial(lambda x, dtype: mb.cast(x=x, dtype=dtype), dtype=dtype),
                functools.partial(lambda x, dtype: x.to(dtype), dtype=own))
            for dtype, own in (("int8", torch.int8), ("int16", torch.int16))
        ),
        FROM_17,
    ),
}  # fmt: skip


def reduction(name: str, function: Callable[..., Any], **more: Any) -> tuple[Row, ...]:
    op = getattr(mb, name)
    return (
        Row(name, lambda x: op(x=x, axes=[1, -1], keep_dims=True), lambda x: function(x, (1, 2), True)),
        Row(name, lambda x: op(x=x, axes=[0]), lambda x: function(x, (0,), False)),
        Row(name, lambda x: op(x=x), lambda x: function(x, (0, 1, 2), False)),
    )


def product(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def standardised(x: torch.Tensor, axes: tuple[int, ...], epsilon: float) -> torch.Tensor:
    return (x - x.mean(axes, keepdim=True)) / torch.sqrt(x.var(axes, unbiased=False, keepdim=True) + epsilon)


GAMMA, BETA = normal(4, 5, seed=3), normal(4, 5, seed=4)
MEAN, VARIANCE = normal(3, seed=5), np.abs(normal(3, seed=6)) + 0.1

REDUCTIONS = {
    "reductions": Group(
        (normal(2, 3, 4),),
        (
            *reduction("reduce_mean", lambda x, axes, keep: x.mean(axes, keep)),
            *reduction("reduce_sum", lambda x, axes, keep: x.sum(axes, keep)),
            *reduction("reduce_max", lambda x, axes, keep: x.amax(axes, keep)),
            *reduction("reduce_min", lambda x, axes, keep: x.amin(axes, keep)),
            *reduction("reduce_prod", product),
            *reduction("reduce_l1_norm", lambda x, axes, keep: x.abs().sum(axes, keep)),
            *reduction("reduce_l2_norm", lambda x, axes, keep: x.norm(2, axes, keep)),
            *reduction("reduce_sum_square", lambda x, axes, keep: x.square().sum(axes, keep)),
            *reduction("reduce_log_sum_exp", lambda x, axes, keep: x.logsumexp(axes, keep)),
            Row("reduce_log_sum", lambda x: mb.reduce_log_sum(x=mb.exp(x=x), axes=[1]), lambda x: x.logsumexp(1)),
            Row("l2_norm", lambda x: mb.l2_norm(x=x), lambda x: x / torch.sqrt(x.square().sum() + 1e-6)),
            Row("reduce_argmax", lambda x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(1)),
            Row("reduce_argmax", lambda x: mb.reduce_argmax(x=x, keep_dims=True), lambda x: x.argmax(-1, True)),
            Row("reduce_argmin", lambda x: mb.reduce_argmin(x=x, axis=-2, keep_dims=True), lambda x: x.argmin(1, True)),
        ),
    ),
    "argmax of iOS17": Group(
        (normal(2, 3),),
        (Row("reduce_argmax", lambda x: mb.reduce_argmax(x=x, axis=1, output_dtype="uint16"), lambda x: x.argmax(1)),),
        FROM_17,
    ),
    "log_sum_exp of infinities": Group(
        (np.array([[-np.inf, 1, 2], [300, 300, 301]], np.float32),),
        (Row("reduce_log_sum_exp", lambda x: mb.reduce_log_sum_exp(x=x, axes=[1]), lambda x: x.logsumexp(1)),),
    ),
    "normalisation": Group(
        (normal(2, 3, 4, 5) * 3 + 1,),
        (
            Row("layer_norm", lambda x: mb.layer_norm(x=x, axes=[2, -1], gamma=GAMMA, beta=BETA, epsilon=1e-3),
                lambda x: F.layer_norm(x, (4, 5), torch.from_numpy(GAMMA), torch.from_numpy(BETA), 1e-3)),
            Row("layer_norm", lambda x: mb.layer_norm(x=x, axes=[1]), lambda x: standardised(x, (1,), 1e-5)),
            Row("instance_norm", lambda x: mb.instance_norm(x=x, gamma=THREE, beta=MEAN, epsilon=1e-3),
                lambda x: F.instance_norm(x, weight=torch.from_numpy(THREE), bias=torch.from_numpy(MEAN), eps=1e-3)),
            Row("instance_norm", lambda x: mb.instance_norm(x=x), lambda x: standardised(x, (2, 3), 1e-5)),
            Row("batch_norm",
                lambda x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE, gamma=THREE, beta=FIVE, epsilon=1e-3),
                lambda x: F.batch_norm(x, *map(torch.from_numpy, (MEAN, VARIANCE, THREE, FIVE)), eps=1e-3)),
            Row("batch_norm", lambda x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE),
                lambda x: F.batch_norm(x, *map(torch.from_numpy, (MEAN, VARIANCE)))),
            Row("l2_norm", lambda x: mb.l2_norm(x=x, epsilon=0.5),
                lambda x: x / torch.sqrt(x.square().sum((1, 2, 3), keepdim=True) + 0.5)),
        ),
    ),
}  # fmt: skip

WEIGHT, BIAS = normal(6, 4, seed=7), normal(6, seed=8)
MASK = np.array([[0, -1, -2, 0, 1], [0, 0, -np.inf, -np.inf, -np.inf], [1, 1, 1, 1, -9]], np.float32)


def attend(q: Any, k: Any, v: Any, mask: Any = None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, None if mask is None else torch.from_numpy(mask))


PRODUCTS = {
    "products": Group(
        (normal(2, 3, 4), normal(3, 4, seed=1), normal(5, 2, 4, 3, seed=2)),
        (
            Row("matmul", lambda x, y, z: mb.matmul(x=x, y=y, transpose_y=True), lambda x, y, z: x @ y.T),
            Row("matmul", lambda x, y, z: mb.matmul(x=x, y=z), lambda x, y, z: x @ z),
            Row("matmul", lambda x, y, z: mb.matmul(x=x, y=y, transpose_x=True), lambda x, y, z: x.mT @ y),
            Row("matmul", lambda x, y, z: mb.matmul(x=x, y=x, transpose_y=True), lambda x, y, z: x @ x.mT),
            Row("linear", lambda x, y, z: mb.linear(x=x, weight=WEIGHT, bias=BIAS),
                lambda x, y, z: F.linear(x, torch.from_numpy(WEIGHT), torch.from_numpy(BIAS))),
            Row("linear", lambda x, y, z: mb.linear(x=y, weight=WEIGHT),
                lambda x, y, z: F.linear(y, torch.from_numpy(WEIGHT))),
        ),
    ),
    "einsum": Group(
        (normal(2, 3, 4, 5), normal(2, 5, 4, 6, seed=1), normal(1, 5, 1, 6, seed=2)),
        (
            Row("einsum", lambda x, y, z: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
                lambda x, y, z: torch.einsum("nchw,nwhu->nchu", x, y)),
            Row("einsum", lambda x, y, z: mb.einsum(values=(x, z), equation="abcd,adce->abce"),
                lambda x, y, z: torch.einsum("nchw,nwhu->nchu", x, z)),
        ),
    ),
    "einsum of three axes": Group(
        (normal(3, 4, 5), normal(5, 4, 6, seed=1)),
        (
            Row("einsum", lambda x, y: mb.einsum(values=(x, y), equation="chw,whr->chr"),
                lambda x, y: torch.einsum("chw,whr->chr", x, y)),
        ),
    ),
    "attention": Group(
        (normal(2, 3, 8), normal(2, 5, 8, seed=1), normal(2, 5, 6, seed=2)),
        (
            Row("scaled_dot_product_attention",
                lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v), attend),
            Row("scaled_dot_product_attention",
                lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=MASK),
                lambda q, k, v: attend(q, k, v, MASK)),
            Row("scaled_dot_product_attention",
                lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=MASK > -1.5),
                lambda q, k, v: attend(q, k, v, MASK > -1.5)),
        ),
        (IOS18,),
    ),
}  # fmt: skip

W2 = normal(6, 4, 3, 2, seed=11)  # [out, in, height, width]
W1, DEPTHWISE, W3 = normal(6, 4, 3, seed=12), normal(8, 1, 3, 3, seed=13), normal(2, 4, 2, 3, 2, seed=14)
SQUARE = normal(6, 4, 3, 3, seed=15)
TRANSPOSED, TRANSPOSED1 = normal(4, 3, 3, 2, seed=16), normal(4, 3, 3, seed=17)


def conv2d(weight: np.ndarray, pads: tuple[int, ...] = (0, 0, 0, 0), bias: Any = None, **options: Any) -> Callable:
    """torch's, padded (left, right, top, bottom) by hand."""
    bias = None if bias is None else torch.from_numpy(bias)
    return lambda x, *_: F.conv2d(F.pad(x, pads), torch.from_numpy(weight), bias, **options)


def mil_conv(weight: np.ndarray, **options: Any) -> Callable[..., Any]:
    return lambda x, *_: mb.conv(x=x, weight=weight, **options)


def mil_conv_transpose(weight: np.ndarray, **options: Any) -> Callable[..., Any]:
    return lambda x, *_: mb.conv_transpose(x=x, weight=weight, **options)


def conv_transpose2d(weight: np.ndarray, bias: Any = None, **options: Any) -> Callable[..., Any]:
    bias = None if bias is None else torch.from_numpy(bias)
    return lambda x, *_: F.conv_transpose2d(x, torch.from_numpy(weight), bias, **options)


CONVOLUTIONS = {
    "convolution": Group(
        (normal(2, 4, 7, 8), normal(2, 4, 9, seed=1), normal(1, 4, 4, 5, 6, seed=2)),
        (
            Row("conv", mil_conv(W2, bias=BIAS), conv2d(W2, bias=BIAS)),
            Row("conv", mil_conv(SQUARE[:, :, :1, :1], strides=[2, 1]), conv2d(SQUARE[:, :, :1, :1], stride=(2, 1))),
            Row("conv", mil_conv(W2, pad_type="custom", pad=[1, 2, 0, 3], strides=[2, 1], dilations=[1, 2]),
                conv2d(W2, (0, 3, 1, 2), stride=(2, 1), dilation=(1, 2))),
            # 7 rows: 4 outputs cover 9, one more on each side; 8 columns: 4 outputs cover 9, one more, at the end
            Row("conv", mil_conv(SQUARE, pad_type="same", strides=[2, 2]), conv2d(SQUARE, (0, 1, 1, 1), stride=2)),
            # a kernel of one over every second place needs no padding
            Row("conv", mil_conv(SQUARE[:, :, :1, :1], pad_type="same", strides=[2, 2]),
                conv2d(SQUARE[:, :, :1, :1], stride=2)),
            Row("conv", mil_conv(SQUARE[:, :, :2, :2]), conv2d(SQUARE[:, :, :2, :2])),
            Row("conv", mil_conv(normal(6, 2, 3, 2, seed=3), groups=2, bias=BIAS),
                conv2d(normal(6, 2, 3, 2, seed=3), groups=2, bias=BIAS)),
            Row("conv", mil_conv(DEPTHWISE, groups=4, pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2]),
                conv2d(DEPTHWISE, (1, 1, 1, 1), groups=4, stride=2)),
            Row("conv", lambda x, y, z: mb.conv(x=y, weight=W1, bias=BIAS, strides=[2], dilations=[2]),
                lambda x, y, z: F.conv1d(y, torch.from_numpy(W1), torch.from_numpy(BIAS), 2, 0, 2)),
            Row("conv", lambda x, y, z: mb.conv(x=z, weight=W3, strides=[1, 2, 1]),
                lambda x, y, z: F.conv3d(z, torch.from_numpy(W3), stride=(1, 2, 1))),
            Row("conv_transpose", mil_conv_transpose(TRANSPOSED, bias=THREE), conv_transpose2d(TRANSPOSED, THREE)),
            Row("conv_transpose",
                mil_conv_transpose(TRANSPOSED, pad_type="custom", pad=[1, 1, 0, 0], strides=[2, 3], dilations=[2, 1]),
                conv_transpose2d(TRANSPOSED, padding=(1, 0), stride=(2, 3), dilation=(2, 1))),
            Row("conv_transpose", mil_conv_transpose(TRANSPOSED, groups=2, strides=[2, 2]),
                conv_transpose2d(TRANSPOSED, groups=2, stride=2)),
            Row("conv_transpose",
                mil_conv_transpose(TRANSPOSED, pad_type="custom", pad=[1, 1, 0, 0], strides=[2, 2],
                                   output_shape=[2, 3, 14, 17]),
                conv_transpose2d(TRANSPOSED, padding=(1, 0), stride=2, output_padding=(1, 1))),
            # full rows: 6 * 2 + 3 = 15 for 14; columns: 7 * 2 + 2 = 16 for 16
            Row("conv_transpose", mil_conv_transpose(TRANSPOSED, pad_type="same", strides=[2, 2]),
                lambda x, y, z: conv_transpose2d(TRANSPOSED, stride=2)(x)[:, :, :14, :16]),
            # full rows: 6 + 3 = 9 for 7, one off each side; columns: 7 + 2 = 9 for 8, one off the end
            Row("conv_transpose", mil_conv_transpose(TRANSPOSED, pad_type="same"),
                lambda x, y, z: conv_transpose2d(TRANSPOSED)(x)[:, :, 1:8, :8]),
            Row("conv_transpose", lambda x, y, z: mb.conv_transpose(x=y, weight=TRANSPOSED1, strides=[2]),
                lambda x, y, z: F.conv_transpose1d(y, torch.from_numpy(TRANSPOSED1), stride=2)),
        ),
    ),
    "convolution and pooling with same_lower": Group(
        (normal(2, 4, 7, 8),),
        (
            Row("conv", mil_conv(SQUARE, pad_type="same_lower", strides=[2, 2]),
                conv2d(SQUARE, (1, 0, 1, 1), stride=2)),
            Row("max_pool",
                lambda x: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="same_lower"),
                lambda x: F.max_pool2d(F.pad(x, (1, 0, 1, 1), value=-math.inf), 3, 2)),
        ),
        FROM_16,
    ),
    "pooling": Group(
        (normal(2, 3, 7, 8), normal(2, 3, 9, seed=1), normal(1, 2, 4, 4, 4, seed=2)),
        (
            Row("max_pool", lambda x, y, z: mb.max_pool(x=x, kernel_sizes=[2, 3], strides=[2, 1], pad_type="valid"),
                lambda x, y, z: F.max_pool2d(x, (2, 3), (2, 1))),
            Row("max_pool",
                lambda x, y, z: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom",
                                            pad=[1, 1, 1, 1], ceil_mode=True),
                lambda x, y, z: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
            Row("max_pool",
                lambda x, y, z: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="same"),
                lambda x, y, z: F.max_pool2d(F.pad(x, (0, 1, 1, 1), value=-math.inf), 3, 2)),
            Row("max_pool", lambda x, y, z: mb.max_pool(x=y, kernel_sizes=[3], strides=[2], pad_type="valid"),
                lambda x, y, z: F.max_pool1d(y, 3, 2)),
            # the sixth window would start behind the nine values
            Row("max_pool",
                lambda x, y, z: mb.max_pool(x=y, kernel_sizes=[2], strides=[2], pad_type="custom", pad=[1, 1],
                                            ceil_mode=True),
                lambda x, y, z: F.max_pool1d(y, 2, 2, 1, ceil_mode=True)),
            Row("max_pool", lambda x, y, z: mb.max_pool(x=z, kernel_sizes=[2, 2, 3], pad_type="valid"),
                lambda x, y, z: F.max_pool3d(z, (2, 2, 3), 1)),
            Row("avg_pool",
                lambda x, y, z: mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom",
                                            pad=[1, 1, 1, 1], ceil_mode=True),
                lambda x, y, z: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
            Row("avg_pool",
                lambda x, y, z: mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom",
                                            pad=[1, 1, 1, 1], exclude_padding_from_average=True),
                lambda x, y, z: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
            Row("avg_pool", lambda x, y, z: mb.avg_pool(x=y, kernel_sizes=[4], strides=[3], pad_type="valid"),
                lambda x, y, z: F.avg_pool1d(y, 4, 3)),
        ),
    ),
}  # fmt: skip


def bilinear(x: torch.Tensor, size: tuple[int, int], align: bool) -> torch.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=align)


def along(x: torch.Tensor, places: list[float], axis: int) -> torch.Tensor:
    """Linear interpolation at places counted by hand."""
    parts = []
    for place in places:
        low = math.floor(place)
        high = min(low + 1, x.shape[axis] - 1)
        parts.append(x.select(axis, low) * (1 - place + low) + x.select(axis, high) * (place - low))
    return torch.stack(parts, axis)


def to_5_and_6(mode: str) -> Callable[..., Any]:
    return lambda x: mb.resize_bilinear(x=x, target_size_height=5, target_size_width=6, sampling_mode=mode)


# The places for 2 -> 5 and 2 -> 6 are those of the documentation of MIL's resize_bilinear.
BY_HAND = {
    "UNALIGN_CORNERS": ([0, 0.1, 0.5, 0.9, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]),
    "STRICT_ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "DEFAULT": ([0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
    "OFFSET_CORNERS": ([0.1, 0.3, 0.5, 0.7, 0.9], [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
}


def grid_sample(mode: str, padding: str, align: bool) -> Row:
    names = {"zeros": "constant", "reflection": "reflection" if align else "symmetric"}
    return Row(
        "resample",
        lambda x, grid: mb.resample(
            x=x, coordinates=grid, sampling_mode=mode, padding_mode=names.get(padding, padding), padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one", align_corners=align,
        ),
        lambda x, grid: F.grid_sample(x, grid, mode, padding, align),
    )  # fmt: skip


RESIZING = {
    "resize by the documentation": Group(
        (normal(1, 2, 2, 2),),
        (
            *(Row("resize_bilinear", to_5_and_6(mode), functools.partial(
                lambda x, rows, columns: along(along(x, rows, 2), columns, 3), rows=rows, columns=columns))
              for mode, (rows, columns) in BY_HAND.items()),
            Row("resize_bilinear",
                lambda x: mb.resize_bilinear(x=x, target_size_height=1, target_size_width=1,
                                             sampling_mode="ALIGN_CORNERS"),
                lambda x: x.mean((2, 3), keepdim=True)),
            Row("resize_bilinear",
                lambda x: mb.resize_bilinear(x=x, target_size_height=1, target_size_width=2,
                                             sampling_mode="STRICT_ALIGN_CORNERS"),
                lambda x: x[:, :, :1]),
        ),
    ),
    "upsample": Group(
        (normal(1, 2, 3, 4),),
        (
            Row("upsample_nearest_neighbor",
                lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
                lambda x: F.interpolate(x, scale_factor=(2, 3), mode="nearest")),
            Row("upsample_nearest_neighbor",
                lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=4 / 3, scale_factor_width=0.5),
                lambda x: F.interpolate(x, (4, 2), mode="nearest")),
            Row("upsample_bilinear",
                lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3, align_corners=False),
                lambda x: bilinear(x, (6, 12), False)),
            Row("upsample_bilinear",
                lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3, align_corners=True),
                lambda x: bilinear(x, (6, 12), True)),
            Row("resize_nearest_neighbor",
                lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=5, target_size_width=3),
                lambda x: F.interpolate(x, (5, 3), mode="nearest")),
            # steps of 2 / 5 and 3 / 6
            Row("resize_bilinear", to_5_and_6("OFFSET_CORNERS"),
                lambda x: along(along(x, [0.2, 0.6, 1, 1.4, 1.8], 2), [0.25, 0.75, 1.25, 1.75, 2.25, 2.75], 3)),
            Row("crop", lambda x: mb.crop(x=x, crop_height=[1, 1], crop_width=[0, 2]), lambda x: x[:, :, 1:2, :2]),
        ),
    ),
    "upsample of iOS16": Group(
        (normal(1, 2, 2, 2),),
        (
            Row("upsample_bilinear",
                lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2.5, scale_factor_width=3.0,
                                               align_corners=False, half_pixel_centers=False),
                lambda x: along(along(x, BY_HAND["DEFAULT"][0], 2), BY_HAND["DEFAULT"][1], 3)),
        ),
        FROM_16,
    ),
    "resize of iOS17": Group(
        (normal(1, 2, 3, 4),),
        (
            Row("resize", lambda x: mb.resize(x=x, shape=[9, 6, 8], resized_dims=np.uint32(2),
                                              sampling_mode="UNALIGN_CORNERS"),
                lambda x: bilinear(x, (6, 8), False)),
            Row("resize", lambda x: mb.resize(x=x, shape=[8], resized_dims=np.uint32(1),
                                              sampling_mode="UNALIGN_CORNERS"),
                lambda x: bilinear(x, (3, 8), False)),
            Row("resize", lambda x: mb.resize(x=mb.squeeze(x=x, axes=[0]), shape=[5, 0], resized_dims=np.uint32(2),
                                              interpolation_mode="NEAREST_NEIGHBOR"),
                lambda x: F.interpolate(x, (5, 4), mode="nearest")[0]),
            Row("resize", lambda x: mb.resize(x=x, shape=[5, 7], resized_dims=np.uint32(2),
                                              interpolation_mode="NEAREST_NEIGHBOR", sampling_mode="UNALIGN_CORNERS"),
                lambda x: F.interpolate(x, (5, 7), mode="nearest-exact")),
        ),
        FROM_17,
    ),
    "resample": Group(
        (normal(2, 3, 4, 5), normal(2, 3, 6, 2, seed=1) * 0.9),
        tuple(grid_sample(mode, padding, align) for mode in ("bilinear", "nearest")
              for padding in ("zeros", "border", "reflection") for align in (True, False)),
    ),
    "resample of one pixel": Group(
        (normal(1, 2, 1, 3), normal(1, 2, 2, 2, seed=1)), (grid_sample("bilinear", "reflection", True),)
    ),
    "resample of plain coordinates": Group(
        (normal(1, 2, 4, 5), np.array([[[[4, 0], [1, 3]]]], np.float32)),
        (
            Row("resample",
                lambda x, grid: mb.resample(x=x, coordinates=grid, sampling_mode="bilinear", padding_mode="border",
                                            padding_value=0.0, coordinates_mode="unnormalized", align_corners=True),
                lambda x, grid: x[:, :, [0, 3], [4, 1]].unsqueeze(2)),
            Row("resample",
                lambda x, grid: mb.resample(x=x, coordinates=mb.mul(x=grid, y=np.array([1 / 4, 1 / 3], np.float32)),
                                            sampling_mode="bilinear", padding_mode="border", padding_value=0.0,
                                            coordinates_mode="normalized_zero_to_one", align_corners=True),
                lambda x, grid: x[:, :, [0, 3], [4, 1]].unsqueeze(2)),
        ),
    ),
}  # fmt: skip


def blocks_first(x: torch.Tensor) -> torch.Tensor:
    """TensorFlow's space_to_depth with blocks of 3, written as nine slices."""
    return torch.cat([x[:, :, i::3, j::3] for i in range(3) for j in range(3)], 1)


LAYOUT = {
    "layout": Group(
        (normal(2, 3, 4), normal(2, 3, 4, seed=1)),
        (
            Row("reshape", lambda x, y: mb.reshape(x=x, shape=[4, -1]), lambda x, y: x.reshape(4, 6)),
            Row("reshape", lambda x, y: mb.reshape(x=x, shape=[0, -1, 2]), lambda x, y: x.reshape(2, 6, 2)),
            Row("expand_dims", lambda x, y: mb.expand_dims(x=x, axes=[0, -1]), lambda x, y: x[None, ..., None]),
            Row("squeeze", lambda x, y: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 2]), axes=[0]),
                lambda x, y: x.unsqueeze(1)),
            Row("squeeze", lambda x, y: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 2])), lambda x, y: x),
            Row("squeeze", lambda x, y: mb.squeeze(x=x, axes=[0]), lambda x, y: x),
            Row("transpose", lambda x, y: mb.transpose(x=x, perm=[2, 0, -2]), lambda x, y: x.permute(2, 0, 1)),
            Row("slice_by_index",
                lambda x, y: mb.slice_by_index(x=x, begin=[1, -2, 3], end=[2, 3, 0], stride=[1, 1, -2]),
                lambda x, y: x[1:2, -2:, [3, 1]]),
            Row("slice_by_index",
                lambda x, y: mb.slice_by_index(x=x, begin=[0, 1, 9], end=[9, 9, 2], begin_mask=[True, False, True],
                                               end_mask=[True, False, False], squeeze_mask=[False, True, False]),
                lambda x, y: x[:, 1, :2]),
            Row("slice_by_index",
                lambda x, y: mb.slice_by_index(x=x, begin=[1, 1, 1], end=[0, 0, 4], begin_mask=[True, False, False],
                                               squeeze_mask=[True, True, False]),
                lambda x, y: x[0, 1, 1:]),
            Row("slice_by_index",
                lambda x, y: mb.slice_by_index(x=x, begin=[0, 0, 0], end=[0, 0, 0], stride=[-1, 1, 1],
                                               begin_mask=[True] * 3, end_mask=[True] * 3),
                lambda x, y: x.flip(0)),
            Row("slice_by_size", lambda x, y: mb.slice_by_size(x=x, begin=[1, -2, 0], size=[1, 1, -1]),
                lambda x, y: x[1:2, 1:2]),
            Row("concat", lambda x, y: mb.concat(values=[x, y], axis=-2), lambda x, y: torch.cat([x, y], 1)),
            Row("concat", lambda x, y: mb.concat(values=[x], axis=0), lambda x, y: x),
            Row("concat", lambda x, y: mb.concat(values=[x, y], axis=1, interleave=True),
                lambda x, y: torch.stack([x, y], 2).reshape(2, 6, 4)),
            Row("stack", lambda x, y: mb.stack(values=[x, y], axis=-1), lambda x, y: torch.stack([x, y], -1)),
            Row("split", lambda x, y: mb.split(x=x, num_splits=2, axis=-1)[1], lambda x, y: x[..., 2:]),
            Row("split", lambda x, y: mb.split(x=x, split_sizes=[1, 2, 1], axis=2)[1], lambda x, y: x[:, :, 1:3]),
            Row("tile", lambda x, y: mb.tile(x=x, reps=[1, 2, 3]), lambda x, y: x.repeat(1, 2, 3)),
            Row("pad", lambda x, y: mb.pad(x=x, pad=[1, 0, 0, 2], constant_val=0.5),
                lambda x, y: F.pad(x, (0, 2, 1, 0), value=0.5)),
            Row("pad", lambda x, y: mb.pad(x=x, pad=[2, 1], mode="reflect"),
                lambda x, y: F.pad(x, (2, 1), mode="reflect")),
            Row("pad", lambda x, y: mb.pad(x=x, pad=[3, 1], mode="replicate"),
                lambda x, y: F.pad(x, (3, 1), mode="replicate")),
            Row("reverse", lambda x, y: mb.reverse(x=x, axes=[0, -1]), lambda x, y: x.flip(0, 2)),
            Row("reverse", lambda x, y: mb.reverse(x=x), lambda x, y: x.flip(0, 1, 2)),
            Row("shape", lambda x, y: mb.shape(x=x), lambda x, y: torch.tensor([2, 3, 4])),
            Row("band_part", lambda x, y: mb.band_part(x=x, lower=-1, upper=0), lambda x, y: x.tril()),
            Row("band_part", lambda x, y: mb.band_part(x=x, lower=0, upper=-1), lambda x, y: x.triu()),
            Row("band_part", lambda x, y: mb.band_part(x=x, lower=1, upper=-1), lambda x, y: x.triu(-1)),
            Row("cumsum", lambda x, y: mb.cumsum(x=x, axis=1), lambda x, y: x.cumsum(1)),
            Row("cumsum", lambda x, y: mb.cumsum(x=x, axis=-1, exclusive=True), lambda x, y: x.cumsum(2) - x),
            Row("cumsum", lambda x, y: mb.cumsum(x=x, axis=0, reverse=True), lambda x, y: x.flip(0).cumsum(0).flip(0)),
            Row("fill", lambda x, y: mb.fill(shape=mb.shape(x=x), value=1.5), lambda x, y: torch.full((2, 3, 4), 1.5)),
        ),
    ),
    "layout of iOS16": Group(
        (normal(1, 2, 3, 6),),
        (
            Row("fill_like", lambda x: mb.fill_like(ref_tensor=x, value=2), lambda x: torch.full_like(x, 2).int()),
            Row("pixel_unshuffle", lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(3)),
                lambda x: F.pixel_unshuffle(x, 3)),
        ),
        FROM_16,
    ),
    "layout of iOS17": Group(
        (normal(2, 50),),
        (Row("reshape", lambda x: mb.reshape(x=x, shape=[1, 0, -1, 0]), lambda x: x.reshape(1, 1, 2, 50)),),
        FROM_17,
    ),
    "layout of iOS18": Group(
        (normal(3, 4), normal(2, 2, seed=1)),
        (
            Row("slice_update",
                lambda x, y: mb.slice_update(x=x, update=y, begin=[1, 0], end=[3, 3], stride=[1, 2]),
                lambda x, y: x.slice_scatter(x[1:].slice_scatter(y, 1, 0, 3, 2), 0, 1)),
        ),
        (IOS18,),
    ),
    "blocks": Group(
        (normal(2, 18, 3, 6),),
        (
            Row("pixel_shuffle", lambda x: mb.pixel_shuffle(x=x, upscale_factor=3), lambda x: F.pixel_shuffle(x, 3)),
            Row("space_to_depth", lambda x: mb.space_to_depth(x=x, block_size=3), blocks_first),
            Row("depth_to_space",
                lambda x: mb.depth_to_space(x=mb.space_to_depth(x=x, block_size=3), block_size=3), lambda x: x),
        ),
    ),
}  # fmt: skip

INDICES = np.array([[0, 2, 2], [1, 0, 1]], np.int32)
PLACES = np.array([2, 0], np.int32)


def scatter_rows(name: str, torch_name: str) -> tuple[Row, ...]:
    """Where no index repeats, one mode of PyTorch's scatter_reduce is the same."""
    return (
        Row("scatter_along_axis",
            lambda x, i: mb.scatter_along_axis(data=x, indices=i, updates=np.full((2, 3), 1.5, np.float32), axis=1,
                                               mode=name),
            lambda x, i: x.scatter_reduce(1, i.long(), torch.full((2, 3), 1.5), torch_name)),
    )  # fmt: skip


def subtracted(x: torch.Tensor, divided: bool) -> torch.Tensor:
    """scatter of [[2, 4, 8]] into row 1, minus or over, by hand."""
    rows, update = x.clone(), torch.tensor([2.0, 4.0, 8.0])
    rows[1] = rows[1] / update if divided else rows[1] - update
    return rows


def scatter_to_row_1(mode: str) -> Callable[..., Any]:
    updates = np.array([[2, 4, 8]], np.float32)
    return lambda x, i: mb.scatter(data=x, indices=np.array([1], np.int32), updates=updates, axis=0, mode=mode)


INDEXING = {
    "gather": Group(
        (normal(2, 3, 4), INDICES),
        (
            Row("gather", lambda x, i: mb.gather(x=x, indices=i, axis=1),
                lambda x, i: x[:, i.long()]),
            Row("gather", lambda x, i: mb.gather(x=x, indices=1, axis=-1), lambda x, i: x[..., 1]),
            Row("gather_along_axis",
                lambda x, i: mb.gather_along_axis(x=x, indices=mb.tile(x=mb.expand_dims(x=i, axes=[2]),
                                                                       reps=[1, 1, 4]), axis=1),
                lambda x, i: x.gather(1, i.long()[:, :, None].expand(2, 3, 4))),
            Row("gather_nd", lambda x, i: mb.gather_nd(x=x, indices=np.array([[0, 2], [1, 1]], np.int32)),
                lambda x, i: x[[0, 1], [2, 1]]),
        ),
    ),
    "gather of iOS16": Group(
        (normal(2, 3, 4), INDICES),
        (
            Row("gather", lambda x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1),
                lambda x, i: torch.stack([x[0, i[0].long()], x[1, i[1].long()]])),
            Row("gather_nd",
                lambda x, i: mb.gather_nd(x=x, indices=mb.expand_dims(x=i, axes=[2]), batch_dims=1),
                lambda x, i: torch.stack([x[0, i[0].long()], x[1, i[1].long()]])),
            Row("gather", lambda x, i: mb.gather(x=x, indices=np.array([2, 0], np.uint16), axis=1),
                lambda x, i: x[:, [2, 0]]),
        ),
        FROM_16,
    ),
    "scatter": Group(
        (normal(2, 3), np.array([[0, 2, 1], [1, 0, 2]], np.int32)),
        (
            *scatter_rows("add", "sum"), *scatter_rows("mul", "prod"), *scatter_rows("max", "amax"),
            *scatter_rows("min", "amin"),
            Row("scatter", scatter_to_row_1("sub"), lambda x, i: subtracted(x, False)),
            Row("scatter", scatter_to_row_1("div"), lambda x, i: subtracted(x, True)),
            Row("scatter",
                lambda x, i: mb.scatter(data=x, indices=PLACES, updates=np.ones((2, 2), np.float32), axis=1,
                                        mode="update"),
                lambda x, i: x.index_copy(1, torch.tensor([2, 0]), torch.ones(2, 2))),
            Row("scatter",
                lambda x, i: mb.scatter(data=x, indices=np.array([2, 2], np.int32), updates=np.ones((2, 2), np.float32),
                                        axis=1, mode="add"),
                lambda x, i: x.index_add(1, torch.tensor([2, 2]), torch.ones(2, 2))),
            Row("scatter_nd",
                lambda x, i: mb.scatter_nd(data=x, indices=np.array([[[0, 2], [1, 1]]], np.int32),
                                           updates=np.array([[5, 6]], np.float32), mode="add"),
                lambda x, i: x.index_put((torch.tensor([0, 1]), torch.tensor([2, 1])), torch.tensor([5.0, 6.0]), True)),
            Row("scatter_nd",
                lambda x, i: mb.scatter_nd(data=x, indices=np.array([[0, 2], [1, 1]], np.int32),
                                           updates=np.array([5, 6], np.float32), mode="update"),
                lambda x, i: x.index_put((torch.tensor([0, 1]), torch.tensor([2, 1])), torch.tensor([5.0, 6.0]))),
        ),
    ),
    "order": Group(
        (normal(3, 5), np.array([[3, -2, 3, 0], [1, 1, -2147483648, 7]], np.int32)),
        (
            Row("argsort", lambda x, i: mb.argsort(x=x), lambda x, i: x.argsort(-1, descending=True)),
            Row("argsort", lambda x, i: mb.argsort(x=i, axis=1),
                lambda x, i: i.argsort(dim=1, descending=True, stable=True)),
            Row("argsort", lambda x, i: mb.argsort(x=x, axis=0, ascending=True), lambda x, i: x.argsort(0)),
            Row("topk", lambda x, i: mb.topk(x=x, k=2)[0], lambda x, i: x.topk(2).values),
            Row("topk", lambda x, i: mb.topk(x=x, k=2, axis=0, ascending=True)[1],
                lambda x, i: x.topk(2, 0, largest=False).indices),
            Row("non_zero", lambda x, i: mb.non_zero(x=i), lambda x, i: i.nonzero()),
            Row("one_hot", lambda x, i: mb.one_hot(indices=np.array([2, 0], np.int32), one_hot_vector_size=3),
                lambda x, i: F.one_hot(torch.tensor([2, 0]), 3)),
            Row("one_hot",
                lambda x, i: mb.one_hot(indices=np.array([2, 0], np.int32), one_hot_vector_size=3, axis=0,
                                        on_value=2.5, off_value=-1.0),
                lambda x, i: torch.tensor([[-1, 2.5], [-1, -1], [2.5, -1]])),
            Row("range_1d", lambda x, i: mb.range_1d(start=1, end=mb.squeeze(x=mb.slice_by_size(
                    x=mb.shape(x=x), begin=[1], size=[1])), step=2), lambda x, i: torch.tensor([1, 3])),
            Row("range_1d", lambda x, i: mb.range_1d(start=0.5, end=2.0, step=mb.add(
                    x=mb.mul(x=mb.reduce_max(x=x), y=0.0), y=0.5)), lambda x, i: torch.tensor([0.5, 1.0, 1.5])),
        ),
    ),
    "topk of iOS16": Group(
        (normal(3, 5),),
        (
            Row("topk", lambda x: mb.topk(x=x, k=2, sort=False, return_indices=False), lambda x: x.topk(2).values),
            Row("topk", lambda x: mb.topk(x=x, k=5, axis=1, return_indices=True)[1], lambda x: x.topk(5).indices),
        ),
        FROM_16,
    ),
    "topk of iOS17": Group(
        (normal(3, 5),),
        (Row("topk", lambda x: mb.topk(x=x, k=2, output_indices_dtype="uint16")[1], lambda x: x.topk(2).indices),),
        FROM_17,
    ),
}  # fmt: skip

CODES = np.array([[-128, 5, 127], [0, -3, 9]], np.int8)
SCALES, SHIFTS = np.array([0.5, 0.25], np.float32), np.array([3, -2], np.int8)
AFFINE = np.array([[-65.5, 1, 62], [0.5, -0.25, 2.75]], np.float32)  # (CODES - SHIFTS) * SCALES by hand
# indices 3 0 1 2 1 in two bits, lowest first: 0b10_01_00_11, 0b01
PACKED = np.array([0b10010011, 0b01], np.uint8)
PALETTE = np.array([-1.5, 0.0, 0.5, 2.0], np.float32)
UINT2 = types.np_uint2_dtype
TWO_PALETTES = np.array([[[[1], [5], [9], [13]]], [[[2], [10], [18], [26]]]], np.float32)  # [2, 1, 4, 1]
PAIRS = np.array([[[[1, 2], [3, 4], [5, 6], [7, 8]]]], np.float32)  # one palette of four pairs
CODES_2BIT = np.array([[2, 3], [3, 0], [1, 0], [3, 0]])
ONES_AND_ZEROS = np.array([[1, 0, 1], [0, 1, 0]])


def plus(build: Callable[[], Any], wanted: Any, op: str) -> Row:
    """A weight operation, added to the input so that the program has something to compute."""
    return Row(op, lambda x: mb.add(x=x, y=build()), lambda x: x + torch.tensor(np.asarray(wanted, np.float32)))


WEIGHTS = {
    "weights of iOS16": Group(
        (np.zeros(1, np.float32),),
        (
            plus(lambda: mb.constexpr_affine_dequantize(quantized_data=CODES, zero_point=SHIFTS, scale=SCALES,
                                                        axis=np.int32(0)),
                 AFFINE, "constexpr_affine_dequantize"),
            plus(lambda: mb.constexpr_affine_dequantize(quantized_data=CODES, zero_point=np.int8(1),
                                                        scale=np.float32(2), axis=np.int32(0)),
                 [[-258, 8, 252], [-2, -8, 16]], "constexpr_affine_dequantize"),
            plus(lambda: mb.constexpr_lut_to_dense(indices=PACKED, lut=PALETTE, shape=np.array([5], np.uint32)),
                 [2.0, -1.5, 0.0, 0.5, 0.0], "constexpr_lut_to_dense"),
            plus(lambda: mb.constexpr_lut_to_dense(indices=np.array([0b01101], np.uint8), lut=PALETTE[1:3],
                                                   shape=np.array([5], np.uint32)),
                 [0.5, 0.0, 0.5, 0.5, 0.0], "constexpr_lut_to_dense"),
            plus(lambda: mb.constexpr_sparse_to_dense(nonzero_data=np.array([7, 8, 9], np.float32),
                                                      mask=np.array([0b10101], np.uint8),
                                                      shape=np.array([2, 3], np.uint32)),
                 [[7, 0, 8], [0, 9, 0]], "constexpr_sparse_to_dense"),
            plus(lambda: mb.constexpr_cast(source_val=np.array([0.1, 2], np.float16), output_dtype="fp32"),
                 np.array([0.1, 2], np.float16), "constexpr_cast"),
        ),
        (IOS16,),
    ),
    "weights of iOS18": Group(
        (np.zeros(1, np.float32),),
        (
            plus(lambda: mb.constexpr_blockwise_shift_scale(data=CODES, scale=SCALES[:, None], offset=SHIFTS[:, None]),
                 AFFINE, "constexpr_blockwise_shift_scale"),
            plus(lambda: mb.constexpr_blockwise_shift_scale(
                     data=np.array([[-8, 7, 1, 2]]).astype(types.np_int4_dtype),
                     scale=np.array([[0.5, 2.0]], np.float32)),
                 [[-4, 3.5, 2, 4]], "constexpr_blockwise_shift_scale"),
            plus(lambda: mb.constexpr_lut_to_dense(indices=np.repeat(CODES_2BIT, 2, 0)[:6].astype(UINT2),
                                                   lut=TWO_PALETTES),
                 [[9, 13], [9, 13], [13, 1], [26, 2], [10, 2], [10, 2]], "constexpr_lut_to_dense"),
            plus(lambda: mb.constexpr_lut_to_dense(indices=CODES_2BIT[:1].astype(UINT2), lut=PAIRS,
                                                   vector_axis=np.int32(0)),
                 [[5, 7], [6, 8]], "constexpr_lut_to_dense"),
            plus(lambda: mb.constexpr_lut_to_dense(indices=CODES_2BIT[:1].astype(UINT2), lut=PAIRS,
                                                   vector_axis=np.int32(1)),
                 [[5, 6, 7, 8]], "constexpr_lut_to_dense"),
            plus(lambda: mb.constexpr_sparse_to_dense(nonzero_data=np.array([7, 8, 9], np.float32),
                                                      mask=ONES_AND_ZEROS.astype(types.np_uint1_dtype)),
                 [[7, 0, 8], [0, 9, 0]], "constexpr_sparse_to_dense"),
            plus(lambda: sparse_of(mb.constexpr_lut_to_sparse(
                     indices_mask=ONES_AND_ZEROS.astype(types.np_uint1_dtype),
                     indices_nonzero_data=np.array([3, 0, 1]).astype(UINT2), lut=PALETTE.reshape(1, 1, 4, 1))),
                 [[2, 0, -1.5], [0, 0, 0]], "constexpr_lut_to_sparse"),
            plus(lambda: sparse_of(mb.constexpr_lut_to_sparse(
                     indices_mask=ONES_AND_ZEROS.astype(types.np_uint1_dtype),
                     indices_nonzero_data=np.array([3, 0, 1]).astype(UINT2), lut=PAIRS, vector_axis=np.int32(0))),
                 [[7, 0, 1], [8, 0, 2], [0, 3, 0], [0, 4, 0]], "constexpr_lut_to_sparse"),
            plus(lambda: sparse_of(mb.constexpr_sparse_blockwise_shift_scale(
                     data_mask=ONES_AND_ZEROS.astype(types.np_uint1_dtype),
                     nonzero_data=np.array([10, 20, 30], np.int8), scale=SCALES[:, None], offset=SHIFTS[:, None])),
                 [[3.5, 0, 8.5], [0, 8, 0]], "constexpr_sparse_blockwise_shift_scale"),
        ),
        (IOS18,),
    ),
    "activations of iOS17": Group(
        (np.array([[-9, 0.2, 1.3], [0.1, 99, -99]], np.float32),),
        (
            Row("quantize", lambda x: mb.quantize(input=x, scale=SCALES, zero_point=SHIFTS, axis=0,
                                                  output_dtype="int8"),
                lambda x: torch.tensor([[-15, 3, 6], [-2, 127, -128]])),
            Row("quantize", lambda x: mb.quantize(input=x, scale=np.float32(0.5), output_dtype="uint8"),
                lambda x: torch.tensor([[0, 0, 3], [0, 198, 0]])),
            Row("dequantize",
                lambda x: mb.add(x=x, y=mb.dequantize(input=CODES, scale=SCALES, zero_point=SHIFTS, axis=0)),
                lambda x: x + torch.from_numpy(AFFINE)),
            Row("dequantize", lambda x: mb.add(x=x, y=mb.dequantize(input=CODES, scale=np.float32(0.5))),
                lambda x: x + torch.from_numpy(CODES) * 0.5),
        ),
        FROM_17,
    ),
}  # fmt: skip


def sparse_of(parts: Any) -> Any:
    return mb.constexpr_sparse_to_dense(nonzero_data=parts[1], mask=parts[0])


GROUPS = {**ELEMENTWISE, **REDUCTIONS, **PRODUCTS, **CONVOLUTIONS, **RESIZING, **LAYOUT, **INDEXING, **WEIGHTS}
CASES = [
    pytest.param(name, target, place, id=f"{row.op}-{target.name}-{name}-{place}".replace(" ", "_"))
    for name, group in GROUPS.items()
    for target in group.targets
    for place, row in enumerate(group.rows)
]


@pytest.fixture(scope="session")
def computed(save) -> Callable[..., tuple[list[np.ndarray], set[str]]]:
    """A group's outputs through the saved package, and the operations that it holds."""

    @functools.cache
    def compute(name: str, target: Any) -> tuple[list[np.ndarray], set[str]]:
        group = GROUPS[name]
        specs = [mb.TensorSpec(v.shape, types.numpy_type_to_builtin_type(v.dtype)) for v in group.inputs]
        names = [f"x{place}" for place in range(len(specs))]

        def build(*variables: Any) -> Any:
            outputs = []
            for place, row in enumerate(group.rows):
                result = row.build(*variables)
                if result.dtype not in (types.fp32, types.int32):  # what a model may give
                    result = mb.cast(x=result, dtype="int32")
                outputs.append(mb.identity(x=result, name=f"out{place}"))
            return tuple(outputs)

        scope: dict[str, Any] = {"build": build}  # the builder reads the inputs' names from the signature
        exec(f"def main({', '.join(names)}): return build({', '.join(names)})", scope)
        program = mb.program(input_specs=specs, opset_version=target)(scope["main"])
        with tempfile.TemporaryDirectory() as folder:
            path = save(program, Path(folder) / "group.mlpackage", target, ct.PassPipeline.EMPTY)
            specification, _ = coreml_runtime.read_specification(path)
            block = next(iter(specification.mlProgram.functions["main"].block_specializations.values()))
            session = open_session(path)
            outputs = session.run(dict(zip(names, group.inputs, strict=True)))
        return [outputs[f"out{place}"] for place in range(len(group.rows))], {op.type for op in block.operations}

    return compute


@pytest.mark.parametrize(("name", "target", "place"), CASES)
def test_operation_equals_its_reference(assert_close, computed, name: str, target: Any, place: int) -> None:
    group = GROUPS[name]
    row = group.rows[place]
    outputs, operations = computed(name, target)
    wanted = row.wanted(*(torch.from_numpy(value.copy()) for value in group.inputs))
    assert row.op in operations  # the builder did not fold it away
    if wanted.dtype not in (torch.float32, torch.int32):
        wanted = wanted.int()
    assert_close(outputs[place], wanted)


def test_every_operation_has_a_row() -> None:
    rows = {row.op for group in GROUPS.values() for row in group.rows}
    assert sorted(set(OPERATIONS) - rows) == []


class Shaped:
    """What MIL asks of an input when it makes up defaults."""

    rank, dtype, shape, val = 4, types.fp32, (2, 3, 4, 5), None


def defaults_of_mil(op: str) -> dict[str, set[Any]]:
    """What an omitted input of `op` means, over the opsets."""
    found: dict[str, set[Any]] = {}
    for definition in SSAOpRegistry.core_ops[op].values():
        operation = object.__new__(definition)
        for name in definition.input_spec.input_types:
            setattr(operation, name, Shaped)
        defaults = definition.default_inputs(operation).items() if "default_inputs" in dir(definition) else ()
        for name, value in defaults:
            scalar = np.float32(value) if isinstance(value, float) else value
            found.setdefault(name, set()).add(scalar if np.ndim(scalar) == 0 else tuple(np.ravel(scalar).tolist()))
    return found


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_omitted_inputs_mean_what_mil_means(op: str) -> None:
    """coremltools writes every default into the program; another tool may leave them out."""
    ours = {
        name: parameter.default
        for name, parameter in inspect.signature(OPERATIONS[op]).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    for name, values in defaults_of_mil(op).items():
        if name not in ours or (ours[name] is None and name in ("strides", "dilations", "pad", "bias", "axes")):
            continue  # required here, or one number a dimension, made where the rank is known
        own = np.float32(ours[name]) if isinstance(ours[name], float) else ours[name]
        assert values == {own}, (name, values)


def test_strides_and_dilations_are_one_and_bias_zero_where_omitted(assert_close) -> None:
    x, weight, transposed = (torch.from_numpy(normal(*s)) for s in ((1, 2, 5, 6), (3, 2, 2, 3), (2, 3, 2, 3)))
    assert_close(OPERATIONS["conv"](x.numpy(), weight.numpy()), F.conv2d(x, weight))
    assert_close(OPERATIONS["conv_transpose"](x.numpy(), transposed.numpy()), F.conv_transpose2d(x, transposed))
    assert_close(OPERATIONS["max_pool"](x.numpy(), (2, 3), "valid"), F.max_pool2d(x, (2, 3), 1))


# Functions by themselves


def test_erf_is_good_to_the_last_two_digits() -> None:
    x = np.linspace(-6, 6, 20001, dtype=np.float32)
    exact = np.array([math.erf(value) for value in x.tolist()])
    assert np.max(np.abs(erf(x) - exact)) <= 4 * np.finfo(np.float32).eps


def test_bits_are_unpacked_lowest_first() -> None:
    # 5, 1, 7, 2 in three bits: 010_111_001_101 -> 0b11001101, 0b0101
    packed = np.array([0b11001101, 0b0101], np.uint8)
    assert unpack_bits(packed, 3, 4).tolist() == [5, 1, 7, 2]
    assert unpack_bits(packed, 3, 4, signed=True).tolist() == [-3, 1, -1, 2]


def test_masked_softmax_has_no_spurious_nan() -> None:
    x = np.array([[-np.inf, 0, 0], [-np.inf, -np.inf, 3e38]], np.float32)
    assert OPERATIONS["softmax"](x).tolist() == [[0, 0.5, 0.5], [0, 0, 1]]
    with np.errstate(divide="ignore"):  # log(0)
        nothing = OPERATIONS["reduce_log_sum_exp"](np.full((1, 3), -np.inf, np.float32), [1])
    assert nothing.tolist() == [-math.inf]


def test_sigmoid_keeps_small_values() -> None:
    x = np.array([-20, -80, 20], np.float32)
    wanted = torch.sigmoid(torch.from_numpy(x)).numpy()
    # relative: a log behind it must not become -inf
    assert np.allclose(OPERATIONS["sigmoid"](x), wanted, rtol=64 * np.finfo(np.float32).eps, atol=0)


lengths = st.integers(1, 9)
small = st.integers(1, 3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), rank=st.integers(1, 2), groups=small, per_group=small, outputs=small, batch=st.integers(1, 2))
def test_any_convolution_equals_pytorch(assert_close, data, rank, groups, per_group, outputs, batch) -> None:
    def draw(strategy):
        return [data.draw(strategy) for _ in range(rank)]

    size, kernel, strides, dilations = draw(lengths), draw(small), draw(small), draw(small)
    pads = [data.draw(st.integers(0, 2)) for _ in range(2 * rank)]
    room = [n + a + b for n, a, b in zip(size, pads[::2], pads[1::2], strict=True)]
    assume(all(n >= (k - 1) * d + 1 for n, k, d in zip(room, kernel, dilations, strict=True)))
    x, weight = normal(batch, groups * per_group, *size), normal(groups * outputs, per_group, *kernel, seed=1)
    got = OPERATIONS["conv"](
        x, weight, strides=strides, pad_type="custom", pad=pads, dilations=dilations, groups=groups
    )
    by_torch = [amount for axis in reversed(range(rank)) for amount in pads[2 * axis : 2 * axis + 2]]
    function = F.conv1d if rank == 1 else F.conv2d
    padded = F.pad(torch.from_numpy(x), by_torch)
    assert_close(got, function(padded, torch.from_numpy(weight), None, strides, 0, dilations, groups))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), groups=small, inputs=small, outputs=small)
def test_any_transposed_convolution_equals_pytorch(assert_close, data, groups, inputs, outputs) -> None:
    size, kernel, strides, dilations = ([data.draw(small) for _ in range(2)] for _ in range(4))
    pad = [data.draw(st.integers(0, (k - 1) * d)) for k, d in zip(kernel, dilations, strict=True)]
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)]
    assume(all(f > 2 * p for f, p in zip(full, pad, strict=True)))
    x, weight = normal(2, groups * inputs, *size), normal(groups * inputs, outputs, *kernel, seed=1)
    got = OPERATIONS["conv_transpose"](
        x, weight, pad_type="custom", pad=np.repeat(pad, 2), strides=strides, dilations=dilations, groups=groups
    )
    tensors = map(torch.from_numpy, (x, weight))
    assert_close(got, F.conv_transpose2d(*tensors, None, strides, pad, 0, groups, dilations))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), ceil_mode=st.booleans(), exclude=st.booleans())
def test_any_pooling_equals_pytorch(assert_close, data, ceil_mode, exclude) -> None:
    kernel = [data.draw(small) for _ in range(2)]
    strides = [data.draw(st.integers(1, k)) for k in kernel]  # beyond, Core ML and PyTorch differ in ceil_mode
    size = [data.draw(st.integers(k, 9)) for k in kernel]
    pad = [data.draw(st.integers(0, k // 2)) for k in kernel]
    x = normal(1, 2, *size)
    given_ = {"strides": strides, "pad_type": "custom", "pad": np.repeat(pad, 2), "ceil_mode": ceil_mode}
    largest = F.max_pool2d(torch.from_numpy(x), kernel, strides, pad, 1, ceil_mode)
    assert_close(OPERATIONS["max_pool"](x, kernel, **given_), largest)
    mean = F.avg_pool2d(torch.from_numpy(x), kernel, strides, pad, ceil_mode, not exclude)
    assert_close(OPERATIONS["avg_pool"](x, kernel, exclude_padding_from_average=exclude, **given_), mean)
