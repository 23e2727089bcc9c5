"""What is cut out of a module: what is left computes the rest, in CNNs, transformers and mixers; and what stays."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from exporter.families.digits import CompactConvolutionalTransformer
from exporter.families.series import mixer
from exporter.modules.dependencies import find_groups
from exporter.modules.structure import Block, find_blocks, masked, path_of, sliced, without_blocks
from exporter.tracing.flat_module import FlatModule
from runtimes.errors import BadInput
from tests.exporter.modules.upsampling import flat_upsampling, upsampling


def cct():
    return CompactConvolutionalTransformer(width=32, heads=4, layers=3), torch.randn(2, 3, 32, 32)


def patch_mixer():
    return mixer("italypower"), torch.randn(2, 1, 24)


def bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    return BertModel(config, add_pooling_layer=False), torch.randint(0, 50, (1, 9))


def timm_model(name):
    def make():
        import timm

        return timm.create_model(name, num_classes=10), torch.randn(1, 3, 64, 64)

    return make


class Dense(nn.Module):
    """Two convolutions side by side, and one norm over what both give."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 4, 3)
        self.norm, self.head = nn.BatchNorm2d(10), nn.Linear(10 * 36, 5)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x):
        x = self.norm(torch.cat([self.left(x), self.right(x)], 1)).relu()
        return self.head(x.flatten(1))


def dense():
    return Dense(), torch.randn(2, 3, 8, 8)


class Gated(nn.Module):
    """A fused gate, whose halves belong together, unit by unit."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(16, 4)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, -1)
        return self.down(gate.sigmoid() * value)


class Normalized(nn.Module):
    """Channels that are divided by their norm: a zero is not the same as nothing missing, once it is cut out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.down(nn.functional.normalize(self.up(x), dim=-1))


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)
        self.down.weight = self.up.weight

    def forward(self, x):
        return self.down(self.up(x).relu())


def flat_of(make):
    torch.manual_seed(0)
    module, example = make()
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return FlatModule(module.eval(), (example,), {})


def kinds(groups):
    return {kind: sum(g.kind == kind for g in groups) for kind in sorted({g.kind for g in groups})}


@torch.no_grad()
def outputs(flat):
    return list(flat.compute(dict(flat.example)).values())


CASES = {
    "cct": (cct, {"channels": 2, "heads": 3, "neurons": 3}),
    "patch_mixer": (patch_mixer, {"neurons": 6}),
    "bert": (bert, {"heads": 2, "neurons": 2}),
    "dense": (dense, {"channels": 2}),
    "upsampling": (upsampling, {"channels": 2}),
    "resnet": (timm_model("resnet10t"), {"channels": 10}),
    "mobilenet": (timm_model("mobilenetv3_small_050"), {"channels": 26}),
}


def test_channels_of_transposed_convolutions_are_cut_as_a_mask_by_hand_says():
    flat, by_hand = flat_upsampling(), flat_upsampling()
    into, out_of = find_groups(flat)[0]
    assert [(c.name, c.side) for c in into.cuts] == [("0", "out"), ("2", "in")]
    assert [(c.name, c.side) for c in out_of.cuts if c.side == "in"] == [("7", "in")]
    small = sliced(flat, [(into, [1, 4, 11]), (out_of, [0, 5])])
    with torch.no_grad():
        by_hand.module[2].weight[[1, 4, 11]] = 0.0  # [in, out, 2, 2]
        by_hand.module[7].weight[:, [0, 5]] = 0.0
    assert torch.allclose(outputs(small)[0], outputs(by_hand)[0], atol=1e-6)
    weights = {name: list(p.shape) for name, p in small.module.named_parameters() if p.ndim > 1}
    assert weights == {
        "0.weight": [13, 3, 3, 3],
        "2.weight": [13, 6, 2, 2],
        "5.weight": [6, 1, 4, 4],
        "7.weight": [3, 6, 3, 3],
    }


