"""Words of the command line as numbers."""

from __future__ import annotations

import pytest

from benchmarks.commands.words import parse_bytes, parse_numbers, parse_percent, parse_seconds, parse_share
from runtimes.errors import BadInput


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0%", 0.0), ("0.5 %", 0.005), (".5%", 0.005), ("100%", 1)])
def test_percentages(text, share):
    assert parse_percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["1", "0.01", "-1%", "nan%", "101%", "%", "", "1%%", "inf%", "1e1%", "one%"])
def test_what_is_no_percentage(text):
    with pytest.raises(BadInput) as caught:
        parse_percent(text)
    assert str(caught.value) == f"{text!r} is no percentage of 0 to 100; give it as 1%"


@pytest.mark.parametrize(
    ("text", "count"),
    [("3MB", 3_000_000), ("3 mb", 3_000_000), ("1.5MiB", 1_572_864), ("500kB", 500_000), ("7B", 7), ("2GB", 2 * 10**9)],
)
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["-3MB", "nan", "3XB", "MB", "", "3MB3", "1e6", "inf", "3 M B"])
def test_what_is_no_size(text):
    with pytest.raises(BadInput, match="is no size; give a number and one of B, kB, MB, GB, KiB, MiB, GiB, as 3MB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["3", "7.5", "0"])
def test_a_size_without_a_unit(text):
    with pytest.raises(BadInput, match=f"--max-size: '{text}' has no unit; give it as {text}MB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["0kB", "0MB", "0.4B"])
def test_a_size_of_nothing(text):
    with pytest.raises(BadInput, match="holds no model; give it as 3MB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600.0), ("90", 90.0), ("2.5s", 2.5), ("1h", 3600.0)])
def test_times(text, seconds):
    assert parse_seconds(text) == seconds


def test_numbers_and_shares():
    assert parse_numbers("1, 2,4", "--threads", 1) == (1, 2, 4)
    assert parse_share("0.5%") == 0.005
