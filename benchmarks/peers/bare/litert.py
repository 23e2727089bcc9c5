"""A user's bare script: a PyTorch model to TFLite with litert_torch.convert."""

import litert_torch
from model import load

model, inputs, output = load()
litert_torch.convert(model, sample_kwargs=inputs).export(str(output / "model.tflite"))
