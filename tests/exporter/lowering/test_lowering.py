"""Each format's file: versions, what it says of itself, dynamic axes, half precision, the same bytes again."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exporter.inspection.report import inspect
from exporter.lowering.settings import IOS_VERSIONS, OPSETS
from exporter.lowering.target import TARGETS
from exporter.tracing.user_code import user_line

INPUTS = {"mlp": ["input"], "cnn": ["image"], "transformer": ["ids", "mask"], "recurrent": ["series"]}
FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "coreml": "model.mlpackage"}


def case(name, as_exported, **shapes):
    """Module, example, fresh inputs by name and the outputs that PyTorch gives for them."""
    module, example = as_exported(name)
    args = example if isinstance(example, tuple) else (example,)
    torch.manual_seed(5)
    fresh = [torch.randn_like(a) if a.is_floating_point() else a.flip(1).contiguous() for a in args]
    fresh = [a.repeat(shapes.get("times", (1,) * a.ndim)) for a in fresh]
    with torch.no_grad():
        outputs = {"output": module(*fresh)}
    return module, example, dict(zip(INPUTS[name], fresh, strict=True)), outputs


# --- what a file says of itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "transformer"])
@pytest.mark.parametrize("target", FILES)
def test_the_facts_inside_a_file_are_those_of_the_manifest(name, target, exported, manifest_of, kept_inside):
    manifest = manifest_of(exported(name))
    facts = kept_inside(exported(name) / FILES[target])
    for key in ("schema_version", "name", "origin", "signature", "settings", "tool_versions"):
        assert facts[key] == manifest[key], key
    assert facts["precision"] == "float32"
    assert facts["tool_versions"]["torch"] == torch.__version__


def test_an_onnx_file_tells_nothing_of_the_user_s_code(lower_here, as_exported):
    import onnx

    model = onnx.load(lower_here(*as_exported("transformer"), "onnx").path)
    assert str(Path(__file__).parents[2]).encode() not in model.SerializeToString()
    assert b"program.py" not in model.SerializeToString()
    assert model.producer_name == "pytorch"
    assert model.producer_version == torch.__version__


# --- ONNX ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_every_opset(opset, name, lower_here, as_exported, computes):
    import onnx

    module, example, inputs, outputs = case(name, as_exported)
    artifact = lower_here(module, example, "onnx", opset=opset)
    model = onnx.load(artifact.path)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset}
    onnx.checker.check_model(model, full_check=True)
    computes(artifact.path, inputs, outputs)


# --- TFLite --------------------------------------------------------------------------------------------------------


def parsed(path: Path):
    """A TFLite file's flatbuffer, and its bytes."""
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    return schema.Model.GetRootAs(content, 0), content


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_tflite_buffers_lie_on_16_bytes(name, exported):
    from flatbuffers import number_types

    model, content = parsed(exported(name) / "model.tflite")
    assert content[4:8] == b"TFL3"
    filled = [model.Buffers(i) for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    assert len(filled) >= 4
    for buffer in filled:
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        assert start % 16 == 0
        assert content[start : start + buffer.DataLength()] == buffer.DataAsNumpy().tobytes()
        assert buffer._tab.Get(number_types.UOffsetTFlags, start - 4) == buffer.DataLength()


def test_tflite_keeps_one_signature_and_the_converter_s_own_metadata(exported):
    model, _ = parsed(exported("mlp") / "model.tflite")
    assert model.SignatureDefsLength() == 1
    assert model.SignatureDefs(0).SignatureKey() == b"serving_default"
    names = [model.Metadata(i).Name() for i in range(model.MetadataLength())]
    assert names.count(b"pocketship") == 1
    assert b"min_runtime_version" in names


# --- Core ML -------------------------------------------------------------------------------------------------------


def specification(path: Path):
    """The protocol buffer of a package."""
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.FromString((path / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes())


def mil_operations(path: Path) -> set[str]:
    function = specification(path).mlProgram.functions["main"]
    return {operation.type for operation in function.block_specializations[function.opset].operations}


@pytest.mark.slow
@pytest.mark.parametrize("ios", IOS_VERSIONS)
@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_every_ios_version(ios, name, lower_here, as_exported, computes):
    module, example, inputs, outputs = case(name, as_exported)
    artifact = lower_here(module, example, "coreml", min_ios=ios)
    assert specification(artifact.path).specificationVersion == ios - 9  # iOS15 reads version 6, and so on
    assert specification(artifact.path).mlProgram.functions["main"].opset == (
        "CoreML5" if ios == 15 else f"CoreML{ios - 10}"
    )
    computes(artifact.path, inputs, outputs)


@pytest.mark.slow
def test_recurrent_layers_are_decomposed_for_core_ml(exported):
    found = mil_operations(exported("recurrent") / "model.mlpackage")
    assert not found & {"lstm", "gru", "rnn", "while_loop"}
    assert {"linear", "sigmoid", "tanh"} <= found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "recurrent"])
