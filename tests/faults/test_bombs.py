"""Small files that would become gigabytes or minutes: each is refused in seconds, in less than 1 GB of memory.

The readers run in a process of their own, which tells its peak; it may take 2 GB at most, so that a test that fails
does not take the machine with it.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from runtimes.golden import Golden, write_golden

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES, MOST_SECONDS = 1 << 30, 5.0
READ = """
import importlib, json, pathlib, resource, sys, time
sys.path.insert(0, sys.argv[1])
from benchmarks.agent.machine import resident_bytes  # rusage would count what this process was forked from
resource.setrlimit(resource.RLIMIT_DATA, (1 << 31, 1 << 31))
module, name = sys.argv[2].split(":")
read = getattr(importlib.import_module(module), name)
from runtimes.errors import BadInput
said, worst = [], 0.0
for path in sys.argv[3:]:
    started = time.process_time()
    try:
        read(pathlib.Path(path))
        said.append("")
    except BadInput as refusal:
        said.append(str(refusal))
    worst = max(worst, time.process_time() - started)
print(json.dumps({"said": said, "seconds": worst, "bytes": resident_bytes()[1]}))
"""


def refusals(function: str, *paths: Path) -> list[str]:
    """What a reader says of each file, once it is known that none took more than it may."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(ROOT), function, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["seconds"] < MOST_SECONDS and told["bytes"] < MOST_BYTES, told
    assert all("\n" not in line and "; " in line and len(line) < 600 + len(str(paths[0])) for line in told["said"]), (
        told
    )
    return told["said"]


def zeros(length: int, begin: bytes = b"") -> bytes:
    """Zeros, deflated by a thousand: one piece of 16 MB is made, and repeated."""
    piece = 1 << 24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    many = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    count, rest = divmod(length, piece)
    return first + many * count + packer.compress(bytes(rest)) + packer.flush()


def archive(path: Path, name: str, content: bytes, declared: int, *, times: int = 1) -> Path:
    """A zip with one deflated entry that says it has `declared` bytes; its directory names it `times` times."""
    title = name.encode()
    sizes = struct.pack("<3I", 0, len(content), declared)
    local = struct.pack("<I5H", 0x04034B50, 20, 0, 8, 0, 0) + sizes + struct.pack("<2H", len(title), 0) + title
    row = struct.pack("<I6H", 0x02014B50, 20, 20, 0, 8, 0, 0) + sizes
    row += struct.pack("<5H2I", len(title), 0, 0, 0, 0, 0, 0) + title
    shown, start = min(times, 0xFFFF), len(local) + len(content)
    end = struct.pack("<I4H2IH", 0x06054B50, 0, 0, shown, shown, len(row) * times, start, 0)
    path.write_bytes(local + content + row * times + end)
    return path


def header_of(shape: str) -> bytes:
    """The beginning of an array's file."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_golden_values(tmp_path):
    """Four megabytes that unpack to 3.9 GB, the same within an honest size, and a directory of a million entries."""
    declared = 3_900_000_000
    head = header_of(f"({(declared - 128) // 4},)")
    assert len(head) == 128
    bomb = archive(tmp_path / "bomb.npz", "0/input/x.npy", zeros(declared - 128, head), declared)
    archive(tmp_path / "lying.npz", "0/input/x.npy", zeros(declared - 128, head), 1 << 20)
    archive(tmp_path / "many.npz", "0/input/x.npy", b"", 0, times=1_000_000)
    write_golden(Golden(({"x": np.zeros(3)},), ({"y": np.zeros(3)},)), tmp_path / "good.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with open(tmp_path / "sparse.npz", "wb") as file:
        file.truncate(1 << 40)
    assert bomb.stat().st_size < 5_000_000
    names = ("bomb", "lying", "many", "pipe", "sparse")
    said = refusals("runtimes.golden:read_golden", *(tmp_path / f"{name}.npz" for name in names))
    parts = (
        "it unpacks to more than",
        "has an axis of 974999968",
        "more entries than",
        "not a regular",
        "1,099,5",
    )
    for line, part in zip(said, parts, strict=True):
        assert part in line and line.endswith("; export the bundle again")


def test_documents(tmp_path):
    """Manifests, results, preprocessors and recipes; each of the files is one of them no more than of the others."""
    files = {
        "deep": b"[" * (1 << 23),
        "objects": b"{}," * (1 << 22),
        "lists": b'{"schema_version": 1, "results": [' + b"[]," * 900_000 + b"[]]}",
        "digits": b'{"schema_version": ' + b"9" * 400 + b"}",
        "infinite": b'{"schema_version": 1e999}',
        "number": b"9" * (1 << 23),
        "aliases": b"a: &a [0]\npasses:"
        + b"".join(b"\n- &b%d [%s]" % (i, b", ".join([b"*b%d" % (i - 1) if i else b"*a"] * 9)) for i in range(40)),
    }
    for name, content in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_bytes(content)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "manifest.json")
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "manifest.json").symlink_to("/dev/zero")
    folders = [tmp_path / name for name in (*files, "pipe", "device")]
    paths = [folder / "manifest.json" for folder in folders]
    assert all(refusals("runtimes.bundle:read_manifest", *folders))
    assert all(refusals("benchmarks.results.result:read_results", *paths))
    assert all(refusals("runtimes.processing.preprocessor:read_preprocessor", *paths))
    assert all(refusals("exporter.compression.recipe:read_recipe", *paths))


def test_a_tflite_file_whose_tables_lie_in_each_other(tmp_path):
    """A million subgraphs that are one, with a million tensors that are one; and as many operators, each its own."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)

    def many(offset: int, count: int) -> int:
        builder.StartVector(4, count, 4)
        for _ in range(count):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def table(fields: int, **filled: int) -> int:
        builder.StartObject(fields)
        for slot, offset in filled.items():
            builder.PrependUOffsetTRelativeSlot(int(slot[1:]), offset, 0)
        return builder.EndObject()

    count = 200_000
    tensors = many(table(10), count)
    graphs = many(table(6, f0=tensors), count)
    builder.Finish(table(10, f2=graphs), file_identifier=b"TFL3")
    (tmp_path / "nested.tflite").write_bytes(bytes(builder.Output()))
    (said,) = refusals("tests.faults.test_bombs:read_contents", tmp_path / "nested.tflite")
    assert said.endswith("more than 131,072 operators, tensors and the like); export the model again")


