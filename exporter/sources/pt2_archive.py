"""What in a .pt2 archive is more than data, or more than its bytes: found before torch.export.load reads any of it."""

from __future__ import annotations

import io
import math
import operator
import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from exporter.sources.pt2_sizes import is_size
from runtimes.files import parse_json
from runtimes.golden import MOST_BYTES as MOST_INPUT_BYTES

ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|extra/.*|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
"""All that torch.export.save writes for plain tensors: no pickled or opaque objects, no compiled libraries."""
MOST_ENTRIES = 1 << 16
MODEL, SAMPLE_INPUTS = "models/model.json", "data/sample_inputs/model.pt"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
LONGEST_DOCUMENT = 1 << 26
"""Bytes of the program's JSON; one of 160 operations has 0.6 MB."""
MOST_CONTAINERS = 1 << 21
MOST_REPEATED = 1 << 24
"""Elements of all weights beyond those that are stored: an expanded tensor repeats them."""

LONGEST_PICKLE = 1 << 20
GLOBALS = re.compile(
    r"torch\._utils _rebuild_(tensor_v2|parameter)|torch\._tensor _rebuild_from_type_v2|collections OrderedDict"
    r"|torch (Tensor|Size|device|\w+Storage|u?int\d+|b?float\d+|bool)|(__builtin__|builtins) complex"
)
"""What the example inputs, which are a pickle of tensors, name."""

NAME = re.compile(r"[\w.+/ -]*")
"""What a name may hold, since torch writes names into the Python source of the module that it generates."""
FREE_TEXT = ("as_string", "guards_code")
"""Keys of text that is never evaluated: string arguments, and guards, which nobody asks for."""
METADATA = "metadata"
"""Key of an object of free text: where a node came from."""
IMPORTS = ("__enum__", "default_factory_module")
"""Keys that make torch import a module by name."""

OPERATIONS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.(?!from_file\.)\w+\.\w+"  # that one reads any file
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|map_impl|wrap_with_\w+)"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift|rshift|getitem)"
    r"|math\.\w+|torch\.sym_\w+"
)


def faults(path: Path) -> Iterator[str]:
    """What in the archive is more than data, read by torch's own reader: another may see other entries.

    The first is what counts: what comes after it may not be as bounded as it should. Raises what torch's reader and
    the parsers raise for an archive that is none, or damaged.
    """
    archive = torch._C.PyTorchFileReader(str(path))
    names = archive.get_all_records()
    if len(names) > MOST_ENTRIES:
        yield f"it has {len(names):,} entries"
    yield from (f"entry {name[:80]!r} is no plain tensor" for name in names if not ENTRIES.fullmatch(name))
    if len({name.lower() for name in names}) < len(names):  # that reader ignores case when it looks for a name
        yield "two entries have the same name"
    yield from _packed(archive, path.stat().st_size)
    repeated = 0
    for config in CONFIGS:
        for name, entry in _json_of(archive, config)["config"].items():
            if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                yield f"{name[:80]!r} is a pickle"
            elements = math.prod(size["as_int"] for size in entry["tensor_meta"]["sizes"])
            stored = archive.get_record_size(f"{config.rpartition('/')[0]}/{entry['path_name']}")
            repeated += max(0, elements - stored)
            if repeated > MOST_REPEATED:
                yield f"{name[:80]!r} has {elements:.3g} elements in {stored:,} bytes"
    yield from _of_inputs(archive.get_record(SAMPLE_INPUTS))
    yield from _code(_json_of(archive, MODEL), "")


def _packed(archive: Any, file_bytes: int) -> Iterator[str]:
    """torch stores every entry as it is: together they have less than the file."""
    total = sum(archive.get_record_size(name) for name in archive.get_all_records())
    if total > file_bytes:
        yield f"it unpacks to {total:,} bytes from {file_bytes:,}"


def _json_of(archive: Any, name: str) -> Any:
    size = archive.get_record_size(name)
    if size > LONGEST_DOCUMENT:
        raise ValueError(f"{name} has {size:,} bytes")
    return parse_json(archive.get_record(name), MOST_CONTAINERS)


def _of_inputs(sample: bytes) -> Iterator[str]:
    """What in the example inputs, which torch pickles, is not plain tensors of a bounded size."""
    if not sample:
        return
    with_code = "its example inputs are a pickle with code"
    try:
        archive = torch._C.PyTorchFileReader(io.BytesIO(sample))
        yield from _packed(archive, len(sample))
        program = archive.get_record("data.pkl") if archive.get_record_size("data.pkl") <= LONGEST_PICKLE else b""
        named = [argument for code, argument, _ in pickletools.genops(program) if code.name in ("GLOBAL", "INST")]
        if not all(GLOBALS.fullmatch(str(name)) for name in named):
            yield with_code
            return
        inputs = torch.load(io.BytesIO(sample), weights_only=True)
    except Exception:  # of the zip, of the unpickler, or any that a hostile pickle provokes
        yield with_code
        return
    total = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
    if total > MOST_INPUT_BYTES:
        yield f"its example inputs have {total:.3g} bytes"


def _code(value: Any, key: str) -> Iterator[str]:
    """What in the program's JSON torch would call, import or evaluate beyond operations, names and sizes."""
    if isinstance(value, dict):
        yield from (f"{name[:80]!r} is code" for name in value if name in IMPORTS or not NAME.fullmatch(name))
        for name, child in value.items():
            if key != METADATA or not isinstance(child, str):
                yield from _code(child, name)
    elif isinstance(value, list):
        for child in value:
            yield from _code(child, key)
    elif isinstance(value, str) and key not in FREE_TEXT:
        if key in ("target", "as_operator"):
            if not _is_operation(value):
                yield f"{value[:80]!r} is no operation of torch"
        elif key == "expr_str":
            if not is_size(value):
                yield f"size {value[:80]!r} is code"
        elif value[:1] in ("[", "{", '"'):  # a tree of inputs or outputs: JSON within JSON
            yield from _code(parse_json(value.encode()), key)
        elif not NAME.fullmatch(value):
            yield f"{value[:80]!r} is code"


def _is_operation(target: str) -> bool:
    if not OPERATIONS.fullmatch(target):
        return False
    if not target.startswith("torch.ops."):
        return True
    try:
        found = operator.attrgetter(target.removeprefix("torch."))(torch)
    except AttributeError:
        return False
    return isinstance(found, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))
