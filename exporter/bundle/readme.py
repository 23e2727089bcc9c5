"""The README.md inside a bundle: what it is, how exact it is, and the few lines that load each format."""

from __future__ import annotations

from runtimes.onnx_runtime import EXACT_INT8
from runtimes.signature import TensorSpec
from runtimes.types import Artifact, Manifest

FIRST_INPUTS = '{k.split("/", 2)[2]: v for k, v in np.load("golden.npz").items() if k.startswith("0/input/")}'

SNIPPETS = {
    "onnx": f"""```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
inputs = {FIRST_INPUTS}
outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))
```""",
    "tflite": f"""```python
import numpy as np, ai_edge_litert.interpreter as litert
runner = litert.Interpreter("model.tflite").get_signature_runner()
inputs = {FIRST_INPUTS}
outputs = runner(**{{k: inputs[k].astype(d["dtype"]) for k, d in runner.get_input_details().items()}})
```""",
    "coreml": f"""```python
import numpy as np, coremltools  # on macOS; in an app, Xcode generates the class from model.mlpackage
model = coremltools.models.MLModel("model.mlpackage")
inputs = {FIRST_INPUTS}
outputs = model.predict({{k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in inputs.items()}})
```""",
}

PLAIN_SESSION = 'session = onnxruntime.InferenceSession("model.onnx")'
EXACT_SESSION = f"""options = onnxruntime.SessionOptions()
options.add_session_config_entry{EXACT_INT8}  # else int8 saturates on x86-64 without VNNI
session = onnxruntime.InferenceSession("model.onnx", options)""".replace("'", '"')


def bundle_readme(manifest: Manifest) -> str:
    """Markdown for a bundle."""
    origin = manifest.origin
    lines = [
        f"# {manifest.name}",
        "",
        f"Exported by pocketship from `{origin.source}`: {origin.parameters:,} parameters, weights {origin.weights}"
        + (f", licence {origin.license}" if origin.license else "")
        + ".",
        "",
        "| file | bytes | max abs error | cosine | computed by |",
        "|---|---:|---:|---:|---|",
        *(_row(artifact) for artifact in manifest.artifacts),
        "",
        "The error is against PyTorch on the inputs of `golden.npz`; `pocketship verify .` measures it again.",
        "`off-device` means that graph and weights are proven, the device's own kernels are not.",
        "",
        "## Inputs and outputs",
        "",
        *(f"- in `{_tensor(spec)}`" for spec in manifest.signature.inputs),
        *(f"- out `{_tensor(spec)}`" for spec in manifest.signature.outputs),
    ]
    for artifact in manifest.artifacts:
        snippet = SNIPPETS[artifact.format]
        if artifact.representations:
            snippet = snippet.replace(PLAIN_SESSION, EXACT_SESSION)
        lines += ["", f"## Load {artifact.path}", "", snippet]
    return "\n".join(lines) + "\n"


def _row(artifact: Artifact) -> str:
    proof = artifact.parity
    by = f"{proof.executed_by.runtime} {proof.executed_by.version}, {proof.executed_by.kind}"
    return f"| {artifact.path} | {artifact.size_bytes:,} | {proof.max_abs_error:.1e} | {proof.cosine:.7f} | {by} |"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]"
