"""`golden.npz`: inputs of a model and the outputs PyTorch computed for them, so that any machine can test itself."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Dict, List, Mapping, Tuple

import numpy as np

from runtimes.errors import BadInput
from runtimes.files import open_regular

Tensors = Dict[str, np.ndarray]
Noise = Mapping[str, Mapping[int, np.ndarray]]

MOST_BYTES = 1 << 29
"""Of the file, and of all its tensors: samples of a model's inputs and outputs are small."""
MOST_TENSORS = 1 << 14
LONGEST_DIRECTORY = 1 << 22
"""Bytes of the zip's directory, of which Python makes twenty times as many."""
END = struct.Struct("<4s4H2IH")
END_64_BYTES = 20
"""How a zip ends: its directory's counts, size and place; a zip of more than 4 GB has another record before that."""
KEY = re.compile(r"(0|[1-9][0-9]{0,5})/(input|output|noise)/(.+)\.npy", re.DOTALL)


@dataclass(frozen=True)
class Golden:
    """`inputs[i]` gives `outputs[i]`; every sample holds the same names.

    `noise` is what rounding alone may change: format -> output -> axis -> one number for each index along that axis.
    """

    inputs: Tuple[Tensors, ...]
    outputs: Tuple[Tensors, ...]
    noise: Mapping[str, Noise] = field(default_factory=dict)


def write_golden(golden: Golden, path: Path) -> None:
    """Write the samples as arrays named `<sample>/input/<name>` and `<sample>/output/<name>`.

    The noise lies with the first sample, as `0/noise/<format>/<axis>/<output>`. Raises BadInput for more than may be
    read again.
    """
    arrays = {}
    for i, (inputs, outputs) in enumerate(zip(golden.inputs, golden.outputs)):
        arrays.update({f"{i}/input/{name}": value for name, value in inputs.items()})
        arrays.update({f"{i}/output/{name}": value for name, value in outputs.items()})
    for kind, noise in golden.noise.items():
        for name, rows in noise.items():
            arrays.update({f"0/noise/{kind}/{axis}/{name}": value for axis, value in rows.items()})
    total = sum(value.nbytes for value in arrays.values())
    if total > MOST_BYTES or len(arrays) > MOST_TENSORS:
        raise BadInput(
            f"the golden values are {len(arrays):,} tensors of {total:,} bytes, and {MOST_TENSORS:,} of {MOST_BYTES:,} "
            "are the most",
            remedy="export it with inputs of smaller shapes",
        )
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub reads ** as its bool


def read_golden(path: Path) -> Golden:
    """Read what `write_golden` wrote; nothing is ever unpickled, and nothing unpacked before its size is known.

    Raises BadInput for a file that is missing, damaged, or holds anything else.
    """
    samples: Dict[int, Dict[str, Tensors]] = {}
    noise: Dict[str, Dict[str, Dict[int, np.ndarray]]] = {}
    try:
        with open_regular(path, MOST_BYTES) as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                for entry in _checked(archive):
                    sample, role, name = _parts(entry)
                    with archive.open(entry) as stream:
                        value = np.lib.format.read_array(stream, allow_pickle=False)
                    if role == "noise":
                        kind, axis, name = name.split("/", 2)
                        noise.setdefault(kind, {}).setdefault(name, {})[int(axis)] = _checked_noise(
                            entry.filename, value
                        )
                    else:
                        samples.setdefault(sample, {"input": {}, "output": {}})[role][name] = value
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise a dozen kinds for damaged bytes
        raise BadInput(
            f"cannot read the golden values ({error!s:.200})", where=str(path), remedy="export the bundle again"
        ) from error
    names = {tuple(frozenset(sample[role]) for role in ("input", "output")) for sample in samples.values()}
    if len(names) != 1 or sorted(samples) != list(range(len(samples))):
        raise BadInput("the golden values are incomplete", where=str(path), remedy="export the bundle again")
    ordered = [samples[i] for i in range(len(samples))]
    return Golden(tuple(s["input"] for s in ordered), tuple(s["output"] for s in ordered), noise)


def _checked_noise(entry: str, value: np.ndarray) -> np.ndarray:
    if value.ndim != 1 or value.dtype.kind != "f" or not np.all(value >= 0.0):
        raise ValueError(f"{entry!r:.60} is no noise")
    return value


def _check_directory(file: IO[bytes]) -> None:
    """Raise ValueError where the zip's directory is longer than any of ours: zipfile makes an object of each entry."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END.size - END_64_BYTES))
    tail = file.read()
    end = END.unpack(tail[-END.size :]) if len(tail) >= END.size else (b"",)
    if end[0] != b"PK\5\6" or end[7]:
        raise ValueError("not a zip, or cut off")
    if tail[:4] == b"PK\6\7" or end[4] > MOST_TENSORS or end[5] > LONGEST_DIRECTORY:
        raise ValueError("it has more entries than golden values have")


def _checked(archive: zipfile.ZipFile) -> List[zipfile.ZipInfo]:
    """The entries, once all are known to be tensors of plain numbers of a bounded size; raises ValueError."""
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("two entries have the same name")
    if len(entries) > MOST_TENSORS or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_TENSORS:,} tensors or {MOST_BYTES:,} bytes")
    for entry in entries:
        _parts(entry)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{entry.filename!r:.60} is packed in another way than ours")
        with archive.open(entry) as stream:
            _check_header(stream, entry)
    return entries


def _parts(entry: zipfile.ZipInfo) -> Tuple[int, str, str]:
    """Sample, role and name of an entry; raises ValueError."""
    found = KEY.fullmatch(entry.filename)
    if not found:
        raise ValueError(f"{entry.filename!r:.60} is no tensor of a sample")
    return int(found[1]), found[2], found[3]


def _check_header(stream: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Raise ValueError where an array's header says another size than the entry has, or anything but plain numbers."""
    if np.lib.format.read_magic(stream) != (1, 0):  # whose header has at most 64 KB
        raise ValueError(f"{entry.filename!r:.60} is of another version of numpy's format")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # over headers of Python 2, which are none of ours
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"{entry.filename!r:.60} is {dtype}, and only plain numbers are read".replace("\n", " "))
    count = 1
    for length in shape:
        if not 0 <= length <= MOST_BYTES:
            raise ValueError(f"{entry.filename!r:.60} has an axis of {length!s:.20}")
        count *= length
    if stream.tell() + count * dtype.itemsize != entry.file_size:
        raise ValueError(f"{entry.filename!r:.60} has another size than its shape")