@pytest.mark.parametrize("name", CASES)
def test_the_sliced_module_computes_what_the_masked_one_does(name):
    make, expected = CASES[name]
    flat = flat_of(make)
    groups, _ = find_groups(flat)
    assert kinds(groups) == expected
    generator = torch.Generator().manual_seed(1)
    removal = [(g, torch.randperm(g.size, generator=generator)[: max(1, g.size // 3)].tolist()) for g in groups]
    small, silent = sliced(flat, removal), masked(flat, removal)
    for got, wanted, before in zip(outputs(small), outputs(silent), outputs(flat), strict=True):
        assert got.shape == before.shape
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert (before - wanted).abs().max() > 1e-3 * before.abs().max(), "or nothing was removed"
    counts = [sum(p.numel() for p in f.parameters()) for f in (flat, small)]
    assert counts[1] < counts[0]
    assert all(m.training is False for m in small.module.modules())


def test_every_group_by_itself_gives_up_all_units_but_one():
    flat = flat_of(cct)
    for group in find_groups(flat)[0]:
        removal = [(group, range(1, group.size))]
        for got, wanted in zip(outputs(sliced(flat, removal)), outputs(masked(flat, removal)), strict=True):
            assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max(), group.name


def test_many_channels_of_a_layer_norm_keep_their_order():
    """A set of few large numbers has them in no order, and torch-pruning 1.6.1 takes the weights from such a set."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 1024), nn.LayerNorm(1024), nn.Linear(1024, 2))
    nn.init.normal_(module[1].weight)
    flat = FlatModule(module.eval(), (torch.randn(2, 4),), {})
    (group,), _ = find_groups(flat)
    small = sliced(flat, [(group, [i for i in range(1024) if i not in (9, 17, 1000)])])
    assert torch.equal(small.module[1].weight, module[1].weight[[9, 17, 1000]])


def test_heads_are_counted_where_the_module_counts_them():
    flat = flat_of(bert)
    group = next(g for g in find_groups(flat)[0] if g.kind == "heads")
    attention = sliced(flat, [(group, [0, 2])]).module.get_submodule("encoder.layer.0.attention.self")
    assert (attention.num_attention_heads, attention.all_head_size, attention.attention_head_size) == (2, 16, 8)
    assert attention.query.out_features == 16
    assert flat.module.encoder.layer[0].attention.self.num_attention_heads == 4


@pytest.mark.parametrize(
    ("module", "note"),
    [
        (Gated(), "left whole: up, whose neurons do not come apart"),
        (Normalized(), "left whole: up, whose neurons do not come apart"),
        (nn.Sequential(nn.Linear(8, 16), nn.GLU(), nn.Linear(8, 4)), "left whole: 0, whose neurons do not come apart"),
        (
            nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (8, 1)), nn.Conv1d(8, 8, 1, groups=2), nn.Conv1d(8, 1, 1)),
            "left whole: 0, which reaches a grouped convolution",
        ),
        (
            nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (8, 1)), nn.GroupNorm(2, 8), nn.Conv1d(8, 1, 1)),
            "left whole: 0, which reaches a GroupNorm",
        ),
        (nn.Sequential(*[nn.Linear(8, 8)] * 2, nn.Linear(8, 2)), "left whole: 0, which reaches a weight that is used"),
        (Tied(), "left whole: up, which reaches a weight that is used twice"),
    ],
)
def test_what_does_not_come_apart_stays_whole(module, note):
    torch.manual_seed(0)
    groups, notes = find_groups(FlatModule(module.eval(), (torch.randn(3, 8),), {}))
    assert groups == () and notes[0].startswith(note)


def test_tied_weights_and_outputs_stay_whole(as_exported):
    module, example = as_exported("transformer")
    assert find_groups(FlatModule(module, example, {}))[0] == ()
    _, notes = find_groups(flat_of(bert))
    assert notes == ("left whole: encoder.layer.0.attention.output.dense, which reaches an output of the model",)


def test_a_module_that_cannot_be_traced_is_refused(as_exported):
    class NoGradient(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    flat = FlatModule(NoGradient().eval(), (torch.randn(2, 3),), {})
    module, series = as_exported("recurrent")
    with pytest.raises(BadInput, match=r"prune-structured: torch-pruning cannot trace the model .*only layers in what"):
        find_groups(FlatModule(module, (series,), {}))
    assert find_groups(flat) == ((), ())


def test_blocks_are_found_and_left_out():
    flat = flat_of(cct)
    blocks = find_blocks(flat)
    assert blocks == (Block("layers", 0), Block("layers", 1), Block("layers", 2))
    thin = without_blocks(flat, [blocks[0], blocks[2]])
    x = flat.module.tokenizer(flat.example["image"]).flatten(2).transpose(1, 2) + flat.module.positions
    x = flat.module.norm(flat.module.layers[1](x))
    wanted = flat.module.head((flat.module.attention_pool(x).softmax(1) * x).sum(1))
    assert torch.allclose(outputs(thin)[0], wanted, atol=1e-6)
    assert len(flat.module.layers) == 3
    assert [path_of(b) for b in find_blocks(flat_of(bert))] == ["encoder.layer.0", "encoder.layer.1"]
    assert [path_of(b) for b in find_blocks(flat_of(timm_model("resnet10t")))] == []


def test_layers_without_a_residual_shape_are_no_blocks(as_exported):
    for name in ("mlp", "cnn"):
        module, example = as_exported(name)
        assert find_blocks(FlatModule(module, (example,), {})) == ()


def test_blocks_that_may_be_called_by_name_are_left_in():
    def block():
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    for names, expected in ((("0", "1"), 2), (("first", "second"), 0)):
        module = nn.Sequential(OrderedDict((name, block()) for name in names))
        assert len(find_blocks(FlatModule(module.eval(), (torch.randn(2, 4),), {}))) == expected
