"""What rounding changes, by chance, against what rounding in half precision really changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from exporter.compression.analysis.rounding import larger, noise_of, rounding_errors
from exporter.stages.compress import ROUNDING_MARGIN
from exporter.tracing.flat_module import FlatModule
from runtimes.compare import RELATIVE_TOLERANCE, Limits, compare
from runtimes.signature import ExecutedBy


def errors_of(module: nn.Module, compute: str, *samples: torch.Tensor):
    """The rounding errors of a module of one input, and what it computes exactly."""
    flat = FlatModule(module.eval(), samples[:1], {})
    (name,) = flat.example
    given = [{name: sample} for sample in samples]
    with torch.no_grad():
        exact = [flat.compute(dict(sample)) for sample in given]
    return rounding_errors(flat, compute, given, exact), exact


def largest(errors) -> float:
    return max(float(np.abs(error).max()) for error in errors)


class Difference(nn.Module):
    """A small difference of large numbers beside a number of its size."""

    def forward(self, x):
        return torch.stack([(x + 100.3) - x * 0.999 - 100.2, x], -1)


def test_a_small_difference_of_large_numbers_shows_what_it_is_made_of():
    x = torch.linspace(0.1, 1.0, 50)
    errors, _ = errors_of(Difference(), "float32", x)
    off = np.abs(np.stack(errors["output"])).max((0, 1))
    unit = 100 * 2.0**-23
    assert unit / 4 < off[0] < 4 * unit and off[1] <= 2.0**-22


def test_it_is_as_large_as_what_half_precision_changes():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8), nn.Softmax(-1)).eval()
    x = torch.randn(64, 16)
    errors, exact = errors_of(module, "float16", x)
    with torch.no_grad():
        half = module.half()(x.half()).float() - exact[0]["output"]
    assert 0.3 < largest(errors["output"]) / float(half.abs().max()) < 4.0
    noise = noise_of(errors, exact, ROUNDING_MARGIN)["output"]
    assert set(noise) == {0, 1} and noise[1].shape == (8,) and noise[1].dtype == np.float32
    assert (half.abs().amax(0).numpy() <= noise[1]).all()


class Masked(nn.Module):
    """The usual way to leave out what a mask has zeros for."""

    def forward(self, mask):
        scores = torch.linspace(-1.0, 1.0, 6) + (1.0 - mask.float()) * -1e9
        return scores.softmax(-1)


def test_the_arithmetic_of_masks_is_exact_and_an_empty_one_says_nothing():
    full, half, empty = torch.ones(1, 6), torch.tensor([[1.0, 1, 1, 0, 0, 0]]), torch.zeros(1, 6)
    errors, _ = errors_of(Masked(), "float32", full.long(), half.long(), empty.long())
    assert 0 < largest(errors["output"]) < 1e-6
    errors, _ = errors_of(Masked(), "float32", empty.long())
    assert np.isinf(errors["output"]).all(), "nothing is known of it"


class Buffer(nn.Module):
    """Writes in place, into a view; infinity by design."""

    def forward(self, x):
        y = x * 1.5
        y[:, 0] = 2.0
        y[:, 1:].mul_(3.0)
        return {"y": y, "best": y.argmax(-1), "capped": torch.where(x > 0, torch.inf, x).clamp(max=1.0)}


def test_views_and_what_is_written_in_place_are_left_alone():
    errors, exact = errors_of(Buffer(), "float32", torch.rand(3, 4))
    assert set(errors) == {"y", "capped"}
    assert np.abs(errors["y"])[..., 0].max() == 0.0 and 0.0 < largest(errors["y"]) < 1e-5
    assert noise_of(errors, exact, 2.0)["capped"][1].max() == 0.0


def test_recurrent_layers_are_rounded_at_every_step():
    torch.manual_seed(0)
    module = nn.LSTM(4, 4, batch_first=True)
    errors, _ = errors_of(module, "float32", torch.randn(1, 30, 4))
    assert largest(errors["output_0"]) > 2.0**-24
    assert torch.backends.mkldnn.enabled, "over afterwards"


def test_the_same_chances_every_time_and_the_larger_of_two_noises():
    x = torch.rand(2, 3)
    one, exact = errors_of(nn.Sigmoid(), "float32", x)
    other, _ = errors_of(nn.Sigmoid(), "float32", x)
    assert all(np.array_equal(a, b) for a, b in zip(one["output"], other["output"], strict=True))
    small, large = noise_of(one, exact, 1.0), noise_of(one, exact, 3.0)
    mixed = {"output": {0: small["output"][0], 1: large["output"][1]}}
    assert (larger(mixed, small)["output"][1] == large["output"][1]).all()
    assert larger(mixed, small)["output"][0] == pytest.approx(small["output"][0])


def test_scores_all_at_zero_are_refused_in_float16_too(as_exported):
    """The arithmetic of float16 may be off by 6 pixels in the boxes; the scores it keeps to thousandths."""
    module, example = as_exported("detector")
    flat = FlatModule(module, (), example)
    samples = [{"image": torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i))} for i in range(4)]
    with torch.no_grad():
        exact = [flat.compute(sample) for sample in samples]
        noise = noise_of(rounding_errors(flat, "float16", samples, exact), exact, ROUNDING_MARGIN)
        halves = [{"found": module.half()(sample["image"].half())["found"].float()} for sample in samples]
    by, limits = ExecutedBy("numpy", "2", "off-device"), Limits(RELATIVE_TOLERANCE["float16"])
    reference, half = ([{n: v.numpy() for n, v in o.items()} for o in outputs] for outputs in (exact, halves))
    right = compare(reference, half, by, limits, noise)
    assert (right.verdict, right.not_proven) == ("pass", ())
    for spoil in (lambda scores: scores * 0, lambda scores: scores + 0.03, lambda scores: scores[..., ::-1]):
        wrong = [{"found": np.concatenate([o["found"][..., :4], spoil(o["found"][..., 4:])], -1)} for o in half]
        assert compare(reference, wrong, by, limits).verdict == "pass", "the boxes hide it"
        found = compare(reference, wrong, by, limits, noise)
        assert found.verdict == "fail" and " in its column " in found.reason
