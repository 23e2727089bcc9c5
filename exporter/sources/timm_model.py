"""Models of timm by name, with weights from a local file or random ones."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from exporter.sources.preprocessing import NotDescribed, of_timm
from exporter.sources.source import Source, SourceOptions
from exporter.sources.weights import load_weights, weights_facts
from runtimes.errors import BadInput


def load(name: str, options: SourceOptions) -> Source:
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
        load_weights(module, Path(options.weights))
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