def test_an_onnx_file_of_a_million_empty_operators(tmp_path):
    nodes = b"\x0a\x00" * 2_500_000
    (tmp_path / "many.onnx").write_bytes(b"\x3a" + _varint(len(nodes)) + nodes)
    (said,) = refusals("tests.faults.test_bombs:read_contents", tmp_path / "many.onnx")
    assert said.endswith("more than 524,288 fields of operators, tensors and the like); export the model again")


def read_contents(path: Path) -> None:
    """What the child of `inspect` does."""
    from exporter.inspection.report import read

    read({"path": str(path)}, print)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


@pytest.fixture
def bomb(tmp_path):
    """Make a .pt2 of the good one with entries changed and added."""
    from tests.faults.test_bad_input import rewrite, save_program

    save_program(tmp_path / "good.pt2")

    def make(name: str, changed: dict, added: dict | None = None) -> Path:
        rewrite(tmp_path / "good.pt2", tmp_path / f"{name}.pt2", changed, added or {})
        return tmp_path / f"{name}.pt2"

    return make


@pytest.mark.slow  # torch is imported in the process that is measured
def test_exported_programs(bomb, tmp_path):
    """A packed entry, weights without bytes, example inputs that take memory when they are read, JSON without end."""
    import io

    import torch

    from tests.faults.test_bad_input import MODEL, SIZE, WEIGHTS, edited, replaced

    def no_bytes(config: dict) -> None:
        config["config"]["layer.weight"]["tensor_meta"]["sizes"] = [{"as_int": 10**10}]

    def expanded() -> bytes:
        stream = io.BytesIO()
        torch.save(((torch.zeros(1).expand(10**11),), {}), stream)
        return stream.getvalue()

    def pickled(program: bytes) -> bytes:
        stream = io.BytesIO()
        torch.save(((torch.zeros(1),), {}), stream)
        stream.seek(0)
        (tmp_path / "inner.zip").write_bytes(stream.getvalue())
        rewritten = tmp_path / "changed.zip"
        from tests.faults.test_bad_input import rewrite

        rewrite(tmp_path / "inner.zip", rewritten, {"data.pkl": lambda content: program}, {})
        return rewritten.read_bytes()

    inputs = "data/sample_inputs/model.pt"
    array = b"\x80\x02cbuiltins\nbytearray\nJ\x00\xca\x9a\x3b\x85R."  # bytearray(1_000_000_000)
    cases = {
        "weight": (
            bomb("weight", {WEIGHTS: edited(no_bytes), "data/weights/weight_0": lambda b: b""}),
            "elements in 0 bytes",
        ),
        "expanded": (bomb("expanded", {inputs: lambda b: expanded()}), "its example inputs have 4e+11 bytes"),
        "array": (bomb("array", {inputs: lambda b: pickled(array)}), "its example inputs are a pickle with code"),
        "deep": (bomb("deep", {MODEL: lambda b: b"[" * (1 << 20)}), "nested more than 64 deep"),
        "objects": (bomb("objects", {MODEL: lambda b: b"{}," * (1 << 22)}), "lists and objects"),
        "power": (bomb("power", {MODEL: replaced(SIZE, "9**9**9**9")}), "size '9**9**9**9' is code"),
        "call": (bomb("call", {MODEL: replaced(SIZE, "Matrix(1,1,breakpoint)")}), "is code"),
        "shift": (bomb("shift", {MODEL: replaced(SIZE, "LShift(Integer(1), Integer(999999999999))")}), "is code"),
    }
    packed = archive(tmp_path / "packed.pt2", "archive/extra/x", zeros(3_900_000_000), 3_900_000_000)
    said = refusals("exporter.sources.pt2:read_program", *(path for path, _ in cases.values()), packed)
    for line, part in zip(
        said, (*(part for _, part in cases.values()), "not an exported program, or damaged"), strict=True
    ):
        assert part in line
