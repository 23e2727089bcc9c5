"""A 32-bit Raspberry Pi: tflite-runtime 2.14, with the board's own numpy, refuses what it would compute wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_quantizer import qtyping, quantizer

from runtimes.errors import BadInput
from tests.rigs.jobs import asked, matmul

pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def dynamic_int8(exported, tmp_path_factory):
    """The tiny model with weights of dynamic int8, one scale a channel."""
    path = tmp_path_factory.mktemp("int8") / "dynamic.tflite"
    made = quantizer.Quantizer(str(exported("mlp", "onnx,tflite") / "model.tflite"))
    made.add_dynamic_config(regex=".*", operation_name=qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
    made.quantize().export_model(str(path))
    return path


def test_float32_is_proven_and_dynamic_int8_is_refused(boards, exported, dynamic_int8):
    pi, bundle = boards("4-32"), exported("mlp", "onnx,tflite")
    bench = asked(bundle / "model.tflite", dynamic_int8, golden=bundle / "golden.npz")
    bench.on(pi)
    whole, refused = bench.results()
    assert whole.failure is None and whole.parity.verdict == "pass"
    assert (whole.device.architecture, whole.device.emulator) == ("armv7l", "qemu-arm")
    assert whole.executed_by.version == "2.14.0" and np.float32(whole.statistics.p50_ms) > 0
    assert refused.failure.cause == "refused"
    assert "tflite-runtime 2.14 computes dynamic int8 with one scale a channel wrongly" in refused.failure.detail


def test_onnx_has_no_runtime_there(boards, tmp_path):
    with pytest.raises(BadInput, match=r"no runtime for onnx on a board with .* armv7l, .*; give tflite artifacts"):
        asked(matmul(tmp_path / "a.onnx", 2)).on(boards("4-32"))
