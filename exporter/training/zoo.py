"""Train the zoo's own models again: `python -m exporter.training.zoo digits series`, minutes on two cores.

`--check` trains nothing and prints what the committed weights reach, in PyTorch, on the test split of their task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from benchmarks.results.stats import wilson
from benchmarks.tasks import load_task
from benchmarks.tasks.scores import score_outputs
from benchmarks.tasks.task import Score, Split, Task
from exporter.families import ZOO
from exporter.families.digits import CompactConvolutionalTransformer
from exporter.families.packaged import WEIGHTS
from exporter.families.series import MIXERS, mixer
from exporter.load import load
from exporter.sources.source import SourceOptions
from exporter.tracing.flat_module import FlatModule
from exporter.training.batches import batches
from exporter.training.context import Context
from exporter.training.loop import TrainingSettings, train
from exporter.training.losses import label_loss, mean_loss

SERIES = tuple(MIXERS)


@dataclass(frozen=True)
class Recipe:
    """How a model is made and trained, on `copies` altered ones of every train sample besides itself."""

    build: Callable[[], nn.Module]
    alter: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    copies: int
    settings: TrainingSettings


def moved(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Grey images `[n, 3, side, side]`, each turned by up to 10 degrees, scaled by up to 10%, shifted by up to 2."""
    from scipy.ndimage import affine_transform

    out = np.empty_like(images)
    middle = (images.shape[-1] - 1) / 2
    for image, target in zip(images[:, 0], out, strict=True):
        angle = np.deg2rad(generator.uniform(-10, 10))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / generator.uniform(0.9, 1.1)
        offset = middle - turn @ np.full(2, middle) + generator.uniform(-2, 2, size=2)
        target[:] = affine_transform(image, turn, offset, order=1, mode="nearest")
    return out


def jittered(series: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Series `[n, channels, steps]`, each scaled by up to 10%, with noise of a twentieth of each channel's spread."""
    scale = generator.uniform(0.9, 1.1, size=(len(series), 1, 1))
    noise = generator.standard_normal(series.shape) * 0.05 * series.std(axis=2, keepdims=True)
    return (series * scale + noise).astype(series.dtype)


RECIPES = {
    "digits": Recipe(
        CompactConvolutionalTransformer, moved, 3, TrainingSettings(epochs=5, learning_rate=7e-4, batch_size=32)
    ),
    **{
        name: Recipe(partial(mixer, name), jittered, 9, TrainingSettings(epochs=20, learning_rate=1e-3))
        for name in SERIES
    },
}


def trained(name: str, task: Task, seed: int, progress: Callable[[str, int, int], None]) -> nn.Module:
    """A model of the zoo, trained from scratch on the task's train split and altered copies of it.

    Of its epochs it keeps the one with the least loss on the calibration split.
    """
    recipe = RECIPES[name]
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    flat = FlatModule(recipe.build(), (), {k: torch.from_numpy(v[:1]) for k, v in task.train.inputs.items()})
    assert task.train.labels is not None
    inputs = {
        key: np.concatenate([value, *(recipe.alter(value, generator) for _ in range(recipe.copies))])
        for key, value in task.train.inputs.items()
    }
    enlarged = Split(inputs, np.tile(task.train.labels, 1 + recipe.copies))
    context = Context(flat, replace(task, train=enlarged), seed, progress)
    loss = label_loss(context)

    def validate(held_out: Split) -> float:
        return mean_loss(flat, task.calibration, loss)

    train(flat, context, loss, recipe.settings, label=name, validate=validate)
    return flat.module


@torch.no_grad()
def tested(name: str) -> Score:
    """What the committed weights of a zoo model score on its task, in PyTorch."""
    source, task = load(name, SourceOptions()), load_task(ZOO[name].data)
    flat = FlatModule(source.module.eval(), source.args, source.kwargs)

    def outputs(split: Split) -> dict[str, np.ndarray]:
        found = [flat.compute(inputs) for inputs, _ in batches(flat, split, 32)]
        return {key: torch.cat([batch[key] for batch in found]).numpy() for key in found[0]}

    return score_outputs(task, outputs(task.test), outputs(task.gallery) if task.gallery else None)


def main(words: Sequence[str] | None = None) -> None:
    """Train the models that the command line names, write their weights, and print what they reach."""
    parser = argparse.ArgumentParser(prog="python -m exporter.training.zoo", description=__doc__)
    parser.add_argument(
        "models", nargs="+", choices=(*ZOO, "series"), metavar="MODEL", help=", ".join((*ZOO, "series"))
    )
    parser.add_argument("--check", action="store_true", help="train nothing")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    for name in [n for word in given.models for n in (SERIES if word == "series" else (word,))]:
        if not given.check:
            if name not in RECIPES:
                parser.error(f"{name} is not trained here: it has weights of others, see --check")
            module = trained(name, load_task(ZOO[name].data), given.seed, _progress)
            (WEIGHTS / f"{name}.safetensors").write_bytes(save(module.state_dict()))
        score = tested(name)
        count = len(score.correct)
        low, high = wilson(float(score.correct.sum()), count)
        print(f"{name}: {score.metric} {score.correct.mean():.2%} ({low:.2%} to {high:.2%}) of {count} test samples")


def _progress(label: str, done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        print(f"{label}: step {done} of {total}", file=sys.stderr)


if __name__ == "__main__":
    main()
