"""ai-edge-quantizer with its own recipes, `dynamic` or `static` int8; inputs and outputs stay float."""

import sys

import numpy as np
from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

source, calibration, output, mode = sys.argv[1:]
if mode == "dynamic":
    result = quantizer.Quantizer(source, recipe.dynamic_wi8_afp32()).quantize()
else:
    arrays = dict(np.load(calibration, allow_pickle=False))
    count = len(next(iter(arrays.values())))
    narrow = {n: v.astype(np.int32) if v.dtype == np.int64 else v for n, v in arrays.items()}
    rows = [{name: value[i : i + 1] for name, value in narrow.items()} for i in range(count)]
    worker = quantizer.Quantizer(source, recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        worker.update_quantization_recipe(
            regex=".*", operation_name=end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    result = worker.quantize(worker.calibrate({"serving_default": rows}))
result.export_model(output)
