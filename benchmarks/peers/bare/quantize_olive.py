"""Olive's dynamic int8 quantization of an ONNX model, where Olive is installed."""

import sys
import tempfile
from pathlib import Path

from olive.workflows import run

source, _, output = map(Path, sys.argv[1:])
with tempfile.TemporaryDirectory() as folder:
    run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(source)},
            "passes": {"quantize": {"type": "OnnxDynamicQuantization"}},
            "output_dir": folder,
            "log_severity_level": 3,
        }
    )
    next(Path(folder).rglob("*.onnx")).rename(output)
