"""The versions of the tools that make artifacts."""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata

TOOLS = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
    *("coremltools", "torch-pruning", "numpy"),
)


def tool_versions() -> dict[str, str]:
    """The versions of pocketship and of its tools, as far as they are installed."""
    versions = {}
    for tool in ("pocketship", *TOOLS):
        with suppress(metadata.PackageNotFoundError):
            versions[tool] = metadata.version(tool)
    return versions
