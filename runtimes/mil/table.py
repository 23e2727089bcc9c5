"""What the files of MIL's operations share: the table that each of them fills, and arguments brought into shape."""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

import numpy as np

Array = np.ndarray


class Table(Dict[str, Callable[..., Any]]):
    """MIL's name of an operation -> its function; a list or tuple result is several outputs."""

    def add(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates a function named as its operation."""
        self[function.__name__] = function
        return function


def ints(values: Any) -> Tuple[int, ...]:
    """A tensor, sequence or scalar of whole numbers as Python's own."""
    return tuple(int(value) for value in np.ravel(values))


def shaped_along(vector: Array, axis: int, rank: int) -> Array:
    """`vector` [n], or a scalar, shaped to broadcast along `axis` of a tensor of `rank`."""
    shape = [1] * rank
    shape[axis] = -1
    return np.reshape(vector, shape)


def per_channel(vector: Array, x: Array) -> Array:
    """`vector` [c] shaped to broadcast along the channels of x [n, c, *in]."""
    return shaped_along(vector, 1, x.ndim)
