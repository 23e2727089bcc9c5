"""An .npz for a device that has no Python: safetensors' layout, raw little-endian numbers behind a header in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from runtimes.errors import BadInput

STORED = {
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    "bool": "BOOL",
}
"""numpy's name -> safetensors' name of a type."""
LEFT_OUT = (["output"], ["noise"])
ALIGNMENT_BYTES = 8


def unpack(source: Path, to: Path) -> None:
    """Write what an .npz holds in safetensors' layout, without golden outputs and noise: a device compares nothing.

    Raises BadInput for a file that is missing or damaged, and for an array of a type that no artifact takes.
    """
    try:
        with np.load(source, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name.split("/")[1:2] not in LEFT_OUT}
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise a dozen kinds for damaged bytes
        raise BadInput(
            f"cannot read its inputs ({error})", where=str(source), remedy="export the bundle again"
        ) from error
    header, contents, at = {}, [], 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):  # the widest first: aligned
        if array.dtype.name not in STORED:
            raise BadInput(f"{name} is {array.dtype}, which no artifact takes", where=str(source))
        content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        shape, end = list(array.shape), at + len(content)
        header[name] = {"dtype": STORED[array.dtype.name], "shape": shape, "data_offsets": [at, end]}
        contents.append(content)
        at = end
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    to.write_bytes(b"".join((len(text).to_bytes(8, "little"), text, *contents)))
