"""What is checked before the trace: weights, shapes, golden inputs, and the outputs of the user's own model."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from exporter.prepare import (
    check_operations,
    check_weights,
    golden_inputs,
    operations,
    prepare_module,
    reference,
    with_free_axes,
    with_shapes,
)
from exporter.sources import Source, arguments, randomized, reshaped, weights_facts
from exporter.trace import DynamicAxis, FlatModule, trace
from runtimes.errors import BadInput, UnsupportedOperation
from runtimes.golden import read_golden

NAN, INF = float("nan"), float("inf")


def layer(change) -> nn.Module:
    module = nn.BatchNorm1d(3)
    with torch.no_grad():
        change(module)
    return module


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda m: m.weight.__setitem__(1, NAN), "weight 'weight' holds NaN or infinity; export a checkpoint from"),
        (lambda m: m.bias.__setitem__(0, -INF), "weight 'bias' holds NaN or infinity; export a checkpoint from"),
        (lambda m: m.running_var.__setitem__(2, NAN), "buffer 'running_var' holds NaN; export a checkpoint from"),
        (lambda m: m.half(), r"weight 'weight' is torch.float16; call module.float\(\) in the factory"),
        (lambda m: m.double(), r"weight 'weight' is torch.float64; call module.float\(\) in the factory"),
    ],
)
def test_weights_that_cannot_be_exported(change, fault):
    with pytest.raises(BadInput, match=fault):
        check_weights(layer(change))


def test_weights_that_can_be_exported():
    check_weights(layer(lambda m: m.running_mean.__setitem__(0, INF)))  # a mask of minus infinity is a buffer


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


def test_randomized_keeps_the_kind_of_values():
    example = {
        "x": torch.randn(1000) * 3 + 7,
        "ids": torch.tensor([4, 5, 9]),
        "flag": torch.tensor([True, False]),
        "one": torch.tensor([2.0]),
    }
    first, again, other = randomized(example, 1), randomized(example, 1), randomized(example, 2)
    assert all(torch.equal(first[name], again[name]) for name in example)
    assert not torch.equal(first["x"], other["x"])
    assert abs(float(first["x"].mean()) - 7) < 0.5 and abs(float(first["x"].std()) - 3) < 0.3
    assert set(first["ids"].tolist()) <= set(range(4, 10)) and first["ids"].dtype == torch.int64
    assert torch.equal(first["flag"], example["flag"])
    assert first["one"].shape == (1,) and torch.isfinite(first["one"]).all()


def source(module=None, **fields) -> Source:
    module = module or nn.Identity()
    return Source(name="m", kind="module", module=module, weights="as given", **weights_facts(module), **fields)


def test_golden_inputs_are_the_example_and_others_like_it():
    samples = golden_inputs(source(), EXAMPLE, EXAMPLE, [])
    assert len(samples) == 3
    assert torch.equal(samples[0]["image"], EXAMPLE["image"])
    assert len({tuple(sample["image"].flatten().tolist()) for sample in samples}) == 3


def test_golden_inputs_of_a_source_with_real_ones():
    def real(shapes):
        return tuple({"ids": torch.full(shapes["ids"], i)} for i in range(6))

    example = {"ids": torch.zeros(1, 2, dtype=torch.int64)}
    samples = golden_inputs(source(samples=real), example, example, [])
    assert [int(sample["ids"][0, 0]) for sample in samples] == [0, 1, 2, 3]


@pytest.mark.parametrize(("own", "traced", "other"), [(1, 2, 1), (2, 2, 3), (3, 3, 4), (4, 4, 2), (9, 9, 4)])
def test_golden_inputs_hold_another_length_of_a_dynamic_axis(own, traced, other):
    asked, example = {"x": torch.randn(own, 3)}, {"x": torch.randn(traced, 3)}
    samples = golden_inputs(source(), example, asked, [DynamicAxis("x", 0)])
    assert [tuple(sample["x"].shape) for sample in samples] == [(traced, 3)] * 3 + [(other, 3)]


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


def test_prepare_module_writes_what_the_other_stages_read(tmp_path):
    told = []
    job = {"source": "Linear", "options": {"task": None}, "work": str(tmp_path), "input_shapes": {}, "dynamic": []}
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    facts = prepare_module(module, torch.randn(1, 3), job, told.append)
    assert not module.training  # dropout must not reach the golden values
    assert [event["stage"] for event in told] == ["load", "trace"]
    assert told[0]["detail"] == "8 parameters, weights as given"
    assert facts["name"] == "sequential"
    assert facts["origin"]["weights_sha256"] == weights_facts(module)["weights_sha256"]
    golden = read_golden(tmp_path / "golden.npz")
    for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True):
        want = module(torch.from_numpy(inputs["input"])).detach().numpy()
        assert (outputs["output"] == want).all()
    assert (tmp_path / "program.pt2").is_file()


def test_prepare_module_refuses_what_is_no_module(tmp_path):
    job = {"source": "x", "options": {"task": None}, "work": str(tmp_path), "input_shapes": {}, "dynamic": []}
    with pytest.raises(BadInput, match=r"function is no torch.nn.Module; give \(module, example_inputs\)"):
        prepare_module(lambda x: x, torch.zeros(1), job, lambda event: None)


def test_example_inputs_as_forward_takes_them():
    x, y = torch.zeros(1), torch.ones(1)
    assert arguments(x) == ((x,), {})
    assert arguments([x, y]) == ((x, y), {})
    assert arguments({"b": y}) == ((), {"b": y})


def test_the_hash_of_weights_tells_names_types_and_values_apart():
    def facts(**tensors):
        module = nn.Module()
        for name, value in tensors.items():
            module.register_buffer(name, value)
        return weights_facts(module)["weights_sha256"]

    zeros = torch.zeros(4)
    hashes = {facts(a=zeros), facts(b=zeros), facts(a=zeros.int()), facts(a=zeros.reshape(2, 2)), facts(a=zeros + 1)}
    assert len(hashes) == 5
    assert facts(a=zeros) == facts(a=torch.zeros(4))


def test_parameters_that_are_shared_count_once():
    linear = nn.Linear(4, 4, bias=False)
    assert weights_facts(nn.Sequential(linear, linear))["parameters"] == 16


def test_operations_of_the_user_s_own_are_refused():
    with torch.library._scoped_library("pocketship_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        library.impl("twice", lambda x: x.new_empty(x.shape), "Meta")

        class Custom(nn.Module):
            def forward(self, x):
                return torch.ops.pocketship_test.twice(x)

        flat = FlatModule(Custom(), (torch.ones(2),), {})
        program = trace(flat, flat.example)
        assert operations(program) == 1
        with pytest.raises(UnsupportedOperation) as refusal:
            check_operations(program)
    assert f"no target has pocketship_test.twice.default of {__file__}:" in str(refusal.value)
    assert "return torch.ops.pocketship_test.twice(x)" in str(refusal.value)
