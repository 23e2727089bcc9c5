"""Which wheels a board lacks, and which of those at hand it can use; pip is real where it is asked for one in vain."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.devices.ssh import wheels
from benchmarks.devices.ssh.answers import Facts
from benchmarks.devices.ssh.wheels import BoardPython
from runtimes.errors import BadInput

PI = BoardPython((3, 11), "aarch64", (2, 36), "Linux", {})
PI_32 = replace(PI, machine="armv7l", modules={"numpy": "1.24.2"})
ARM = "numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl"


def facts(**changes) -> Facts:
    return replace(Facts((3, 11), 64, "aarch64", "2.36", "Linux", {}), **changes)


@pytest.mark.parametrize(
    ("told", "machine", "glibc"),
    [
        ({}, "aarch64", (2, 36)),
        ({"bits": 32}, "armv7l", (2, 36)),
        ({"bits": 32, "machine": "armv8l"}, "armv7l", (2, 36)),
        ({"bits": 32, "machine": "armv6l"}, "armv6l", (2, 36)),
        ({"libc": ""}, "aarch64", None),
        ({"libc": "2.31.9000"}, "aarch64", (2, 31)),
        ({"libc": "x.y"}, "aarch64", None),
    ],
)
def test_a_board_s_python(told, machine, glibc):
    """A 32-bit Python on a 64-bit kernel is the Raspberry Pi OS of many a board."""
    board = BoardPython.of(facts(**told))
    assert (board.version, board.machine, board.glibc) == ((3, 11), machine, glibc)


@pytest.mark.parametrize(
    ("board", "formats", "wanted"),
    [
        (PI, ["onnx"], ("numpy>=1.23.2", "onnxruntime")),
        (PI, ["onnx", "tflite"], ("ai-edge-litert", "numpy>=1.23.2", "onnxruntime")),
        (replace(PI, modules={"numpy": "1.24.2", "onnxruntime": None}), ["onnx"], ("onnxruntime",)),
        (replace(PI, modules={"numpy": "1.19.5"}), ["tflite"], ("ai-edge-litert", "numpy>=1.23.2")),
        (replace(PI, modules={"numpy": "unknown"}), ["tflite"], ("ai-edge-litert", "numpy>=1.23.2")),
        (replace(PI, modules={"numpy": "2.0", "onnxruntime": "1.20"}), ["onnx"], ()),
        (replace(PI, system="Darwin", modules={"numpy": "2.0", "onnxruntime": "1.20"}), ["onnx"], ()),
        (PI_32, ["tflite"], ("tflite-runtime==2.14.0",)),
        (replace(PI_32, modules={"numpy": "1.24.2", "tflite_runtime": "2.14.0"}), ["tflite"], ()),
    ],
)
def test_what_a_board_lacks(board, formats, wanted):
    assert wheels.needed(board, formats) == wanted


PYTHON = r"Python 3\.11, Linux"


@pytest.mark.parametrize(
    ("board", "formats", "message"),
    [
        (PI_32, ["onnx", "tflite"], rf"no runtime for onnx on a board with {PYTHON} armv7l, glibc 2\.36; give tflite"),
        (replace(PI_32, modules={}), ["tflite"], "it has no numpy, and there is no wheel .*; install numpy below 2"),
        (replace(PI_32, modules={"numpy": "2.1.0"}), ["tflite"], r"it has numpy 2\.1\.0, and there is no wheel"),
        (replace(PI, glibc=None), ["onnx"], rf"no wheels are known for {PYTHON} aarch64, no glibc; install numpy>=1"),
        (
            replace(PI, machine="armv6l"),
            ["tflite"],
            r"no wheels are known for .* armv6l, .*; install ai-edge-litert, n",
        ),
        (replace(PI, system="Darwin"), ["onnx"], r"no wheels are known for Python 3\.11, Darwin aarch64"),
        (PI, ["coreml"], "no runtime for coreml on a board with .*; give onnx or tflite artifacts"),
    ],
)
def test_a_board_that_no_wheel_helps(board, formats, message):
    with pytest.raises(BadInput, match=message):
        wheels.needed(board, formats)


@pytest.mark.parametrize(
    ("names", "best"),
    [
        ([ARM, "numpy-2.3.0-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl"], ARM),
        (
            ["numpy-2.10.0-cp311-cp311-manylinux_2_28_aarch64.whl", ARM],
            "numpy-2.10.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        ),
        (["numpy-9-cp311-cp311-manylinux_2_28_x86_64.whl", "numpy-9-cp312-cp312-manylinux_2_28_aarch64.whl"], None),
        (["numpy-9-cp311-cp311-manylinux_2_39_aarch64.whl", "numpy-1.20-py3-none-any.whl"], None),
        (["onnxruntime-9-py3-none-any.whl", "no wheel.whl", "numpy-2.tar.gz"], None),
        (["numpy-2.0-py3-none-any.whl"], "numpy-2.0-py3-none-any.whl"),
        (["numpy-3.0rc1-py3-none-any.whl"], None),
    ],
)
def test_the_newest_wheel_that_fits(names, best, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    found = wheels.best(tmp_path, Requirement(wheels.NUMPY), PI)
    assert (found and found.name) == best


def test_names_with_dashes_are_those_with_underscores(tmp_path):
    wheel = tmp_path / "ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_aarch64.whl"
    wheel.touch()
    assert wheels.find(["ai-edge-litert"], PI, folder=tmp_path) == (wheel,)


def test_a_folder_that_lacks_a_wheel(tmp_path):
    """The words that the remedy names are pip's own."""
    with pytest.raises(BadInput) as error:
        wheels.find([wheels.NUMPY], PI, folder=tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path}: no wheel of numpy>=1.23.2 for Python 3.11, Linux aarch64, glibc 2.36; get one: pip download "
        "--only-binary=:all: --no-deps --implementation cp --abi cp311 --python-version 3.11 --platform "
    )
    assert f"--dest {tmp_path} 'numpy>=1.23.2'" in str(error.value)


