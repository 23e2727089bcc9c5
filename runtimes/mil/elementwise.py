"""MIL's operations on one element at a time: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict

import numpy as np

from runtimes.mil.table import Array, Table, per_channel

ELEMENTWISE = Table()


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
ELEMENTWISE.update({name: _unary(function) for name, function in _UNARY.items()})
ELEMENTWISE.update({name: _binary(function) for name, function in _BINARY.items()})
ELEMENTWISE.update(
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
        "prelu": lambda x, alpha: np.where(x > 0, x, per_channel(alpha, x) * x),
        "rsqrt": lambda x, epsilon=1e-12: 1 / np.sqrt(x + epsilon),
        "scaled_tanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
        "select": lambda cond, a, b: np.where(cond, a, b),
        "sigmoid_hard": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
        "softplus_parametric": lambda x, alpha, beta: per_channel(alpha, x) * _softplus(per_channel(beta, x) * x),
        "threshold": lambda x, alpha: np.maximum(x, alpha),
        "thresholded_relu": lambda x, alpha: np.where(x >= alpha, x, 0),
    }
)
