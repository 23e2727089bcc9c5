"""Which kind of source a word names: a zoo name, Hugging Face folder or id, timm:NAME, FILE.py:FACTORY, FILE.pt2."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from pathlib import Path

from exporter.families import ZOO
from exporter.sources import huggingface, pt2, timm_model, user_function
from exporter.sources.source import Source, SourceOptions
from exporter.sources.weights import PICKLE_SUFFIXES
from runtimes.errors import BadInput

KINDS = f"{', '.join(ZOO)}, a Hugging Face folder or org/name, timm:NAME, FILE.py:FACTORY, FILE.pt2"


def load(source: str, options: SourceOptions) -> Source:
    """The `Source` that a user names.

    Raises BadInput for a source that is unknown, missing, damaged, a pickle, or does not give what it should.
    """
    factory = re.fullmatch(r"(.+\.py):(\w+)", source)
    path = Path(source)
    if options.weights and not (factory or source.startswith("timm:")):
        raise BadInput("--weights goes with timm:NAME or FILE.py:FACTORY", where=source, remedy="leave it out")
    if source in ZOO:
        return importlib.import_module(ZOO[source].module).load(source)
    if source.startswith("timm:"):
        return timm_model.load(source.removeprefix("timm:"), options)
    if factory:
        return user_function.load(Path(factory[1]), factory[2], options)
    if path.suffix == ".pt2":
        return pt2.load(path)
    if path.suffix == ".py":
        raise BadInput("the function is missing", where=source, remedy=f"give {source}:FACTORY")
    if path.is_dir() or (not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", source)):
        return huggingface.load(source, options.task, options.trust_remote_code)
    if path.is_file():
        kind = "a pickle, and nothing is unpickled" if path.suffix in PICKLE_SUFFIXES else "no source"
        raise BadInput(
            f"the file is {kind}",
            where=source,
            remedy="give FILE.py:FACTORY with --weights FILE.safetensors, or save the model with torch.export.save",
        )
    close = difflib.get_close_matches(source, ZOO, n=1)
    raise BadInput(
        "unknown source", where=source, remedy=f"did you mean {close[0]}?" if close else f"give one of: {KINDS}"
    )
