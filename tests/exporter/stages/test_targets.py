"""What a failed gate tells the user to do."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.stages.targets import mend
from runtimes.compare import Limits, compare
from runtimes.signature import ExecutedBy

BY = ExecutedBy("numpy", np.__version__, "physical")
WEIGHTS = "nothing was written; load trained weights with --weights, give real inputs with --data"
UNROUNDED = ", or give --quantize int8-weights, whose activations are not rounded"
ATOL = "nothing was written; leave out this target, or give --atol if the model can bear that error"


@pytest.mark.parametrize(
    ("change", "error", "quantized", "says"),
    [
        (0.0, 0.0, False, WEIGHTS),
        (0.001, 0.002, False, WEIGHTS),
        (0.001, 0.002, True, WEIGHTS + UNROUNDED),
        (1.0, 0.6, True, "nothing was written; leave out this target" + UNROUNDED),
        (1.0, 0.8, True, ATOL),
        (1.0, 0.8, False, ATOL),
        (1.0, float("nan"), True, ATOL),
    ],
)
def test_the_mend_fits_the_fault(change, error, quantized, says):
    reference = [{"y": np.array([4.0, 0.0])}, {"y": np.array([4.0, change])}]
    actual = [{"y": sample["y"] + error} for sample in reference]
    proof = compare(reference, actual, BY, Limits(1e-4, 0.7, {"y": 0.7} if quantized else {}))
    assert proof.verdict == "fail"
    assert mend(proof, quantized=quantized) == says
