"""The parts of an output, by hand: which axes, how far each part spreads and moves, and what it may be off by."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.compare import Limits, compare
from runtimes.parts import NAMED, PEAK, axes_of, judged_axes, largest_by_part, movement, noise, spread
from runtimes.signature import ExecutedBy

BY = ExecutedBy("numpy", np.__version__, "physical")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, "float32")


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(1, 84, 8400), (1, 84, 8400)], (1,)),  # 8400 places are no kinds, one sample is none either
        ([(1, 4096), (1, 4096)], (1,)),
        ([(1, 4097), (1, 4097)], ()),
        ([(2, 7, 3), (2, 5, 3)], (0, 2)),  # the axis of free length holds no kinds
        ([(5,), (5,)], (0,)),
        ([(), ()], ()),
        ([(3, 2), (3,)], ()),
    ],
)
def test_the_axes_that_hold_parts(shapes, axes):
    assert judged_axes([zeros(*shape) for shape in shapes]) == axes


FIRST = np.array([[[0.0, 10.0, 7.0], [4.0, -10.0, 7.0]]])  # [1, 2, 3]
SECOND = np.array([[[1.0, 10.0, 7.0], [4.0, -30.0, 7.0]]])


def test_spread_and_movement_by_hand():
    assert spread([FIRST, SECOND], 2).tolist() == [4.0, 40.0, 0.0]
    assert movement([FIRST, SECOND], 2).tolist() == [1.0, 20.0, 0.0]
    assert spread([FIRST, SECOND], 1).tolist() == [10.0, 37.0]
    assert movement([FIRST, SECOND], 1).tolist() == [1.0, 20.0]
    assert largest_by_part(np.abs(FIRST), 2).tolist() == [4.0, 10.0, 7.0]


def test_what_moves_is_looked_for_among_samples_of_one_shape():
    longer = np.concatenate([SECOND, SECOND])
    assert movement([FIRST, longer], 2) is None, "no two are alike"
    assert movement([FIRST, longer, SECOND], 2).tolist() == [1.0, 20.0, 0.0]
    assert movement([FIRST], 2).tolist() == [0.0, 0.0, 0.0], "one sample moves nothing"


def test_empty_outputs_have_parts_that_spread_nowhere():
    empty = zeros(0, 3)
    assert spread([empty, empty], 1).tolist() == movement([empty, empty], 1).tolist() == [0.0, 0.0, 0.0]
    assert noise([empty], [empty], 1).tolist() == [0.0, 0.0, 0.0]


def test_noise_is_the_largest_seen_or_what_few_values_have_not_shown():
    few, still = np.array([[0.3, 0.0], [-0.4, 0.0]]), [np.zeros((2, 2))]
    assert noise([few], still, 1) == pytest.approx([PEAK * np.sqrt((0.09 + 0.16) / 2), 0.0])
    one_peak = np.zeros((100, 2))
    one_peak[3, 1] = -1.0
    assert noise([one_peak, np.zeros((100, 2))], still, 1).tolist() == [0.0, 1.0]


def test_a_part_that_was_lucky_has_the_usual_share_of_its_spread():
    samples = [np.array([[0.0, 0.0, 0.0, 5.0]]), np.array([[1.0, 10.0, 4.0, 5.0]])]
    seen = [np.array([[0.01, 0.1, 0.0, 0.0]])]
    assert noise(seen, samples, 1) == pytest.approx([PEAK * 0.01, PEAK * 0.1, PEAK * 0.04, 0.0])
    seen[0][0, 0] = np.inf
    assert noise(seen, samples, 1).tolist()[1:] == pytest.approx([PEAK * 0.1, 0.0, 0.0]), "not known is no share"


def test_a_part_is_judged_by_its_own_spread_its_noise_or_the_last_place_of_the_output():
    samples = [np.array([[0.0, 0.0, 0.0, 640.0]]), np.array([[0.5, 0.5, 1e-9, 0.0]])]
    (axis,) = axes_of(samples, {1: np.array([1e-9, 0.02, 0.0, 0.0])}, 1e-4, 7.6e-5, 0.064)
    assert axis.tolerance == pytest.approx([7.6e-5, 0.02, 7.6e-5, 0.064])
    (unmeasured,) = axes_of(samples, None, 1e-4, 7.6e-5, 0.064)
    assert unmeasured.tolerance == pytest.approx([0.064] * 4)
    (wrong,) = axes_of(samples, {1: np.zeros(3)}, 1e-4, 7.6e-5, 0.064)
    assert wrong.tolerance == pytest.approx([0.064] * 4), "noise of another number of parts is none"
    (loud,) = axes_of(samples, {1: np.full(4, np.inf)}, 1e-4, 7.6e-5, 0.064)
    assert loud.tolerance == pytest.approx([0.064] * 4), "never more than the whole output"


def test_parts_that_a_constant_could_stand_in_for_are_named():
    samples = [np.array([[[3.0, 0.0, 1.0, 0.0]]]), np.array([[[3.0, 0.0, 1.01, 9.0]]])]
    (axis,) = axes_of(samples, {2: np.full(4, 0.006)}, 1e-4, 0.0, 1.0)
    assert axis.not_proven("y") == [
        "output 'y' columns 0, 1 never change over the golden inputs",
        "output 'y' column 2 changes too little to tell it from a constant",
    ]
    (axis,) = axes_of(samples, {2: np.full(4, 0.004)}, 1e-4, 0.0, 1.0)
    assert len(axis.not_proven("y")) == 1, "more than twice what it may be off is proof"


def test_names_are_of_the_axis_and_many_are_counted():
    still, moving = np.zeros((1, 12, 5, 2)), np.zeros((1, 12, 5, 2))
    moving[0, 11] = 1.0
    channels, rows, columns = axes_of([still, moving], None, 1e-4, 0.0, 0.1)
    named = ", ".join(map(str, range(NAMED)))
    assert channels.not_proven("y") == [f"output 'y' channels {named} and 3 more never change over the golden inputs"]
    assert rows.not_proven("y") == columns.not_proven("y") == []
    assert (rows.at(3), columns.at(1)) == ("axis-2 slice 3", "column 1")
    moving[0, 11] = 0.1
    channels, rows, columns = axes_of([still, moving], None, 1e-4, 0.0, 0.1)
    assert columns.not_proven("y") == [
        "output 'y' (all 2 of its columns) change too little to tell them from a constant"
    ]


# --- in the comparison ---------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
BOXES, SCORES = RNG.uniform(0, 640, (4, 50, 4)), RNG.uniform(0, 0.05, (4, 50, 80))
YOLO = [np.concatenate([b, s], -1).astype("float32")[None] for b, s in zip(BOXES, SCORES, strict=True)]
QUIET = {"y": {1: np.zeros(50, "float32"), 2: np.zeros(84, "float32")}}


def judge(actual, limits=Limits(), measured=QUIET, reference=YOLO):  # noqa: B008
    return compare([{"y": r} for r in reference], [{"y": a} for a in actual], BY, limits, measured)


def changed(change):
    def apply(sample):
        scores = sample[..., 4:].copy()
        return np.concatenate([sample[..., :4], change(scores)], -1)

    return [apply(sample) for sample in YOLO]


def constant_column(scores):
    scores[..., 17] = scores[..., 17].mean()
    return scores


TWINS = {
    "every score at zero": lambda scores: scores * 0,
    "0.03 too high": lambda scores: scores + np.float32(0.03),
    "columns swapped": lambda scores: scores[..., ::-1],
    "a constant column": constant_column,
    "a sample's scores in another's place": lambda scores: np.roll(scores, 1, axis=1),
}


@pytest.mark.parametrize("twin", TWINS)
def test_what_is_wrong_in_small_scores_beside_large_boxes_fails(twin):
    wrong = changed(TWINS[twin])
    assert judge(wrong, measured=None).verdict == "pass", "as whole, it hides behind the boxes"
    found = judge(wrong)
    assert found.verdict == "fail"
    assert found.reason.startswith("output 'y' is off by 0.0") and found.reason.endswith(" there")
    assert " in its column " in found.reason or " in its channel " in found.reason


def test_what_is_right_passes_and_nothing_is_left_unproven():
    rounded = [sample * np.float32(1 + 3e-7) for sample in YOLO]
    found = judge(rounded)
    assert (found.verdict, found.not_proven) == ("pass", ())


def test_the_tolerance_of_a_part_itself_is_allowed():
    larger = changed(lambda scores: scores * 2000)
    spread_of = float(np.ptp(np.concatenate(larger)[..., 20]))
    for share, verdict in ((0.99e-4, "pass"), (1.01e-4, "fail")):
        off = [sample.astype("float64") for sample in larger]
        off[2][0, 31, 20] += share * spread_of
        assert judge(off, reference=larger).verdict == verdict


def test_atol_takes_the_place_of_what_parts_may_be_off_and_what_it_hides_is_named():
    found = judge(changed(TWINS["0.03 too high"]), Limits(atol=0.04))
    assert found.verdict == "pass"
    assert found.not_proven == (
        "output 'y' columns 4, 5, 6, 7, 8, 9, 10, 11 and 72 more change too little to tell them from a constant",
    )


def test_a_column_that_never_moves_agrees_and_is_not_proven():
    still = [sample.copy() for sample in YOLO]
    for sample in still:
        sample[..., 17] = 0.5
    found = judge(still, reference=still)
    assert found.verdict == "pass"
    assert found.not_proven == ("output 'y' column 17 never changes over the golden inputs",)


def test_an_output_that_never_moves_is_named_whole_while_another_proves_the_file():
    reference = [{"constant": np.ones((1, 3), dtype), "y": y} for y in YOLO for dtype in ("float32",)]
    found = compare(reference, reference, BY, Limits(), {})
    assert found.verdict == "pass"
    assert found.not_proven[0] == "output 'constant' never changes over the golden inputs"
    whole = [{"i": np.array([[1, i]]), "y": y} for i, y in enumerate(YOLO)]
    found = compare(whole, whole, BY, Limits(), QUIET)
    assert found.not_proven == ("output 'i' column 0 never changes over the golden inputs",), "integers too"


def test_scores_whose_first_is_never_clear_prove_no_order():
    close = [np.array([[0.501, 0.499, 0.1 * i]], "float32") for i in range(3)]
    noise_of = {"y": {1: np.array([0.002, 0.002, 0.0])}}
    found = judge(close, Limits(noise={"y": 0.01}), noise_of, close)
    assert found.not_proven[-1] == (
        "output 'y': its largest score is never clear of the second by more than may be off"
    )
    clear = [*close[:2], np.array([[0.6, 0.4, 0.2]], "float32")]
    assert not any("clear" in line for line in judge(clear, Limits(noise={"y": 0.01}), noise_of, clear).not_proven)
    logits = [c - 1 for c in close]
    assert not any("clear" in line for line in judge(logits, Limits(noise={"y": 0.01}), noise_of, logits).not_proven)
