"""Core ML packages whole and damaged, from torch.export to the session, off the device and as on macOS."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import types as python_types
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from runtimes import coreml_runtime  # noqa: E402
from runtimes.coreml_runtime import open_session  # noqa: E402
from runtimes.errors import BadInput, ParityFailed, UnsupportedOperation  # noqa: E402
from runtimes.mil.operations import OPERATIONS  # noqa: E402

torch.set_num_threads(1)
logging.getLogger("coremltools").setLevel(logging.ERROR)

# One more rounding to half at each of the few operations in a row of a half-precision program: 8 epsilons.
FLOAT16_TOLERANCE = 8 * float(np.finfo(np.float16).eps)

IOS15, IOS16, IOS17, IOS18 = ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def export(save) -> Callable[..., Path]:
    """A torch module as a package, on the road that the exporter takes."""

    def make(module: Any, arguments: tuple, path: Path, target: Any = IOS18, **options: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                module.eval(), arguments, dynamic_shapes=options.pop("dynamic_shapes", None)
            ).run_decompositions({})
        return save(exported, path, target, **options)

    return make


def feeds_of(session: Any, arguments: tuple) -> dict[str, np.ndarray]:
    return {spec.name: value.numpy() for spec, value in zip(session.signature.inputs, arguments, strict=True)}


# Whole models, from torch.export to the session


class ConvolutionalNet(torch.nn.Module):
    """What MobileNetV3, ResNet and EfficientNet are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.depthwise = torch.nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.squeeze, self.excite = torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(4, 8, 1)
        self.group_norm, self.head = torch.nn.GroupNorm(2, 8), torch.nn.Linear(8, 5)
        self.norm.running_mean, self.norm.running_var = torch.randn(8), torch.rand(8) + 0.5

    def forward(self, x):
        x = F.max_pool2d(F.hardswish(self.norm(self.stem(x))), 3, 2, 1)
        x = x + self.depthwise(x)
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.group_norm(F.silu(x)).mean((2, 3)))


class Decoder(torch.nn.Module):
    """Transposed convolution, upsampling and padding of image-to-image models."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1)
        self.norm, self.mix = torch.nn.InstanceNorm2d(4, affine=True), torch.nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.up(x)), 0.1)
        x = self.mix(F.pad(F.interpolate(x, scale_factor=2, mode="bilinear"), (1, 1, 1, 1), mode="reflect"))
        return F.pixel_shuffle(F.interpolate(x, scale_factor=2, mode="nearest"), 2)


class Encoder(torch.nn.Module):
    """An embedding and one attention layer with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(50, 16)
        self.norm, self.qkv, self.out = torch.nn.LayerNorm(16), torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)

    def forward(self, ids, mask):
        x = self.norm(self.words(ids))
        q, k, v = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :] > 0).transpose(1, 2).flatten(2))
        return F.gelu(x), x.argmax(-1)


