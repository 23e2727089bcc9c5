"""onnxruntime's own static quantization: QDQ int8, per channel, min-max over the calibration data."""

import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

source, calibration, output = sys.argv[1:]


class Rows(CalibrationDataReader):
    """One calibration sample at a time."""

    def __init__(self) -> None:
        arrays = dict(np.load(calibration, allow_pickle=False))
        count = len(next(iter(arrays.values())))
        self.rows = iter([{name: value[i : i + 1] for name, value in arrays.items()} for i in range(count)])

    def get_next(self):
        return next(self.rows, None)


prepared = output + ".prepared.onnx"
quant_pre_process(source, prepared, skip_symbolic_shape=True)
quantize_static(prepared, output, Rows(), quant_format=QuantFormat.QDQ, per_channel=True)
