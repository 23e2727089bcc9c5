"""The child that loads, checks and traces: the weights it refuses, and what it leaves for the other stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporter.sources.weights import weights_facts
from exporter.stages.prepare import check_weights, prepare_module
from runtimes.errors import BadInput
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


def job_in(folder, **changes):
    job = {"source": "Linear", "options": {"task": None}, "work": str(folder), "input_shapes": {}, "dynamic": []}
    job["preprocessor"] = None
    job["described"] = {}
    return {**job, "targets": {"onnx": "float32"}, "recipe": [], "data": None, "seed": 0, **changes}


def test_prepare_module_writes_what_the_other_stages_read(tmp_path):
    told = []
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    prepare_module(module, torch.randn(1, 3), job_in(tmp_path), told.append)
    assert module.training, "the caller's module stays as it was"
    module.eval()  # dropout must not reach the golden values
    assert [next(iter(event.values())) for event in told if "stage" in event] == ["load", "trace"]
    assert told[0]["detail"] == "8 parameters, weights as given"
    source, snapshot = (next(e[kind] for e in told if kind in e) for kind in ("source", "snapshot"))
    assert source["name"] == "sequential"
    assert source["origin"]["weights_sha256"] == weights_facts(module)["weights_sha256"]
    assert (snapshot["index"], snapshot["name"], snapshot["parameters"]) == (0, "original", 8)
    golden = read_golden(tmp_path / "snapshot-0" / "golden.npz")
    for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True):
        want = module(torch.from_numpy(inputs["input"])).detach().numpy()
        assert (outputs["output"] == want).all()
    assert (tmp_path / "snapshot-0" / "program.pt2").is_file()


def test_prepare_module_refuses_what_is_no_module(tmp_path):
    with pytest.raises(BadInput, match=r"function is no torch.nn.Module; give \(module, example_inputs\)"):
        prepare_module(lambda x: x, torch.zeros(1), job_in(tmp_path), lambda event: None)
