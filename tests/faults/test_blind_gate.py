"""A tensor of boxes in pixels and scores near zero: what is wrong in the scores alone must fail, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtimes import parity
from runtimes.compare import Limits, compare
from runtimes.golden import read_golden
from runtimes.session import open_session
from tests.faults.test_corrupted_artifacts import FILES, WEIGHTS

HEAD = (10, 8)
"""The matrix of the detector's head: rows 0 to 3 give the box, the others the scores."""


def of_head(change):
    """`change` of the head's matrix [10, 8], however a format lays it out; the other weights stay."""

    def apply(values: np.ndarray) -> np.ndarray:
        if values.size != np.prod(HEAD) or values.ndim == 4:
            return values
        is_transposed = values.shape == HEAD[::-1]
        matrix = np.array(values.T if is_transposed else values.reshape(HEAD))
        change(matrix)
        return (matrix.T if is_transposed else matrix).reshape(values.shape).astype(values.dtype)

    return apply


def no_class(matrix: np.ndarray) -> None:
    matrix[4:] = 0


def one_constant_score(matrix: np.ndarray) -> None:
    matrix[7] = 0


def two_scores_swapped(matrix: np.ndarray) -> None:
    matrix[[5, 8]] = matrix[[8, 5]]


def one_sign(matrix: np.ndarray) -> None:
    matrix[6, np.abs(matrix[6]).argmax()] *= -1


TWINS = (no_class, one_constant_score, two_scores_swapped, one_sign)


def proof_of(artifact: Path, golden: Path, limits: Limits, *, by_part: bool = True):
    """The gate's verdict, in this process; without the noise of the parts it is that of whole outputs."""
    values, session = read_golden(golden), open_session(artifact)
    actual = [session.run(inputs) for inputs in values.inputs]
    measured = values.noise["onnx"] if by_part else None  # of float32, for any format
    return compare(values.outputs, actual, session.executed_by, limits, measured)


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("twin", TWINS)
def test_what_is_wrong_in_the_scores_alone_is_refused(exported, copy_of, form, twin):
    bundle = copy_of(exported("detector"))
    path, golden = bundle / FILES[form], bundle / "golden.npz"
    assert proof_of(path, golden, Limits()).verdict == "pass"
    WEIGHTS[form](path, of_head(twin))
    whole = proof_of(path, golden, Limits(), by_part=False)
    assert whole.verdict == "pass" and 0.003 < whole.max_abs_error < 0.06, "or the boxes do not hide it"
    proof = parity.run_and_compare(
        {"artifact": str(path), "golden": str(golden), "limits": {"rtol": 1e-4, "atol": None, "noise": {}}}, print
    )["parity"]
    assert proof["verdict"] == "fail"
    assert proof["reason"].startswith("output 'found' is off by ") and proof["reason"].endswith(" there")
    assert any(f"in its column {column}, allowed is " in proof["reason"] for column in range(4, 10))


def test_the_command_refuses_it_though_the_manifest_agrees_with_its_bytes(exported, copy_of, refused):
    from tests.faults.test_corrupted_artifacts import reseal

    bundle = copy_of(exported("detector"))
    WEIGHTS["onnx"](bundle / "model.onnx", of_head(no_class))
    reseal(bundle)
    line = refused("verify", bundle, code=3)
    assert line.startswith(f"pocketship: {bundle}: model.onnx: output 'found' is off by ")
    assert " in its column " in line and line.endswith(" there; do not ship it, export it again")
