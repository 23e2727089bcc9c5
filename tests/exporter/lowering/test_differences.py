"""What formats cannot do as PyTorch does is said at export, with the user's line; what they can is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporter.lowering.differences import differences
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import functional, trace

FORMATS = ("onnx", "tflite", "coreml")
NARROW = ("tflite", "coreml")
ORDER = "may name other places than torch where values are equal"
PRODUCTS = "computes int64 products in 32 bits, right while they stay below 2**31"
NUMBERS = "keeps int64 numbers in 32 bits, and this one needs more"
QUOTIENTS = "may be 1 off on Apple's own kernels where a quotient of floats is nearly whole"
LOGARITHMS = "is -inf sooner than torch; write logsigmoid or log_softmax for this log of one"


def said(module: nn.Module, *inputs: torch.Tensor) -> dict[str, list[str]]:
    """By format what is said, without the place."""
    found = {}
    for target in FORMATS:
        flat = FlatModule(module.eval(), inputs, {})
        lines = differences(functional(trace(flat, flat.example)), target)
        assert all(f": {__file__}:" in line and line.startswith(f"{target} ") for line in lines), lines
        found[target] = [line.split(f": {__file__}:")[0].removeprefix(f"{target} ") for line in lines]
    return found


def of(**words: str) -> dict[str, list[str]]:
    return {target: [words[target]] if target in words else [] for target in FORMATS}


class Topk(nn.Module):
    def forward(self, x):
        return torch.topk(x, 2)


class Largest(nn.Module):
    def forward(self, x):
        return torch.topk(x, 2)[0], x.argmax(1), x.sort(dim=1, stable=True)[1], x.max(1)


class Argsort(nn.Module):
    def forward(self, x):
        return x.argsort(1)


class Product(nn.Module):
    def forward(self, ids):
        return ids * 100003


class Hash(nn.Module):
    def forward(self, ids):
        return (ids * 100003 + 7) % 53


class Positions(nn.Module):
    """What text models do with integers, none of which grows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 4)

    def forward(self, ids):
        mask = ids.ne(1).int()
        places = torch.cumsum(mask, 1).long() * mask + 1
        kept = places.clone()
        kept[:, 0] = 0
        return self.table(ids) * (ids * 20_000_000 != 0)[..., None], places, kept * 3, ids.argmax(1) * 5


class Sentinel(nn.Module):
    def forward(self, ids):
        return ids[:, 1:] == 2**40


class Stored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.tensor([2654435761, 5]))

    def forward(self, ids):
        return ids ^ self.keys


class FloorDivision(nn.Module):
    def forward(self, x):
        return x // 0.1, torch.div(x, 2.0)


class Logarithm(nn.Module):
    def forward(self, x):
        return torch.log(torch.sigmoid(x))


FLOATS, IDS = torch.randn(2, 4), torch.ones(2, 2, dtype=torch.int64)
ROWS = {
    "topk": (Topk(), FLOATS, of(onnx=ORDER, tflite=ORDER, coreml=ORDER)),
    "argsort": (Argsort(), FLOATS, of(onnx=ORDER, tflite=ORDER, coreml=ORDER)),
    "values, and the first of equal ones": (Largest(), FLOATS, of()),
    "product": (Product(), IDS, of(tflite=PRODUCTS, coreml=PRODUCTS)),
    "remainder of a product": (Hash(), IDS, of()),
    "positions": (Positions(), IDS, of()),
    "number": (Sentinel(), IDS, of(tflite=NUMBERS, coreml=NUMBERS)),
    "stored number": (Stored(), IDS, of(tflite=NUMBERS, coreml=NUMBERS)),
    "floor division": (FloorDivision(), FLOATS, of(coreml=QUOTIENTS)),
    "logarithm": (Logarithm(), FLOATS, of(onnx=LOGARITHMS, tflite=LOGARITHMS, coreml=LOGARITHMS)),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_a_format_cannot_do_is_said(name):
    module, example, expected = ROWS[name]
    assert said(module, example) == expected


def test_several_lines_of_a_kind_are_one():
    class Two(nn.Module):
        def forward(self, ids):
            a = ids * 100003
            b = ids * 100019
            return a, b

    flat = FlatModule(Two(), (IDS,), {})
    (line,) = differences(functional(trace(flat, flat.example)), "coreml")
    assert line.startswith(f"coreml {PRODUCTS}: {__file__}:")
    assert line.endswith("(a = ids * 100003) and 1 more")


def test_an_export_says_it(tmp_path, pocketship):
    source = tmp_path / "ties.py"
    source.write_text(
        "import torch\n\n\n"
        "class Ties(torch.nn.Module):\n    def forward(self, x):\n        return torch.topk(x, 2)\n\n\n"
        "def model():\n    return Ties(), torch.randn(1, 4)\n"
    )
    words = ("export", f"{source}:model", "-t", "onnx", "--dry-run")
    done = pocketship(*words)
    assert done.returncode == 0, done.stderr
    assert f"warning: onnx {ORDER}: {source}:6 (return torch.topk(x, 2))" in done.stderr
    assert "warning" not in pocketship(*words, "--quiet").stderr
