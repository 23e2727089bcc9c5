"""One reader a format: a row here, and all code that knows no format can ask it."""

from __future__ import annotations

from exporter.formats import coreml_file, onnx_file, tflite_file
from exporter.formats.contents import Reader

READERS: dict[str, Reader] = {
    "onnx": onnx_file.READER,
    "tflite": tflite_file.READER,
    "coreml": coreml_file.READER,
}