class Recurrent(torch.nn.Module):
    """An LSTM written as steps, since coremltools refuses torch.nn.LSTM from an exported program."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = torch.nn.Linear(4 + 6, 24)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[0], 6)
        for step in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([step, h], -1)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h, F.avg_pool1d(x.transpose(1, 2), 3, 2).flatten(1).cumsum(-1)


IDS = torch.tensor([[3, 49, 7, 0, 0], [1, 2, 3, 4, 5]])
MODELS = {
    "convolutional": (ConvolutionalNet, (torch.from_numpy(normal(1, 3, 20, 21)),)),
    "decoder": (Decoder, (torch.from_numpy(normal(1, 3, 5, 6)),)),
    "encoder": (Encoder, (IDS, (IDS > 0).long())),
    "recurrent": (Recurrent, (torch.from_numpy(normal(2, 7, 4)),)),
}


@pytest.mark.parametrize("target", [IOS15, IOS16, IOS18], ids=lambda target: target.name)
@pytest.mark.parametrize("name", MODELS)
def test_exported_model_equals_pytorch(assert_close, export, name: str, target: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, arguments = MODELS[name]
    module = make().eval()
    session = open_session(export(module, arguments, tmp_path / "m.mlpackage", target))
    feeds = feeds_of(session, arguments)
    outputs = session.run(feeds)
    wanted = module(*arguments)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for spec, reference in zip(session.signature.outputs, wanted, strict=True):
        assert_close(outputs[spec.name], reference.int() if reference.dtype == torch.int64 else reference)
        assert outputs[spec.name].dtype == spec.dtype
    first = session.signature.inputs[0].name
    other = session.run(
        {**feeds, first: feeds[first][::-1, ..., ::-1]}
    )  # an artifact that ignores its input fails here
    for spec in session.signature.outputs:
        assert not np.array_equal(other[spec.name], outputs[spec.name])
    again = session.run(feeds)
    assert all(np.array_equal(again[key], outputs[key]) for key in outputs)  # nothing is computed in place
    session.close()


@pytest.mark.parametrize("name", ["convolutional", "encoder"])
@pytest.mark.parametrize("target", [IOS16, IOS18], ids=lambda target: target.name)
def test_half_precision_stays_close_and_finite(assert_close, export, name: str, target: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, arguments = MODELS[name]
    module = make().eval()
    half = {"compute_precision": ct.precision.FLOAT16}
    session = open_session(export(module, arguments, tmp_path / "m.mlpackage", target, **half))
    steps = session._compute.args[0].steps
    assert "float16" in {spec.dtype for step in steps for spec in step.outputs}
    reference = module(*arguments)
    reference = reference[0] if isinstance(reference, tuple) else reference
    got = session.run(feeds_of(session, arguments))[session.signature.outputs[0].name]
    assert_close(got.astype(np.float32), reference, FLOAT16_TOLERANCE)
    assert not np.array_equal(got.astype(np.float32), reference.detach().numpy())  # it was rounded at all


# One program made by hand


@pytest.fixture(scope="session")
def program_of(save) -> Callable[..., Path]:
    """A program of the builder as a package."""

    def make(build: Callable[..., Any], *inputs: np.ndarray, target: Any = IOS17, path: Path) -> Path:
        specs = [mb.TensorSpec(v.shape, types.numpy_type_to_builtin_type(v.dtype)) for v in inputs]
        return save(mb.program(input_specs=specs, opset_version=target)(build), path, target, ct.PassPipeline.EMPTY)

    return make


def test_overflow_of_half_precision_shows_and_no_warning_leaks(program_of, tmp_path: Path) -> None:
    def build(x):
        half = mb.cast(x=x, dtype="fp16")
        large = mb.mul(x=half, y=np.float16(300))
        return mb.cast(x=large, dtype="fp32"), mb.cast(x=mb.reduce_mean(x=half, axes=[0]), dtype="fp32")

    x = np.full(300, 250, np.float32)  # 75000 is beyond half's 65504, and so is their sum, but not the mean
    session = open_session(program_of(build, x, path=tmp_path / "m.mlpackage"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs = list(session.run({"x": x}).values())
    assert np.isposinf(outputs[0]).all()
    assert outputs[1] == 250


def test_sums_of_half_precision_are_accumulated_in_single(program_of, tmp_path: Path) -> None:
    def build(x):
        half = mb.cast(x=x, dtype="fp16")
        return mb.cast(x=mb.conv(x=half, weight=np.ones((1, 1, 4096), np.float16)), dtype="fp32")

    x = np.ones((1, 1, 4096), np.float32)  # in half 2048 + 1 is 2048
    session = open_session(program_of(build, x, path=tmp_path / "m.mlpackage"))
    assert next(iter(session.run({"x": x}).values())).tolist() == [[[4096.0]]]


def test_every_operation_rounds_to_half(program_of, tmp_path: Path) -> None:
    def build(x):
        half = mb.cast(x=x, dtype="fp16")
        return mb.cast(x=mb.sub(x=mb.add(x=half, y=np.float16(1)), y=np.float16(1)), dtype="fp32")

    x = np.array([2.0**-12, 2.0**-10], np.float32)  # half has 11 bits: 1 + 2 ** -12 is 1
    session = open_session(program_of(build, x, path=tmp_path / "m.mlpackage"))
    assert next(iter(session.run({"x": x}).values())).tolist() == [0.0, 2.0**-10]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "int16", "uint16", "int32", "bool"])
@pytest.mark.parametrize(("shape", "target"), [((3, 5), IOS18), ((3, 2), IOS17)], ids=["blob", "immediate"])
def test_constants_of_every_type_are_read(program_of, dtype: str, shape: tuple, target: Any, tmp_path: Path) -> None:
    limits = np.array([0, 1]) if dtype == "bool" else np.array([-100, 100] if dtype[0] in "if" else [0, 200])
    values = np.resize(np.concatenate([limits, np.arange(2, 15)]), shape).astype(dtype)

    def build(x):
        return mb.add(x=x, y=mb.cast(x=mb.const(val=values), dtype="fp32"))

    path = program_of(build, np.zeros(1, np.float32), target=target, path=tmp_path / "m.mlpackage")
    got = next(iter(open_session(path).run({"x": np.zeros(1, np.float32)}).values()))
    assert np.array_equal(got, values.astype(np.float32))
    has_blobs = (path / "Data/com.apple.CoreML/weights/weight.bin").exists()
    assert has_blobs == (target == IOS18 and dtype != "bool")  # coremltools never writes blobs of bool


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [7, 13])  # below ten elements coremltools writes them into the program
def test_indices_of_few_bits_are_read(program_of, bits: int, count: int, tmp_path: Path) -> None:
    indices = np.arange(count) * 7 % 2**bits
    lut = normal(2**bits).reshape(1, -1, 1)

    def build(x):
        dense = mb.constexpr_lut_to_dense(indices=indices.astype(getattr(types, f"np_uint{bits}_dtype")), lut=lut)
        return mb.add(x=x, y=dense)

    path = program_of(build, np.zeros(1, np.float32), target=IOS18, path=tmp_path / "m.mlpackage")
    got = next(iter(open_session(path).run({"x": np.zeros(1, np.float32)}).values()))
    assert np.array_equal(got, lut[0, indices, 0])


@pytest.mark.parametrize("count", [7, 13])
def test_signed_integers_of_four_bits_are_read(program_of, count: int, tmp_path: Path) -> None:
    codes = np.resize(np.arange(-8, 8)[::-1], count)

    def build(x):
        data = codes.astype(types.np_int4_dtype)
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=np.ones(1, np.float32)))

    path = program_of(build, np.zeros(1, np.float32), target=IOS18, path=tmp_path / "m.mlpackage")
    assert np.array_equal(next(iter(open_session(path).run({"x": np.zeros(1, np.float32)}).values())), codes)


def test_compressed_weights_are_what_coremltools_decompresses(assert_close, export, tmp_path: Path) -> None:
    from coremltools.optimize import coreml as cto

    torch.manual_seed(0)
    arguments = MODELS["convolutional"][1]
    export(ConvolutionalNet(), arguments, tmp_path / "plain.mlpackage", IOS18)
    model = ct.models.MLModel(str(tmp_path / "plain.mlpackage"), skip_model_load=True)
    palette = cto.OpPalettizerConfig(mode="uniform", nbits=2, weight_threshold=0)
    small = cto.palettize_weights(model, cto.OptimizationConfig(global_config=palette))
    outputs = []
    for name, one in (("small", small), ("dense", cto.decompress_weights(small))):
        one.save(str(tmp_path / f"{name}.mlpackage"))
        session = open_session(tmp_path / f"{name}.mlpackage")
        outputs.append(next(iter(session.run(feeds_of(session, arguments)).values())))
    assert_close(outputs[0], outputs[1])


# Refusals


@pytest.fixture
def model_path(program_of, tmp_path: Path) -> Callable[..., Path]:
    """A program of the builder, or one linear layer, as a package in the test's folder."""

    def make(build: Callable[..., Any] | None = None) -> Path:
        build = build or (lambda x: mb.linear(x=x, weight=normal(5, 4), bias=normal(5), name="y"))
        return program_of(build, np.zeros((3, 4), np.float32), path=tmp_path / "m.mlpackage")

    return make