def test_float16_for_core_ml(name, lower_here, as_exported, computes):
    module, example, inputs, outputs = case(name, as_exported)
    full = lower_here(module, example, "coreml").path
    half = lower_here(module, example, "coreml", coreml_precision="float16").path
    computes(half, inputs, outputs, tolerance=1e-2)
    with pytest.raises(AssertionError, match=r"^\('model\.mlpackage', '\w+', [\de.-]+\)"):
        computes(half, inputs, outputs, tolerance=1e-6)  # it is half precision indeed
    weights = [p / "Data" / "com.apple.CoreML" / "weights" / "weight.bin" for p in (half, full)]
    assert weights[0].stat().st_size < 0.6 * weights[1].stat().st_size


def test_half_precision_of_a_whole_bundle(tmp_path, pocketship, manifest_of, models, kept_inside):
    words = ("-t", "coreml", "--coreml-precision", "float16", "-o", tmp_path / "half", "--quiet")
    done = pocketship("export", f"{models.__file__}:transformer", *words)
    assert done.returncode == 0, done.stderr
    (artifact,) = manifest_of(tmp_path / "half")["artifacts"]
    assert artifact["precision"] == "float16"
    assert 1e-6 < artifact["parity"]["max_rel_error"] < 1e-2
    assert kept_inside(tmp_path / "half" / "model.mlpackage")["precision"] == "float16"


class Overlooked(nn.Module):
    """What coremltools overlooks or cannot read in an exported program, one output each."""

    def forward(self, x, mask):
        y = x + x.relu()
        return {
            "gelu": nn.functional.gelu(x, approximate="tanh") * 2,
            "alpha": torch.add(y, x, alpha=3) - torch.sub(x, y, alpha=2) + torch.rsub(x, y, alpha=5),
            "rms": nn.functional.rms_norm(y, (6,)),
            "cosine": nn.functional.cosine_similarity(x, y),
            "pool": nn.functional.max_pool2d(y[None, None], 2),
            "both": torch.where((x > 0) & (y > 0.1) | (mask == 1), x, -x),
            "log_sigmoid": nn.functional.logsigmoid(x),
            "celu": nn.functional.celu(x),
            "prelu": nn.functional.prelu(x, torch.arange(6) / 6),
            "prelu_3d": nn.functional.prelu(y[None] - 1, torch.arange(4) / 4),
            "prelu_4d": nn.functional.prelu(y[None, :, None], torch.arange(4) / 4),
            "one_hot": nn.functional.one_hot(mask, 3).float() * y[..., None],
            "alias": y.detach(),
            "y": y,
        }


@pytest.mark.slow
@pytest.mark.parametrize("target", FILES)
def test_arguments_that_converters_overlook(target, lower_here, computes):
    torch.manual_seed(0)
    x, mask = torch.randn(4, 6), torch.randint(0, 3, (4, 6))
    artifact = lower_here(Overlooked(), (x, mask), target)
    fresh = torch.randn(4, 6)
    computes(artifact.path, {"x": fresh, "mask": mask}, Overlooked()(fresh, mask))


def test_a_gelu_by_tanh_is_one_operation_of_core_ml(lower_here):
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU(approximate="tanh"), nn.Linear(4, 4))
    assert "gelu" in mil_operations(lower_here(module, torch.randn(2, 4), "coreml").path)


# --- dynamic axes --------------------------------------------------------------------------------------------------

