"""A corrupted twin for the gate in every format: wrong weights, swapped inputs, constant outputs; runtimes that fail.

Each artifact is changed by the rules of its format and the manifest is made to agree with the new bytes, so that
nothing but the comparison of outputs can see it. The same corruptions are also put into the converter's child.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle.writer import write_manifest
from runtimes import parity
from runtimes.bundle import digest, read_manifest
from runtimes.errors import ParityFailed
from runtimes.golden import Golden, read_golden

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "tests" / "models.py"

# Each corruption takes the artifact and the golden values of its bundle; the injected ones get None for the latter.


def change_onnx(path: Path, change: Callable) -> None:
    import onnx

    model = onnx.load(path)
    change(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def change_onnx_weights(path: Path, change: Callable[[np.ndarray], np.ndarray], count: int | None = None) -> None:
    """Apply `change` to the first `count` matrices (all by default)."""
    from onnx import numpy_helper

    def apply(graph) -> None:
        for tensor in [t for t in graph.initializer if len(t.dims) == 2][:count]:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

    change_onnx(path, apply)


def change_tflite_weights(path: Path, change: Callable[[np.ndarray], np.ndarray], count: int | None = None) -> None:
    """The same, in the bytes of the flatbuffer."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(path.read_bytes())
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    matrices = [t for t in tensors if t.ShapeLength() == 2 and model.Buffers(t.Buffer()).DataLength()]
    for tensor in matrices[:count]:
        values = model.Buffers(tensor.Buffer()).DataAsNumpy().view("<f4")  # of the bytes of `content`
        values[:] = change(values.copy())
    path.write_bytes(content)


def weight_file(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def change_coreml_weights(path: Path, change: Callable[[np.ndarray], np.ndarray], count: int | None = None) -> None:
    """The same, in the bytes of weight.bin: after 64 bytes, for each tensor 64 of metadata and then its values."""
    file = weight_file(path)
    content = bytearray(file.read_bytes())
    entries = [struct.unpack_from("<IIQQ", content, at) for at in range(64, len(content) - 63, 64)]
    blobs = [(size, offset) for sentinel, _, size, offset in entries if sentinel == 0xDEADBEEF]
    for size, offset in blobs[:count]:
        values = np.frombuffer(content, "<f4", size // 4, offset)
        values[:] = change(values.copy())
    file.write_bytes(content)


def flip_the_largest(values: np.ndarray) -> np.ndarray:
    flipped = values.copy()
    flipped.flat[np.abs(values).argmax()] *= -1
    return flipped


def with_a_nan(values: np.ndarray) -> np.ndarray:
    spoiled = values.copy()
    spoiled.flat[0] = np.nan
    return spoiled


WEIGHTS = {"onnx": change_onnx_weights, "tflite": change_tflite_weights, "coreml": change_coreml_weights}


def swap_onnx_inputs(path: Path) -> None:
    other = {"a": "b", "b": "a"}

    def swap(graph) -> None:
        for node in graph.node:
            node.input[:] = [other.get(name, name) for name in node.input]

    change_onnx(path, swap)


def swap_tflite_inputs(path: Path) -> None:
    """Exchange the two letters that name the inputs in the signature."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(path.read_bytes())
    signature = schema.Model.GetRootAs(content, 0).SignatureDefs(0)
    for i in range(signature.InputsLength()):
        entry = signature.Inputs(i)._tab
        field = entry.Pos + entry.Offset(4)
        letter = field + struct.unpack_from("<I", content, field)[0] + 4  # after the string's length
        content[letter] = {ord("a"): ord("b"), ord("b"): ord("a")}[content[letter]]
    path.write_bytes(content)


def change_coreml(path: Path, change: Callable) -> None:
    from coremltools.proto import Model_pb2

    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    change(block)
    file.write_bytes(model.SerializeToString())


def swap_coreml_inputs(path: Path) -> None:
    other = {"a": "b", "b": "a"}

    def swap(block) -> None:
        for operation in block.operations:
            for values in operation.inputs.values():
                for argument in values.arguments:
                    if argument.name in other:
                        argument.name = other[argument.name]

    change_coreml(path, swap)


SWAPS = {"onnx": swap_onnx_inputs, "tflite": swap_tflite_inputs, "coreml": swap_coreml_inputs}


def fix_onnx_output(path: Path, name: str, value: np.ndarray) -> None:
    """The output `name` is `value`, whatever goes in."""
    from onnx import helper, numpy_helper

    def fix(graph) -> None:
        for node in graph.node:
            node.output[:] = ["unused" if output == name else output for output in node.output]
            node.input[:] = ["unused" if wanted == name else wanted for wanted in node.input]
        graph.initializer.append(numpy_helper.from_array(value, "frozen"))
        graph.node.append(helper.make_node("Identity", ["frozen"], [name]))

    change_onnx(path, fix)


def fix_tflite_output(path: Path, name: str, value: np.ndarray) -> None:
    """The same: the signature's output becomes a tensor with a buffer of its own."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    (entry,) = [tensor for tensor in model.signatureDefs[0].outputs if tensor.name == name.encode()]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = b"frozen", np.array(value.shape, np.int32), len(model.buffers)
    model.buffers.append(buffer)
    graph.outputs = [len(graph.tensors) if i == entry.tensorIndex else i for i in graph.outputs]
    entry.tensorIndex = len(graph.tensors)
    graph.tensors.append(tensor)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())


def fix_coreml_output(path: Path, name: str, value: np.ndarray) -> None:
    """The same: the operation that gives it becomes a constant."""

    def fix(block) -> None:
        (operation,) = [o for o in block.operations if any(output.name == name for output in o.outputs)]
        operation.type = "const"
        operation.inputs.clear()
        constant = operation.attributes["val"]
        constant.type.CopyFrom(operation.outputs[0].type)
        constant.immediateValue.tensor.floats.values.extend(value.ravel().tolist())

    change_coreml(path, fix)


FIXES = {"onnx": fix_onnx_output, "tflite": fix_tflite_output, "coreml": fix_coreml_output}


def fix_output(form: str, name: str, path: Path, golden: Golden) -> None:
    FIXES[form](path, name, golden.outputs[0][name])


def weights(form: str, change: Callable[[np.ndarray], np.ndarray], count: int | None, path: Path, _: object) -> None:
    WEIGHTS[form](path, change, count)


FAULTS: dict[str, Callable[[str, Path, Golden], None]] = {
    "one weight's sign": lambda form, path, golden: weights(form, flip_the_largest, 1, path, golden),
    "a NaN weight": lambda form, path, golden: weights(form, with_a_nan, 1, path, golden),
    "all weights zero": lambda form, path, golden: weights(form, np.zeros_like, None, path, golden),
    "all weights 1 % larger": lambda form, path, golden: weights(
        form, lambda w: w * np.float32(1.01), None, path, golden
    ),
    "weights in another order": lambda form, path, golden: weights(form, lambda w: w[::-1], None, path, golden),
    "swapped inputs": lambda form, path, golden: SWAPS[form](path),
    "an output frozen at the first sample": lambda form, path, golden: fix_output(form, "difference", path, golden),
    "the other output frozen": lambda form, path, golden: fix_output(form, "left", path, golden),
}
FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "coreml": "model.mlpackage"}
SAYS = dict.fromkeys(FAULTS, "is off by") | {"a NaN weight": "holds NaN or infinity"}


