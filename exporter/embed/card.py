"""MODEL_CARD.md and LICENSE.model beside an embedded model: what it is, what was measured, whose it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.types import LedgerRow, RecipeStep

if TYPE_CHECKING:
    from exporter.embed.describe import Library, Tensor

MODEL_LICENSE = "LICENSE"
"""The file of a bundle that holds the licence of its weights, where the source has one."""


def model_card(library: Library) -> str:
    """Markdown: all of it is the manifest's."""
    manifest, origin = library.manifest, library.manifest.origin
    lines = [
        f"# {_plain(manifest.name)}: model card",
        "",
        f"`{library.cls}` was made by pocketship {library.version} from `{_plain(origin.source)}`: "
        f"{origin.parameters:,} parameters, weights {_plain(origin.weights)}, "
        f"SHA-256 of the weights `{origin.weights_sha256}`.",
        "",
        f"- Task: {_plain(origin.task or 'not stated')}",
        f"- Licence of the model: {_plain(origin.license or 'not stated by its source')} (see LICENSE.model)",
        *(f"- In: `{_tensor(t)}`" for t in library.inputs),
        *(f"- Out: `{_tensor(t)}`" for t in library.outputs),
        "",
        "## How exact it is",
        "",
        "Against PyTorch, on the golden inputs; the library's self-test computes the error again where it runs.",
        "",
        "| file | bytes | weights | max abs error | computed by | SHA-256 |",
        "|---|---:|---|---:|---|---|",
        *(
            f"| {a.file} | {a.size_bytes:,} | {a.precision} | {a.max_abs_error:.1e} "
            f"| {_plain(a.computed_by)} | `{a.sha256}` |"
            for a in library.artifacts
        ),
    ]
    if origin.weights == "random":
        lines += ["", "**Its weights are random: it answers nothing.** Give real ones before you ship it."]
    if manifest.recipe:
        lines += ["", "## How it was made small", "", *(f"- {_step(step)}" for step in manifest.recipe)]
    scored = [row for row in manifest.ledger if row.accuracy]
    if scored:
        lines += [
            "",
            "## How good it is",
            "",
            "| file | stage | measure | value | 95% interval | samples |",
            "|---|---|---|---:|---|---:|",
            *(_score(row) for row in scored),
        ]
    lines += ["", "Nothing else about it was measured: neither bias nor how it fares on other data than these."]
    return "\n".join(lines) + "\n"


def model_license(library: Library, bundle: Path) -> str:
    """The text of the model's licence: the bundle's own, else a known one, else what is known of it."""
    own = bundle / MODEL_LICENSE
    if own.is_file():
        return own.read_text(encoding="utf-8")
    name = library.manifest.origin.license
    known = Path(__file__).parent / "licenses" / f"{name}.txt"
    if name and re.fullmatch(r"[A-Za-z0-9.-]+", name) and known.is_file():
        return known.read_text(encoding="utf-8")
    if name:
        return f"The model is under this licence: {_plain(name)}\nIts text: https://spdx.org/licenses/\n"
    return "The model's source states no licence. Ask its authors before you ship it.\n"


def _step(step: RecipeStep) -> str:
    settings = ", ".join(f"{_plain(key)} {_plain(value)}" for key, value in step.settings.items())
    return f"{_plain(step.name)}: {settings}" if settings else _plain(step.name)


def _score(row: LedgerRow) -> str:
    assert row.accuracy
    a = row.accuracy
    interval = f"{a.low:.3f} to {a.high:.3f}"
    return f"| {row.format} | {_plain(row.stage)} | {_plain(a.metric)} | {a.value:.3f} | {interval} | {a.samples} |"


def _tensor(tensor: Tensor) -> str:
    return f"{_plain(tensor.name)}: {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _plain(value: object) -> str:
    """On one line, and no markup."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(str(value).split()))
    return re.sub(r"[`|<>\[\]*]", " ", line)
