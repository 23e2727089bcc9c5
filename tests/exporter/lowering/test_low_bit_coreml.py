"""Low-bit weights in Core ML packages: codes and scales as the table has them, and what is computed with them."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from exporter.inspection.report import inspect
from exporter.low_bit.codes import quantize_weight, ternarize
from exporter.low_bit.weight import ACTIVATIONS, KINDS, LARGEST_CODE, Granularity, LowBitWeight
from exporter.lowering import to_coreml
from exporter.lowering.low_bit_coreml import carry
from exporter.lowering.representation import COREML, TABLE, Carried, Representation, representation
from exporter.lowering.settings import CoreMlSettings
from exporter.modules.weight_uses import weight_uses
from exporter.sources.source import arguments
from exporter.tracing.flat_module import FlatModule
from exporter.tracing.program import trace
from runtimes.bundle import digest

logging.getLogger("coremltools").setLevel(logging.ERROR)
PRECISE = {"float32": 1e-5, "float16": 4 * float(np.finfo(np.float16).eps)}
NOT_HELD = "no constant holds it that only operations read: coremltools folded or split it, or the model returns it"


def settings_of(min_ios: int, precision: str = "float32") -> CoreMlSettings:
    return CoreMlSettings(min_ios, precision)


def low_bit_of(weight: np.ndarray, bits: int, kind: str = "linear") -> LowBitWeight:
    """Codes by rounding, a third of the channels clipped to below the largest code, one channel of zeros."""
    rows = np.abs(weight.reshape(len(weight), -1))
    scale = np.where(rows.any(1), rows.mean(1) if bits == 2 else rows.max(1) / LARGEST_CODE[bits], 1)
    scale = (scale * np.where(np.arange(len(weight)) % 3 == 0, 1.3, 1.0)).astype(np.float32)
    codes = np.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    codes[-1] = 0
    return LowBitWeight(np.clip(codes, -LARGEST_CODE[bits], LARGEST_CODE[bits]).astype(np.int8), scale, bits, kind)


@pytest.fixture
def packaged(tmp_path):
    """Make the weights of a module low-bit and lower it; its traced form, the table, what was said, and the package."""

    def make(module, example, bits, min_ios, precision="float32", name="m"):
        flat = FlatModule(module.eval(), *arguments(example))
        parameters, low_bit = dict(flat.module.named_parameters()), {}
        for weight, uses in weight_uses(flat).items() if bits else ():
            number = bits if isinstance(bits, int) else bits[weight]
            low_bit[weight] = low_bit_of(parameters[weight].detach().numpy(), number, uses[0].kind)
            parameters[weight].data = torch.from_numpy(low_bit[weight].value)
        chosen = settings_of(min_ios, precision)
        program = dataclasses.replace(trace(flat, flat.example, []), low_bit=low_bit)
        path = tmp_path / name / "model.mlpackage"
        path.parent.mkdir()
        carried = to_coreml.lower(to_coreml.prepare(program, chosen), path, chosen, {})
        return flat, low_bit, carried, path

    return make


class EveryKind(nn.Module):
    """Every layer that may have low-bit weights, in one model."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.linear = nn.Linear(12, 9)
        self.conv1d = nn.Conv1d(7, 5, 3)
        self.conv2d = nn.Conv2d(3, 8, 3, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.conv3d = nn.Conv3d(2, 4, (1, 2, 2))

    def forward(self, ids, image, volume):
        words = self.conv1d(torch.tanh(self.linear(self.embedding(ids))))  # [b, 5, 7]
        return words, self.depthwise(torch.relu(self.conv2d(image))), self.conv3d(volume)


def every_kind():
    torch.manual_seed(0)
    return EveryKind(), (torch.randint(0, 20, (1, 7)), torch.randn(1, 3, 9, 9), torch.randn(1, 2, 3, 4, 4))


def stored_in(path: Path):
    """Codes [*weight], scales [channels] and operations of each compressed weight, as coremltools itself reads them."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, model.weights_dir)
    found = []
    for operation in program.functions["main"].operations:
        if operation.op_type == "constexpr_affine_dequantize":
            assert operation.zero_point.val == 0
            found.append((operation.quantized_data.val, operation.scale.val, operation.op_type, operation))
        elif operation.op_type == "constexpr_blockwise_shift_scale":
            source = operation.data.op
            palette = source.op_type == "constexpr_lut_to_dense"
            data = source.materialized_val_inference() if palette else operation.data.val
            assert operation.offset is None
            found.append((data, operation.scale.val, source.op_type if palette else operation.op_type, operation))
    return found


# The table


def test_every_combination_has_a_row_and_computes_in_floating_point():
    for kind, bits, activations in itertools.product(KINDS, LARGEST_CODE, ACTIVATIONS):
        row = TABLE["coreml", kind, bits, activations]
        assert isinstance(row, Representation)
        assert row.activations == "float" and row.min_ios == {8: 16, 4: 18, 2: 18}[bits]
        assert ("activations stay float" in row.why) == (activations != "float")


ROWS = [
    (8, 16, "float32", "constexpr_affine_dequantize", "int8 per channel"),
    (8, 18, "float32", "constexpr_blockwise_shift_scale", "int8 per channel"),
    (4, 18, "float32", "constexpr_blockwise_shift_scale", "int4 per channel"),
    (2, 18, "float32", "constexpr_lut_to_dense", "2-bit palette"),
    (8, 16, "float16", "constexpr_affine_dequantize", "int8 per channel"),
    (2, 18, "float16", "constexpr_lut_to_dense", "2-bit palette"),
]


@pytest.mark.parametrize(("bits", "min_ios", "precision", "operation", "stored_name"), ROWS)
def test_a_package_holds_the_codes_and_computes_what_the_module_does(
    bits, min_ios, precision, operation, stored_name, packaged, computes
):
    module, example = every_kind()
    flat, low_bit, carried, path = packaged(module, example, bits, min_ios, precision)
    assert {weight.kind for weight in low_bit.values()} == {*KINDS} - {"conv_transpose"}
    assert carried == tuple(Carried(name, representation("coreml", weight)) for name, weight in low_bit.items())
    assert {c.stored.name for c in carried} == {stored_name}

    stored = stored_in(path)
    assert [kind for _, _, kind, _ in stored] == [operation] * len(low_bit)
    wanted = {(w.codes.tobytes(), w.codes.shape, w.scale.astype(precision).tobytes()) for w in low_bit.values()}
    got = {(codes.astype(np.int8).tobytes(), codes.shape, scale.tobytes()) for codes, scale, _, _ in stored}
    assert got == wanted

    computes(path, flat.example, flat.compute(flat.example), PRECISE[precision])


def test_each_weight_has_bits_of_its_own(packaged, computes, as_exported):
    flat, _, carried, path = packaged(*as_exported("mlp"), {"0.weight": 2, "2.weight": 8}, 18)
    assert carried == (Carried("0.weight", COREML[2]), Carried("2.weight", COREML[8]))
    assert [codes.shape for codes, *_ in stored_in(path)] == [(16, 8), (4, 16)]
    computes(path, flat.example, flat.compute(flat.example))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("group", [32, 128])
def test_scales_of_groups_are_stored_and_computed_with(bits, group):
    granularity = Granularity(group=group)
    values = torch.randn(6, 256, generator=torch.Generator().manual_seed(0))
    codes, scale = ternarize(values, granularity) if bits == 2 else quantize_weight(values, bits, 1.0, granularity)
    weight = LowBitWeight(codes, scale, bits, "linear", granularity=granularity)
    program = program_of(
        lambda mb, x: mb.linear(
            x=mb.slice_by_size(x=mb.tile(x=x, reps=(1, 64)), begin=(0, 0), size=(1, 256)), weight=weight.value
        )
    )
    (carried,) = carry(program, {"w": weight}, settings_of(18))
    assert carried == Carried("w", representation("coreml", weight))
    (last,) = [o for o in program.functions["main"].operations if o.op_type == "constexpr_blockwise_shift_scale"]
    assert last.scale.val.shape == (6, 256 // group) and np.array_equal(last.scale.val, scale)
    data = last.data.op.materialized_val_inference() if bits == 2 else last.data.val
    assert np.array_equal(last.decompress(data, last.scale.val, None), weight.value)


@pytest.mark.slow
def test_inspect_shows_what_is_stored(packaged):
    module = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 12))
    tensors = {}
    for bits, min_ios in ((8, 16), (8, 18), (4, 18), (2, 18)):
        *_, path = packaged(module, torch.randn(1, 30), bits, min_ios, name=f"{bits}-{min_ios}")
        tensors[bits, min_ios] = {
            (t.name.rpartition(".")[2], t.dtype, t.shape, t.size_bytes)
            for t in inspect(path).tensors
            if len(t.shape) > 1
        }
    scales = {("scale", "float32", (20, 1), 80), ("scale", "float32", (12, 1), 48)}
    assert tensors[8, 16] == {("quantized_data", "int8", (20, 30), 600), ("quantized_data", "int8", (12, 20), 240)}
    assert tensors[8, 18] == {("data", "int8", (20, 30), 600), ("data", "int8", (12, 20), 240)} | scales
    assert tensors[4, 18] == {("data", "int4", (20, 30), 300), ("data", "int4", (12, 20), 120)} | scales
    assert tensors[2, 18] == {("indices", "uint2", (20, 30), 150), ("indices", "uint2", (12, 20), 60)} | scales


# Which constants are replaced


def program_of(build, min_ios=18):
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 6))], opset_version=getattr(ct.target, f"iOS{min_ios}"))
    def program(x):
        return build(mb, x)

    mb.name_count.clear()  # as a conversion does when it ends: names of the next program start anew
    return program


def operations_of(program):
    return [operation.op_type for operation in program.functions["main"].operations if operation.op_type != "const"]


def random_weight(*shape, bits=4, seed=0):
    return low_bit_of(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), bits)


@st.composite
def weights(draw):
    """Any codes and scales: channels of zeros, without the largest code, all alike; axes in any order."""
    bits = draw(st.sampled_from(sorted(LARGEST_CODE)))
    shape = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4).filter(lambda s: np.prod(s) >= 10))
    codes = draw(arrays(np.int8, shape, elements=st.integers(-LARGEST_CODE[bits], LARGEST_CODE[bits])))
    scale = draw(arrays(np.float32, shape[0], elements=st.floats(2**-20, 2**10, width=32)))
    return LowBitWeight(codes, scale, bits, "linear"), draw(st.permutations(range(len(shape))))


@given(weights(), st.sampled_from([16, 18]))
@settings(max_examples=60, deadline=None)
def test_any_weight_is_decompressed_bit_for_bit_in_any_order_of_axes(drawn, min_ios):
    weight, axes = drawn
    min_ios = 18 if weight.bits < 8 else min_ios
    value = np.ascontiguousarray(weight.value.transpose(axes))
    program = program_of(lambda mb, x: mb.add(x=mb.reduce_sum(x=x), y=mb.const(val=value)), min_ios)
    (carried,) = carry(program, {"w": weight}, settings_of(min_ios))
    assert not carried.reason
    (last,) = [o for o in program.functions["main"].operations if o.op_type == "add"]
    decompressed = last.y.op
    if decompressed.op_type == "constexpr_blockwise_shift_scale" and decompressed.data.val is None:
        palette = decompressed.data.op.materialized_val_inference()
        got = decompressed.decompress(palette, decompressed.scale.val, None)
    else:
        got = decompressed.materialized_val_inference()
    assert got.dtype == np.float32 and np.array_equal(got, value)


def test_an_ulp_more_or_less_is_the_same_weight_and_another_code_is_not():
    weight = random_weight(8, 6)
    moved = np.nextafter(weight.value, np.float32(1))
    other = weight.value.copy()
    other[3, 2] += weight.scale[3]
    for value, held in ((moved, True), (other, False)):
        program = program_of(lambda mb, x, value=value: mb.linear(x=x, weight=value))
        (carried,) = carry(program, {"w": weight}, settings_of(18))
        assert carried == (Carried("w", COREML[4]) if held else Carried("w", None, NOT_HELD))
        assert ("constexpr_blockwise_shift_scale" in operations_of(program)) is held


def test_weights_of_one_value_are_stored_once():
    weight = random_weight(8, 6)

    def build(mb, x):
        shared = mb.const(val=weight.value, name="shared")
        rows = mb.gather(x=shared, indices=np.array([1, 3], np.int32), axis=0)
        return mb.add(x=mb.linear(x=x, weight=shared), y=mb.reduce_sum(x=rows))

    program = program_of(build)
    carried = carry(program, {"tied": weight, "copy": weight}, settings_of(18))
    assert carried == (Carried("tied", COREML[4]), Carried("copy", COREML[4]))
    assert operations_of(program).count("constexpr_blockwise_shift_scale") == 1
    readers = {o.op_type: o for o in program.functions["main"].operations}
    assert readers["linear"].weight is readers["gather"].x
    assert readers["linear"].weight.op.op_type == "constexpr_blockwise_shift_scale"


def test_a_tied_embedding_is_stored_once(packaged, computes, as_exported):
    flat, _, carried, path = packaged(*as_exported("transformer"), 8, 16)
    assert {c.name for c in carried} == {"embedding.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    assert not [c.reason for c in carried if c.reason]
    assert inspect(path).operations["constexpr_affine_dequantize"] == 3
    computes(path, flat.example, flat.compute(flat.example))


class Folded(nn.Module):
    """A weight whose first rows alone are looked up, one of few values, one that is an output too."""

    def __init__(self):
        super().__init__()
        self.places, self.linear, self.small = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x + self.places(torch.arange(5))), self.small(x), self.linear.weight


def test_a_weight_that_is_not_stored_low_bit_is_named_with_the_reason(packaged, computes):
    flat, _, carried, path = packaged(Folded(), torch.randn(5, 4), 8, 16)
    assert carried == (
        Carried("places.weight", COREML[8]),
        Carried("linear.weight", None, NOT_HELD),
        Carried("small.weight", None, "Core ML compresses no constant of fewer than 10 values"),
    )
    computes(path, flat.example, flat.compute(flat.example))


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4), (1, 1, 5, 4)], ids=str)
def test_positions_that_were_looked_up_at_conversion_are_stored_as_codes(shape, packaged, computes):
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.places, self.linear = nn.Embedding(9, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x + self.places(torch.arange(5)).reshape(shape))

    flat, low_bit, carried, path = packaged(Places(), torch.randn(shape), 4, 18)
    assert Carried("places.weight", COREML[4]) in carried
    codes = [codes for codes, *_ in stored_in(path) if codes.shape == shape]
    assert np.array_equal(codes[0].reshape(5, 4), low_bit["places.weight"].codes[:5])
    computes(path, flat.example, flat.compute(flat.example))


def test_a_constant_that_is_an_output_is_no_compressed_weight():
    weight = random_weight(8, 6)

    def build(mb, x):
        kept = mb.const(val=weight.value)
        return mb.linear(x=x, weight=kept), kept

    program = program_of(build)
    assert carry(program, {"w": weight}, settings_of(18)) == (Carried("w", None, NOT_HELD),)
    assert operations_of(program) == ["linear"]


def test_no_weight_goes_into_a_version_that_lacks_its_operation():
    weight = random_weight(8, 6)
    program = program_of(lambda mb, x: mb.linear(x=x, weight=weight.value), 16)
    with pytest.raises(AssertionError, match="the export raises it to what its weights need"):
        carry(program, {"w": weight}, settings_of(16))


# Size and repeatability


def mostly_weights():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(2000, 192), nn.Linear(192, 384), nn.Linear(384, 192)), torch.tensor([[1, 5]])


@pytest.mark.slow
def test_files_shrink_as_the_bits_do(packaged):
    sizes = {bits: digest(packaged(*mostly_weights(), bits, 18, name=str(bits))[-1])[0] for bits in (None, 8, 4, 2)}
    assert sizes[None] >= 3.8 * sizes[8]
    assert sizes[None] >= 7 * sizes[4]
    assert sizes[None] >= 10 * sizes[2]


@pytest.mark.parametrize("bits", [8, 2])
def test_the_same_weights_give_the_same_bytes(bits, packaged):
    first, second = (packaged(*every_kind(), bits, 18, name=name)[-1] for name in ("one", "two"))
    assert digest(first) == digest(second)