@pytest.fixture
def lone(exported, copy_of):
    """A copy of the bundle with the artifact of one format alone."""

    def make(form: str) -> Path:
        bundle = copy_of(exported("two_inputs"))
        manifest = read_manifest(bundle)
        write_manifest(replace(manifest, artifacts=tuple(a for a in manifest.artifacts if a.format == form)), bundle)
        for other in (bundle / a.path for a in manifest.artifacts if a.format != form):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
        return bundle

    return make


def reseal(bundle: Path) -> None:
    """Make the manifest agree with the artifacts as they are."""
    manifest = read_manifest(bundle)
    sealed = [
        replace(a, **dict(zip(("size_bytes", "sha256"), digest(bundle / a.path), strict=True)))
        for a in manifest.artifacts
    ]
    write_manifest(replace(manifest, artifacts=tuple(sealed)), bundle)


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_corrupted_artifact_fails_the_gate(lone, form, fault):
    bundle = lone(form)
    path, golden = bundle / FILES[form], bundle / "golden.npz"
    before = digest(path)[1]
    FAULTS[fault](form, path, read_golden(golden))
    assert digest(path)[1] != before, "the corruption changed nothing"
    _, proof = parity.prove(path, golden)
    assert proof.verdict == "fail", proof
    assert SAYS[fault] in proof.reason


@pytest.mark.parametrize("form", FILES)
def test_changing_the_file_without_changing_its_numbers_still_passes(lone, form):
    """The corruptions above fail by what they change, not by how they write it."""
    bundle = lone(form)
    path, golden = bundle / FILES[form], bundle / "golden.npz"
    WEIGHTS[form](path, lambda w: w)
    SWAPS[form](path)
    SWAPS[form](path)
    assert parity.prove(path, golden)[1].verdict == "pass"


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("fault", ["one weight's sign", "swapped inputs", "all weights zero"])
def test_the_command_refuses_it_though_the_manifest_agrees_with_its_bytes(lone, refused, form, fault):
    bundle = lone(form)
    FAULTS[fault](form, bundle / FILES[form], read_golden(bundle / "golden.npz"))
    reseal(bundle)
    line = refused("verify", bundle, code=3)
    assert line.startswith(f"pocketship: {bundle}: {FILES[form]}: output '")
    assert "is off by" in line and line.endswith("; do not ship it, export it again")


@pytest.mark.parametrize("form", FILES)
def test_the_command_refuses_an_artifact_that_no_runtime_loads(lone, refused, form):
    bundle = lone(form)
    file = bundle / FILES[form] if form != "coreml" else bundle / FILES[form] / "Data/com.apple.CoreML/model.mlmodel"
    file.write_bytes(file.read_bytes()[:200])
    reseal(bundle)
    line = refused("verify", bundle, code=3)
    assert line.startswith(f"pocketship: {bundle}: {FILES[form]}: ")
    assert "its bytes are not those" not in line


