"""Read a .pt2 file as data: whatever torch.export.load would unpickle, evaluate, import or execute is refused first."""

from __future__ import annotations

import ast
import io
import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from exporter.sources.source import Source
from exporter.sources.weights import weights_facts
from runtimes.errors import BadInput

REMEDY = "save it again with torch.export.save of this torch version, with plain tensors as weights and inputs"

ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|extra/.*|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
"""All that torch.export.save writes for plain tensors: no pickled or opaque objects, no compiled libraries."""

MODEL, SAMPLE_INPUTS = "models/model.json", "data/sample_inputs/model.pt"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
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
EXPRESSION_NODES = (ast.Expression, ast.Name, ast.Constant, ast.keyword, ast.Load, ast.UnaryOp, ast.BinOp, ast.Compare)
FUNCTIONS = re.compile(r"[A-Z]\w*")
"""sympy's own are classes: Symbol, Mul, FloorDiv; the built-in functions, which sympy also offers, are not."""


def load(path: Path) -> Source:
    """A program that torch.export.save wrote."""
    exported = read_program(path)
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


def read_program(path: Path) -> torch.export.ExportedProgram:
    """The program that torch.export.save wrote.

    Raises BadInput when the file is missing, damaged, or holds anything but plain tensors and torch's own operations.
    """
    from torch.export.pt2_archive._package import load_pt2

    if not path.is_file() or path.stat().st_size == 0:
        raise BadInput(
            "the file is empty" if path.exists() else "no such file", where=str(path), remedy="check the path"
        )
    try:
        fault = next(_faults(path), "")
        if fault:
            raise BadInput(f"{fault}, and nothing but data is read", where=str(path), remedy=REMEDY)
        return load_pt2(path).exported_programs["model"]  # not torch.export.load: it falls back to an older format
    except BadInput:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged archive
        raise BadInput(
            f"not an exported program, or damaged ({type(error).__name__}: {_first_sentence(error)})",
            where=str(path),
            remedy=REMEDY,
        ) from error


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split("Exception raised from")[0][:160]


def _faults(path: Path) -> Iterator[str]:
    """What in the archive is more than data, read by torch's own reader: another may see other entries."""
    archive = torch._C.PyTorchFileReader(str(path))
    names = archive.get_all_records()
    yield from (f"entry {name!r} is no plain tensor" for name in names if not ENTRIES.fullmatch(name))
    if len({name.lower() for name in names}) < len(names):  # that reader ignores case when it looks for a name
        yield "two entries have the same name"
    for config in CONFIGS:
        for name, entry in json.loads(archive.get_record(config).decode())["config"].items():
            if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                yield f"{name!r} is a pickle"
    if sample := archive.get_record(SAMPLE_INPUTS):
        try:
            torch.load(io.BytesIO(sample), weights_only=True)
        except Exception:  # the unpickler's own error, or any that a hostile pickle provokes
            yield "its example inputs are a pickle with code"
    yield from _code(json.loads(archive.get_record(MODEL).decode()), "")


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
            if not _is_size(value):
                yield f"size {value[:80]!r} is code"
        elif value[:1] in ("[", "{", '"'):  # a tree of inputs or outputs: JSON within JSON
            yield from _code(json.loads(value), key)
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


def _is_size(expression: str) -> bool:
    """Whether it only combines numbers and symbols: sympy evaluates the text as Python."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(
        (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and bool(FUNCTIONS.fullmatch(node.func.id)))
        or (isinstance(node, EXPRESSION_NODES) and not (isinstance(node, ast.Constant) and not _is_word(node.value)))
        or isinstance(node, (ast.operator, ast.unaryop, ast.cmpop))
        for node in nodes
    )


def _is_word(value: Any) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"[\w.+-]*", value))
