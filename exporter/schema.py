"""The JSON Schema of manifest.json, from the dataclasses themselves: `pocketship schema`."""

from __future__ import annotations

from typing import Any

from runtimes.types import SCHEMA_VERSION, Manifest


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `Manifest`."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Manifest).json_schema()
    for record in (schema, *schema["$defs"].values()):
        record["additionalProperties"] = False  # as runtimes.bundle.from_json refuses them
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"pocketship bundle manifest, version {SCHEMA_VERSION}"
    return schema
