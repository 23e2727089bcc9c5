"""Folding batch normalization: the outputs stay, the norms go, and where they cannot go they stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from exporter.load import load
from exporter.modules.batch_norm import fold_batch_norms
from exporter.sources.source import SourceOptions
from exporter.tracing.flat_module import FlatModule


def lively(module):
    """Norms with statistics and gains of their own."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
    return module.eval()


def norms(flat):
    return [name for name, m in flat.module.named_modules() if isinstance(m, _BatchNorm)]


def folded(module, *args):
    """The folded module, once its outputs on other inputs than the example are those of the module."""
    flat = FlatModule(module, args, {})
    before = {n: v.clone() for n, v in module.state_dict().items()}
    result = fold_batch_norms(flat)
    torch.manual_seed(9)
    inputs = {n: torch.randn_like(v) for n, v in flat.example.items()}
    with torch.no_grad():
        want, got = flat.compute(dict(inputs)), result.compute(dict(inputs))
    for name, value in want.items():
        assert float((got[name] - value).abs().max()) <= 1e-5 * max(1.0, float(value.abs().max()))
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items()), "the one given is not touched"
    return result


def test_by_hand():
    conv = nn.Conv1d(1, 1, 1, bias=False)
    norm = nn.BatchNorm1d(1, eps=0.0)
    conv.weight.data.fill_(3.0)
    for tensor, value in ((norm.running_mean, 2.0), (norm.running_var, 4.0), (norm.weight, 5.0), (norm.bias, 1.0)):
        tensor.data.fill_(value)
    result = folded(nn.Sequential(conv, norm).eval(), torch.randn(1, 1, 4)).module
    assert result[0].weight.item() == pytest.approx(3.0 * 5 / 2)
    assert result[0].bias.item() == pytest.approx(-2.0 * 5 / 2 + 1)
    assert type(result[1]) is nn.Identity


def test_our_cnn(as_exported):
    module, image = as_exported("cnn")
    result = folded(lively(module), image)
    assert norms(result) == []
    assert all(p.requires_grad for p in result.module.parameters())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_timm(name):
    pytest.importorskip("timm", reason="timm comes with pocketship[demo]")
    module = lively(load(f"timm:{name}", SourceOptions()).module)
    assert norms(folded(module, torch.randn(1, 3, 64, 64))) == []


def test_linear_layers_and_convolutions_of_one_and_three_dimensions():
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    assert norms(folded(lively(linear), torch.randn(3, 4))) == []
    one = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4, affine=False))
    assert norms(folded(lively(one), torch.randn(2, 2, 8))) == []
    three = nn.Sequential(nn.Conv3d(2, 4, 3, groups=2), nn.BatchNorm3d(4))
    assert norms(folded(lively(three), torch.randn(1, 2, 5, 5, 5))) == []


def test_a_linear_layer_whose_norm_is_over_another_axis():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    assert norms(folded(lively(module), torch.randn(3, 6, 4))) == ["1"]


class Loud(nn.BatchNorm2d):
    """A norm that does more."""

    def forward(self, x):
        return super().forward(x).sin()


def test_a_norm_of_a_kind_of_its_own_stays_and_normalizes_nothing():
    torch.manual_seed(0)
    result = folded(lively(nn.Sequential(nn.Conv2d(3, 4, 3), Loud(4))), torch.randn(1, 3, 8, 8)).module
    x = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        assert torch.allclose(result[1](x), x.sin(), atol=1e-6)


class Net(nn.Module):
    """A convolution, a norm, and a use of the convolution's output or of the layers that may forbid to fold."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.norm, self.use = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), use

    def forward(self, x):
        y = self.conv(x)
        if self.use == "added":
            return self.norm(y) + y
        if self.use == "returned":
            return self.norm(y), y
        if self.use == "viewed":
            return self.norm(y), y.view(-1).sum()
        if self.use == "called twice":
            return self.norm(y) + self.conv(x * 2)
        if self.use == "norm called twice":
            return self.norm(y) + self.norm(x)
        if self.use == "in between":
            return self.norm(y.relu())
        return self.norm(y)


@pytest.mark.parametrize("use", ["added", "returned", "viewed", "called twice", "norm called twice", "in between"])
def test_not_where_it_would_change_the_outputs(use):
    torch.manual_seed(0)
    assert norms(folded(lively(Net(use)), torch.randn(1, 3, 8, 8))) == ["norm"]


def test_the_same_without_such_a_use():
    torch.manual_seed(0)
    assert norms(folded(lively(Net("")), torch.randn(1, 3, 8, 8))) == []


def test_not_with_statistics_of_the_batch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert norms(folded(module, torch.randn(2, 3, 8, 8))) == ["1"]


class Shared(Net):
    """Another layer, which is never called, has the weight too, and comes first."""

    def __init__(self):
        super().__init__("")
        idle = nn.Conv2d(3, 3, 1)
        idle.weight = self.conv.weight
        self._modules = {"idle": idle, **self._modules}


def test_not_a_weight_that_two_layers_share():
    torch.manual_seed(0)
    assert norms(folded(lively(Shared()), torch.randn(1, 3, 8, 8))) == ["norm"]


def test_not_a_weight_to_keep():
    torch.manual_seed(0)
    flat = FlatModule(lively(Net("")), (torch.randn(1, 3, 8, 8),), {})
    assert norms(fold_batch_norms(flat, keep=["conv.weight"])) == ["norm"]
