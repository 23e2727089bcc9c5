"""The rules that hold across files, read from the syntax trees: see docs/architecture.md."""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from benchmarks.devices import DEVICES
from benchmarks.devices.ssh import agent_zip
from benchmarks.tasks import TASKS
from exporter import pipeline
from exporter.families import ZOO
from exporter.lowering.target import SLOWEST_FIRST, TARGETS
from runtimes.session import RUNTIMES, SUFFIXES
from runtimes.types import FORMATS

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("exporter", "benchmarks", "runtimes")
PEERS = ROOT / "benchmarks" / "peers" / "bare"
"""What a user would run without pocketship: scripts of their own, which the peers benchmark starts as processes."""

FILES = sorted(f for package in ORDER for f in (ROOT / package).rglob("*.py") if PEERS not in f.parents)
PLACES = frozenset(FILES)
RUNTIME_FILES = [f for f in FILES if f.relative_to(ROOT).parts[0] == "runtimes"]
COMMAND_LINES = [
    ROOT / "exporter" / "cli.py",
    ROOT / "exporter" / "training" / "zoo.py",
    ROOT / "benchmarks" / "console.py",
    ROOT / "benchmarks" / "commands" / "accuracy.py",
    ROOT / "benchmarks" / "commands" / "bench.py",
    ROOT / "benchmarks" / "commands" / "report.py",
    ROOT / "benchmarks" / "agent" / "__main__.py",
    *(ROOT / "benchmarks" / "peers").glob("*.py"),
]
RUNTIME_LIBRARIES = {"onnxruntime", "ai_edge_litert", "tflite_runtime", "coremltools", "google"}


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@functools.cache
def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def tree(file: Path) -> ast.Module:
    """The syntax tree, the same one for every check: none may change it."""
    return ast.parse(text(file), named(file))


@functools.cache
def walked(nodes: ast.AST) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(nodes))


@functools.cache
def imports(nodes: ast.AST) -> tuple[tuple[str, int], ...]:
    """Every module that is imported below `nodes`, at the top or inside a function, and its line."""
    return tuple(imported(walked(nodes)))


