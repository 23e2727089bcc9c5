"""Fuzzers of what reads files of others: `python tests/fuzz/readers.py NAME --seconds 300`, or `make fuzz` for all.

An input is one byte, which says what the rest is (see each reader), and the rest. Whatever a reader raises but a
`PocketshipError` is a crash, as are 5 s or 1 GB for one input. Coverage guides where atheris is installed; else chance
changes the corpus, which is kept in tests/fuzz/corpus/NAME: seeds, and every input that crashed once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
try:
    import atheris
except ImportError:
    atheris = None

with (
    atheris.instrument_imports(["runtimes", "exporter", "benchmarks", "yaml"]) if atheris else contextlib.nullcontext()
):
    from benchmarks.results.result import read_results
    from exporter.compression.recipe import read_recipe
    from exporter.delivery import packing, sealing, update_file
    from exporter.sources.pt2_sizes import is_size
    from runtimes.bundle import read_manifest
    from runtimes.errors import PocketshipError
    from runtimes.golden import read_golden
    from runtimes.processing.preprocessor import parse_preprocessor

MOST_SECONDS, MOST_BYTES = 5.0, 1 << 30
LONGEST = 1 << 16


def manifest(kind: int, data: bytes, place: Path) -> None:
    """The bytes of manifest.json."""
    (place / "manifest.json").write_bytes(data)
    read_manifest(place)


def golden(kind: int, data: bytes, place: Path) -> None:
    """0: the file; else: the one array in it."""
    path = place / "golden.npz"
    if kind:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("0/input/x.npy", data)
            archive.writestr("0/output/y.npy", data)
    else:
        path.write_bytes(data)
    read_golden(path)


def update(kind: int, data: bytes, place: Path) -> None:
    """0: the file without the hash at its end; else: its header."""
    if kind:
        data = update_file.MAGIC + len(data).to_bytes(8, "little") + data + b"data"
    update_file.read(io.BytesIO(data + hashlib.sha256(data).digest()), "update")


def pack(kind: int, data: bytes, place: Path) -> None:
    """0: the file; else: the archive in it."""
    path = place / "bundle.pocketship"
    path.write_bytes(b"".join(sealing.seal(io.BytesIO(data), len(data), kind="bundle")) if kind else data)
    packing.unpack(path, place / "bundle", force=True)


def recipe(kind: int, data: bytes, place: Path) -> None:
    """The bytes of a recipe's file."""
    (place / "recipe.yaml").write_bytes(data)
    read_recipe(place / "recipe.yaml")


def results(kind: int, data: bytes, place: Path) -> None:
    """The bytes of a file of results."""
    (place / "results.json").write_bytes(data)
    read_results(place / "results.json")


def preprocessor(kind: int, data: bytes, place: Path) -> None:
    """The bytes of preprocessor.json."""
    parse_preprocessor(data)


PT2_ENTRIES = ("models/model.json", "data/weights/model_weights_config.json", "data/sample_inputs/model.pt")


def pt2(kind: int, data: bytes, place: Path) -> None:
    """0: the file; 1 to 3: the entry of PT2_ENTRIES; else: the text of a size."""
    from exporter.sources.pt2 import damage
    from exporter.sources.pt2_archive import faults

    path = place / "program.pt2"
    if kind > len(PT2_ENTRIES):
        is_size(data.decode("utf-8", "replace"))
        return
    if kind:
        with (
            zipfile.ZipFile(io.BytesIO((CORPUS / "pt2" / "seed-file").read_bytes()[1:])) as good,
            zipfile.ZipFile(path, "w") as changed,
        ):
            for entry in good.infolist():
                name = entry.filename.split("/", 1)[1]
                content = data if name == PT2_ENTRIES[kind - 1] else good.read(entry)
                changed.writestr(zipfile.ZipInfo(entry.filename), content)
    else:
        path.write_bytes(data)
    with damage(path):
        next(faults(path), "")