def rewrite(path: Path, change: Callable[[Any], None]) -> Path:
    """The package with its specification changed."""
    specification, _ = coreml_runtime.read_specification(path)
    change(specification)
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(specification.SerializeToString())
    return path


def block_of(specification: Any) -> Any:
    return next(iter(specification.mlProgram.functions["main"].block_specializations.values()))


def test_unknown_operations_are_all_named_before_anything_is_computed(model_path, monkeypatch) -> None:
    def build(x):
        y = mb.cond(pred=mb.greater(x=mb.reduce_max(x=x), y=0.0), _true_fn=lambda: mb.relu(x=x, name="a"),
                    _false_fn=lambda: mb.abs(x=x, name="b"), name="branch")  # fmt: skip
        return mb.random_uniform(shape=[2], name="noise"), y, mb.tanh(x=x, name="curve")

    path = model_path(build)
    monkeypatch.delitem(OPERATIONS, "tanh")
    monkeypatch.setitem(OPERATIONS, "greater", lambda x: None)
    with pytest.raises(UnsupportedOperation) as caught:
        open_session(path)
    message = str(caught.value)
    assert message.startswith("the evaluator of Core ML programs lacks 4 of its operations: ")
    for part in (
        "cond 'branch'",
        "random_uniform 'noise'",
        "tanh 'curve'",
        "greater 'greater_0' with y",
        "; check this",
    ):
        assert part in message
    assert caught.value.exit_code == 5


