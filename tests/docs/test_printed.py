"""Every console block of the README and of docs/: its commands run, in order, and print what stands below them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.printed import (
    BEGINNINGS,
    NOT_RUN,
    ROOT,
    RUN_ONCE,
    Document,
    differences,
    masked,
    parse,
    place_for,
    rewritten,
    runs,
)

FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "android_demo").glob("*.md")),
    ROOT / "benchmarks" / "devices" / "adb" / "runner" / "README.md",
]
DOCUMENTS = {str(file.relative_to(ROOT)): parse(file.read_text(encoding="utf-8")) for file in FILES}


def marks(document: Document) -> list[pytest.MarkDecorator]:
    found = [pytest.mark.slow]
    if document.says("ssh://", "--on adb"):
        found.append(pytest.mark.device)
    if document.says("--on browser", "--web"):
        found.append(pytest.mark.browser)
    return found


@pytest.fixture(scope="session")
def bundle(once, pocketship):
    """One of `BEGINNINGS`, exported once a run."""

    def get(name: str) -> Path:
        def make(folder: Path) -> None:
            done = pocketship(*BEGINNINGS[name], "--quiet", cwd=folder)
            assert done.returncode == 0, done.stderr

        return once(f"docs {name}", make) / name

    return get


def test_what_runs_once_is_what_a_document_runs():
    assert set(RUN_ONCE) <= {step.command for document in DOCUMENTS.values() for step in document.steps}


@pytest.mark.parametrize(
    "document",
    [pytest.param(document, id=name, marks=marks(document)) for name, document in DOCUMENTS.items() if document.steps],
)
def test_what_a_document_says_is_what_its_commands_print(document, bundle, run_once):
    wrong = []
    with place_for(document, bundle) as place:
        for step, printed in runs(document, place, run_once):
            if lines := differences(step.expected, printed, document.varies):
                wrong += [f"line {step.first}: $ {step.command}", *lines]
    assert not wrong, "\n".join([*wrong, "if the change is meant: make reprint"])


def test_what_is_not_run_has_a_reason_and_each_reason_a_command():
    commands = [command for document in DOCUMENTS.values() for command in document.not_run]
    assert [c for c in commands if not any(c.startswith(begin) for begin in NOT_RUN)] == []
    assert [begin for begin in NOT_RUN if not any(c.startswith(begin) for c in commands)] == []


def test_the_readme_runs_and_is_short():
    readme = DOCUMENTS["README.md"]
    assert len(readme.lines) <= 150
    assert len(readme.steps) >= 5


# The comparison itself --------------------------------------------------------------------------------------------

TABLE = [
    "format     stage        MB  smaller  accuracy  speed, 1 thread      computed by",
    "onnx       original  1.146              98.8%                       onnxruntime 1.32.0 (physical)",
    "onnx int8  quantize  0.340    3.38x     98.8%  1.74x (1.71 to 1.78)  onnxruntime 1.32.0 (physical)",
]


@pytest.mark.parametrize(
    ("old", "new", "is_right"),
    [
        ("1.74x (1.71 to 1.78)", "2.17x (2.06 to 2.32)", True),
        ("1.74x (1.71 to 1.78)", "no difference shown (0.98 to 1.02)", True),
        ("0.340", "0.341", False),
        ("3.38x", "3.39x", False),
        ("98.8%", "98.6%", False),
        ("1.32.0", "1.33.0", False),
        ("quantize", "quantise", False),
    ],
)
def test_figures_of_a_machine_may_differ_and_nothing_else(old, new, is_right):
    printed = [line.replace(old, new) for line in TABLE]
    assert printed != TABLE
    assert (differences(TABLE, printed) == []) == is_right


@pytest.mark.parametrize(
    ("said", "printed", "is_right"),
    [
        ("trace      2.5 s  59 operations", "trace     12.0 s  59 operations", True),
        ("trace      2.5 s  59 operations", "trace      2.5 s  60 operations", False),
        ("local: Xeon, 2 cores, Debian (physical)", "local: M3, 8 cores, macOS (physical)", True),
        ("local: Xeon, 2 cores, Debian (physical)", "local: Xeon, 2 cores, Debian (emulated)", False),
        ("time: 45% on low-bit kernels", "time: 51% on low-bit kernels", True),
        ("weights: 95.8% read as codes", "weights: 95.7% read as codes", False),
        ("off by 3.3e-07, verdict pass", "off by 1.0e-06, verdict pass", True),
        ("off by 3.3e-07, verdict pass", "off by 3.3e-07, verdict fail", False),
        ("model.onnx  339,561 bytes", "model.onnx  339,562 bytes", False),
    ],
)
def test_what_may_differ_in_a_line(said, printed, is_right):
    assert (differences([said], [printed]) == []) == is_right


def test_a_remark_below_a_table_is_compared():
    """It lies below several headings, so that it is no cell of a varying one; a busy machine's remark is left out."""
    table = [
        "file        p50 ms  p90",
        "model.onnx    0.59  0.7",
        "random inputs, no golden",
        "the warm-up did not settle",
    ]
    assert masked(table) == ["file p50 ms p90", "model.onnx # #", "random inputs, no golden"]


def test_stages_that_run_side_by_side_may_end_in_any_order():
    lines = ["trace 1.0 s  59", "onnx      2.0 s  lowered", "coreml    3.1 s  lowered", "measure 1.0 s  onnx"]
    assert differences(lines, [lines[0], lines[2], lines[1], lines[3]]) == []
    assert differences(lines, [lines[1], lines[0], *lines[2:]]) != []


@pytest.mark.parametrize(
    ("printed", "is_right"),
    [("a b c d", True), ("a d", True), ("a x d", True), ("a b c e", False), ("b c d", False), ("a", False)],
)
def test_lines_may_be_left_out(printed, is_right):
    assert (differences(["a", "...", "d"], printed.split()) == []) == is_right


MARKDOWN = """<!-- begins with: digits -->
<!-- varies: `\\d+ words`: an example -->
```json title="a.json"
{}
```
```python
# model.py
x = 1
```
```console
$ pocketship verify digits     # a comment
old
...
last
$ ls
```
```console notest
$ make test
```
"""


def test_a_document_is_read_in_order_and_written_back():
    document = parse(MARKDOWN)
    assert document.begins_with == ("digits",) and document.not_run == ["make test"]
    assert differences(["3 words"], ["4 words"], document.varies) == [] != differences(["3 words"], ["4 words"])
    assert document.parts.pop(0) == ("a.json", "{}\n")
    assert document.parts[0] == ("model.py", "# model.py\nx = 1\n")
    assert [step.command for step in document.steps] == ["pocketship verify digits     # a comment", "ls"]
    first, second = document.steps
    assert rewritten(document, [(first, ["old", "x", "last"]), (second, [])], False) == MARKDOWN
    new = rewritten(document, [(first, ["new", "x", "y", "end"]), (second, ["model.py"])], False)
    assert new == MARKDOWN.replace("old\n", "new\n").replace("last\n", "end\n").replace("$ ls\n", "$ ls\nmodel.py\n")


@pytest.mark.parametrize("text", ["```console\nprinted\n$ ls\n```\n", "```console\n$ ls\n"])
def test_a_block_that_cannot_be_read_is_said(text):
    with pytest.raises(ValueError, match="line"):
        parse(text)
