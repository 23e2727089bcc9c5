"""The JSON Schemas of manifest.json and preprocessor.json, from the dataclasses: `pocketship schema`."""

from __future__ import annotations

from typing import Any

from runtimes.processing.preprocessor import CHOICES, ENTRIES, PREPROCESSOR_VERSION, RESULTS, Preprocessor
from runtimes.types import SCHEMA_VERSION, Manifest

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `Manifest`."""
    return _schema_of(Manifest, f"pocketship bundle manifest, version {SCHEMA_VERSION}")


def preprocessor_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `Preprocessor`, with the words that its fields may hold."""
    schema = _schema_of(Preprocessor, f"pocketship preprocessor, version {PREPROCESSOR_VERSION}")
    schema["properties"]["schema_version"] = {"const": PREPROCESSOR_VERSION}
    schema["required"] = ["schema_version", "inputs"]
    for kind, record in (ENTRIES | RESULTS).items():
        described = schema["$defs"][record.__name__]
        described["properties"]["kind"] = {"const": kind}
        described["required"] = sorted({*described["required"], "kind"})
        for field, words in CHOICES.get(kind, {}).items():
            described["properties"][field]["enum"] = list(words)
    return schema


def _schema_of(record: Any, title: str) -> dict[str, Any]:
    from pydantic import TypeAdapter

    schema = TypeAdapter(record).json_schema()
    for part in (schema, *schema["$defs"].values()):
        part["additionalProperties"] = False  # as runtimes.records.from_json refuses them
    return {**schema, "$schema": DIALECT, "title": title}