READERS: dict[str, Callable[[int, bytes, Path], None]] = {
    "manifest": manifest,
    "golden": golden,
    "update": update,
    "pack": pack,
    "preprocessor": preprocessor,
    "pt2": pt2,
    "recipe": recipe,
    "results": results,
}
MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def place_for_files() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def read(name: str, data: bytes, place: Path) -> str:
    """Read one input; what was said against it, "" for nothing. Any exception that comes out of it is a crash."""
    try:
        READERS[name](data[0] if data else 0, data[1:], place)
    except PocketshipError as refusal:
        assert refusal.exit_code > 1, f"exit code 1 over a file: {refusal}"
        assert len(str(refusal).splitlines()) == 1 and len(str(refusal)) < 2000, "no line"
        return str(refusal)
    return ""


def corpus_of(name: str) -> list[Path]:
    """The inputs that are kept."""
    return sorted((CORPUS / name).iterdir())


def fuzz_by_chance(name: str, seconds: float, place: Path) -> None:
    """Change inputs of the corpus at random until the time is up, or one crashes: it is kept, and this says so."""
    numbers, seeds = random.Random(name), [path.read_bytes() for path in corpus_of(name)]
    ends, runs, most = time.monotonic() + seconds, 0, _peak_bytes() + MOST_BYTES
    while time.monotonic() < ends:
        data = _changed(numbers, seeds)
        started = time.monotonic()
        try:
            read(name, data, place)
            took = time.monotonic() - started
            assert took < MOST_SECONDS, f"{took:.1f} s for one input"
            assert _peak_bytes() < most, f"{MOST_BYTES:,} bytes of memory and more"
        except BaseException:
            kept = CORPUS / name / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
            kept.write_bytes(data)
            print(f"{name}: crashed over {kept}", file=sys.stderr)
            raise
        runs += 1
    print(f"{name}: {runs:,} inputs in {seconds:g} s, no crash")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _changed(numbers: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(numbers.choice(seeds))
    for _ in range(1 << numbers.randrange(6)):
        at = numbers.randrange(len(data) + 1)
        kind = numbers.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([numbers.randrange(256)])
        elif kind == 1:
            del data[at : at + numbers.randrange(1, 32)]
        elif kind == 2:
            other = numbers.choice(seeds)
            start = numbers.randrange(len(other) + 1)
            data[at:at] = other[start : start + numbers.randrange(64)]
        elif kind == 3:
            data[at:at] = numbers.choice(WORDS)
        else:
            data[at : at + numbers.randrange(1, 12)] = numbers.choice(WORDS)
    return bytes(data[:LONGEST])


WORDS = tuple(
    word.encode()
    for word in (
        "9" * 400,
        "1e999",
        "-1",
        "null",
        "[" * 99,
        "{}",
        '"',
        "\\ud800",
        "../",
        "NaN",
        "&a",
        "*a",
        "!!",
        "{",
        "]",
    )
)


def fuzz_by_coverage(name: str, seconds: float, place: Path) -> None:
    """The same with atheris, which ends the process; what crashes it is kept."""
    found = place / "found"
    found.mkdir()

    def once(data: bytes) -> None:
        read(name, data, place)

    flags = [f"-max_total_time={seconds:g}", f"-timeout={MOST_SECONDS:g}", "-rss_limit_mb=1500", f"-max_len={LONGEST}"]
    atheris.Setup(
        [name, *flags, f"-artifact_prefix={CORPUS / name}/", "-print_final_stats=1", str(found), str(CORPUS / name)],
        once,
    )
    atheris.Fuzz()


def main() -> None:
    """Fuzz one reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=READERS)
    parser.add_argument("--seconds", type=float, default=300.0)
    words = parser.parse_args()
    with place_for_files() as place:
        for path in corpus_of(words.name):  # what is imported by the first input is not timed
            read(words.name, path.read_bytes(), place)
        (fuzz_by_coverage if atheris else fuzz_by_chance)(words.name, words.seconds, place)


if __name__ == "__main__":
    main()
