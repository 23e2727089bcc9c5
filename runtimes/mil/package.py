"""What a Core ML package consists of: the files that its Manifest.json names, all below its folder Data."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

from runtimes.errors import BadInput
from runtimes.files import parse_json, read_regular
from runtimes.paths import inside, walk

MANIFEST, DATA = "Manifest.json", "Data"
MOST_MANIFEST_BYTES = 1 << 20
KINDS = ("file", "folder", "empty folder")
"""What a package may hold: one without weights has an empty folder for them."""
MAPPING = "executorch_debug_handle_mapping.json"
"""What coremltools 9 leaves beside the Manifest.json and names nowhere; Core ML never reads it."""


def specification_of(package: Path) -> Path:
    """The specification of a package, whose Manifest.json names every file of it, and nothing else.

    Core ML opens whatever a Manifest.json points to, so this is asked before anything opens the package. Raises
    BadInput where a path leads out of Data, an item or the Manifest.json itself is missing, or the package holds a
    link or a file that no item names.
    """
    try:
        items, root = _read(package)
        found = dict(walk(package))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = f"not a readable Core ML package ({type(error).__name__}: {error})"
        raise BadInput(cause, where=str(package), remedy="export the model again") from error
    for path in items.values():
        inside(path, str(package / MANIFEST))
        if found.get(f"{DATA}/{path}") not in KINDS:
            raise BadInput(f"its item {path!r:.80} is missing", where=str(package), remedy="export the model again")
    named = {f"{DATA}/{item}" for item in items.values()}
    for path, kind in found.items():
        parents = [path, *(path[:at] for at, letter in enumerate(path) if letter == "/")]
        known = path in (MANIFEST, MAPPING, *named) or (kind == "file" and not named.isdisjoint(parents))
        if kind not in KINDS or (kind != "folder" and not known):
            what = f"{kind} that no item names" if kind in KINDS else kind
            raise BadInput(f"it holds {path!r:.80}: {what}", where=str(package), remedy="do not trust it")
    if found[f"{DATA}/{items[root]}"] != "file":
        raise BadInput("its specification is no file", where=str(package), remedy="export the model again")
    return package / DATA / items[root]


def _read(package: Path) -> Tuple[Dict[str, str], str]:
    """The items' paths by identifier, and the identifier of the root."""
    path = package / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise FileNotFoundError(f"{MANIFEST} is missing, or not a regular file")
    manifest = parse_json(read_regular(path, MOST_MANIFEST_BYTES))
    items: Dict[str, str] = {key: entry["path"] for key, entry in manifest["itemInfoEntries"].items()}
    if not all(isinstance(item, str) for item in items.values()):
        raise TypeError("a path is no text")
    root: str = manifest["rootModelIdentifier"]
    if root not in items:
        raise KeyError("rootModelIdentifier")
    return items, root
