"""A user's bare script: a PyTorch model to Core ML with coremltools.convert."""

import coremltools
import torch
from model import load

model, inputs, output = load()
program = torch.export.export(model, (), kwargs=inputs).run_decompositions({})
coremltools.convert(
    program, convert_to="mlprogram", compute_precision=coremltools.precision.FLOAT32, skip_model_load=True
).save(str(output / "model.mlpackage"))
