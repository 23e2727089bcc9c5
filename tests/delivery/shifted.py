"""A fine-tune to deliver: the zoo's digits model, and the same after it has learned digits that are out of the middle.

`shifted.py:old` and `shifted.py:new` are factories for `pocketship export`, `shifted.py:task` is their task;
`python tests/delivery/shifted.py` prints what an update of it costs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.tasks import Split, Task, load_task
from exporter.families.digits import CompactConvolutionalTransformer
from exporter.families.packaged import WEIGHTS
from exporter.load import read_weights

ROOT = Path(__file__).resolve().parents[2]
FARTHEST = 6
BACKGROUND = -1.0
STEPS, BATCH, RATE = 200, 64, 5e-4


def moved(split: Split, seed: int) -> Split:
    """Each image moved by up to `FARTHEST` pixels down or up, and right or left."""
    generator = np.random.default_rng(seed)
    images = np.full_like(split.inputs["image"], BACKGROUND)
    side = images.shape[-1]
    for i, image in enumerate(split.inputs["image"]):
        down, right = generator.integers(-FARTHEST, FARTHEST + 1, 2)
        rows, columns = (slice(max(0, by), side + min(0, by)) for by in (down, right))
        from_rows, from_columns = (slice(max(0, -by), side + min(0, -by)) for by in (down, right))
        images[i, :, rows, columns] = image[:, from_rows, from_columns]
    return Split({"image": images}, split.labels)


def task() -> Task:
    """Digits, moved; the three splits are those of the task `digits`."""
    known = load_task("digits")
    splits = (moved(split, seed) for seed, split in enumerate((known.train, known.calibration, known.test)))
    return Task("shifted digits", "digits out of the middle", known.classes, *splits, known.score)


def old() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The model as it is, and an example."""
    module = CompactConvolutionalTransformer()
    module.load_state_dict(read_weights(WEIGHTS / "digits.safetensors"))
    return module, {"image": torch.from_numpy(load_task("digits").calibration.inputs["image"][:1])}


def new() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The model after it has learned the moved train split."""
    module, example = old()
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(a) for a in (task().train.inputs["image"], task().train.labels))
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE)
    module.train()
    for _ in range(STEPS):
        rows = torch.randint(0, len(images), (BATCH,))
        loss = nn.functional.cross_entropy(module(images[rows])["logits"], labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval(), example


def main() -> None:
    """Export both, make the update, apply it, verify what came out; every line is the commands' own."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(__file__, folder)

        def pocketship(*words: str) -> None:
            print(f"$ pocketship {' '.join(words)}", flush=True)
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, "-m", "exporter", *words], cwd=folder, env=environment, check=True)

        for which in ("old", "new"):
            pocketship("export", f"shifted.py:{which}", "-o", which, "--quiet")
        pocketship("delta", "old", "new", "-o", "update", "--data", "shifted.py:task")
        pocketship("apply", "update", "old")
        pocketship("verify", "old")


if __name__ == "__main__":
    main()