def test_types_that_numpy_lacks_are_refused(model_path) -> None:
    def change(specification):
        for operation in block_of(specification).operations:
            if operation.type == "linear":
                operation.outputs[0].type.tensorType.dataType = 13  # BFLOAT16

    path = rewrite(model_path(), change)
    with pytest.raises(UnsupportedOperation, match="'y' is of MIL's data type 13; check this model on macOS"):
        open_session(path)


def test_values_that_are_no_tensors_are_refused(model_path) -> None:
    def change(specification):
        block_of(specification).operations[0].attributes["val"].type.listType.length.constant.size = 1

    path = rewrite(model_path(), change)
    with pytest.raises(UnsupportedOperation, match="is of MIL's listType; check"):
        open_session(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:100],  # within the data of the first blob
        lambda content: content[:80],  # within its header
        lambda content: content[:64] + bytes(4) + content[68:],  # no sentinel
        lambda content: content[:72] + b"\1" + content[73:],  # another size
    ],
)
def test_damaged_weights_are_refused(model_path, damage: Callable[[bytes], bytes]) -> None:
    path = model_path()
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(BadInput) as caught:
        open_session(path)
    expected = f"{weights}: no blob of 80 bytes at byte 64: the file is truncated or corrupt; export the model again"
    assert str(caught.value) == expected


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["missing", "empty"])
def test_missing_weights_are_refused(model_path, damage: Callable[[Path], None]) -> None:
    path = model_path()
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    damage(weights)
    with pytest.raises(BadInput) as caught:
        open_session(path)
    assert str(caught.value) == f"{weights}: the weight file is missing or empty; export the model again"


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (shutil.rmtree, "FileNotFoundError"),
        (lambda path: (path / "Manifest.json").write_text("{"), "JSONDecodeError"),
        (lambda path: (path / "Manifest.json").write_text("[]"), "TypeError"),
        (lambda path: (path / "Manifest.json").write_text("{}"), "KeyError"),
        (lambda path: truncate(path / "Data/com.apple.CoreML/model.mlmodel"), "DecodeError"),
    ],
)
def test_damaged_packages_are_refused(model_path, damage: Callable[[Path], Any], cause: str) -> None:
    path = model_path()
    damage(path)
    with pytest.raises(BadInput) as caught:
        open_session(path)
    assert str(caught.value).startswith(f"{path}: not a readable Core ML package ({cause}: ")
    assert str(caught.value).endswith("; export the model again")


def test_weights_in_another_place_than_beside_the_specification_are_refused(model_path) -> None:
    path = model_path()
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    inside, outside = b"@model_path/weights/weight.bin", b"@model_path/../../../weight.bi"
    assert len(inside) == len(outside) and inside in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(inside, outside))
    with pytest.raises(BadInput) as caught:
        open_session(path)
    says = "its weights lie in '@model_path/../../../weight.bi', not in @model_path/weights; do not trust it"
    assert str(caught.value) == f"{file.parent / 'weights'}: {says}"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def test_neural_networks_are_refused(model_path) -> None:
    path = rewrite(model_path(), lambda specification: specification.neuralNetwork.SetInParent())
    with pytest.raises(BadInput) as caught:
        open_session(path)
    assert str(caught.value) == f'{path}: not an ML Program but neuralNetwork; convert it to "mlprogram"'


def test_packages_of_several_functions_are_refused(model_path) -> None:
    path = rewrite(model_path(), lambda specification: specification.mlProgram.functions["other"].SetInParent())
    with pytest.raises(BadInput) as caught:
        open_session(path)
    assert str(caught.value) == f"""{path}: it has the functions ['main', 'other']; save one function, "main\""""


def test_image_inputs_are_refused(model_path) -> None:
    def change(specification):
        specification.description.input[0].type.imageType.width = 4

    path = rewrite(model_path(), change)
    with pytest.raises(BadInput) as caught:
        open_session(path)
    assert str(caught.value) == "x: takes or gives imageType, not an array; convert it with TensorType"


def test_coremltools_not_installed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as caught:
        open_session(tmp_path)
    assert str(caught.value) == "coremltools is not installed; pip install 'pocketship[coreml]'"


