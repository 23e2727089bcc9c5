"""Tables at every width of a terminal: nothing is left out, no line is too long, and no number is ever cut."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from benchmarks import tables
from benchmarks.commands.accuracy import _print_evaluations, tasks_command
from benchmarks.commands.bench_screen import judgement, print_results
from benchmarks.evaluate import Evaluation
from benchmarks.report.comparison import print_comparisons
from benchmarks.report.screen import print_summaries
from benchmarks.results.compare import compare
from benchmarks.results.result import Failure
from benchmarks.tables import Cell, Table, lines_of, table_of
from exporter.commands.layers import Layer
from exporter.commands.models import zoo
from exporter.commands.screen import print_bundle, print_checks, print_layers, print_report
from exporter.formats.contents import StoredTensor
from exporter.inspection.report import Report
from runtimes.signature import ExecutedBy, Signature, TensorSpec
from runtimes.types import Accuracy, Artifact, Latency, LedgerRow, Manifest, Origin, Parity
from runtimes.verify import Check
from tests.benchmarks import synthetic

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = range(60, 201)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)*(?:e[+-]\d+)?(?:x|%)?(?![\w.])")
BY = ExecutedBy("onnxruntime", "1.32.0", "physical")
PROOF = Parity(0.1412, 1.37e-2, 0.9998222, 34.0, 0.7, 0.2023, 5, BY, "pass", nearest_error=0.1412)
LATENCY = Latency(12.345, 7.654, 0.62, 0.598, 0.641, 1, 3.4, 2)
ACCURACY = Accuracy("accuracy", 0.988, 0.979, 0.994, 812, of_samples=1797)


def ledger_row(index: int, stage: str, latency: Latency | None) -> LedgerRow:
    size = 1_234_567 // (index + 1)
    return LedgerRow(index, stage, "onnx", 283_723, 283_723, size, size, size, {}, ACCURACY, latency)


def manifest() -> Manifest:
    signature = Signature((TensorSpec("x", "float32", (1, 3)),), ())
    names = ("model.onnx", "model.tflite", "model.mlpackage")
    formats = ("onnx", "tflite", "coreml")
    artifacts = tuple(
        Artifact(format, name, 90_301_234, "0" * 64, "float16", signature, PROOF)
        for format, name in zip(formats, names, strict=True)
    )
    rows = (ledger_row(0, "original", LATENCY), ledger_row(1, "quantize", LATENCY))
    origin = Origin("minilm", "zoo", "0" * 64, "pretrained", 22_565_376)
    return Manifest(1, "minilm", origin, signature, artifacts, (), {}, ledger=rows)


def of_bench(wide: bool) -> None:
    print_results([r for r in synthetic.fleet() if r.target == "local"][:2], wide)


def of_compare() -> None:
    old = synthetic.fleet()[:4]
    print_comparisons(compare(old, [replace(r, artifact=replace(r.artifact, size_bytes=123_456)) for r in old]))


def of_inspect() -> None:
    names = (f"transformer.encoder.layer.{i}.attention.weight" for i in range(3))
    tensors = tuple(StoredTensor(name, "float32", (384, 1536), 2_359_296) for name in names)
    report = Report("model.onnx", "onnx", 90_301_234, manifest().signature, {"Gemm": 12}, tensors, {})
    print_report(report, "no low-bit weights", 2)


def of_eval() -> None:
    _print_evaluations([Evaluation("digits/model.onnx", "digits", "accuracy", 0.988, 0.97, 0.99, 812, 1797, {}, BY)])


def of_verify() -> None:
    print_checks([Check("model.onnx", True, True, PROOF, ""), Check("README.md", False, True, None, "")], {"README.md"})


PRINTED = {
    "bench": lambda: of_bench(False),
    "bench --wide": lambda: of_bench(True),
    "zoo": lambda: zoo(as_json=False),
    "tasks": lambda: tasks_command(as_json=False),
    "verify": of_verify,
    "export": lambda: print_bundle(manifest(), Path("build/minilm")),
    "compare": of_compare,
    "inspect": of_inspect,
    "suite": lambda: print_summaries(synthetic.fleet()[::8]),
    "eval": of_eval,
    "sensitivity": lambda: print_layers([Layer("encoder.weight", "linear", 589_824, {"8": 41.25}, {"8": 0.9})], (8,)),
}


@pytest.fixture
def printed(monkeypatch, capsys):
    """The tables that a command prints, and its whole text."""

    def run(command: str) -> tuple[list[Table], str]:
        found: list[Table] = []
        monkeypatch.setattr(tables, "lines_of", lambda table, width: found.append(table) or lines_of(table, width))
        PRINTED[command]()
        return found, capsys.readouterr().out

    return run


@pytest.mark.parametrize("command", PRINTED)
def test_no_width_cuts_a_number_of_a_command(printed, command):
    found, text = printed(command)
    assert found and "…" not in text
    for table in found:
        numbers = sorted(NUMBER.findall(" ".join(f"{cell.text} {cell.detail}" for row in table.rows for cell in row)))
        for width in WIDTHS:
            lines = lines_of(table, width)
            told = " ".join(lines).replace(" ".join(table.columns), "")
            assert Counter(NUMBER.findall(told)) >= Counter(numbers), width
            assert all(cell_len(line) <= width for line in lines), width


@pytest.mark.parametrize("width", [80, 100, 120])
def test_bench_is_a_table_of_what_decides_at_the_usual_widths(printed, width):
    (found, *_), _ = printed("bench")
    assert found.columns == ("file", "MB", "p50 ms", "against the first", "parity", "computed by")
    head = " ".join(lines_of(found, width)[:2])
    assert all(word in head for name in found.columns for word in name.split()), "a table, not a list"


def test_bench_prints_everything_when_asked_to(printed):
    (found, *_), _ = printed("bench --wide")
    assert {"p90", "p99", "load ms", "first ms", "low-bit", "peak MB", "cosine", "accuracy"} < set(found.columns)


def test_bench_gives_a_verdict_for_each_file(printed):
    lines = printed("bench")[1].splitlines()
    assert "digits-float32/model.onnx: right, accuracy 98.8% (97.4 to 99.4), n=500" in lines
    (int8,) = (line for line in lines if line.startswith("digits-int8/model.onnx: "))
    assert re.search(r": right, 3\.\d\dx smaller, \d\.\d\dx \(.*\): faster than digits-float32/model\.onnx, ", int8)


def test_a_slower_file_is_called_slower_and_a_wrong_one_wrong():
    first, slow = synthetic.result(median_ms=1.0), synthetic.result(precision="int8", median_ms=2.0)
    assert ": slower than digits-float32/model.onnx" in judgement(slow, first)
    assert judgement(synthetic.result(verdict="fail"), first).startswith("WRONG, ")
    failed = replace(slow, failure=Failure("crashed", "SIGSEGV"))
    assert judgement(failed, first) == "crashed: SIGSEGV"


LETTER = re.compile(r"[a-z数]")
TEXT = st.text(st.sampled_from("abcdefghij/-. 数"), max_size=60)
FIGURE = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: f"{value:.4g}")


@given(
    rows=st.lists(st.tuples(TEXT, FIGURE, FIGURE, TEXT), min_size=1, max_size=4),
    columns=st.integers(1, 6),
    width=st.integers(60, 200),
)
def test_a_table_keeps_every_letter_and_every_figure_whole(rows, columns, width):
    names = [f"{name}{i}" for i in range(columns) for name in ("text", "figure")]
    cells = [[part for _ in range(columns) for part in (Cell(text, detail), Cell(a, b))] for text, a, b, detail in rows]
    lines = lines_of(table_of(names, cells, [name for name in names if name.startswith("figure")]), width)
    assert all(cell_len(line) <= width for line in lines)
    words = {word for line in lines for word in re.split(r"[\s(),:]+", line)}
    assert {figure for _, *figures, _ in rows for figure in figures} <= words
    given = "".join(text + detail for text, _, _, detail in rows) * columns
    printed = Counter("".join(lines))
    assert all(printed[letter] >= n for letter, n in Counter(LETTER.findall(given)).items())


def test_no_other_module_draws_a_table():
    drawn = []
    for path in [*(ROOT / "exporter").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.table":
                drawn.append(path.name)
    assert drawn == []


def test_a_narrow_terminal_lists_what_no_table_can_hold():
    table = table_of(("file", "MB", "p50 ms"), [("a" * 30, "12.30", Cell("4.56", "4.50 to 4.61"))], ("MB", "p50 ms"))
    assert lines_of(table, 60)[0].split() == ["file", "MB", "p50", "ms"]
    assert lines_of(table, 40) == ["a" * 30, "  MB: 12.30", "  p50 ms: 4.56 (4.50 to 4.61)"]
    assert lines_of(table, 20) == ["a" * 20, "a" * 10, "  MB: 12.30", "  p50 ms: 4.56 (4.50", "  to 4.61)"]


def test_small_print_moves_below_its_figure_before_a_table_becomes_a_list():
    table = table_of(("file", "p50 ms"), [("model.onnx", Cell("4.56", "4.50 to 4.61"))], ("p50 ms",))
    assert lines_of(table, 40) == ["file                     p50 ms", "model.onnx  4.56 (4.50 to 4.61)"]
    assert lines_of(table, 24) == ["file              p50 ms", "model.onnx          4.56", "            4.50 to 4.61"]
