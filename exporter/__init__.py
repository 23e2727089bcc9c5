"""Turn a PyTorch model into a verified bundle: `exporter.export(source, targets=...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.pipeline import Bundle, export

__all__ = ["Bundle", "export"]


def __getattr__(name: str) -> Any:  # loading the pipeline takes seconds; `pocketship --help` must not pay for it
    if name in __all__:
        from exporter import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
