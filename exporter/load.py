"""Every kind of source becomes one `Source`: zoo name, Hugging Face folder or id, timm:NAME, file.py:factory, .pt2."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import math
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from exporter.families import ZOO
from exporter.sources import pt2
from exporter.sources.preprocessing import NotDescribed, of_timm
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Preprocessor

Tensors = dict[str, torch.Tensor]
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
KINDS = f"{', '.join(ZOO)}, a Hugging Face folder or org/name, timm:NAME, FILE.py:FACTORY, FILE.pt2"


@dataclass(frozen=True)
class Source:
    """A module with one set of example inputs, and where it came from.

    `samples`, where the source has real inputs, gives at least three sets of them, by flat name, for the shapes asked;
    `preprocessor` is how its inputs are made, where the source says so, else `not_described` says why not; `files`, a
    tokenizer and a licence, are to lie beside the artifacts.
    """

    name: str
    kind: str
    module: torch.nn.Module
    weights: str
    weights_sha256: str
    parameters: int
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    samples: Callable[[Mapping[str, tuple[int, ...]]], tuple[Tensors, ...]] | None = None
    task: str | None = None
    license: str | None = None
    preprocessor: Preprocessor | None = None
    not_described: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceOptions:
    """What the command line says about a source."""

    task: str | None = None
    weights: str | None = None
    trust_remote_code: bool = False


def load(source: str, options: SourceOptions) -> Source:
    """The `Source` that a user names.

    Raises BadInput for a source that is unknown, missing, damaged, a pickle, or does not give what it should.
    """
    factory = re.fullmatch(r"(.+\.py):(\w+)", source)
    path = Path(source)
    if options.weights and not (factory or source.startswith("timm:")):
        raise BadInput("--weights goes with timm:NAME or FILE.py:FACTORY", where=source, remedy="leave it out")
    declare_torchvision_operators()
    if source in ZOO:
        return importlib.import_module(ZOO[source].module).load(source)
    if source.startswith("timm:"):
        return _timm(source.removeprefix("timm:"), options)
    if factory:
        return _factory(Path(factory[1]), factory[2], options)
    if path.suffix == ".pt2":
        return _exported_program(path)
    if path.suffix == ".py":
        raise BadInput("the function is missing", where=source, remedy=f"give {source}:FACTORY")
    if path.is_dir() or (not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", source)):
        from exporter.sources import huggingface

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


def weights_facts(module: torch.nn.Module) -> dict[str, Any]:
    """Number of parameters, and the SHA-256 over names, types, shapes and bytes of the state.

    Raises BadInput for a weight without values.
    """
    sha = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            raise BadInput(f"weight {name!r} has no values (meta device)", remedy="load the weights in the factory")
        sha.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    parameters = sum(p.numel() for p in {id(p): p for p in module.parameters()}.values())
    return {"weights_sha256": sha.hexdigest(), "parameters": parameters}


def read_weights(path: Path) -> Tensors:
    """A state dict from safetensors, or from a checkpoint read with weights_only=True.

    Raises BadInput when the file is missing, empty, truncated, or a pickle that holds more than tensors.
    """
    if not path.is_file() or path.stat().st_size == 0:
        fault = "the weights are empty" if path.exists() else "no such weights"
        raise BadInput(fault, where=str(path), remedy="give a .safetensors file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise a dozen kinds for a damaged file
        pickle = "weights_only" in str(error) or "Unsupported" in str(error)
        raise BadInput(
            "the file is a pickle that holds code, and nothing is unpickled"
            if pickle
            else f"cannot read the weights, truncated or damaged ({' '.join(str(error).split())[:160]})",
            where=str(path),
            remedy="save the tensors with safetensors" if pickle else "copy the file again",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BadInput("the file holds no state dict", where=str(path), remedy="save module.state_dict()")
    return dict(state)


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(read_weights(path), strict=True)
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:300]
        raise BadInput(
            f"the weights are of another model ({fault})", where=str(path), remedy="check the model's name and options"
        ) from error


def declare_torchvision_operators() -> None:
    """Let `import torchvision` succeed where its operator library is of another build (CUDA) than torch (CPU).

    torchvision registers shape functions for its own operators even when it could not load them, and dies of it; timm
    and transformers import it for image transforms alone.
    """
    global _torchvision_library
    spec = importlib.util.find_spec("torchvision") if "torchvision" not in sys.modules else None
    if spec is None or spec.origin is None or _torchvision_library is not None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
            return
        except OSError:
            pass  # of another build than torch
    _torchvision_library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _torchvision_library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_torchvision_library: torch.library.Library | None = None


def _timm(name: str, options: SourceOptions) -> Source:
    """A timm model; weights from a local file, else random from seed 0."""
    try:
        import timm
    except ImportError as error:
        raise BadInput(
            "timm is not installed", where=f"timm:{name}", remedy="pip install 'pocketship[demo]'"
        ) from error
    if name not in timm.list_models():
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise BadInput(
            "no such timm model",
            where=f"timm:{name}",
            remedy=f"try {', '.join(close)}" if close else "see timm.list_models()",
        )
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False)
    if options.weights:
        _load_weights(module, Path(options.weights))
    else:
        _fill_zero_weights(module)
    config = module.pretrained_cfg
    size = tuple(config["input_size"])
    preprocessor, not_described = None, ""
    try:
        preprocessor = of_timm(config, trained=bool(options.weights))
    except NotDescribed as reason:
        not_described = str(reason)
    return Source(
        name=name,
        kind="timm",
        module=module,
        args=(torch.randn(1, *size, generator=torch.Generator().manual_seed(0)),),
        weights="pretrained" if options.weights else "random",
        task=options.task or "image-classification",
        license=config.get("license"),
        preprocessor=preprocessor,
        not_described=not_described,
        **weights_facts(module),
    )


def _fill_zero_weights(module: torch.nn.Module) -> None:
    """Replace the zeros that an initialization left: converters fold a branch times zero away, and the file is small.

    Such are the last normalization of a residual block and the scale of a layer: a trained model has others.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)


