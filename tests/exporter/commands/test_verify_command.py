"""`verify` on a machine that lacks runtimes: what did not run is not run, neither wrong nor right."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest

from exporter.commands.bundles import _raise_verdict
from runtimes.errors import NotRun, ParityFailed
from runtimes.mil import evaluator
from runtimes.verify import Check

COREML = "coremltools is not installed; pip install 'pocketship[coreml]'"


def test_a_runtime_that_is_missing_is_no_fault(exported, pocketship_without):
    bundle = exported("mlp")
    done = pocketship_without("coremltools", "verify", bundle)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "not run" in rows["model.mlpackage"]
    assert "pass" in rows["model.onnx"] and "pass" in rows["model.tflite"]
    assert f"not run: model.mlpackage: {COREML}" in done.stdout.splitlines()
    strict = pocketship_without("coremltools", "verify", bundle, "--strict", "--quiet", "--target", "onnx,coreml")
    assert (strict.returncode, strict.stdout) == (6, "")
    assert strict.stderr == f"pocketship: {bundle}: not run: model.mlpackage: {COREML}; or leave out --strict\n"


def test_where_nothing_runs_nothing_is_proven(exported, pocketship_without):
    bundle = exported("mlp")
    done = pocketship_without("all", "verify", bundle, "--quiet")
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pocketship: {bundle}: nothing could be run here, so nothing is proven: model.onnx: ")
    assert all(f"'pocketship[{extra}]'" in line for extra in ("onnxruntime", "litert", "coreml"))


def test_a_target_is_all_that_is_verified(exported, pocketship, refused, tmp_path):
    bundle = exported("mlp")
    done = pocketship("verify", bundle, "-t", "onnx")
    assert done.returncode == 0 and "model.onnx" in done.stdout
    assert "model.tflite" not in done.stdout and "model.mlpackage" not in done.stdout
    line = refused("verify", bundle, "--target", "onxx")
    assert line == "pocketship: --target: 'onxx' is no format; give onnx, tflite, coreml or all"
    line = refused("verify", exported("mlp", "onnx,tflite"), "--target", "coreml")
    assert line == "pocketship: --target: no artifact is coreml; the bundle has onnx, tflite"


def check(path: str, fault: str = "", not_run: str = "", not_proven: tuple[str, ...] | None = None) -> Check:
    parity = None if fault or not_run else SimpleNamespace(not_proven=not_proven or ())
    return Check(path, True, not fault, parity, fault, not_run)  # type: ignore[arg-type]


RAN, DOUBTFUL, WRONG, ABSENT = (
    check("a.onnx"),
    check("b.onnx", not_proven=("column 1",)),
    check("c.onnx", fault="c.onnx: it lies"),
    check("d.tflite", not_run="no LiteRT; get it"),
)


@pytest.mark.parametrize(
    ("checks", "strict", "raised"),
    [
        ([RAN], True, None),
        ([RAN, ABSENT], False, None),
        ([RAN, ABSENT], True, NotRun),
        ([ABSENT], False, NotRun),
        ([DOUBTFUL, ABSENT], False, None),
        ([DOUBTFUL, ABSENT], True, ParityFailed),
        ([WRONG, ABSENT], False, ParityFailed),
        ([RAN, WRONG, ABSENT], True, ParityFailed),
    ],
)
def test_what_ran_decides(checks, strict, raised):
    if raised is None:
        _raise_verdict(checks, "bundle", strict)
    else:
        with pytest.raises(raised):
            _raise_verdict(checks, "bundle", strict)


@pytest.mark.parametrize(
    ("system", "machine", "mend"),
    [
        ("Linux", "x86_64", "pip install 'pocketship[coreml]'"),
        ("Darwin", "arm64", "pip install 'pocketship[coreml]'"),
        ("Linux", "aarch64", "it has no wheel for linux-aarch64: check Core ML on x86-64 Linux or a Mac"),
    ],
)
def test_a_board_is_not_told_to_install_what_it_cannot(system, machine, mend, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert evaluator._remedy() == mend
