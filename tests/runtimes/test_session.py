"""Opening an artifact by its suffix, what a session takes and gives, and every file that is none."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from runtimes.errors import BadInput, NotInstalled
from runtimes.golden import read_golden
from runtimes.session import RUNTIMES, SUFFIXES, feeds, fit, format_of, open_session
from runtimes.signature import Signature, TensorSpec
from runtimes.types import FORMATS

ARTIFACTS = ("model.onnx", "model.tflite", "model.mlpackage")


def test_each_format_has_a_suffix_and_a_runtime():
    assert tuple(RUNTIMES) == FORMATS == tuple(SUFFIXES.values())


@pytest.mark.parametrize(
    ("name", "wanted"), [("m.onnx", "onnx"), ("a.b/m.x.tflite", "tflite"), ("m.mlpackage", "coreml")]
)
def test_format_of(name, wanted):
    assert format_of(Path(name)) == wanted


@pytest.mark.parametrize("name", ["m.pt2", "m", "m.ONNX", "onnx", ".onnx"])
def test_another_suffix_is_refused_with_the_known_ones(name):
    with pytest.raises(BadInput) as caught:
        open_session(Path(name))
    assert str(caught.value) == (
        f"{name}: no runtime for a file ending in {Path(name).suffix!r}; "
        "give a file ending in .onnx, .tflite, .mlpackage"
    )


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_missing_artifact_is_refused(tmp_path, name):
    with pytest.raises(BadInput) as caught:
        open_session(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: no such artifact; check the path"


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        open_session(path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{path}: ") and line.endswith("export the model again")
    return caught.value.what


CANNOT = {"model.onnx": "onnxruntime cannot load it: ", "model.tflite": "LiteRT cannot load it: "}


@pytest.mark.parametrize("name", CANNOT)
@pytest.mark.parametrize("content", [b"", b"garbage", bytes(1000), b"\x1c\0\0\0TFL3" + b"\xff" * 100])
def test_what_is_no_artifact_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(CANNOT[name])


@pytest.mark.parametrize("name", CANNOT)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_artifact_is_refused_in_one_line(exported, tmp_path, name, share):
    content = (exported("two_inputs") / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert refusal(tmp_path / name).startswith(CANNOT[name])


@pytest.mark.parametrize("name", CANNOT)
def test_a_folder_is_no_artifact(tmp_path, name):
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name).startswith(CANNOT[name])


def no_signature(model) -> None:
    model.signatureDefs = []


def two_signatures(model) -> None:
    """Which of them an app runs is its own matter."""
    other = copy.deepcopy(model.signatureDefs[0])
    other.signatureKey = b"other"
    model.signatureDefs.append(other)


def signature_of_a_second_graph(model) -> None:
    """The first one, which an app runs that names no signature, would be proven by nobody."""
    model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))
    model.signatureDefs[0].subgraphIndex = 1


@pytest.mark.parametrize("change", [no_signature, two_signatures, signature_of_a_second_graph])
def test_a_tflite_file_has_one_signature_that_of_its_first_graph(exported, tmp_path, change):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = (exported("two_inputs") / "model.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    (tmp_path / "model.tflite").write_bytes(builder.Output())
    with pytest.raises(BadInput) as caught:
        open_session(tmp_path / "model.tflite")
    cause = "the file has not one signature, that of its first graph; convert it with one"
    assert str(caught.value) == f"{tmp_path}/model.tflite: {cause}"


@pytest.mark.parametrize(
    ("name", "module", "says"),
    [
        ("model.onnx", "onnxruntime", "onnxruntime is not installed; pip install 'pocketship[onnxruntime]'"),
        ("model.tflite", "ai_edge_litert", "LiteRT is not installed; pip install 'pocketship[litert]'"),
    ],
)
def test_a_runtime_that_is_not_installed_says_how_to_get_it(exported, monkeypatch, name, module, says):
    monkeypatch.setitem(sys.modules, module, None)
    path = exported("two_inputs") / name
    with pytest.raises(NotInstalled) as caught:
        open_session(path)
    assert str(caught.value) == f"{path}: {says}"


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_session_tells_its_signature_and_computes_the_golden_outputs(exported, name):
    bundle = exported("two_inputs")
    golden = read_golden(bundle / "golden.npz")
    session = open_session(str(bundle / name))
    try:
        specs = {role: {s.name: s for s in getattr(session.signature, role)} for role in ("inputs", "outputs")}
        assert specs == {
            "inputs": {n: TensorSpec(n, "float32", (3, 6)) for n in ("a", "b")},
            "outputs": {n: TensorSpec(n, "float32", (3, 5)) for n in ("difference", "left")},
        }
        assert session.executed_by.version
        for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True):
            found = session.run(inputs)
            assert list(found) == [s.name for s in session.signature.outputs]
            for output, wanted in outputs.items():
                assert found[output].dtype == np.float32
                np.testing.assert_allclose(found[output], wanted, rtol=1e-5, atol=1e-5)
    finally:
        session.close()


@pytest.mark.parametrize("name", ARTIFACTS)
def test_outputs_of_one_run_outlive_the_next_and_the_session(exported, name):
    bundle = exported("two_inputs")
    golden = read_golden(bundle / "golden.npz")
    session = open_session(bundle / name)
    first = session.run(golden.inputs[0])
    kept = {n: v.copy() for n, v in first.items()}
    session.run(golden.inputs[1])
    session.close()
    for output, value in kept.items():
        np.testing.assert_array_equal(first[output], value)


@pytest.mark.parametrize("name", CANNOT)
def test_a_run_without_an_input_or_with_another_shape_is_refused(exported, name):
    session = open_session(exported("two_inputs") / name)
    a = np.zeros((3, 6), "float32")
    with pytest.raises(BadInput, match="no value for input 'b'; give a, b"):
        session.run({"a": a})
    with pytest.raises(BadInput, match=r"b: input has shape \[6, 3\], the artifact takes \[3, 6\]"):
        session.run({"a": a, "b": a.T})
    session.close()


def test_a_path_is_taken_as_text_too(exported, tmp_path):
    shutil.copy(exported("two_inputs") / "model.onnx", tmp_path / "ä b.onnx")
    open_session(str(tmp_path / "ä b.onnx")).close()


SIGNATURE = Signature((TensorSpec("ids", "int32", (1, "n")), TensorSpec("x", "float32", ())), ())


@pytest.mark.slow
@pytest.mark.parametrize("name", CANNOT)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_runtime_computes_with_the_threads_it_is_given(exported, name, threads):
    """A pool of N threads starts N - 1: the caller is one of them."""
    open_session(exported("mlp") / name, 1).close()  # the library's own threads start with it
    before = psutil.Process().num_threads()
    session = open_session(exported("mlp") / name, threads)
    assert psutil.Process().num_threads() - before == threads - 1
    session.close()


@pytest.mark.parametrize(
    ("name", "threads", "says"),
    [
        ("model.onnx", 0, "0 threads cannot compute; give 1 or more"),
        ("model.mlpackage", 1, "Core ML takes no number of threads; leave the choice to it"),
    ],
)
def test_threads_that_cannot_be_are_refused(exported, name, threads, says):
    with pytest.raises(BadInput, match=says):
        open_session(exported("mlp") / name, threads)


def test_feeds_are_what_the_signature_names_in_its_types():
    found = feeds({"ids": np.array([[1, 2]]), "x": np.float64(0.5), "other": np.zeros(9)}, SIGNATURE)
    assert list(found) == ["ids", "x"]
    assert (found["ids"].dtype, found["ids"].tolist()) == (np.dtype("int32"), [[1, 2]])
    assert (found["x"].dtype, found["x"].shape, float(found["x"])) == (np.dtype("float32"), (), 0.5)


def test_a_missing_input_is_named_with_all_that_are_wanted():
    with pytest.raises(BadInput) as caught:
        feeds({"x": np.float32(0)}, SIGNATURE)
    assert str(caught.value) == "no value for input 'ids'; give ids, x"


def spec(dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec("x", dtype, shape)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([-(2**31), 2**31 - 1]), "int32"),
        (np.array([0, 255]), "uint8"),
        (np.array([7], "uint64"), "int64"),
        (np.array([1.0, -2.5]), "float16"),
        (np.array([1e-40, np.inf, -np.inf, np.nan]), "float32"),
        (np.array([True, False]), "bool"),
        (np.array([1, 2], "int8"), "int64"),
    ],
)
def test_fit_narrows_and_widens_where_nothing_is_lost(value, dtype):
    found = fit(value, spec(dtype, len(value)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(value.dtype), value, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([2**31]), "int32"),
        (np.array([-1]), "uint8"),
        (np.array([2**63], "uint64"), "int64"),
        (np.array([1e39]), "float32"),
        (np.array([70000.0], "float32"), "float16"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_fit_refuses_a_value_that_does_not_survive(value, dtype):
    with pytest.raises(BadInput) as caught:
        fit(value, spec(dtype, 1))
    assert str(caught.value) == f"x: a value does not fit {dtype}"


@pytest.mark.parametrize(
    ("given", "wanted"), [("float32", "int32"), ("int64", "float32"), ("bool", "int32"), ("int8", "bool")]
)
def test_fit_refuses_another_kind(given, wanted):
    with pytest.raises(BadInput) as caught:
        fit(np.zeros(1, given), spec(wanted, 1))
    assert str(caught.value) == f"x: input is {given}, the artifact takes {wanted}"


@pytest.mark.parametrize("shape", [(), (2,), (3, 2), (2, 3, 1), (1, 3)])
def test_fit_refuses_another_shape(shape):
    with pytest.raises(BadInput) as caught:
        fit(np.zeros(shape, "float32"), spec("float32", 2, 3))
    assert str(caught.value) == f"x: input has shape {list(shape)}, the artifact takes [2, 3]"


@pytest.mark.parametrize("length", [0, 1, 7])
def test_fit_takes_any_length_of_a_named_axis(length):
    assert fit(np.zeros((length, 3), "float32"), spec("float32", "batch", 3)).shape == (length, 3)


def test_fit_gives_rows_that_lie_one_after_another():
    value = np.zeros((3, 2), "float32").T
    assert not value.flags.c_contiguous
    assert fit(value, spec("float32", 2, 3)).flags.c_contiguous


def test_fit_takes_lists():
    assert fit([[1, 2]], spec("int32", 1, 2)).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("cpuinfo", "asked"),
    [
        ("flags : avx2 avx512_vnni amx_int8\n", False),
        ("flags : avx_vnni\n", False),
        ("flags : avx2\n", True),
        (None, True),
    ],
    ids=["VNNI and AMX", "VNNI of 256 bits", "AVX2", "not Linux"],
)
def test_exact_int8_is_asked_for_where_the_processor_may_saturate(cpuinfo, asked, tmp_path, monkeypatch):
    import onnxruntime

    from runtimes import onnx_runtime

    monkeypatch.setattr(onnx_runtime, "CPUINFO", str(tmp_path / "cpuinfo"))
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    options = onnxruntime.SessionOptions()
    onnx_runtime.ask_for_exact_int8(options)
    if asked:
        assert options.get_session_config_entry(onnx_runtime.EXACT_INT8[0]) == onnx_runtime.EXACT_INT8[1]
    else:
        with pytest.raises(RuntimeError, match="does not have configuration with key"):
            options.get_session_config_entry(onnx_runtime.EXACT_INT8[0])
