"""Golden values come back as they were written, and a hostile file is refused without being unpickled."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from runtimes.errors import BadInput
from runtimes.golden import Golden, read_golden, write_golden


def sample(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    numbers = np.random.default_rng(seed)
    inputs = {
        "ids": numbers.integers(-(2**62), 2**62, (2, 3)),
        "mask": numbers.integers(0, 2, (2, 3)).astype(bool),
        "scale": np.array(seed, "float32"),
        "deep/er/name": numbers.normal(size=(1, 4)).astype("float16"),
        "empty": np.zeros((0, 3), "float32"),
        "naïve name.npy": np.array([np.nan, np.inf, -0.0]),
    }
    return inputs, {"y": numbers.normal(size=(5,)).astype("float32"), "ids": inputs["ids"] * 2}


def golden(count: int = 2) -> Golden:
    return Golden(*zip(*map(sample, range(count)), strict=True))


def assert_same(found: Golden, wanted: Golden) -> None:
    for role in ("inputs", "outputs"):
        assert len(getattr(found, role)) == len(getattr(wanted, role))
        for one, other in zip(getattr(found, role), getattr(wanted, role), strict=True):
            assert list(one) == list(other)
            for name, value in other.items():
                assert one[name].dtype == value.dtype and one[name].shape == value.shape
                assert one[name].tobytes() == np.ascontiguousarray(value).tobytes()


@pytest.mark.parametrize("count", [1, 2, 11])
def test_all_types_shapes_and_names_come_back(tmp_path, count):
    write_golden(golden(count), tmp_path / "golden.npz")
    assert_same(read_golden(tmp_path / "golden.npz"), golden(count))


VALUES = arrays(
    st.sampled_from(["float32", "int64", "bool", "uint8"]), array_shapes(min_dims=0, max_dims=3, max_side=3)
)
NAMES = st.text(st.characters(exclude_categories=("C",), exclude_characters="\\"), min_size=1, max_size=8)


@settings(max_examples=30)
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3))
def test_any_tensors_come_back(tmp_path_factory, inputs, outputs):
    path = tmp_path_factory.getbasetemp() / "any.npz"
    wanted = Golden((inputs, inputs), (outputs, outputs))
    write_golden(wanted, path)
    assert_same(read_golden(path), wanted)


def test_the_noise_of_each_format_comes_back_and_is_no_sample(tmp_path):
    rows = {"onnx": {"deep/y": {0: np.array([0.5, 0.0], "float32"), 2: np.ones(3, "float32")}}, "coreml": {"y": {}}}
    inputs, outputs = golden(2).inputs, golden(2).outputs
    write_golden(Golden(inputs, outputs, rows), tmp_path / "golden.npz")
    found = read_golden(tmp_path / "golden.npz")
    assert_same(found, golden(2))
    assert list(found.noise) == ["onnx"] and list(found.noise["onnx"]) == ["deep/y"]
    assert {axis: value.tolist() for axis, value in found.noise["onnx"]["deep/y"].items()} == {
        0: [0.5, 0.0],
        2: [1.0, 1.0, 1.0],
    }
    with np.load(tmp_path / "golden.npz") as arrays:
        assert "0/noise/onnx/2/deep/y" in arrays.files


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("0/noise/onnx/1/y", np.array([-1.0])),
        ("0/noise/onnx/1/y", np.array([np.nan])),
        ("0/noise/onnx/1/y", np.array([1])),
        ("0/noise/onnx/1/y", np.ones((1, 1))),
    ],
)
def test_noise_that_is_none_is_refused(tmp_path, key, value):
    np.savez(tmp_path / "golden.npz", **{"0/input/x": np.zeros(1), "0/output/y": np.zeros(1), key: value})
    assert refusal(tmp_path / "golden.npz") == f"cannot read the golden values ('{key}.npy' is no noise)"


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_golden(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ") and line.endswith("; export the bundle again")
    return caught.value.what


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as stream:
        for name, content in files.items():
            stream.writestr(name, content)
    return path


def npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


NPY = npy(np.zeros(3, "float32"))


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled(tmp_path):
    pwned, path = tmp_path / "pwned", tmp_path / "golden.npz"
    np.savez(path, **{"0/input/x": np.array([Hostile(pwned)], object), "0/output/y": np.zeros(1)})
    assert "'0/input/x.npy' is object, and only plain numbers are read" in refusal(path)
    assert not pwned.exists()
    with np.load(path, allow_pickle=True) as arrays:  # that it would have
        arrays["0/input/x"][0].close()
    assert pwned.exists()


def test_a_pickle_in_place_of_the_archive_is_not_loaded(tmp_path):
    import pickle

    pwned, path = tmp_path / "pwned", tmp_path / "golden.npz"
    path.write_bytes(pickle.dumps(Hostile(pwned)))
    refusal(path)
    assert not pwned.exists()


def test_a_missing_file_and_a_folder(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.npz")
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no zip at all", b"PK\x03\x04 nearly", NPY], ids=["empty", "text", "pk", "npy"]
)
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "golden.npz").write_bytes(content)
    assert refusal(tmp_path / "golden.npz").startswith("cannot read the golden values (")


@pytest.mark.parametrize(
    "name",
    ["x.npy", "0/input.npy", "zero/input/x.npy", "-1/input/x.npy", "00/input/x.npy", "0/weights/x.npy", "0/input/x.txt"]
    + ["0/input/x", f"{'9' * 400}/input/x.npy"],
)
def test_an_archive_with_something_else_in_it(tmp_path, name):
    files = {"0/input/x.npy": NPY, "0/output/y.npy": NPY, name: b"text"}
    assert refusal(archive(tmp_path / "golden.npz", files)) == (
        f"cannot read the golden values ({name!r:.60} is no tensor of a sample)"
    )


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["1/input/x", "1/output/y"],
        ["0/input/x", "0/output/y", "2/input/x", "2/output/y"],
        ["0/input/x", "0/output/y", "1/input/x"],
        ["0/input/x", "0/output/y", "1/input/z", "1/output/y"],
    ],
    ids=["none", "first missing", "one missing", "output missing", "other name"],
)
def test_missing_samples_and_tensors(tmp_path, names):
    path = archive(tmp_path / "golden.npz", {f"{name}.npy": NPY for name in names})
    assert refusal(path) == "the golden values are incomplete"


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        b"{'descr': 'O', 'fortran_order': False, 'shape': (3,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9" + b"0" * 400 + b")}",
        b"{'descr': [('a', '<f4', (3,))], 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<c16', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L,)}",
        b"(" * 9000,
        b"__import__('os')",
    ],
    ids=["huge", "negative", "object", "too small", "400 digits", "record", "complex", "Python 2", "deep", "code"],
)
def test_a_hostile_header(tmp_path, header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(12)
    assert refusal(archive(tmp_path / "golden.npz", {"0/input/x.npy": content})).startswith("cannot read the golden")


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    wide = np.broadcast_to(np.float32(0), (1 << 27, 2))  # 1 GB that takes no memory
    with pytest.raises(BadInput, match=r"the golden values are 2 tensors of 1,073,741,8.* bytes, and .*smaller shapes"):
        write_golden(Golden(({"x": wide},), ({"y": np.zeros(1)},)), tmp_path / "golden.npz")
    assert not (tmp_path / "golden.npz").exists()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "golden.npz")
    assert "not a regular file" in refusal(tmp_path / "golden.npz")


def test_a_file_truncated_anywhere_is_refused(tmp_path):
    write_golden(golden(), tmp_path / "golden.npz")
    content = (tmp_path / "golden.npz").read_bytes()
    for length in range(0, len(content), 15):
        (tmp_path / "cut.npz").write_bytes(content[:length])
        refusal(tmp_path / "cut.npz")


def test_any_changed_byte_is_refused_or_read_never_an_exception_of_another_kind(tmp_path):
    """Zip's checksums cover the arrays but not all of its directory; the manifest's hash covers the rest."""
    write_golden(golden(1), tmp_path / "golden.npz")
    content = (tmp_path / "golden.npz").read_bytes()
    path, numbers = tmp_path / "changed.npz", random.Random(0)
    refused = 0
    for position in range(0, len(content), 5):
        changed = bytearray(content)
        changed[position] ^= numbers.randrange(1, 256)
        path.write_bytes(changed)
        try:
            found = read_golden(path)
        except BadInput:
            refused += 1
            continue
        tensors = [value for sample in (*found.inputs, *found.outputs) for value in sample.values()]
        assert all(isinstance(value, np.ndarray) and value.dtype != object for value in tensors)
    assert refused > len(content) / 10
