"""Pixels into an image model's input, as docs/preprocessor.md has it: Pillow's integers, then numbers in float32."""

from __future__ import annotations

import math
from typing import Callable, Dict, Tuple

import numpy as np

from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Image

PRECISION_BITS = 22
"""Of the integer weights of Pillow's resampling: 32 bits less 8 of a pixel and 2 of headroom."""
LARGEST_SIDE = 65535


def to_tensor(pixels: np.ndarray, options: Image) -> np.ndarray:
    """The model's input, float32 with a batch axis of 1, of uint8 `[h, w, 3]` pixels in the order red, green, blue.

    Raises BadInput for anything else.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise BadInput(
            f"{pixels.dtype}{list(pixels.shape)} is no picture",
            remedy="give uint8 [height, width, 3]: red, green, blue",
        )
    if max(pixels.shape[:2]) > LARGEST_SIDE:
        raise BadInput(f"a side of {max(pixels.shape[:2])} pixels is too long", remedy=f"give {LARGEST_SIDE} at most")
    is_gray = options.channels in ("gray", "gray3")
    planes = grayed(pixels) if is_gray else pixels
    fill = np.array(options.fill, np.uint8).reshape(1, 1, 3)
    sized = _sized(planes, options, grayed(fill) if is_gray else fill)
    if options.channels == "bgr":
        sized = sized[:, :, ::-1]
    if options.channels == "gray3":
        sized = np.repeat(sized, 3, axis=2)
    values: np.ndarray = sized.astype(np.float32) / np.float32(options.divisor)
    values = (values - np.array(options.mean, np.float32)) / np.array(options.std, np.float32)
    ordered = values if options.layout == "nhwc" else values.transpose(2, 0, 1)
    return np.ascontiguousarray(ordered[np.newaxis])


def grayed(pixels: np.ndarray) -> np.ndarray:
    """The grey of uint8 `[h, w, 3]`, uint8 `[h, w, 1]`, as Pillow's convert("L") computes it."""
    weighed = pixels.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighed + 32768) >> 16).astype(np.uint8)[:, :, np.newaxis]


def _sized(pixels: np.ndarray, options: Image, fill: np.ndarray) -> np.ndarray:
    height, width = options.height, options.width
    h, w = pixels.shape[:2]
    if options.resize == "stretch":
        return resize(pixels, width, height, options.interpolation)
    if options.resize == "cover":
        edge = options.shortest_edge
        rw, rh = (edge, edge * h // w) if w <= h else (edge * w // h, edge)
        resized = resize(pixels, rw, rh, options.interpolation)
        left, top = (_offset(have - want, options.crop_rounding) for have, want in ((rw, width), (rh, height)))
        return resized[top : top + height, left : left + width]
    rw, rh = width, height
    if w * height > h * width:
        rh = max(1, round(h / w * width))
    elif w * height < h * width:
        rw = max(1, round(w / h * height))
    canvas = np.broadcast_to(fill, (height, width, pixels.shape[2])).copy()
    left, top = round((width - rw) * 0.5), round((height - rh) * 0.5)
    canvas[top : top + rh, left : left + rw] = resize(pixels, rw, rh, options.interpolation)
    return canvas


def _offset(spare: int, rounding: str) -> int:
    return round(spare / 2) if rounding == "even" else spare // 2


def resize(pixels: np.ndarray, width: int, height: int, interpolation: str) -> np.ndarray:
    """uint8 `[h, w]` or `[h, w, c]` resampled to `height` rows of `width`: the bytes that Pillow's resize gives.

    Raises BadInput for other pixels, a size below 1 and an interpolation that docs/preprocessor.md lacks.
    """
    if pixels.ndim not in (2, 3) or pixels.dtype != np.uint8 or pixels.size == 0:
        raise BadInput(f"{pixels.dtype}{list(pixels.shape)} is no picture", remedy="give uint8 [h, w] or [h, w, c]")
    if width < 1 or height < 1:
        raise BadInput(f"{width} x {height} is no size", remedy="give a width and a height of 1 or more")
    if interpolation != "nearest" and interpolation not in KERNELS:
        known = ", ".join(("nearest", *KERNELS))
        raise BadInput(f"{interpolation!r:.40} is no interpolation", remedy=f"give one of {known}")
    if interpolation == "nearest":
        rows, columns = _nearest(pixels.shape[0], height), _nearest(pixels.shape[1], width)
        return pixels[rows][:, columns]
    if pixels.shape[1] != width:
        pixels = _pass(pixels.swapaxes(0, 1), width, interpolation).swapaxes(0, 1)
    return _pass(pixels, height, interpolation) if pixels.shape[0] != height else pixels


def _nearest(n: int, m: int) -> np.ndarray:
    """The source of each of `m` places; the running sum is Pillow's, rounding and all."""
    if n == m:
        return np.arange(n)
    scale = n / m
    steps = np.full(m, scale)
    steps[0] = scale * 0.5
    return np.minimum(np.add.accumulate(steps).astype(np.int64), n - 1)


def _pass(pixels: np.ndarray, m: int, interpolation: str) -> np.ndarray:
    """Resample the first axis to length `m`."""
    result = np.empty((m, *pixels.shape[1:]), np.uint8)
    wide = pixels.astype(np.int64)
    for i, (first, weights) in enumerate(_weights(pixels.shape[0], m, interpolation)):
        total = np.tensordot(weights, wide[first : first + len(weights)], axes=1) + (1 << (PRECISION_BITS - 1))
        result[i] = np.clip(total >> PRECISION_BITS, 0, 255)
    return result


def _weights(n: int, m: int, interpolation: str) -> Tuple[Tuple[int, np.ndarray], ...]:
    """For each of `m` places of `n`: the first source and the integer weights of those from there on."""
    radius, kernel = KERNELS[interpolation]
    scale = n / m
    widening = max(scale, 1.0)
    support = radius * widening
    found = []
    for i in range(m):
        center = (i + 0.5) * scale
        first, last = max(0, int(center - support + 0.5)), min(n, int(center + support + 0.5))
        weights = [kernel((j + first - center + 0.5) * (1.0 / widening)) for j in range(last - first)]
        total = 0.0
        for weight in weights:
            total += weight
        scaled = [weight / total if total != 0.0 else weight for weight in weights]
        unit = float(1 << PRECISION_BITS)
        found.append((first, np.array([int(w * unit + (-0.5 if w < 0 else 0.5)) for w in scaled], np.int64)))
    return tuple(found)


def _bilinear(x: float) -> float:
    x = abs(x)
    return 1.0 - x if x < 1.0 else 0.0


def _bicubic(x: float) -> float:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5."""
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    x = x * math.pi
    return math.sin(x) / x if x != 0.0 else 1.0


KERNELS: Dict[str, Tuple[float, Callable[[float], float]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
"""Interpolation -> radius and kernel."""
