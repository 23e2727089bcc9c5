"""What opens a .onnx, .tflite or .mlpackage as a file."""