def imported(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@functools.cache
def calls(nodes: ast.AST) -> tuple[tuple[str, ast.Call], ...]:
    """Every call of a name or a dotted name."""
    return tuple((ast.unparse(node.func), node) for node in walked(nodes) if isinstance(node, ast.Call))


def test_there_are_files_to_look_at():
    assert {f.relative_to(ROOT).parts[0] for f in FILES} == set(ORDER)
    assert len(FILES) > 25 and len(RUNTIME_FILES) > 10


@pytest.mark.parametrize("file", FILES, ids=named)
def test_imports_only_go_right(file):
    left = ORDER[: ORDER.index(file.relative_to(ROOT).parts[0])]
    wrong = [
        f"line {line}: {module}" for module, line in imports(tree(file)) if module.split(".")[0] in (*left, "tests")
    ]
    assert wrong == []


Imports = dict[tuple[str, str], list[str]]
"""Which room imports which other one, and where it does, as file:line."""


def room(file: Path) -> str:
    """The folder of a file; each file that lies at a package's top is a room of its own."""
    return named(file if file.parent.parent == ROOT else file.parent)


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, also those in functions, but none that only a type checker reads."""
    if isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
        for below in node.orelse:
            yield from at_run_time(below)
        return
    yield node
    for below in ast.iter_child_nodes(node):
        yield from at_run_time(below)


@functools.cache
def imports_between_rooms() -> Imports:
    found: Imports = {}
    for file in FILES:
        names = dict.fromkeys(imported(at_run_time(tree(file))))
        lower = {(name.rpartition(".")[0], line) for name, line in names if module_file(name)}
        for name, line in names:
            into = module_file(name)
            if into and room(into) != room(file) and (name, line) not in lower:  # a package on the way to a module
                found.setdefault((room(file), room(into)), []).append(f"{named(file)}:{line}")
    return found


def circles(edges: Mapping[tuple[str, str], list[str]]) -> list[str]:
    """For every import between rooms from which imports lead back, the shortest circle, each told once."""
    found: dict[frozenset[str], str] = {}
    after: dict[str, list[str]] = {}
    for first, second in edges:
        after.setdefault(first, []).append(second)
    for first, second in edges:
        ways = [(first, second)]
        seen = {second}
        for way in ways:  # it grows
            if way[-1] == first:
                told = [f"{a} imports {b} ({', '.join(edges[a, b])})" for a, b in itertools.pairwise(way)]
                found.setdefault(frozenset(way), "; ".join(told))
                break
            further = [b for b in after.get(way[-1], ()) if b not in seen]
            seen.update(further)
            ways += [(*way, b) for b in further]
    return list(found.values())


def test_no_rooms_import_each_other_in_a_circle():
    edges = imports_between_rooms()
    assert len(edges) > 30, "or the test is blind"
    found = circles(edges)
    assert not found, "\n".join(found)


def test_a_circle_is_found_and_told():
    line = {("a", "b"): ["a/x.py:3"], ("b", "c"): ["b/y.py:1", "b/z.py:9"], ("a", "c"): ["a/x.py:4"]}
    assert circles(line) == []
    assert circles({**line, ("c", "a"): ["c/w.py:7"]}) == [
        "a imports b (a/x.py:3); b imports c (b/y.py:1, b/z.py:9); c imports a (c/w.py:7)",
        "a imports c (a/x.py:4); c imports a (c/w.py:7)",
    ]
    code = "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\ndef f():\n    from d import e\n"
    assert list(imported(at_run_time(ast.parse(code)))) == [("a", 1), ("c", 5), ("d", 7), ("d.e", 7)]


@pytest.mark.parametrize("file", [f for f in FILES if f.relative_to(ROOT).parts[0] != "exporter"], ids=named)
def test_only_the_exporter_needs_torch(file):
    assert [line for module, line in imports(tree(file)) if module.split(".")[0] in ("torch", "transformers")] == []


@pytest.mark.parametrize("file", RUNTIME_FILES, ids=named)
def test_a_runtime_needs_numpy_and_opens_its_library_inside_a_function(file):
    ours = {"runtimes", "numpy", *sys.stdlib_module_names}
    top = ast.Module([n for n in tree(file).body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    assert {m.split(".")[0] for m, _ in imports(top)} - ours == set()
    assert {m.split(".")[0] for m, _ in imports(tree(file))} - ours <= RUNTIME_LIBRARIES


NEWER_THAN_PYTHON_3_9 = {
    "zip": "strict",
    "dataclass": "slots",
    "field": "kw_only",
}


@pytest.mark.parametrize("file", RUNTIME_FILES, ids=named)
def test_runtimes_are_python_3_9(file):
    module = ast.parse(text(file), named(file), feature_version=(3, 9))
    for called, call in calls(module):
        names = {keyword.arg for keyword in call.keywords}
        assert NEWER_THAN_PYTHON_3_9.get(called.split(".")[-1]) not in names - {None}, f"line {call.lineno}"
    for node in ast.walk(module):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if annotation is not None:
                unions = [n for n in ast.walk(annotation) if isinstance(n, ast.BinOp)]
                assert not unions, f"line {annotation.lineno}: X | Y needs Python 3.10 once somebody reads the hints"


AGENT_FILES = [ROOT / name for name in agent_zip.files_of([name for name in FORMATS if name != "coreml"])]


def test_what_travels_to_a_board_runs_on_python_3_9():
    vermin = Path(sys.executable).with_name("vermin")
    command = [str(vermin), "--target=3.9-", "--no-tips", "--violations", *map(str, AGENT_FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    for file in AGENT_FILES:  # annotations are never read there, but an alias is computed when its module is imported
        for node in tree(file).body:
            if isinstance(node, ast.Assign):
                unions = [n for n in ast.walk(node.value) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.BitOr)]
                assert not unions, f"{named(file)}, line {node.lineno}: X | Y needs Python 3.10"


def test_the_agent_is_all_that_it_needs_and_nothing_more():
    """Every file of ours that one of the agent's files imports travels along, and each that travels is imported."""
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in AGENT_FILES}
    needed = {m for f in AGENT_FILES for m, _ in imports(tree(f)) if m.split(".")[0] in ORDER and module_file(m)}
    assert needed <= names, needed - names
    loaded_by_name = {"benchmarks.agent.__main__", "benchmarks.agent", "benchmarks", *RUNTIMES.values()}
    assert names - needed - loaded_by_name == {"runtimes"} - needed
    libraries = {m.split(".")[0] for f in AGENT_FILES for m, _ in imports(tree(f))} - set(sys.stdlib_module_names)
    assert libraries - set(ORDER) == {"numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime"}