def _factory(path: Path, name: str, options: SourceOptions) -> Source:
    """The module and example inputs that the user's function returns."""
    where = f"{path}:{name}"
    if not path.is_file():
        raise BadInput("no such file", where=str(path), remedy="check the path")
    returned = _call_factory(path, name)
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], torch.nn.Module):
        raise BadInput(
            f"the factory returned {_shape_of(returned)}",
            where=where,
            remedy="return (module, example_inputs): a torch.nn.Module and a tensor, a tuple, or a dict of keywords",
        )
    module, example = returned
    if options.weights:
        _load_weights(module, Path(options.weights))
    args, kwargs = arguments(example)
    return Source(
        name=name,
        kind="factory",
        module=module,
        args=args,
        kwargs=kwargs,
        weights="as given" if not options.weights else "pretrained",
        task=options.task,
        **weights_facts(module),
    )


def arguments(example: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Example inputs as forward() takes them: a dict is keywords, a tuple or list positions, else the only one."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def _shape_of(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} of {', '.join(type(v).__name__ for v in value)}" if isinstance(value, tuple) else kind


def _call_factory(path: Path, name: str) -> Any:
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


def _exported_program(path: Path) -> Source:
    """A program that torch.export.save wrote."""
    exported = pt2.load(path)
    args, kwargs = exported.example_inputs or ((), {})
    if not args and not kwargs:
        raise BadInput("the program holds no example inputs", where=str(path), remedy="save it again with them")
    module = exported.module(check_guards=False)  # guards are Python source inside the file
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.detach_.default:  # of torch.tensor() in forward(); cannot be traced again
            node.target = torch.ops.aten.detach.default
    module.recompile()
    return Source(
        name=path.stem,
        kind="pt2",
        module=module,
        args=args,
        kwargs=kwargs,
        weights="pretrained",
        **weights_facts(module),
    )


def randomized(example: Tensors, seed: int) -> Tensors:
    """Other inputs like `example`: floats of its mean and spread, integers between its least and largest value."""
    generator = torch.Generator().manual_seed(seed)

    def like(value: torch.Tensor) -> torch.Tensor:
        if value.is_floating_point():
            spread = float(value.std()) if value.numel() > 1 and value.std() > 0 else 1.0
            return torch.randn(value.shape, generator=generator) * spread + float(value.mean())
        if value.dtype == torch.bool:
            return value
        low, high = (int(value.min()), int(value.max())) if value.numel() else (0, 0)
        return torch.randint(low, high + 1, value.shape, generator=generator).to(value.dtype)

    return {name: like(value) for name, value in example.items()}


def reshaped(value: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """A tensor of `shape` with the kind of values of `value`.

    Raises BadInput for a shape of another rank, with an empty axis, or of more than 1 GiB.
    """
    if len(shape) != value.ndim:
        raise BadInput(
            f"input {name!r} has {value.ndim} axes, not {len(shape)}",
            where="--input-shape",
            remedy=f"give {value.ndim} lengths, as in {name}={','.join(map(str, value.shape))}",
        )
    if any(length < 1 for length in shape) or math.prod(shape) * value.element_size() > 2**30:
        raise BadInput(
            f"input {name!r} cannot have shape {list(shape)}", where="--input-shape", remedy="use sane lengths"
        )
    flat = value.reshape(-1)
    return flat.repeat(-(-math.prod(shape) // max(1, flat.numel())))[: math.prod(shape)].reshape(shape)
