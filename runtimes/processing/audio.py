"""A sound into its log-mel spectrogram, as docs/preprocessor.md has it; the tables follow transformers.audio_utils."""

from __future__ import annotations

import math
from typing import List

import numpy as np

from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Audio

SLANEY_BREAK_HZ = 1000.0
"""Slaney's mel scale is linear below, logarithmic above (Auditory Toolbox, 1998)."""
SLANEY_BREAK_MEL = 15.0
SLANEY_STEP = 27.0 / math.log(6.4)


def to_tensor(sound: np.ndarray, options: Audio) -> np.ndarray:
    """The model's input, float32 `[1, mels, T]` or `[1, T, mels]`, of a mono sound, float32 `[n]`, -1 to 1.

    Raises BadInput for anything else.
    """
    if sound.ndim != 1 or sound.dtype != np.float32:
        raise BadInput(f"{sound.dtype}{list(sound.shape)} is no mono sound", remedy="give float32 [n], -1 to 1")
    samples = np.zeros(options.samples)
    length = min(options.samples, len(sound))
    samples[:length] = sound[:length]
    if options.centered:
        samples = np.pad(samples, options.frame // 2, mode="reflect" if options.padding == "reflect" else "constant")
    starts = range(0, len(samples) - options.frame + 1, options.hop)
    frames = np.stack([samples[start : start + options.frame] for start in starts]) * window(options)
    spectrum = np.fft.rfft(frames, options.fft, axis=1)
    power = spectrum.real * spectrum.real + spectrum.imag * spectrum.imag
    if options.power == 1.0:
        power = np.sqrt(power)
    values = _logarithm(np.maximum(power @ mel_filters(options).T, options.floor), options)
    if options.drop_last:
        values = values[:-1]
    if options.range is not None:
        values = np.maximum(values, values.max() - options.range)
    values = ((values - options.mean) / options.std).astype(np.float32)  # [T, mels]
    return np.ascontiguousarray((values.T if options.layout == "mel_time" else values)[np.newaxis])


def _logarithm(values: np.ndarray, options: Audio) -> np.ndarray:
    if options.log == "log":
        return np.log(values)
    return np.log10(values) * (1.0 if options.log == "log10" else 10.0 if options.power == 2.0 else 20.0)


def window(options: Audio) -> np.ndarray:
    """The periodic window, float64 `[frame]`."""
    turns = 2.0 * np.pi * np.arange(options.frame) / options.frame
    if options.window == "hann":
        return 0.5 - 0.5 * np.cos(turns)
    return 0.54 - 0.46 * np.cos(turns) if options.window == "hamming" else np.ones(options.frame)


def mel_filters(options: Audio) -> np.ndarray:
    """Triangular filters, float64 `[mels, fft / 2 + 1]`: each rises from an edge to the next, falls to a third."""
    low, high = (_to_mel(hz, options.mel_scale) for hz in (options.low_hz, options.high_hz))
    edges = np.array([_to_hz(mel, options.mel_scale) for mel in np.linspace(low, high, options.mels + 2)])
    bins = np.linspace(0.0, options.sample_rate / 2, options.fft // 2 + 1)
    slopes = edges[:, np.newaxis] - bins
    widths = np.diff(edges)[:, np.newaxis]
    filters = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return filters * (2.0 / (edges[2:] - edges[:-2]))[:, np.newaxis] if options.mel_norm == "slaney" else filters


def tables(options: Audio) -> bytes:
    """What generated code reads as audio.bin: the window, then the filters, little-endian doubles."""
    return b"".join(table.astype("<f8").tobytes() for table in (window(options), mel_filters(options)))


def _to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    return 3.0 * hz / 200.0 if hz < SLANEY_BREAK_HZ else SLANEY_BREAK_MEL + math.log(hz / SLANEY_BREAK_HZ) * SLANEY_STEP


def _to_hz(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    if mel < SLANEY_BREAK_MEL:
        return 200.0 * mel / 3.0
    return SLANEY_BREAK_HZ * math.exp((mel - SLANEY_BREAK_MEL) / SLANEY_STEP)


__all__: List[str] = ["mel_filters", "tables", "to_tensor", "window"]
