"""How much each layer alone, in few bits, changes what the model computes: which can bear 2 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.tasks.task import Split, Task
from exporter.compression.analysis.emulation import signal_to_noise_db
from exporter.compression.model import Model
from exporter.low_bit.codes import best_clip, granularity_of, quantize_weight, ternarize
from exporter.low_bit.weight import PER_CHANNEL, Granularity, LowBitWeight
from exporter.modules.batch_norm import fold_batch_norms
from exporter.modules.weight_uses import Use, uses_to_round
from exporter.sources.inputs import reference
from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.training.batches import batches
from exporter.training.context import Context

BATCH = 32
SAMPLES = 64
"""How many calibration samples are run for each layer and width."""


@dataclass(frozen=True)
class LayerSensitivity:
    """A weight by its name, and what its rounding does, by bits.

    `snr_db[bits]` is 10 log10(sum y^2 / sum (y - y')^2) of the outputs y of the model as it is and y' with this weight
    alone in that many bits: the lowest of all floating-point outputs, infinity where nothing changes. `score[bits]` is
    the task's mean score on the samples, and empty where they have no labels or the task compares with a gallery.
    """

    name: str
    kind: str
    parameters: int
    snr_db: Mapping[int, float]
    score: Mapping[int, float]


def sensitivities(
    model: Model, context: Context, bits: Sequence[int] = (8, 4, 2), samples: int = SAMPLES
) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of every weight that is not low-bit yet, the most sensitive (at the fewest bits) first.

    Each is rounded as the passes do it: symmetric codes per channel with 8 bits, clipped for the least squared error
    with 4, ternary with 2. The first `samples` samples of the calibration split are run, never those of the test split;
    without a task, the example. Batch normalization is folded before. The model is left as it was.

    Raises BadInput where the samples do not fit the model.
    """
    flat = fold_batch_norms(model.flat, keep=model.low_bit)
    task = context.task
    split = task.calibration.rows(slice(samples)) if task else None
    inputs = [batch for batch, _ in batches(flat, split, BATCH)] if split else [flat.example]
    exact = _outputs(flat, inputs)
    parameters = dict(flat.module.named_parameters())
    uses = uses_to_round(flat, model.low_bit)
    found = []
    for done, (name, used) in enumerate(uses.items()):
        context.progress("sensitivity", done, len(uses))
        weight = parameters[name]
        outputs = {
            width: _outputs_with(flat, weight, rounded(weight, width, _granularity(used)), inputs) for width in bits
        }
        snr_db = {width: signal_to_noise_db(exact, changed) for width, changed in outputs.items()}
        score = {}
        if task and split and split.labels is not None and task.gallery is None:
            score = {width: _mean_score(task, changed, split) for width, changed in outputs.items()}
        found.append(LayerSensitivity(name, used[0].kind, weight.numel(), snr_db, score))
    context.progress("sensitivity", len(uses), len(uses))
    return tuple(sorted(found, key=lambda layer: layer.snr_db[min(bits)]))


def _granularity(used: Sequence[Use]) -> Granularity:
    return granularity_of(used[0].kind, grouped=any(use.groups > 1 for use in used))


def rounded(weight: Tensor, bits: int, granularity: Granularity = PER_CHANNEL) -> Tensor:
    """The value of a weight in 8, 4 or 2 bits, float32 of its shape."""
    if bits == 2:
        codes, scale = ternarize(weight, granularity)
    else:
        clip = best_clip(weight.detach(), bits, granularity=granularity)
        codes, scale = quantize_weight(weight, bits, clip, granularity)
    return torch.from_numpy(LowBitWeight(codes, scale, bits, "linear", granularity=granularity).value)


def _outputs_with(flat: FlatModule, parameter: Tensor, value: Tensor, inputs: Sequence[Tensors]) -> Tensors:
    """The outputs while `parameter` has another value."""
    original = parameter.detach().clone()
    try:
        parameter.data.copy_(value)
        return _outputs(flat, inputs)
    finally:
        parameter.data.copy_(original)


def _outputs(flat: FlatModule, inputs: Sequence[Tensors]) -> Tensors:
    """The outputs for all batches, along their first axis one behind the other."""
    parts = [reference(flat, batch) for batch in inputs]
    return {name: torch.cat([torch.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _mean_score(task: Task, outputs: Tensors, split: Split) -> float:
    return float(np.mean(task.score({name: value.numpy() for name, value in outputs.items()}, split).correct))
