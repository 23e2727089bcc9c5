"""The report: its text to the letter, and a picture that repeats and shows what there is."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from exporter.ledger.plot import colour, draw
from exporter.ledger.report import markdown, write_report
from runtimes.signature import Signature
from runtimes.types import Accuracy, Latency, LedgerRow, Manifest, Origin, RecipeStep

OFF_DEVICE = "not measured here (off-device)"


def ledger(target: str, speeds: tuple[tuple[float, float, float], ...]) -> tuple[LedgerRow, ...]:
    """Three stages; `speeds` are those of the last two, none where the format was not timed."""
    stages = (
        ("original", 50_000, {"linear float32": 40_000, "other weights": 2_000}, 0.96),
        ("prune", 50_000, {"linear float32": 10_000, "linear float32, zeros": 30_000, "other weights": 2_000}, 0.95),
        ("ternary", 150_000, {"linear int2": 90_000, "embedding int8": 20_000}, 0.935),
    )
    rows = []
    for i, (stage, size, parts, accuracy) in enumerate(stages):
        speed = (1.0, 1.0, 1.0) if i == 0 else speeds[i - 1] if speeds else ()
        rows.append(
            LedgerRow(
                index=i,
                stage=stage,
                format=target,
                parameters=10_000,
                nonzero=10_000 if i == 0 else 2_500,
                size_bytes=size,
                gzip_bytes=size // 2,
                sparse_bytes=20_000 if stage == "prune" else size,
                waterfall={**parts, "graph and metadata": size - sum(parts.values())},
                accuracy=Accuracy("accuracy", accuracy, accuracy - 0.03, accuracy + 0.02, 400, {}),
                latency=Latency(4.2 / speed[0], 4.2, *speed, 1) if speeds else None,
                not_timed="" if speeds else OFF_DEVICE,
            )
        )
    return tuple(rows)


MANIFEST = Manifest(
    schema_version=1,
    name="digits",
    origin=Origin("digits", "zoo", "0" * 64, "pretrained", 10_000),
    signature=Signature((), ()),
    artifacts=(),
    files=(),
    tool_versions={},
    recipe=(
        RecipeStep(
            "prune", {"sparsity": 0.75, "schedule": None, "layers": ["a", "b"], "train": True}, ("7,500 zeros",)
        ),
        RecipeStep("ternary", {"keep": {"head": 8}}),
    ),
    ledger=(*ledger("onnx", ((1.01, 0.98, 1.04), (1.9, 1.85, 1.96))), *ledger("coreml", ())),
)

GOLDEN = """\
# digits: what compression cost and brought

1. **prune** (sparsity 0.75, schedule null, layers [a, b], train true)
   - 7,500 zeros
2. **ternary** (keep {head: 8})

![size, accuracy and latency by stage](report.png)

## onnx

| stage | parameters | not zero | file | gzip | sparse | accuracy | latency | speed |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| original | 10,000 | 100.0% | 50.0 kB | 25.0 kB | 50.0 kB | 96.0% (93.0% to 98.0%) | 4.2 ms |  |
| prune | 10,000 | 25.0% | 50.0 kB | 25.0 kB | 20.0 kB | 95.0% (92.0% to 97.0%) | 4.16 ms | \
no difference shown (0.98 to 1.04) |
| ternary | 10,000 | 25.0% | 0.15 MB | 75.0 kB | 0.15 MB | 93.5% (90.5% to 95.5%) | 2.21 ms | 1.90x (1.85 to 1.96) |

| where the bytes went | original | prune | ternary |
|---|---:|---:|---:|
| linear float32 | 40.0 kB | 10.0 kB |  |
| linear float32, zeros |  | 30.0 kB |  |
| linear int2 |  |  | 90.0 kB |
| embedding int8 |  |  | 20.0 kB |
| other weights | 2.0 kB | 2.0 kB |  |
| graph and metadata | 8.0 kB | 8.0 kB | 40.0 kB |

- after prune: 30.0 kB of 50.0 kB are zeros, which are stored like any other value; gzip makes the file 25.0 kB, \
the format's sparse encoding would make it 20.0 kB.

## coreml
"""


def test_the_text_to_the_letter():
    text = markdown(MANIFEST, ["a note of the export"])
    assert text.startswith(GOLDEN)
    assert text.endswith(
        """
## How to read it

