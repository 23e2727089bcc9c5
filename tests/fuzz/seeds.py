"""Writes the seeds of the fuzzers' corpus: one good file a kind, as small as it gets. `python -m tests.fuzz.seeds`."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from exporter.delivery import sealing, update_file
from runtimes.golden import Golden, write_golden
from runtimes.processing import preprocessor
from tests.fuzz.readers import CORPUS, PT2_ENTRIES, place_for_files

RECIPES = (
    b"passes:\n  - prune-structured: {flops: 0.5}\n  - distill: {epochs: 10}\n  - quantize: {bits: 8}\n",
    b"passes: [{low-rank: {ratio: 3}}, {prune: {sparsity: 0.8, pattern: unstructured, layers_out: [head]}}]\n",
    b"passes: [{ternary: {layer_bits: {head: 8}}}]",
)
SIZES = (b"Max(Integer(5), Symbol('s77', positive=True, integer=True))", b"9**9**9**9", b"Matrix(1,1,breakpoint)")


def write(name: str, seed: str, kind: int, data: bytes) -> None:
    """Keep an input."""
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    (CORPUS / name / f"seed-{seed}").write_bytes(bytes([kind]) + data)


def main() -> None:
    """Write all of them."""
    import torch

    from benchmarks.console import plain
    from benchmarks.results.result import results_to_json
    from tests.benchmarks.synthetic import result
    from tests.runtimes.processing.test_preprocessor import EVERYTHING
    from tests.runtimes.test_bundle import MANIFEST

    text = json.dumps(asdict(MANIFEST)).encode()
    write("manifest", "manifest", 0, text)
    write("preprocessor", "preprocessor", 0, preprocessor.to_bytes(EVERYTHING))
    write("results", "results", 0, json.dumps(plain(results_to_json([result()]))).encode())
    for i, recipe in enumerate(RECIPES):
        write("recipe", f"recipe-{i}", 0, recipe)
    with place_for_files() as place:
        write_golden(Golden(({"x": np.zeros((2, 3), "float32")},), ({"y": np.arange(4)},)), place / "golden.npz")
        write("golden", "file", 0, (place / "golden.npz").read_bytes())
    array = io.BytesIO()
    np.save(array, np.zeros((2, 3), "float32"))
    write("golden", "array", 1, array.getvalue())
    part = update_file.Part("manifest.json", "patch", 9, "0" * 64, "manifest.json", 0, 4)
    header = update_file.Header("mlp", "0" * 64, "1" * 64, 0, 1, (part,))
    write("update", "file", 0, update_file.write(header, b"data")[:-32])
    write("update", "header", 1, json.dumps(asdict(header)).encode())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as stream:
        entry = tarfile.TarInfo("manifest.json")
        entry.size, entry.mode = len(text), 0o644
        stream.addfile(entry, io.BytesIO(text))
    packed = archive.getvalue().rstrip(b"\0")
    packed += bytes(-len(packed) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
    write("pack", "archive", 1, packed)
    write("pack", "file", 0, b"".join(sealing.seal(io.BytesIO(packed), len(packed), kind="bundle")))

    program = torch.export.export(
        torch.nn.Linear(2, 2).eval(), (torch.ones(2, 2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of whoever ran this
    saved = io.BytesIO()
    torch.export.save(program, saved)
    write("pt2", "file", 0, saved.getvalue())
    reader = torch._C.PyTorchFileReader(io.BytesIO(saved.getvalue()))
    for i, name in enumerate(PT2_ENTRIES, 1):
        write("pt2", Path(name).name, i, reader.get_record(name))
    for i, size in enumerate(SIZES):
        write("pt2", f"size-{i}", len(PT2_ENTRIES) + 1, size)


if __name__ == "__main__":
    main()
