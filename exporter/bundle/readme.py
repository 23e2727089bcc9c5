"""The README.md inside a bundle: what it is, how exact it is, and the few lines that load each format."""

from __future__ import annotations

from exporter.formats.readers import READERS
from runtimes.signature import TensorSpec
from runtimes.types import Artifact, Manifest


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
        "`pocketship bench .` times it here, `--on ssh://USER@BOARD`, `--on adb` or `--on browser` where it is to run;",
        "`pocketship embed . --android DIR` (`--ios`, `--cpp`, `--web`, `--python`) writes the library for an app.",
        "",
        "## Inputs and outputs",
        "",
        *(f"- in `{_tensor(spec)}`" for spec in manifest.signature.inputs),
        *(f"- out `{_tensor(spec)}`" for spec in manifest.signature.outputs),
    ]
    for artifact in manifest.artifacts:
        snippet = READERS[artifact.format].snippet(bool(artifact.representations))
        lines += ["", f"## Load {artifact.path}", "", snippet]
    return "\n".join(lines) + "\n"


def _row(artifact: Artifact) -> str:
    proof = artifact.parity
    by = f"{proof.executed_by.runtime} {proof.executed_by.version}, {proof.executed_by.kind}"
    return f"| {artifact.path} | {artifact.size_bytes:,} | {proof.max_abs_error:.1e} | {proof.cosine:.7f} | {by} |"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]"