def test_an_index_out_of_range_is_named(model_path) -> None:
    def build(x):
        return mb.gather(x=x, indices=mb.cast(x=mb.reduce_max(x=x), dtype="int32"), axis=0, name="words")

    session = open_session(model_path(build))
    assert session.run({"x": np.ones((3, 4), np.float32)})["words"].shape == (4,)
    with pytest.raises(ParityFailed) as caught:
        session.run({"x": np.full((3, 4), 7, np.float32)})
    assert str(caught.value).startswith("words: gather cannot be computed: index 7 is out of bounds")
    assert str(caught.value).endswith("; check the inputs")


@pytest.mark.parametrize(("wrong", "shape"), [(lambda x: x, "[3, 4]"), (np.sum, "[]")])
def test_a_result_of_another_shape_than_declared_is_refused(model_path, wrong, shape: str, monkeypatch) -> None:
    session = open_session(model_path())
    monkeypatch.setitem(OPERATIONS, "linear", lambda x, weight, bias: wrong(x))
    with pytest.raises(ParityFailed) as caught:
        session.run({"x": np.ones((3, 4), np.float32)})
    expected = f"y: linear gives shape {shape}, the program declares [3, 5]; report this model: its conversion or "
    assert str(caught.value) == expected + "the evaluator is wrong"


# Sessions


def test_signature_and_adapted_inputs(export, tmp_path: Path) -> None:
    session = open_session(export(Encoder(), MODELS["encoder"][1], tmp_path / "m.mlpackage"))
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.signature.inputs] == [
        ("ids", "int32", (2, 5)),
        ("mask", "int32", (2, 5)),
    ]
    assert [(spec.dtype, spec.shape) for spec in session.signature.outputs] == [
        ("float32", (2, 5, 16)),
        ("int32", (2, 5)),
    ]
    assert (session.executed_by.kind, session.executed_by.version) == ("off-device", np.__version__)
    assert session.executed_by.runtime == "pocketship MIL evaluator on numpy"
    ids, mask = IDS.numpy(), (IDS > 0).numpy().astype(np.int64)
    wide, narrow = session.run({"ids": ids, "mask": mask}), session.run({"ids": ids.astype(np.int32), "mask": mask})
    assert all(np.array_equal(wide[key], narrow[key]) for key in wide)
    with pytest.raises(BadInput, match=r"ids: input has shape \[1, 5\], the artifact takes \[2, 5\]"):
        session.run({"ids": ids[:1], "mask": mask})


def test_flexible_shapes_are_named_axes_within_their_range(export, tmp_path: Path) -> None:
    class Both(torch.nn.Module):
        def forward(self, x):
            return F.relu(x), x.sum()

    arguments = (torch.ones(3, 4),)
    limits = {"dynamic_shapes": ({0: torch.export.Dim("rows", min=2, max=16)},)}
    session = open_session(export(Both(), arguments, tmp_path / "m.mlpackage", **limits))
    assert session.signature.inputs[0].shape == ("x_axis0", 4)
    assert [spec.shape for spec in session.signature.outputs] == [("relu_axis0", 4), ()]
    assert session.run({"x": normal(7, 4)})["relu"].shape == (7, 4)
    for rows in (1, 17):
        with pytest.raises(BadInput) as caught:
            session.run({"x": normal(rows, 4)})
        expected = f"x: input has shape [{rows}, 4], outside the shapes the artifact takes; keep each axis within "
        assert str(caught.value) == expected + "[(2, 16), (4, 4)] (-1: no limit)"

    def unlimited(specification):
        ranges = specification.description.input[0].type.multiArrayType.shapeRange.sizeRanges
        ranges[0].upperBound = -1

    session = open_session(rewrite(tmp_path / "m.mlpackage", unlimited))
    assert session.run({"x": normal(40, 4)})["relu"].shape == (40, 4)


def test_enumerated_shapes_are_named_axes_from_a_list(export, tmp_path: Path) -> None:
    limits = {
        "dynamic_shapes": {"input": {0: torch.export.Dim("rows", min=1, max=16)}},
        "inputs": [ct.TensorType(name="input", shape=ct.EnumeratedShapes([[1, 4], [2, 4]]))],
    }
    session = open_session(export(torch.nn.ReLU(), (torch.ones(3, 4),), tmp_path / "m.mlpackage", **limits))
    assert session.signature.inputs[0].shape == ("input_axis0", 4)
    assert session.run({"input": normal(2, 4)})["relu"].shape == (2, 4)
    with pytest.raises(BadInput) as caught:
        session.run({"input": normal(3, 4)})
    expected = "input: input has shape [3, 4], outside the shapes the artifact takes; give one of [(1, 4), (2, 4)]"
    assert str(caught.value) == expected


