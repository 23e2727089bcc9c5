"""`pocketship sensitivity`: the table, its JSON, its plot, and what is refused before any work."""

from __future__ import annotations

import json
import math
import re

import pytest

from exporter.commands.layers import Layer, check_plot, draw_layers, layers_of, parse_bits
from runtimes.errors import BadInput, PocketshipError


@pytest.fixture(scope="module")
def measured(pocketship, models, tmp_path_factory):
    """The command as a user types it, once with a plot."""
    plot = tmp_path_factory.mktemp("plot") / "layers.png"
    done = pocketship("sensitivity", f"{models.__file__}:mlp", "--plot", plot)
    assert done.returncode == 0, done.stderr
    return done, plot


def test_the_table_has_a_row_a_layer_the_most_sensitive_first(measured):
    done, _ = measured
    header, *rows, following = done.stdout.strip().splitlines()
    assert following.startswith("next, make it small: pocketship export ")
    assert re.split(r"  +", header.strip()) == [
        *("layer", "kind", "parameters", "SNR dB, 8 bits", "SNR dB, 4 bits", "SNR dB, 2 bits")
    ]
    cells = [row.split() for row in rows]
    assert sorted((c[0], c[1], c[2]) for c in cells) == [("0.weight", "linear", "128"), ("2.weight", "linear", "64")]
    figures = [[float(value) for value in c[3:]] for c in cells]
    assert figures[0][2] <= figures[1][2]
    assert all(eight > four > two for eight, four, two in figures)


def test_the_plot_is_a_picture(measured):
    assert measured[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_json_has_the_same_figures(measured, pocketship, models):
    printed = json.loads(
        pocketship("sensitivity", f"{models.__file__}:mlp", "--bits", "8,2", "--json", "--quiet").stdout
    )
    assert [layer["name"] for layer in printed] == [row.split()[0] for row in measured[0].stdout.splitlines()[1:-1]]
    for layer, row in zip(printed, measured[0].stdout.splitlines()[1:-1], strict=True):
        assert set(layer["snr_db"]) == {"8", "2"} and layer["score"] == {}
        assert f"{layer['snr_db']['2']:.1f}" == row.split()[-1]


def test_a_task_with_labels_gives_scores_and_progress(tmp_path):
    import numpy as np

    generator = np.random.default_rng(0)
    for split in ("train", "calibration", "test"):
        values = generator.normal(size=(12, 8)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", input=values, labels=np.arange(12) % 4)
    moved: list[tuple[str, int, int]] = []
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make(): return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(1, 8)\n"
    )
    source = f"{tmp_path / 'net.py'}:make"
    layers = layers_of(source, data=str(tmp_path), bits=(4,), on_progress=lambda *m: moved.append(m))
    assert all(0.0 <= layer.score["4"] <= 1.0 for layer in layers)
    assert [m[1:] for m in moved] == [(0, 2), (1, 2), (2, 2)]


def test_a_model_that_cannot_be_loaded_is_refused_as_by_export(refused):
    line = refused("sensitivity", "no-such-model.py:make")
    assert "no-such-model.py" in line


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--bits", "3"), "--bits: no weight has '3' bits; give some of 8, 4, 2"),
        (("--plot", "layers.svg"), "layers.svg: the plot is a PNG; give a name that ends in .png"),
    ],
)
def test_bad_options_are_refused_before_the_model_is_loaded(words, fault, refused):
    assert refused("sensitivity", "no-such-model.py:make", *words).endswith(fault)


def test_bits():
    assert parse_bits("8,4,2") == (8, 4, 2) and parse_bits(" 2, 8,2") == (2, 8)
    for text in ("", "8,,2", "1", "eight", "-8", "8.0"):
        with pytest.raises(BadInput, match="give some of 8, 4, 2"):
            parse_bits(text)


def test_a_plot_needs_a_folder(tmp_path):
    check_plot(tmp_path / "a.png")
    with pytest.raises(BadInput, match="no such folder; make it first"):
        check_plot(tmp_path / "gone" / "a.png")


def test_a_child_that_crashes_says_so(monkeypatch):
    from runtimes import child

    monkeypatch.setattr(child, "call", lambda *words, **options: child.Crashed("crashed with SIGKILL", ""))
    with pytest.raises(PocketshipError, match="x: measuring its layers crashed with SIGKILL"):
        layers_of("x", data=None, bits=(8,))


LAYERS = (
    Layer("encoder.layers.0.attention.output.dense.weight", "linear", 100, {"8": 40.0, "2": 3.0}, {}),
    Layer("head.weight", "linear", 50, {"8": math.inf, "2": 12.0}, {}),
)


def test_the_plot_shows_each_layer_and_repeats(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    draw_layers(LAYERS, (8, 2), "net", tmp_path / "a.png")
    draw_layers(LAYERS, (8, 2), "net", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *words, **options: kept.append(figure))
    draw_layers(LAYERS, (8, 2), "net", tmp_path / "never.png")
    (axes,) = kept[0].axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["…s.0.attention.output.dense.weight", "head.weight"]
    eight, two = (marks.get_offsets().data.tolist() for marks in axes.collections)
    assert eight == [[40.0, 0.0], [50.0, 1.0]] and two == [[3.0, 0.0], [12.0, 1.0]]
    assert [(text.get_text().strip(), text.get_position()) for text in axes.texts] == [("exact", (50.0, 1))]