SITE = """
import importlib.util, sys

class Wrap:
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec

def change(module):
{body}

sys.meta_path.insert(0, Wrap())
"""

CORRUPT = """
    import pathlib
    spec = importlib.util.spec_from_file_location("corruptions", {file!r})
    corruptions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(corruptions)
    right = module.lower

    def lower(program, path, settings, metadata):
        carried = right(program, path, settings, metadata)
        corruptions.FAULTS[{fault!r}]({form!r}, pathlib.Path(path), None)
        return carried

    module.lower = lower
"""


@pytest.fixture
def inject(tmp_path):
    """A PYTHONPATH on which every Python runs `body` with `module` as soon as that module was imported."""

    def make(module: str, body: str) -> str:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE.format(module=module, body=body))
        return os.pathsep.join([str(ROOT), str(folder)])

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "targets", "fault"),
    [("onnx", "onnx", "one weight's sign"), ("coreml", "onnx,tflite,coreml", "all weights zero")],
)
def test_a_converter_that_writes_wrong_numbers_leaves_nothing(refused, inject, tmp_path, form, targets, fault):
    path = inject(f"exporter.lowering.to_{form}", CORRUPT.format(file=__file__, fault=fault, form=form))
    before = set(tmp_path.rglob("*"))
    output = tmp_path / "parents" / "bundle"
    words = ("export", f"{MODELS}:two_inputs", "--target", targets, "-o", output)
    line = refused(*words, code=3, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    assert line.startswith(f"pocketship: {FILES[form]} in ")
    assert "is off by" in line and "nothing was written" in line
    assert set(tmp_path.rglob("*")) == before


RUN = "    def run(self, inputs):\n        {line}\n    module.OnnxSession.run = run\n"
CRASH = RUN.format(line="import ctypes; ctypes.string_at(0)")


def test_a_runtime_that_crashes_is_one_line(lone, refused, inject):
    bundle = lone("onnx")
    line = refused("verify", bundle, code=3, PYTHONPATH=inject("runtimes.onnx_runtime", CRASH))
    assert line == (
        f"pocketship: {bundle}: model.onnx: the runtime crashed with SIGSEGV; the artifact is refused; "
        "do not ship it, export it again"
    )


def test_a_runtime_that_crashes_on_one_format_does_not_hide_the_others(exported, pocketship, inject):
    path = inject("runtimes.onnx_runtime", CRASH)
    done = pocketship("verify", exported("two_inputs"), PYTHONPATH=path)
    assert done.returncode == 3
    rows = {line.split()[0]: line.split()[1:4] for line in done.stdout.splitlines()}
    assert rows["model.onnx"] == ["ok", "not", "run"]
    assert rows["model.tflite"][:2] == rows["model.mlpackage"][:2] == ["ok", "pass:"]


def prove_with(monkeypatch, python_path: str, bundle: Path, **options) -> str:
    monkeypatch.setenv("PYTHONPATH", python_path)
    with pytest.raises(ParityFailed) as caught:
        parity.prove(bundle / "model.onnx", bundle / "golden.npz", **options)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.mark.slow
def test_a_runtime_that_hangs_is_ended(exported, monkeypatch, inject):
    path = inject("runtimes.onnx_runtime", RUN.format(line="import time; time.sleep(600)"))
    line = prove_with(monkeypatch, path, exported("two_inputs"), timeout_s=4.0)
    assert line == "model.onnx: the runtime did not end within 4 s and was killed; the artifact is refused"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS sets no memory limit")
def test_a_runtime_that_exhausts_its_memory_is_ended(exported, monkeypatch, inject):
    path = inject("runtimes.onnx_runtime", RUN.format(line="bytearray(8 * 2**30)"))
    line = prove_with(monkeypatch, path, exported("two_inputs"), memory_limit_bytes=2 * 2**30)
    says = "the runtime needed more than the 2048 MiB of memory it may have"
    assert line == f"model.onnx: {says}; the artifact is refused"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("raise RuntimeError('kernel\\n failed')", "the runtime RuntimeError: kernel failed"),
        ("import os; os._exit(0)", "the runtime ended with exit code 0 and no answer"),
        ("import os; os.abort()", "the runtime crashed with SIGABRT"),
        ("return {}", "output 'difference' is missing from the artifact"),
        (
            "return {'difference': inputs['a'] * float('nan'), 'left': inputs['a']}",
            "has shape [3, 6] instead of [3, 5]",
        ),
    ],
)
def test_a_runtime_that_fails_in_other_ways(exported, monkeypatch, inject, line, says):
    monkeypatch.setenv("PYTHONPATH", inject("runtimes.onnx_runtime", RUN.format(line=line)))
    bundle = exported("two_inputs")
    try:
        _, proof = parity.prove(bundle / "model.onnx", bundle / "golden.npz")
    except ParityFailed as error:
        assert says in str(error) and "\n" not in str(error)
    else:
        assert proof.verdict == "fail" and says in proof.reason
