"""FILE.py:FUNCTION: the module and example inputs that the user's own function returns."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from exporter.sources.described import NOTHING, of_factory
from exporter.sources.source import Source, SourceOptions, arguments
from exporter.sources.weights import load_weights, weights_facts
from runtimes.errors import BadInput


def load(path: Path, name: str, options: SourceOptions) -> Source:
    """The module and example inputs that the user's function returns."""
    where = f"{path}:{name}"
    if not path.is_file():
        raise BadInput("no such file", where=str(path), remedy="check the path")
    returned = _call(path, name)
    if not isinstance(returned, tuple) or len(returned) not in (2, 3) or not isinstance(returned[0], torch.nn.Module):
        raise BadInput(
            f"the factory returned {_shape_of(returned)}",
            where=where,
            remedy="return (module, example_inputs): a torch.nn.Module and a tensor, a tuple, or a dict of keywords",
        )
    module, example, *said = returned
    if options.weights:
        load_weights(module, Path(options.weights))
    args, kwargs = arguments(example)
    return Source(
        name=name,
        kind="factory",
        module=module,
        args=args,
        kwargs=kwargs,
        weights="as given" if not options.weights else "pretrained",
        task=options.task,
        described=of_factory(said[0], where) if said else NOTHING,
        **weights_facts(module),
    )


def _shape_of(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} of {', '.join(type(v).__name__ for v in value)}" if isinstance(value, tuple) else kind


def _call(path: Path, name: str) -> Any:
    """Import the user's file, as Python would run it as a script, and call the function."""
    spec = importlib.util.spec_from_file_location(f"pocketship_user_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.dont_write_bytecode = True  # nothing is left beside the user's file
    sys.path.insert(0, str(path.resolve().parent))
    try:
        torch.manual_seed(0)
        spec.loader.exec_module(module)
        factory = getattr(module, name, None)
        if not callable(factory):
            raise BadInput(f"there is no function {name!r}", where=str(path), remedy="check its name")
        return factory()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.resolve())]
        line = f":{frames[-1].lineno}" if frames else ""
        raise BadInput(
            f"the factory raised {type(error).__name__}: {error}", where=f"{path}{line}", remedy="mend the function"
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