@functools.cache
def module_file(name: str) -> Path | None:
    """The file of a dotted name that is a module of ours, and not something within one."""
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file in PLACES), None)


FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "yaml.load"}
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("file", FILES, ids=named)
def test_nothing_is_unpickled_evaluated_or_run_through_a_shell(file):
    module = tree(file)
    assert [f"line {line}: {m}" for m, line in imports(module) if m.split(".")[0] in FORBIDDEN_MODULES] == []
    for name, call in calls(module):
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert name not in FORBIDDEN_CALLS, f"line {call.lineno}: {name}"
        assert keywords.get("shell", "False") == "False", f"line {call.lineno}: a shell"
        assert keywords.get("allow_pickle", "False") == "False", f"line {call.lineno}: allow_pickle"
        if name.split(".")[-2:] == ["torch", "load"]:
            assert keywords.get("weights_only") == "True", f"line {call.lineno}: torch.load"
        if name.split(".")[-2:] == ["np", "load"]:
            assert keywords.get("allow_pickle") == "False", f"line {call.lineno}: np.load"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_no_error_is_caught_unnamed(file):
    for node in walked(tree(file)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"


@pytest.mark.parametrize("file", [f for f in FILES if f not in COMMAND_LINES], ids=named)
def test_only_a_command_line_prints_asks_and_exits(file):
    for name, call in calls(tree(file)):
        assert name not in ("print", "input", "breakpoint", "sys.exit", "exit", "quit"), f"line {call.lineno}: {name}"


PRINTERS = {f for f in COMMAND_LINES if {"peers", "agent", "training"} & set(f.parts) or f.name == "console.py"}
"""What prints by itself: commands go through console.py; the others are scripts, and below what runs elsewhere."""
IN_CHILDREN = {
    *RUNTIME_FILES,
    *(ROOT / "benchmarks" / "agent").glob("*.py"),
    ROOT / "benchmarks" / "devices" / "ssh" / "board.py",
}


@pytest.mark.parametrize("file", [f for f in FILES if f not in PRINTERS | IN_CHILDREN], ids=named)
def test_all_that_commands_print_goes_through_one_file(file):
    """Names come from files and boards of any origin: console.py shows them as letters, and so nothing else prints."""
    for name, call in calls(tree(file)):
        said = f"line {call.lineno}: {name}; print with benchmarks/console.py"
        assert name != "print" and name.split(".")[-1] not in ("Console", "echo", "secho"), said
        if name.endswith("TextColumn"):
            assert "False" in [ast.unparse(k.value) for k in call.keywords if k.arg == "markup"], f"{said}, no markup"
    streams = [ast.unparse(node) for node in walked(tree(file)) if isinstance(node, ast.Attribute)]
    assert not {"sys.stdout", "sys.stderr"} & set(streams), "print with benchmarks/console.py"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_module_and_public_name_says_what_it_is(file):
    module = tree(file)
    assert ast.get_docstring(module), "the module"
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"line {node.lineno}: {node.name}"


def test_every_folder_of_code_is_packaged_and_no_test_is():
    wanted = {".".join(f.relative_to(ROOT).parent.parts) for f in FILES}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["setuptools"]["packages"])
    assert packages == wanted
    assert all((ROOT / package.replace(".", "/") / "__init__.py").is_file() for package in packages)
    assert list((ROOT / "tests").rglob("__init__.py")) == [], "tests are no package"


def mentioned(name: str, folder: str) -> bool:
    """Whether a test in the mirrored folder, or the mirrored file, speaks of `name`."""
    pattern, place = re.compile(rf"\b{re.escape(name)}\b"), ROOT / "tests" / folder
    files = [place] if place.suffix == ".py" else place.rglob("test_*.py")
    return any(pattern.search(text(f)) for f in files)


