"""Limits: which stage broke them, what cannot be judged."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import OFF_DEVICE
from exporter.ledger.limits import check_judgeable, check_limits, check_sizes, not_judged
from runtimes.errors import BadInput, LimitNotMet
from runtimes.types import Accuracy, Latency, LedgerRow


def row(index: int, stage: str, *, target="onnx", accuracy=None, size=1000, speed=None) -> LedgerRow:
    """`speed` is the ratio with the ends of its interval."""
    return LedgerRow(
        index=index,
        stage=stage,
        format=target,
        parameters=100,
        nonzero=100,
        size_bytes=size,
        gzip_bytes=size,
        sparse_bytes=size,
        waterfall={"graph and metadata": size},
        accuracy=None if accuracy is None else Accuracy("accuracy", accuracy, 0.0, 1.0, 200),
        latency=None if speed is None else Latency(1.0, speed[0], *speed, 1),
        not_timed="" if speed else OFF_DEVICE,
    )


def refusal(rows, *, max_drop=None, max_size_bytes=None, min_speedup=None) -> str:
    with pytest.raises(LimitNotMet) as caught:
        check_limits(rows, max_drop, max_size_bytes, min_speedup)
    assert caught.value.exit_code == 4
    return str(caught.value)


END = "; nothing was written; change the recipe or the limit"


def test_the_stage_that_broke_the_accuracy_is_named_with_both_figures():
    stages = [("original", 0.95), ("prune", 0.91), ("distill", 0.94), ("ternary", 0.9)]
    rows = [row(i, name, accuracy=value) for i, (name, value) in enumerate(stages)]
    assert refusal(rows, max_drop=0.02) == (
        "onnx after ternary: accuracy 90.0% is 5.00 points below the original's 95.0%, "
        "3.00 more than --max-drop allows" + END
    )
    check_limits(rows[:3], 0.02, None, None)  # distill made good what prune broke


def test_a_stage_that_broke_it_earlier_and_for_good_is_named_too():
    rows = [row(i, n, accuracy=v) for i, (n, v) in enumerate([("original", 0.95), ("prune", 0.8), ("quantize", 0.81)])]
    line = refusal(rows, max_drop=0.01)
    assert line.startswith("onnx after quantize: accuracy 81.0% is 14.00 points below")
    assert "(prune broke it: accuracy 80.0% is 15.00 points below" in line


def test_a_drop_of_just_the_limit_is_allowed():
    check_limits([row(0, "original", accuracy=0.93), row(1, "int8", accuracy=0.92)], 0.01, None, None)


def test_formats_have_originals_of_their_own_and_all_that_fail_are_listed():
    rows = [
        row(0, "original", accuracy=0.9),
        row(0, "original", target="tflite", accuracy=0.8),
        row(1, "int8", accuracy=0.85),
        row(1, "int8", target="tflite", accuracy=0.79),
    ]
    assert "tflite" not in refusal(rows, max_drop=0.02)
    both = refusal(rows, max_drop=0.005)
    assert "onnx after int8: accuracy 85.0% is 5.00 points" in both
    assert "tflite after int8: accuracy 79.0% is 1.00 points below the original's 80.0%, 0.50 more" in both


def test_a_final_artifact_that_is_too_large():
    rows = [row(0, "original", size=4_000_000), row(1, "prune", size=4_000_000), row(2, "int8", size=1_234_567)]
    check_limits(rows, None, 1_234_567, None)
    assert refusal(rows, max_size_bytes=1_000_000) == (
        "onnx after int8: 1,234,567 bytes are 234,567 more than --max-size allows (no stage meets it)" + END
    )


@pytest.mark.parametrize(
    ("speed", "fault"),
    [
        ((1.6, 1.55, 1.66), ""),
        ((1.5, 1.4, 1.6), ""),
        ((1.2, 1.1, 1.3), "1.20x (1.10 to 1.30) as fast as the original, 0.30 short of --min-speedup"),
        (
            (1.7, 0.9, 2.6),
            "no difference shown (0.90 to 2.60) from the original's latency, --min-speedup asks for 1.5x",
        ),
        ((0.7, 0.6, 0.8), "0.70x (0.60 to 0.80) as fast as the original, 0.80 short of --min-speedup"),
    ],
)
def test_a_speed_up_counts_only_above_the_noise(speed, fault):
    rows = [row(0, "original", speed=(1.0, 1.0, 1.0)), row(1, "int8", speed=speed)]
    if not fault:
        check_limits(rows, None, None, 1.5)
    else:
        assert refusal(rows, min_speedup=1.5) == f"onnx after int8: {fault} (no stage meets it)" + END


def test_a_slow_down_may_be_asked_to_stay_small_only_above_the_noise():
    rows = [row(0, "original", speed=(1.0, 1.0, 1.0)), row(1, "int8", speed=(1.0, 0.98, 1.02))]
    assert "no difference shown (0.98 to 1.02)" in refusal(rows, min_speedup=0.9)


def test_a_format_that_was_not_timed_is_left_out_by_name():
    rows = [row(0, "original", speed=(1.0, 1.0, 1.0)), row(0, "original", target="coreml")]
    rows += [row(1, "int8", speed=(2.0, 1.9, 2.1)), row(1, "int8", target="coreml")]
    check_limits(rows, None, None, 1.5)
    assert not_judged(rows, 1.5) == ("--min-speedup was not judged for coreml: not measured here (off-device)",)
    assert not_judged(rows, None) == ()


def test_no_limits_no_refusal():
    check_limits([row(0, "original"), row(1, "int8", accuracy=0.1)], None, None, None)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.floats(0.0, 0.5))
def test_only_the_last_stage_is_judged(values, limit):
    rows = [row(i, f"stage {i}", accuracy=value) for i, value in enumerate(values)]
    fine = round(values[0] - values[-1], 9) <= limit
    try:
        check_limits(rows, limit, None, None)
        assert fine
    except LimitNotMet as error:
        assert not fine and f"onnx after stage {len(values) - 1}: " in str(error)


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"max_drop": 0.01}, "--max-drop: no task to measure a drop with; give --data"),
        ({"max_size_bytes": 0}, "--max-size: 0 bytes hold no model; give it as 3MB"),
        ({"min_speedup": math.nan}, "--min-speedup: nan is no speed-up; give a factor like 1.5"),
        ({"min_speedup": -1.0}, "--min-speedup: -1.0 is no speed-up; give a factor like 1.5"),
        ({"min_speedup": math.inf}, "--min-speedup: inf is no speed-up; give a factor like 1.5"),
        (
            {"min_speedup": 1.5},
            "--min-speedup: this machine can time none of the targets; add onnx or tflite to --target",
        ),
    ],
)
def test_a_limit_that_nothing_can_be_judged_by_is_refused_before_any_work(limits, line):
    given = {"max_drop": None, "max_size_bytes": None, "min_speedup": None, **limits}
    with pytest.raises(BadInput) as caught:
        check_judgeable((), False, **given)
    assert str(caught.value) == line


def test_limits_that_can_be_judged_pass():
    check_judgeable(("onnx",), True, 0.0, 1, 1.5)
    check_judgeable((), False, None, None, None)


def test_a_drop_without_accuracy_is_refused_in_the_end_too():
    with pytest.raises(BadInput, match="--max-drop: onnx has no accuracy; give --data"):
        check_limits([row(0, "original", accuracy=0.9), row(1, "int8")], 0.01, None, None)


def test_sizes_alone_are_judged_where_nothing_was_measured():
    artifacts = [SimpleNamespace(format="onnx", size_bytes=1500), SimpleNamespace(format="tflite", size_bytes=1000)]
    check_sizes(artifacts, None)
    check_sizes(artifacts, 1500)
    with pytest.raises(LimitNotMet) as caught:
        check_sizes(artifacts, 1000)
    line = "onnx: 1,500 bytes are 500 more than --max-size allows; nothing was written"
    assert str(caught.value).startswith(line) and "tflite" not in str(caught.value)
