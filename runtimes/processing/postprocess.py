"""A model's outputs into what an app wants, as docs/preprocessor.md has it: scores with labels, one vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Classes, Embedding


@dataclass(frozen=True)
class ClassScores:
    """`scores[i]` is that of `labels[i]`; `label` is the best, None where its `score` is below the threshold.

    `above` are the labels whose score reaches the threshold, best first.
    """

    label: Optional[str]
    score: float
    scores: np.ndarray
    labels: Tuple[str, ...]
    above: Tuple[str, ...]


def classes(values: np.ndarray, options: Classes) -> ClassScores:
    """The scores, float32 `[labels]`, of an output `[1, labels]`.

    Raises BadInput for another number of values, for none, and for another shape.
    """
    if values.dtype.kind not in "fiu" or values.ndim == 0 or values.size == 0 or values.size != values.shape[-1]:
        raise BadInput(f"{values.dtype}{list(values.shape)} is no row of scores", remedy="give float32 [1, labels]")
    flat = values.reshape(-1).astype(np.float64)
    if len(flat) != len(options.labels):
        raise BadInput(
            f"{len(flat)} values are no scores of {len(options.labels)} labels", remedy="check preprocessor.json"
        )
    scores = np.array(_activated(flat.tolist(), options.activation), np.float32)
    best = int(np.argmax(scores))
    threshold = np.float32(options.threshold)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return ClassScores(
        label=options.labels[best] if scores[best] >= threshold else None,
        score=float(scores[best]),
        scores=scores,
        labels=options.labels,
        above=tuple(options.labels[i] for i in order if scores[i] >= threshold),
    )


def _activated(values: List[float], activation: str) -> List[float]:
    if activation == "softmax":
        largest = max(values)
        powers = [math.exp(value - largest) for value in values]
        total = 0.0
        for power in powers:
            total += power
        return [power / total for power in powers]
    if activation == "sigmoid":
        return [_sigmoid(value) for value in values]
    return values


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0  # below, exp overflows and the result is 0 in float32


def embedding(values: np.ndarray, options: Embedding, mask: Optional[np.ndarray] = None) -> np.ndarray:
    """One vector, float32 `[width]`, of an output: flat, or pooled over the tokens of `[1, tokens, width]`.

    `mask` `[1, tokens]` says which tokens count. Raises BadInput where there is nothing to pool, for more than one
    sample, and for a mask of another length.
    """
    if values.dtype.kind not in "fiu" or values.size == 0:
        raise BadInput(f"{values.dtype}{list(values.shape)} is no embedding", remedy="give float32 [1, tokens, width]")
    vector = values.astype(np.float64)
    if options.pooling == "none":
        vector = vector.reshape(-1)
    else:
        if vector.ndim != 3:
            raise BadInput(f"an output of shape {list(vector.shape)} has no tokens", remedy="check preprocessor.json")
        if len(vector) != 1:
            raise BadInput(f"{len(vector)} samples are not one", remedy="give float32 [1, tokens, width]")
        tokens = vector[0]
        if mask is not None and mask.size != len(tokens):
            raise BadInput(f"a mask of {mask.size} is none for {len(tokens)} tokens", remedy="give one number a token")
        counted = np.ones(len(tokens), bool) if mask is None else mask.reshape(-1) != 0
        vector = _pooled(tokens, counted, options.pooling)
    if options.normalize:
        squares = np.add.accumulate(vector * vector)
        vector = vector / max(math.sqrt(squares[-1]), 1e-12)
    return vector.astype(np.float32)


def _pooled(tokens: np.ndarray, counted: np.ndarray, pooling: str) -> np.ndarray:
    if pooling == "cls":
        return tokens[0]
    kept = tokens[counted]
    if not len(kept):
        return np.zeros(tokens.shape[1])
    if pooling == "max":
        return kept.max(axis=0)
    return np.add.accumulate(kept, axis=0)[-1] / max(float(len(kept)), 1e-9)
