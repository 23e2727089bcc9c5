"""The ledger's rows: sizes read from the file, a latency beside the original's."""

from __future__ import annotations

import dataclasses

from benchmarks.measure import OFF_DEVICE, NotTimed, Timed
from benchmarks.results.result import Block, Samples
from exporter.ledger.rows import latency_of, ledger_row, speed_said
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


def test_a_stage_that_is_slower_than_the_original_is_said_so_and_a_busy_machine_too():
    slow = Latency(2.0, 1.24, 0.62, 0.60, 0.64, 1, load=3.4, cores=2)
    busy = "the machine was busy (load 3.4 on 2 cores), measure again when it is idle"
    assert speed_said(slow) == f"0.62x (0.60 to 0.64): slower than the original here; {busy}"
    assert speed_said(dataclasses.replace(slow, load=2.0)) == "0.62x (0.60 to 0.64): slower than the original here"
    assert speed_said(Latency(1.0, 1.5, 1.5, 1.4, 1.6, 1)) == "1.50x (1.40 to 1.60)"
    assert speed_said(Latency(1.0, 1.0, 0.99, 0.9, 1.1, 1)) == "no difference shown (0.90 to 1.10)"


def test_the_load_while_it_was_measured_is_kept():
    base = samples(*[3_000_000] * 5)
    found = latency_of(base, dataclasses.replace(base, load=3.4, cores=2))
    assert isinstance(found, Latency) and (found.load, found.cores) == (3.4, 2)


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
