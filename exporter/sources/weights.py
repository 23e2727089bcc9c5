"""Weights from files that hold nothing but tensors, and the facts that tell one model's from another's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from exporter.tracing.flat_module import Tensors
from runtimes.errors import BadInput

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


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


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Fill a module from a file; raises BadInput where the file is damaged or of another model."""
    try:
        module.load_state_dict(read_weights(path), strict=True)
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:300]
        raise BadInput(
            f"the weights are of another model ({fault})", where=str(path), remedy="check the model's name and options"
        ) from error
