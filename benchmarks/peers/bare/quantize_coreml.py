"""coremltools.optimize with its defaults: `int8` linear quantization, or `int4` and `int2` palettes by k-means."""

import sys

import coremltools as ct
import coremltools.optimize.coreml as cto

source, _, output, mode = sys.argv[1:]
model = ct.models.MLModel(source, skip_model_load=True)
if mode == "int8":
    config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
    model = cto.linear_quantize_weights(model, config)
else:
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(mode="kmeans", nbits=int(mode[-1])))
    model = cto.palettize_weights(model, config)
model.save(output)
