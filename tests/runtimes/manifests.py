"""A manifest with a value in every field, and its JSON with one of them changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from runtimes.signature import ExecutedBy, Signature, TensorSpec
from runtimes.types import (
    SCHEMA_VERSION,
    Accuracy,
    Artifact,
    BundleFile,
    Latency,
    LedgerRow,
    Manifest,
    Origin,
    Parity,
    RecipeStep,
)

SHA = "00ff" * 16
SIGNATURE = Signature((TensorSpec("x", "float32", ("batch", 4)),), (TensorSpec("y", "float32", ("batch", 2)),))
PARITY = Parity(1e-7, 2e-7, 1.0, 60.0, 0.5, 1e-4, 3, ExecutedBy("onnxruntime", "1.20", "physical"), "pass")
ROW = LedgerRow(
    index=0,
    stage="original",
    format="onnx",
    parameters=10,
    nonzero=10,
    size_bytes=3,
    gzip_bytes=3,
    sparse_bytes=3,
    waterfall={"linear float32": 2, "graph and metadata": 1},
    accuracy=Accuracy("accuracy", 0.9, 0.8, 1.0, 100, {"top5": 1.0}),
    latency=Latency(1.0, 1.0, 1.0, 0.9, 1.1, 1),
)
MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    name="tiny",
    origin=Origin("tiny.py:make", "factory", SHA, "random", 10, "classification", "Apache-2.0"),
    signature=SIGNATURE,
    artifacts=(
        Artifact(
            "onnx",
            "model.onnx",
            3,
            SHA,
            "int8",
            SIGNATURE,
            PARITY,
            noise={"y": 0.1},
            representations={"w": "int8"},
            left_float={"v": "too small"},
        ),
    ),
    files=(BundleFile("golden.npz", 5, SHA), BundleFile("README.md", 5, SHA)),
    tool_versions={"torch": "2.13"},
    settings={"opset": 20, "atol": 0.5, "name": "x", "flag": True},
    recipe=(RecipeStep("integer", {"bits": 8, "keep": ["head"]}, ("3 layers",)),),
    ledger=(ROW, replace(ROW, index=1, stage="integer")),
)


def as_json(manifest: Manifest = MANIFEST) -> Any:
    return json.loads(json.dumps(asdict(manifest)))


def with_value(path: str, value: Any, document: Any = None) -> Any:
    """The manifest's JSON with the value at a path like `artifacts.0.parity.samples` replaced."""
    document = as_json() if document is None else document
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value
    return document


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON document that holds no others, with its path."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


LEAVES = {path: value for path, value in leaves(as_json()) if path != "artifacts.0.parity.reason"}