- file: the artifact itself. gzip: after zlib, level 9. sparse: what the file would take with every weight in \
the format's own sparse encoding where that is smaller, indices counted.
- where the bytes went: weights by kind of layer and as stored, bytes of zeros apart.
- accuracy: accuracy of the artifact itself in its runtime, on 400 test samples, with its 95% interval (Wilson).
- latency: median on the machine that exported, 1 thread; speed: against the original, both measured in turns, with \
the 95% interval of the ratio. An interval that contains 1 shows no difference.
- a note of the export
"""
    )


def test_a_speed_up_inside_the_noise_is_never_claimed():
    (line,) = [line for line in markdown(MANIFEST).splitlines() if line.startswith("| prune") and "4.16 ms" in line]
    assert "no difference shown" in line and "1.01" not in line


def test_a_format_that_was_not_timed_says_why_and_has_no_speed():
    _, _, coreml = markdown(MANIFEST).partition("## coreml\n")
    lines = [line for line in coreml.splitlines() if line.startswith(("| original |", "| prune |", "| ternary |"))]
    assert len(lines) == 3 and all(line.endswith(f"| {OFF_DEVICE} |  |") for line in lines)


def test_a_smaller_file_says_how_much():
    small = dataclasses.replace(MANIFEST.ledger[1], size_bytes=12_500)
    text = markdown(dataclasses.replace(MANIFEST, ledger=(MANIFEST.ledger[0], small)))
    assert "| 12.5 kB (4.00x smaller) |" in text


def test_without_data_nothing_is_said_of_accuracy():
    rows = tuple(dataclasses.replace(row, accuracy=None, latency=None, not_timed="") for row in MANIFEST.ledger)
    text = markdown(dataclasses.replace(MANIFEST, ledger=rows))
    assert text.count("| not measured | not measured |  |") == len(rows)
    assert "Wilson" not in text and "in turns" not in text


def png_size(path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_the_same_ledger_gives_the_same_bytes(tmp_path, monkeypatch):
    import matplotlib

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_report(MANIFEST, tmp_path / "a")
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "black")  # as a user's matplotlibrc may have it
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    write_report(MANIFEST, tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["report.md", "report.png"]
    for name in ("report.md", "report.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"Software" not in (tmp_path / "a" / "report.png").read_bytes()


def test_the_picture_is_as_wide_as_ever_and_as_high_as_it_needs(tmp_path):
    bare = tuple(dataclasses.replace(row, accuracy=None, latency=None) for row in MANIFEST.ledger)
    draw(MANIFEST.ledger, "all panels", tmp_path / "all.png")
    draw(bare, "bytes only", tmp_path / "bytes.png")
    (width, high), (same, low) = png_size(tmp_path / "all.png"), png_size(tmp_path / "bytes.png")
    assert width == same == 1200
    assert 2.5 < high / low < 3.0


def test_what_the_picture_shows(tmp_path, monkeypatch):
    """The words and lengths in the figure itself, before they become pixels."""
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *words, **options: kept.append(figure))
    draw(MANIFEST.ledger, "digits", tmp_path / "never.png")
    sizes, accuracy, latency = kept[0].axes
    labels = [label.get_text() for label in sizes.get_yticklabels()]
    assert labels == ["onnx   original", "prune", "ternary", "coreml   original", "prune", "ternary"]
    bars = sum(bar.get_width() for container in sizes.containers for bar in container)
    assert bars == pytest.approx(sum(row.size_bytes for row in MANIFEST.ledger) / 1e6)
    said = [text.get_text().strip() for text in latency.texts]
    assert said == ["4.2 ms", "4.16 ms, no difference shown", "2.21 ms, 1.90x", OFF_DEVICE, OFF_DEVICE, OFF_DEVICE]
    assert [text.get_text().strip() for text in accuracy.texts][:3] == ["96.0%", "95.0%", "93.5%"]


def test_fewer_bits_are_paler():
    def brightness(part: str) -> int:
        return sum(int(colour(part)[i : i + 2], 16) for i in (1, 3, 5))

    shades = [brightness(f"linear {dtype}") for dtype in ("float32", "float16", "int8", "int4", "int2")]
    assert shades == sorted(shades) and len(set(shades)) == 5
    assert colour("linear float32, zeros") == colour("linear float32")
    assert len({colour(f"{kind} float32") for kind in ("linear", "conv", "embedding")}) == 3
