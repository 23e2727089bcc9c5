"""Errors and refusals point at the user's line, never at ours."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import trace
from exporter.tracing.user_code import line_of, user_line
from runtimes.errors import BadInput

ROOT = Path(__file__).resolve().parents[3]


class Module(nn.Module):
    """A module whose forward() is the given function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    @property
    def forward(self):
        return self.function


def refused(function, x):
    flat = FlatModule(Module(function), (x,), {})
    with pytest.raises(BadInput) as refusal:
        trace(flat, flat.example)
    return refusal


X = torch.arange(6.0).reshape(2, 3)


def test_a_branch_on_data_is_refused_with_its_line():
    def forward(x):
        if x.sum() > 0:  # depends on data
            return x
        return -x

    refusal = refused(forward, X)
    place = f"{__file__}:{inspect.getsourcelines(forward)[1] + 1}"
    assert str(refusal.value).startswith(f"{place}: control flow depends on the data `if x.sum() > 0:")
    assert "torch.where or torch.cond" in str(refusal.value)


def test_an_operation_that_fails_is_refused_with_its_line():
    def forward(x):
        return x.cpu().numpy()

    refusal = refused(forward, X)
    assert f"{__file__}:{inspect.getsourcelines(forward)[1] + 1}: torch.export cannot trace" in str(refusal.value)
    assert "make torch.export.export(module, inputs) work first" in str(refusal.value)


EXPORTER = ROOT / "exporter"
TORCH = Path(torch.__file__).parent
OURS = [f for f in EXPORTER.rglob("*.py") if EXPORTER / "families" not in f.parents]
USERS = [ROOT / "tests" / "models.py", EXPORTER / "families" / "digits.py"]


def stack_trace(*files: Path) -> str:
    return "".join(f'  File "{file}", line {i}, in forward\n    code_{i}(x)\n' for i, file in enumerate(files))


@pytest.mark.parametrize("file", USERS, ids=lambda file: file.stem)
def test_every_file_of_the_exporter_is_told_from_the_user_s_and_from_a_model_of_the_zoo(file):
    for own in OURS:
        assert user_line(stack_trace(own, file, own, TORCH / "nn" / "functional.py")) == f"{file}:1 (code_1(x))", own


def test_without_a_line_of_the_user_s_the_innermost_is_shown():
    inner = TORCH / "nn" / "functional.py"
    assert user_line(stack_trace(OURS[0], inner)) == f"{inner}:1 (code_1(x))"
    assert user_line("") == ""


def raised_through(*files: Path) -> Exception:
    """An exception whose traceback goes through lines of these files."""
    functions: list = [lambda: 1 / 0]
    for file in reversed(files):
        inner, space = functions[-1], {}
        exec(compile("def run(inner): return inner()", str(file), "exec"), space)
        functions.append(partial(space["run"], inner))
    with pytest.raises(ZeroDivisionError) as caught:
        functions[-1]()
    caught.value.__traceback__ = caught.tb.tb_next  # without this file's own line
    error, frames = caught.value, caught.value.__traceback__
    while frames.tb_next.tb_next:
        frames = frames.tb_next
    frames.tb_next = None  # and without the lambda's
    return error


@pytest.mark.parametrize("file", USERS, ids=lambda file: file.stem)
def test_an_exception_s_line_is_the_user_s_or_the_zoo_s(file):
    for own in OURS[:3]:
        assert line_of(raised_through(own, file, own, TORCH / "nn" / "functional.py"))[0] == f"{file}:1"
    assert line_of(raised_through(OURS[0])) == ("", "")
