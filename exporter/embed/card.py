"""MODEL_CARD.md and LICENSE.model beside an embedded model: what it is, what was measured, whose it is."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Template

from exporter.embed.describe import read_document
from exporter.embed.escape import Environment, line

if TYPE_CHECKING:
    from exporter.embed.describe import Library

CARD = "MODEL_CARD.md"
MODEL_LICENSE = "LICENSE"
"""The file of a bundle that holds the licence of its weights, where the source has one."""


def model_card(library: Library) -> str:
    """Markdown: all of it is the manifest's."""
    manifest = library.manifest
    scored = [row for row in manifest.ledger if row.accuracy]
    return _template().render(**vars(library), origin=manifest.origin, scored=scored)


@functools.cache
def _template() -> Template:
    return Environment(Path(__file__).parent / "templates").get_template(f"{CARD}.j2")


def model_license(library: Library, bundle: Path) -> bytes:
    """The text of the model's licence: the bundle's own, else a known one, else what is known of it."""
    own = bundle / MODEL_LICENSE
    if own.is_file():
        return read_document(own)
    name = library.manifest.origin.license
    known = Path(__file__).parent / "licenses" / f"{name}.txt"
    if name and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,60}", name, re.ASCII) and known.is_file():
        return known.read_bytes()
    if name:
        return f"The model is under this licence: {line(name)}\nIts text: https://spdx.org/licenses/\n".encode()
    return b"The model's source states no licence. Ask its authors before you ship it.\n"