def test_the_formats_are_the_same_everywhere():
    assert tuple(TARGETS) == tuple(RUNTIMES) == FORMATS
    assert sorted(SLOWEST_FIRST) == sorted(FORMATS)
    assert {name: SUFFIXES[Path(target.file_name).suffix] for name, target in TARGETS.items()} == {
        f: f for f in FORMATS
    }


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_one_module_one_row_and_a_mirrored_test(name):
    module = importlib.import_module(TARGETS[name].module)
    assert module.__name__ == f"exporter.lowering.to_{name}"
    assert all(callable(getattr(module, function)) for function in ("prepare", "unsupported", "lower"))
    assert mentioned(name, "exporter")
    assert mentioned(TARGETS[name].file_name, "faults"), "and a corrupted twin"


def test_every_lowering_has_its_row():
    files = {f"exporter.lowering.{f.stem}" for f in (ROOT / "exporter" / "lowering").glob("to_*.py")}
    assert files == {target.module for target in TARGETS.values()}


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_is_one_module_one_row_and_a_mirrored_test(name):
    assert callable(importlib.import_module(RUNTIMES[name]).open_session)
    assert mentioned(TARGETS[name].file_name, "runtimes")


def test_every_runtime_has_its_row():
    files = {f"runtimes.{f.stem}" for f in (ROOT / "runtimes").glob("*_runtime.py")}
    assert files == set(RUNTIMES.values())


@pytest.mark.parametrize("name", ZOO)
def test_a_model_of_the_zoo_is_one_row_with_a_module_a_task_and_a_mirrored_test(name):
    assert ZOO[name].module.startswith("exporter.families.")
    assert callable(importlib.import_module(ZOO[name].module).load)
    assert name in TASKS[ZOO[name].data].models
    assert mentioned(name, "exporter")


def test_every_family_has_a_row_and_every_file_of_weights_a_model():
    folder = ROOT / "exporter" / "families"
    files = {f"exporter.families.{f.stem}" for f in folder.glob("[a-z]*.py") if f.stem != "packaged"}
    assert files == {model.module for model in ZOO.values()}
    assert {f.stem for f in (folder / "weights").iterdir()} <= set(ZOO)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_one_row_with_a_module_its_models_and_a_mirrored_test(name):
    module = importlib.import_module(TASKS[name].module)
    assert callable(module.load)
    assert TASKS[name].models == tuple(model for model in ZOO if ZOO[model].data == name)
    assert mentioned(name, f"benchmarks/tasks/test_{module.__name__.split('.')[-1]}.py")


def test_every_task_has_its_row():
    files = {
        f"benchmarks.tasks.{f.stem}"
        for f in (ROOT / "benchmarks" / "tasks").glob("[a-z]*.py")
        if f.stem not in ("raw_data", "scores", "task", "user_data")
    }
    assert files == {row.module for row in TASKS.values()}


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_one_module_one_row_and_a_mirrored_test(name):
    assert callable(importlib.import_module(DEVICES[name]).run)
    assert mentioned(name, "benchmarks" if name == "local" else f"benchmarks/devices/{name}")


HEAVY = {"torch", "numpy", "scipy", "pandas", "tensorflow", "onnx", "onnxruntime", "onnxscript", "onnx_ir"} | {
    *("coremltools", "litert_torch", "ai_edge_litert", "transformers", "optimum", "timm", "safetensors", "rich"),
    *("sqlalchemy", "asyncssh", "cryptography", "jinja2", "matplotlib", "qrcode", "yaml"),
}
"""(pydantic is not among them: typer loads it by itself where it finds it.)"""


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "exporter", "--help"),
        ("-m", "exporter", "export", "--help"),
        ("-m", "exporter", "bench", "--help"),
        ("-c", "import exporter, benchmarks, runtimes"),
        ("-c", "import runtimes.child, runtimes.types, runtimes.errors"),
    ],
    ids=" ".join,
)
def test_help_and_plain_imports_load_nothing_heavy(words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-X", "importtime", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert loaded & set(ORDER), "or the test is blind"
    assert loaded & HEAVY == set()


def test_the_exporter_gives_its_pipeline_only_when_asked():
    import exporter

    assert exporter.export is pipeline.export and exporter.Bundle is pipeline.Bundle
    with pytest.raises(AttributeError, match="module 'exporter' has no attribute 'nothing'"):
        _ = exporter.nothing
