"""A home that cannot be written: whoever needs it says so in one line with its mend, and nobody else notices."""

from __future__ import annotations

import pytest

HOME = {"HOME": "/dev/null/home", "XDG_DATA_HOME": ""}


@pytest.mark.slow
def test_commands_work_without_a_home(exported, copy_of, pocketship, tmp_path):
    """And without a history, which is said."""
    bundle, key = copy_of(exported("mlp", "onnx")), tmp_path / "k"
    results, page = tmp_path / "results.json", tmp_path / "page.html"
    quick = ("--seconds", "0.05", "--warmup", "0.05", "--processes", "1", "-o", results)
    for words in (
        ("keygen", key),
        ("sign", bundle, "--key", f"{key}.key"),
        ("verify", bundle, "--public-key", f"{key}.pub"),
        ("inspect", bundle),
        ("pack", bundle, "-o", tmp_path / "packed", "--sign", f"{key}.key"),
        ("unpack", tmp_path / "packed", "-o", tmp_path / "again", "--public-key", f"{key}.pub"),
        ("embed", bundle, "--cpp", tmp_path / "cpp", "--public-key", f"{key}.pub"),
        ("bench", bundle / "model.onnx", *quick),
        ("report", results, "-o", page),
        ("compare", results, results),
    ):
        done = pocketship(*words, **HOME, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert done.returncode == 0, (words, done.stderr)
        said = "not in the history: " in done.stderr
        assert said == (words[0] == "bench") and "Traceback" not in done.stderr, done.stderr


def test_a_bench_that_cannot_keep_others_away_says_what_to_do(exported, refused):
    line = refused("bench", exported("mlp", "onnx") / "model.onnx", "--seconds", "0.05", **HOME, XDG_CACHE_HOME="")
    assert "cannot keep other benches away" in line and line.endswith("or set XDG_CACHE_HOME to one"), line
