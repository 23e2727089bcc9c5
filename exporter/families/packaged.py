"""The Source of a zoo model whose weights lie beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from benchmarks.tasks import load_task
from exporter.families import ZOO
from exporter.sources.inputs import REAL_SAMPLES, task_samples
from exporter.sources.source import Source
from exporter.sources.weights import read_weights, weights_facts
from runtimes.processing.preprocessor import Classes, Entry, Preprocessor

WEIGHTS = Path(__file__).parent / "weights"


def packaged(
    name: str,
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: tuple[Entry, ...],
    output: str = "logits",
) -> Source:
    """The Source of a zoo model whose weights lie in WEIGHTS, with inputs from its task's calibration split.

    `inputs` say how the model's inputs are made; `output` holds a score for each of the task's classes, logits or
    probabilities.

    Raises BadInput where the weights are damaged or the task's data is not installed.
    """
    module.load_state_dict(read_weights(WEIGHTS / f"{name}.safetensors"))
    task = load_task(ZOO[name].data)

    def samples(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, torch.Tensor], ...]:
        return task_samples(task, {name: torch.empty(shape) for name, shape in shapes.items()}, REAL_SAMPLES)

    license_file = WEIGHTS / f"{name}.LICENSE"
    activation = "softmax" if output == "logits" else "none"
    return Source(
        name=name,
        kind="zoo",
        module=module,
        kwargs=samples(shapes)[0],
        samples=samples,
        weights="pretrained",
        task=ZOO[name].task,
        license=ZOO[name].license,
        preprocessor=Preprocessor(inputs, (Classes(output, task.classes, activation),)),
        files={"LICENSE": license_file.read_bytes()} if license_file.is_file() else {},
        **weights_facts(module),
    )