AXES = {
    "mlp": ([("input", 0)], (3, 1)),
    "cnn": ([("image", 0)], (3, 1, 1, 1)),
    "transformer": ([("ids", 1), ("mask", 1)], (1, 2)),
    "recurrent": ([("series", 0)], (3, 1, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("target", ["onnx", "coreml"])
def test_a_dynamic_axis_takes_other_lengths(name, target, lower_here, as_exported, computes):
    dynamic, times = AXES[name]
    for repeats in ((1,) * len(times), times):
        module, example, inputs, outputs = case(name, as_exported, times=repeats)
        if repeats == (1,) * len(times):
            artifact = lower_here(module, example, target, dynamic=dynamic)
        computes(artifact.path, inputs, outputs)


def test_tflite_takes_a_dynamic_batch_of_a_cnn(lower_here, as_exported, computes):
    module, example, inputs, outputs = case("cnn", as_exported, times=(3, 1, 1, 1))
    computes(lower_here(module, example, "tflite", dynamic=[("image", 0)]).path, inputs, outputs)


def test_an_export_with_a_dynamic_axis_is_proven_at_another_length(tmp_path, pocketship, manifest_of, models):
    words = ("-t", "onnx,coreml", "--dynamic", "input:0", "-o", tmp_path / "any", "--quiet")
    done = pocketship("export", f"{models.__file__}:mlp", *words)
    assert done.returncode == 0, done.stderr
    manifest = manifest_of(tmp_path / "any")
    for artifact in manifest["artifacts"]:
        assert artifact["signature"]["inputs"][0]["shape"] == ["input_0", 8]
        assert artifact["signature"]["outputs"][0]["shape"] == ["input_0", 4]
        assert artifact["parity"]["samples"] == 9
    golden = np.load(tmp_path / "any" / "golden.npz")
    assert len({golden[f"{i}/input/input"].shape for i in range(9)}) == 2


def test_a_dynamic_axis_that_litert_lacks_is_refused_with_its_name(tmp_path, refused, models):
    output = tmp_path / "none"
    line = refused("export", f"{models.__file__}:mlp", "--dynamic", "input:0", "-t", "tflite", "-o", output, code=5)
    assert "tflite: litert-torch cannot convert the model with the dynamic axis input_0" in line
    assert line.endswith("leave out --dynamic, or leave out --target tflite")
    assert not output.exists()


# --- the same bytes again ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.matrix(one_in=2)
@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_the_same_export_gives_the_same_bytes(name, exported, pocketship, tmp_path, models):
    first, again = exported(name), tmp_path / "again"
    done = pocketship("export", f"{models.__file__}:{name}", "-o", again, "--quiet", PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    files = {p.relative_to(first) for p in first.rglob("*") if p.is_file()}
    assert files == {p.relative_to(again) for p in again.rglob("*") if p.is_file()}
    assert {Path("manifest.json"), Path("golden.npz"), Path("README.md"), Path("model.onnx")} <= files
    for file in files:
        assert (first / file).read_bytes() == (again / file).read_bytes(), file


def test_core_ml_has_the_same_bytes_on_another_day(lower_here, monkeypatch):
    from coremltools.converters import _converters_entry as coremltools_entry

    class Tomorrow(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return datetime.date.today() + datetime.timedelta(days=1)

    def lowered() -> dict[Path, bytes]:
        package = lower_here(nn.Linear(8, 4), torch.ones(1, 8), "coreml").path
        return {p.relative_to(package): p.read_bytes() for p in package.rglob("*") if p.is_file()}

    torch.manual_seed(0)
    today = lowered()
    monkeypatch.setattr(coremltools_entry, "date", Tomorrow)
    torch.manual_seed(0)
    assert lowered() == today


# --- weights, and operations that a target lacks -------------------------------------------------------------------


@pytest.mark.parametrize("target", FILES)
def test_weights_are_stored_once(target, lower_here):
    module = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    artifact = lower_here(module, torch.randn(1, 64), target)
    once = sum(p.numel() for p in module.parameters()) * 4
    size = sum(p.stat().st_size for p in [artifact.path, *artifact.path.rglob("*")] if p.is_file())
    assert once <= size < once + 12_000  # the smaller matrix alone takes 65,536


class OutOfOrder(nn.Module):
    """Weights that are views: transposed, one of them twice, one read as integers, too."""

    def __init__(self) -> None:
        super().__init__()
        for place in range(4):
            self.register_buffer(f"factor_{place}", torch.randn(1, 64, 32).transpose(-1, -2))
        self.weight = nn.Parameter(torch.randn(8, 64).t())
        self.same = self.weight
        self.straight = nn.Parameter(torch.randn(8, 8))
        self.register_buffer("bits", self.straight.detach().view(torch.int32))

    def forward(self, x):
        for place in range(4):
            x = x * getattr(self, f"factor_{place}") + 0.1 * x
        return x @ self.weight @ self.straight + (x @ self.same).relu(), self.bits + 0


def test_weights_that_are_views_are_not_taken_for_one_another(lower_here, computes):
    torch.manual_seed(0)
    module, example = OutOfOrder(), torch.randn(1, 32, 64)
    lowered = lower_here(module, example, "tflite")
    expected = module(example)
    computes(lowered.path, {"x": example}, {"output_0": expected[0], "output_1": expected[1]})
    exported = lowered.program.exported
    stored = [v for v in (*exported.state_dict.values(), *exported.constants.values()) if isinstance(v, torch.Tensor)]
    assert all(value.is_contiguous() for value in stored)
    kinds = {(value.data_ptr(), value.dtype) for value in stored}
    assert len({address for address, _ in kinds}) == len(kinds)
    twice = {name: value.data_ptr() for name, value in exported.state_dict.items() if name.endswith(("weight", "same"))}
    assert len(set(twice.values())) == 1


class Unknown(nn.Module):
    def forward(self, x):
        y = torch.special.bessel_j0(x)
        return y + torch.linalg.eigvalsh(x)


@pytest.mark.parametrize("target", FILES)
def test_an_operation_that_a_target_lacks_is_named_with_its_line(target, tmp_path):
    import importlib

    from exporter.tracing.flat_module import FlatModule
    from exporter.tracing.program import trace

    road = importlib.import_module(TARGETS[target].module)
    settings = TARGETS[target].settings()
    flat = FlatModule(Unknown(), (torch.eye(3),), {})
    found = road.unsupported(road.prepare(trace(flat, flat.example), settings))
    assert {refusal.target for refusal in found} == {target}
    (bessel,) = [refusal for refusal in found if "bessel_j0" in refusal.operation]
    assert bessel.line.startswith(f"{__file__}:") and "y = torch.special.bessel_j0(x)" in bessel.line
    assert any("eig" in refusal.operation for refusal in found)
    assert bessel.remedy.endswith(f"leave out --target {target}")


class Masked(nn.Module):
    def forward(self, x, mask):
        return x * mask.to(torch.float32)


MASKS = {
    "bool": torch.tensor([True, False]),
    "uint8": torch.tensor([3, 0], dtype=torch.uint8),
    "float32": torch.tensor(2.0),
}


@pytest.mark.parametrize("kind", MASKS)
def test_an_input_that_core_ml_lacks_is_named(kind, lower_here, computes):
    x, mask = torch.randn(2), MASKS[kind]
    with pytest.raises(
        AssertionError, match=rf"operation=\"input 'mask' of type {kind}\[.*take it as int32 or float32"
    ):
        lower_here(Masked(), (x, mask), "coreml")
    for target in ("onnx", "tflite"):
        computes(lower_here(Masked(), (x, mask), target).path, {"x": x, "mask": mask}, {"output": Masked()(x, mask)})


@pytest.mark.parametrize("target", FILES)
def test_operations_that_a_target_has_are_not_refused(target, lower_here, as_exported):
    lower_here(*as_exported("cnn"), target)  # asserts that unsupported() is empty


def test_user_line_is_the_innermost_of_the_user_s_own():
    trace = (
        '  File "/home/me/train.py", line 3, in run\n    model(x)\n'
        '  File "/home/me/net.py", line 7, in forward\n    return self.layer(x)\n'
        '  File "/opt/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 9, in forward\n    return f(x)\n'
    )
    assert user_line(trace) == "/home/me/net.py:7 (return self.layer(x))"
    library = '  File "/opt/site-packages/torch/x.py", line 9, in f\n    g(x)\n'
    assert user_line(library) == "/opt/site-packages/torch/x.py:9 (g(x))"
    assert user_line("") == ""


def test_the_tables_agree():
    from runtimes.session import SUFFIXES, format_of
    from runtimes.types import FORMATS

    assert tuple(TARGETS) == FORMATS
    assert set(SUFFIXES.values()) == set(FORMATS)
    for name, target in TARGETS.items():
        assert format_of(Path(target.file_name)) == name


@pytest.mark.parametrize("shape", [(1, 6), (1, 6, 5), (1, 6, 5, 5)], ids=str)
def test_a_prelu_does_not_double_the_weights_before_it(shape, lower_here, computes):
    """litert-torch negates the input of a PReLU, which its optimizer folds into a second copy of the layer."""
    layers = {2: nn.Linear(6, 32), 3: nn.Conv1d(6, 32, 3), 4: nn.Conv2d(6, 32, 3)}
    module, example = nn.Sequential(layers[len(shape)], nn.PReLU(32, init=0.1)).eval(), torch.randn(shape)
    with torch.no_grad():
        module[1].weight.uniform_(-1, 1)
        expected = module(example)
    lowered = lower_here(module, example, "tflite")
    computes(lowered.path, {"input": example}, {"output": expected})
    tensors = inspect(lowered.path).tensors
    size_bytes = 4 * module[0].weight.numel()
    assert [t.size_bytes for t in tensors if t.size_bytes >= size_bytes] == [size_bytes]
