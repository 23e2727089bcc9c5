"""optimum's ONNX Runtime quantization as its guide has it: dynamic int8, per channel."""

import sys
from pathlib import Path

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

source, _, output = map(Path, sys.argv[1:])
config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
ORTQuantizer(source).quantize(save_dir=output.parent, quantization_config=config)
(output.parent / f"{source.stem}_quantized.onnx").rename(output)
