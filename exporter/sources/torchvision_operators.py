"""Stand-ins for torchvision's operators where its library is of another build than torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import torch


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
