"""Golden inputs, their shapes, and the outputs of the user's own model on them."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tasks.scores import accuracy
from benchmarks.tasks.task import Split, Task
from exporter.sources.inputs import (
    check_task,
    golden_inputs,
    reference,
    reshaped,
    task_samples,
    with_free_axes,
    with_shapes,
)
from exporter.sources.source import Source
from exporter.sources.weights import weights_facts
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import DynamicAxis
from runtimes.errors import BadInput

EXAMPLE = {"image": torch.arange(12.0).reshape(1, 3, 4), "ids": torch.tensor([[5, 6]])}


def test_with_shapes_repeats_and_cuts_the_values():
    changed = with_shapes(EXAMPLE, {"ids": (2, 3), "image": (1, 2, 2)}, [])
    assert changed["ids"].tolist() == [[5, 6, 5], [6, 5, 6]]
    assert changed["image"].tolist() == [[[0.0, 1.0], [2.0, 3.0]]]
    same = with_shapes(EXAMPLE, {}, [])
    assert all(same[name] is EXAMPLE[name] for name in EXAMPLE)


def test_with_shapes_refuses_what_the_model_lacks():
    with pytest.raises(BadInput, match="the model has no input 'audio'; its inputs are image, ids"):
        with_shapes(EXAMPLE, {"audio": (1,)}, [])
    with pytest.raises(BadInput, match="the model has no input 'audio'; its inputs are image, ids"):
        with_shapes(EXAMPLE, {}, [DynamicAxis("audio", 0)])
    with pytest.raises(BadInput, match="--dynamic: input 'ids' has no axis 2; it has 2, from 0"):
        with_shapes(EXAMPLE, {}, [DynamicAxis("ids", 2)])


def test_with_free_axes():
    free = with_free_axes(EXAMPLE, [DynamicAxis("image", 0), DynamicAxis("image", 2)])
    assert {name: tuple(value.shape) for name, value in free.items()} == {"image": (2, 3, 4), "ids": (1, 2)}
    assert free["ids"] is EXAMPLE["ids"]


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ((1, 2), r"--input-shape: input 'image' has 3 axes, not 2; give 3 lengths, as in image=1,3,4"),
        ((1, 0, 4), r"--input-shape: input 'image' cannot have shape \[1, 0, 4\]"),
        (
            (1, 2**20, 2**20),
            r"--input-shape: input 'image' cannot have shape \[1, 1048576, 1048576\]; use sane lengths",
        ),
    ],
)
def test_reshaped_refuses(shape, fault):
    with pytest.raises(BadInput, match=fault):
        reshaped(EXAMPLE["image"], shape, "image")


def source(module=None, **fields) -> Source:
    module = module or nn.Identity()
    return Source(name="m", kind="module", module=module, weights="as given", **weights_facts(module), **fields)


class Echo(nn.Module):
    """Gives what it is given."""

    def forward(self, **inputs):
        return {f"{name}_again": value for name, value in inputs.items()}


def golden(source, task, example, given=None, dynamic=(), module=None):
    """The golden inputs of a module that takes anything, and what was said."""
    said: list[str] = []
    flat = FlatModule(module or Echo(), (), example)
    return golden_inputs(flat, source, task, example, given or example, list(dynamic), said.append), said


def test_golden_inputs_are_the_example_and_others_like_it():
    samples, said = golden(source(), None, EXAMPLE)
    assert (len(samples), said) == (8, [])
    assert torch.equal(samples[0]["image"], EXAMPLE["image"])
    assert len({tuple(sample["image"].flatten().tolist()) for sample in samples}) == 8


def test_golden_inputs_of_a_source_with_real_ones():
    def real(shapes):
        return tuple({"ids": torch.full(shapes["ids"], i)} for i in range(6))

    example = {"ids": torch.zeros(1, 2, dtype=torch.int64)}
    samples, said = golden(source(samples=real), None, example, module=Tokens())
    assert [int(sample["ids"][0, 0]) for sample in samples[:4]] == [0, 1, 2, 3]
    assert len(samples) == 5 and said == [] and int(samples[4]["ids"].max()) > 5, "and one of all the vocabulary"


class Tokens(nn.Module):
    """An embedding of 1000 rows, the mean of the tokens where there is a mask."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 4)

    def forward(self, ids, mask=None):
        x = self.embedding(ids)
        return x if mask is None else (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def test_real_texts_whose_drawn_mask_the_model_cannot_take_stay_as_they_are():
    class Whole(Tokens):
        def forward(self, ids, mask):
            return super().forward(ids, mask / mask.min())

    example = {"ids": torch.zeros(1, 9, dtype=torch.int64), "mask": torch.ones(1, 9, dtype=torch.int64)}
    samples, said = golden(source(samples=lambda shapes: (example,) * 4), None, example, module=Whole())
    assert len(samples) == 4
    assert said == [
        "golden inputs with drawn integers are left out: PyTorch's own output 'output' holds NaN or infinity"
    ]


@pytest.mark.parametrize(("own", "traced", "other"), [(1, 2, 1), (2, 2, 3), (3, 3, 4), (4, 4, 2), (9, 9, 4)])
def test_golden_inputs_hold_another_length_of_a_dynamic_axis(own, traced, other):
    asked, example = {"x": torch.randn(own, 3)}, {"x": torch.randn(traced, 3)}
    samples, _ = golden(source(), None, example, asked, [DynamicAxis("x", 0)])
    assert [tuple(sample["x"].shape) for sample in samples] == [(traced, 3)] * 8 + [(other, 3)]


class Raises(nn.Module):
    def forward(self, x):
        return x.reshape(7, 7)


def test_a_forward_that_raises_is_refused_with_its_line():
    flat = FlatModule(Raises(), (torch.zeros(2, 3),), {})
    with pytest.raises(BadInput) as refusal:
        reference(flat, flat.example)
    line = inspect.getsourcelines(Raises)[1] + 2
    assert str(refusal.value).startswith(f"{__file__}:{line}: forward() raised RuntimeError on inputs x=[2, 3]: shape")
    assert str(refusal.value).endswith("give inputs, --input-shape and --dynamic that the model takes")


class Logarithm(nn.Module):
    def forward(self, x):
        return {"fine": x, "log": x.log()}


def test_outputs_that_are_not_finite_are_refused():
    flat = FlatModule(Logarithm(), (torch.tensor([1.0, 0.0]),), {})
    with pytest.raises(
        BadInput, match="PyTorch's own output 'log' holds NaN or infinity; mend the model or its inputs"
    ):
        reference(flat, flat.example)


def rows(count: int, *shape: int) -> Task:
    split = Split({"pixels": np.arange(count * np.prod(shape), dtype=np.float32).reshape(count, *shape)})
    return Task("mine", "", ("a", "b"), split, split, split, lambda outputs, split: None)  # type: ignore[arg-type]


def test_golden_inputs_of_a_task_are_rows_of_its_calibration_split():
    example = {"x": torch.zeros(2, 3)}
    samples, _ = golden(source(), rows(8, 3), example)
    assert [sample["x"].tolist() for sample in samples[:2]] == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert len(samples) == 4


def test_a_task_of_another_shape_or_too_few_rows_is_refused():
    like = {"x": torch.zeros(2, 3)}
    with pytest.raises(BadInput, match=r"mine: input 'x' of the task has shape \[4\] a sample, the model takes \[3\]"):
        task_samples(rows(8, 4), like, 4)
    with pytest.raises(BadInput, match="mine: the calibration split has 7 samples, the check needs 8; give more"):
        task_samples(rows(7, 3), like, 4)


def labelled(classes: tuple[str, ...]) -> Task:
    split = Split({"x": np.ones((4, 3), np.float32)}, np.zeros(4, np.int64))
    return Task("mine", "", classes, split, split, split, partial(accuracy, classes))


def test_a_task_is_tried_on_the_model_before_any_work():
    example = {"x": torch.zeros(2, 3)}
    assert check_task(FlatModule(nn.Linear(3, 2), (example["x"],), {}), labelled(("a", "b")), example) == ""
    with pytest.raises(BadInput, match="the task has 3 classes, and no output of the model has as many columns"):
        check_task(FlatModule(nn.Linear(3, 2), (example["x"],), {}), labelled(("a", "b", "c")), example)


def test_a_task_of_fewer_classes_than_the_model_has_is_warned_of():
    example = {"x": torch.zeros(2, 3)}
    assert check_task(FlatModule(nn.Linear(3, 5), (example["x"],), {}), labelled(("a", "b")), example) == (
        "warning: the task has 2 classes and the model 5; label i is taken for the model's output i, and any of the "
        "others counts as wrong"
    )