class Pip:
    """In place of subprocess.run: what pip was asked for, and a wheel in the folder that it was given."""

    def __init__(self, wheel: str | None) -> None:
        self.wheel, self.words = wheel, []

    def __call__(self, words, **options):
        self.words.append(words)
        if self.wheel:
            (Path(words[words.index("--dest") + 1]) / self.wheel).write_bytes(b"a wheel")
        return subprocess.CompletedProcess(words, 0, "", "WARNING: chatter\n")


def test_what_the_cache_lacks_is_downloaded_once(tmp_path, monkeypatch):
    pip, notices = Pip(ARM), []
    monkeypatch.setattr(subprocess, "run", pip)
    cache = tmp_path / "cache"
    for _ in range(2):
        assert wheels.find([wheels.NUMPY], PI, cache=cache, on_notice=notices.append) == (cache / ARM,)
    assert len(pip.words) == 1 and pip.words[0][:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert pip.words[0][-1] == wheels.NUMPY and "manylinux_2_36_aarch64" in pip.words[0]
    assert "manylinux_2_37_aarch64" not in pip.words[0]
    assert notices == ["downloading numpy>=1.23.2 for Python 3.11, Linux aarch64, glibc 2.36"]
    assert [path.name for path in cache.iterdir()] == [ARM], "nothing half, nothing left"


def test_what_pip_does_not_get(tmp_path, monkeypatch):
    """pip itself, without an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(BadInput) as error:
        wheels.find(["onnxruntime"], PI, cache=tmp_path)
    assert str(error.value).startswith(f"pip finds no wheel of onnxruntime for {PI.name}: No matching distribution")
    assert str(error.value).endswith("; give a folder that has one with --wheels")
    assert list(tmp_path.iterdir()) == []


def test_a_pip_that_gives_no_answer(tmp_path, monkeypatch):
    def hang(words, timeout, **options):
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(
        BadInput, match=r"pip finds no wheel of onnxruntime for .*: no answer within 900 s; give a folder"
    ):
        wheels.find(["onnxruntime"], PI, cache=tmp_path)


def test_the_cache_is_where_xdg_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert wheels.cache_folder() == Path("/somewhere/pocketship/wheels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert wheels.cache_folder() == Path.home() / ".cache/pocketship/wheels"
