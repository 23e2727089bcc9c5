"""The ledger's rows: sizes read from the file, a latency beside the original's."""

from __future__ import annotations

import dataclasses

from benchmarks.measure import OFF_DEVICE, NotTimed, Timed
from benchmarks.results.result import Block, Samples
from exporter.ledger.rows import latency_of, ledger_row
from runtimes.records import from_json
from runtimes.types import Accuracy, Latency, LedgerRow


def samples(*block_medians: int) -> Timed:
    blocks = tuple(Block(0, i, 2, (m, m)) for i, m in enumerate(block_medians))
    return Timed("m.onnx", 1, Samples(None, None, None, None, False, (), True, blocks))


def test_a_latency_is_compared_with_the_original_s():
    base, fast = samples(*[3_000_000] * 5), samples(*[2_000_000] * 5)
    assert latency_of(base, fast) == Latency(2.0, 3.0, 1.5, 1.5, 1.5, 1)
    untimed = NotTimed("m.mlpackage", OFF_DEVICE)
    assert latency_of(base, untimed) is untimed and latency_of(untimed, fast) is untimed


def test_a_row_reads_its_sizes_from_the_file_and_survives_json(lower_here):
    import torch

    path = lower_here(torch.nn.Linear(64, 32), torch.randn(1, 64), "onnx").path
    accuracy, latency = Accuracy("accuracy", 0.9, 0.8, 1.0, 10, {"loss": 1.0}), Latency(1.0, 1.0, 1.0, 0.9, 1.1)
    found = ledger_row(1, "int8", "onnx", 2080, 2000, path, accuracy, latency)
    assert found.size_bytes == path.stat().st_size == sum(found.waterfall.values())
    assert found.waterfall["linear float32"] == 4 * 64 * 32
    assert found.gzip_bytes < found.size_bytes and found.sparse_bytes == found.size_bytes
    assert from_json(LedgerRow, dataclasses.asdict(found)) == found
    untimed = ledger_row(0, "original", "onnx", 2080, 2080, path, None, NotTimed(str(path), OFF_DEVICE))
    assert untimed.latency is None and untimed.not_timed == OFF_DEVICE
    assert from_json(LedgerRow, dataclasses.asdict(untimed)) == untimed