def test_nothing_is_kept_longer_than_needed(export, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, arguments = MODELS["encoder"]
    program = open_session(export(make(), arguments, tmp_path / "m.mlpackage"))._compute.args[0]
    outputs, alive = {spec.name for spec in program.outputs}, {spec.name for spec in program.inputs}
    for step in program.steps:
        used = {n for names in step.arguments.values() for n in ([names] if isinstance(names, str) else names)}
        assert used <= alive | set(program.constants)
        alive |= {spec.name for spec in step.outputs}
        alive -= set(step.finished)
    assert alive - outputs == set()


def test_outputs_are_the_callers_own(model_path) -> None:
    session = open_session(model_path(lambda x: (mb.identity(x=x, name="same"), mb.relu(x=x, name="y"))))
    x = normal(3, 4)
    session.run({"x": x})["same"][:] = 7
    assert np.array_equal(x, normal(3, 4))


def test_finished_values_are_let_go(model_path, monkeypatch) -> None:
    def build(x):
        for _ in range(4):
            x = mb.relu(x=x)
        return x

    results: list[weakref.ref] = []
    alive: list[int] = []

    def relu(x):
        alive.append(sum(result() is not None for result in results))
        result = np.maximum(x, 0)
        results.append(weakref.ref(result))
        return result

    session = open_session(model_path(build))
    monkeypatch.setitem(OPERATIONS, "relu", relu)
    session.run({"x": normal(3, 4)})
    assert alive == [0, 1, 1, 1]  # its own argument and nothing older


def test_off_device_neither_torch_nor_coremltools_is_imported(model_path) -> None:
    import subprocess

    path = model_path()
    code = (
        "import sys, numpy; from pathlib import Path; from runtimes.coreml_runtime import open_session; "
        "out = open_session(Path(sys.argv[1])).run({'x': numpy.ones((3, 4), 'float32')}); "
        "print(out['y'].shape, 'torch' in sys.modules, 'coremltools' in sys.modules)"
    )
    root = Path(coreml_runtime.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.stdout.strip(), result.stderr) == ("(3, 5) False False", "")


class StandInModel:
    """What coremltools.models.MLModel is on macOS, where `fails` says so with an Exception."""

    fails = ""

    def __init__(self, path: str) -> None:
        if self.fails == "load":
            raise Exception("cannot compile")

    def predict(self, feeds: dict) -> dict:
        if self.fails == "predict":
            raise Exception("no such device")
        return {"y": feeds["x"].astype(np.float64) @ normal(5, 4).T}


@pytest.fixture
def on_macos(monkeypatch):
    monkeypatch.setattr(coreml_runtime.sys, "platform", "darwin")
    monkeypatch.setattr(coreml_runtime.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    module = python_types.ModuleType("coremltools.models")
    module.MLModel = StandInModel
    monkeypatch.setitem(sys.modules, "coremltools.models", module)
    monkeypatch.setattr(StandInModel, "fails", "")
    return monkeypatch


def test_on_macos_core_ml_computes(assert_close, model_path, on_macos) -> None:
    session = open_session(model_path())
    executed_by = session.executed_by
    assert (executed_by.runtime, executed_by.version, executed_by.kind) == ("Core ML", "15.1", "physical")
    got = session.run({"x": np.ones((3, 4))})["y"]
    assert got.dtype == np.float32
    assert_close(got, np.ones((3, 4), np.float32) @ normal(5, 4).T)
    session.close()


def test_on_macos_failures_are_one_line(model_path, on_macos) -> None:
    path = model_path()
    on_macos.setattr(StandInModel, "fails", "load")
    with pytest.raises(BadInput) as caught:
        open_session(path)
    assert str(caught.value) == f"{path}: Core ML cannot load it: cannot compile; export the model again"
    on_macos.setattr(StandInModel, "fails", "predict")
    session = open_session(path)
    with pytest.raises(ParityFailed) as failed:
        session.run({"x": np.ones((3, 4), np.float32)})
    assert str(failed.value) == f"{path}: Core ML cannot run it: no such device; see what Xcode says of it"
    with pytest.raises(BadInput, match="x: input has shape"):
        session.run({"x": np.ones((3, 5), np.float32)})
