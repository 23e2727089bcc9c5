"""What an artifact says of itself: the same as the exporter's own readers find, and what else it would read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.formats.readers import READERS
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput
from runtimes.facts import METADATA, Facts, read_facts
from runtimes.mil.evaluator import protocol_buffers
from runtimes.session import format_of

NAMES = ("model.onnx", "model.tflite", "model.mlpackage")


@pytest.fixture
def copied(exported, copy_of) -> Path:
    return copy_of(exported("two_inputs"))


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_of_an_export_are_those_of_its_manifest(exported, name):
    path = exported("two_inputs") / name
    found = read_facts(path)
    assert replace(found, metadata=None) == Facts(None, (), "float32", ("float32",))
    assert found.metadata == READERS[format_of(path)].contents(path).metadata[METADATA]
    assert json.loads(found.metadata)["name"] == read_manifest(path.parent).name


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_are_cut_off_anywhere_are_one_line(copied, name):
    path = copied / name
    file = path if path.is_file() else path / "Data/com.apple.CoreML/model.mlmodel"
    content = file.read_bytes()
    for end in sorted({0, 1, 7, *range(0, len(content), max(1, len(content) // 60))}):
        file.write_bytes(content[:end])
        try:
            read_facts(path)  # a field fewer may still be a message
        except BadInput as error:
            assert str(error).startswith(f"{path}: its bytes cannot be read (") and "\n" not in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_were_changed_anywhere_are_read_or_one_line(copied, name):
    path = copied / name
    file = path if path.is_file() else path / "Data/com.apple.CoreML/model.mlmodel"
    content, random = file.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for place in random.integers(0, len(content), 3):
            changed[place] = random.integers(256)
        file.write_bytes(changed)
        try:
            read_facts(path)
        except BadInput as error:
            assert "its bytes cannot be read (" in str(error)


def outside(tensor: Any, location: str = "../../weights.bin") -> Any:
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def tensor_of(values: Any = (1.0, 2.0)) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([values], np.float32), "w")


def in_initializer(model: Any) -> None:
    outside(model.graph.initializer.add()).CopyFrom(outside(tensor_of()))


def in_sparse_initializer(model: Any) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.indices.CopyFrom(outside(tensor_of()))


def in_constant(model: Any) -> None:
    from onnx import helper

    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside(tensor_of())))


def in_tensors(model: Any) -> None:
    attribute = model.graph.node[0].attribute.add(name="many")
    attribute.tensors.append(outside(tensor_of()))


def in_inner_graph(model: Any) -> None:
    inner = model.graph.node[0].attribute.add(name="then").g
    deeper = inner.node.add().attribute.add(name="body").graphs.add()
    deeper.initializer.append(outside(tensor_of()))


def in_function(model: Any) -> None:
    model.functions.add().node.add().attribute.add(name="value").t.CopyFrom(outside(tensor_of()))


def in_default_of_function(model: Any) -> None:
    model.functions.add().attribute_proto.add(name="value").t.CopyFrom(outside(tensor_of()))


def in_training(model: Any) -> None:
    model.training_info.add().algorithm.initializer.append(outside(tensor_of()))


PLACES = [in_initializer, in_sparse_initializer, in_constant, in_tensors, in_inner_graph, in_function]
PLACES += [in_default_of_function, in_training]


@pytest.mark.parametrize("place", PLACES)
def test_data_outside_of_an_onnx_file_is_found_wherever_a_tensor_may_be(copied, place: Callable[[Any], None]):
    import onnx

    path = copied / "model.onnx"
    model = onnx.load(path)
    place(model)
    path.write_bytes(model.SerializeToString())
    assert read_facts(path).external == ("../../weights.bin",)


def test_external_data_of_no_name_is_found_too(copied):
    import onnx

    path = copied / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    assert read_facts(path).external == ("",)


def test_data_outside_of_a_tflite_file_is_found(copied):
    from ai_edge_litert import schema_py_generated as schema

    from exporter.formats.tflite_file import read_file
    from exporter.formats.tflite_writer import write

    path = copied / "model.tflite"
    model = read_file(path)
    group = schema.ExternalBufferGroupT()
    group.name = b"../weights.bin"
    model.externalBufferGroups = [group]
    path.write_bytes(write(model))
    assert read_facts(path).external == ("../weights.bin",)


def test_a_file_without_metadata_says_so(copied):
    import onnx

    path = copied / "model.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    assert read_facts(path).metadata is None


def test_the_types_of_onnx_constants_of_two_axes_are_told(copied):
    import onnx
    from onnx import TensorProto, helper

    path = copied / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("i", TensorProto.INT4, [200, 2], bytes(200), raw=True))
    model.graph.initializer.append(helper.make_tensor("v", TensorProto.INT8, [300], bytes(300), raw=True))
    path.write_bytes(model.SerializeToString())
    assert read_facts(path).stored == ("float32", "int4")


def test_a_package_whose_operations_are_float16_computes_in_it(copied):
    path = copied / "model.mlpackage"
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = protocol_buffers().Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    for operation in block.operations:
        if operation.type != "const":
            operation.outputs[0].type.tensorType.dataType = 10
    file.write_bytes(model.SerializeToString())
    assert read_facts(path).compute == "float16"
    del block.operations[:]
    file.write_bytes(model.SerializeToString())
    assert read_facts(path).compute is None


@pytest.mark.parametrize("in_input", [False, True])
def test_weights_outside_of_a_package_are_found(copied, in_input):
    """Core ML itself opens them, and the evaluator, which refuses them, is not asked where there is Core ML."""
    path = copied / "model.mlpackage"
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = protocol_buffers().Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    operation = block.operations.add(type="const")
    value = operation.inputs["data"].arguments.add().value if in_input else operation.attributes["val"]
    value.blobFileValue.fileName = "@model_path/../../weights.bin"
    file.write_bytes(model.SerializeToString())
    assert read_facts(path).external == ("@model_path/../../weights.bin",)


def test_codes_that_are_an_operations_own_input_are_stored(copied):
    path = copied / "model.mlpackage"
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = protocol_buffers().Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    operation = block.operations.add(type="constexpr_blockwise_shift_scale")
    tensor = operation.inputs["data"].arguments.add().value.type.tensorType
    tensor.dataType, tensor.rank = 25, 2
    file.write_bytes(model.SerializeToString())
    assert read_facts(path).stored == ("float32", "int4")


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value >> 7 else bytes([value])


def message(key: int, content: bytes) -> bytes:
    return varint(key) + varint(len(content)) + content


@pytest.mark.parametrize(("wide", "says"), [(0, ""), (1 << 32, "a field's number is too large")])
def test_a_number_that_other_readers_cut_to_32_bits_hides_no_external_data(tmp_path, wide, says):
    """onnxruntime reads the file that such a field names."""
    place = message(10, b"location") + message(18, b"w.bin")
    tensor = message(5 << 3 | 2, message(13 << 3 | 2 | wide, place))
    path = tmp_path / "model.onnx"
    path.write_bytes(message(7 << 3 | 2, tensor))
    if not says:
        assert read_facts(path).external == ("w.bin",)
        return
    with pytest.raises(BadInput, match=says):
        read_facts(path)


def test_a_type_that_other_readers_cut_to_32_bits_is_that_type(tmp_path):
    tensor = message(5 << 3 | 2, b"\x08\x02\x08\x02" + varint(2 << 3) + varint(3 | 1 << 32))
    path = tmp_path / "model.onnx"
    path.write_bytes(message(7 << 3 | 2, tensor))
    assert read_facts(path).stored == ("int8",)


def test_tables_that_share_a_long_text_are_not_read_again_and_again(tmp_path):
    """100,000 entries of metadata whose name is the same 100 kB: 10 GB of copies."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("x" * 100_000)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    entry, count = builder.EndObject(), 100_000
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(entry)
    entries = builder.EndVector()
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(6, entries, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    (tmp_path / "model.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(BadInput, match="its tables hold more than 4 times its bytes"):
        read_facts(tmp_path / "model.tflite")
