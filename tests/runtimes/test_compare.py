"""The arithmetic of the gate, against values computed by hand, and everything that must never pass it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtimes.compare import INT8_STEPS, RELATIVE_TOLERANCE, SENSITIVITY_MARGIN, Limits, compare, compare_output
from runtimes.signature import ExecutedBy
from runtimes.types import COMPUTE_TYPES, Parity

BY = ExecutedBy("numpy", np.__version__, "physical")
RTOL = 1e-4


def tensor(*values: float, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


def judge(reference, actual, *, rtol: float = RTOL, atol: float | None = None) -> Parity:
    """Parity of one output `y`, given its value for each sample."""
    return compare([{"y": r} for r in reference], [{"y": a} for a in actual], BY, Limits(rtol, atol))


REFERENCE = [tensor(3, 0), tensor(0, 4)]


def test_figures_of_a_comparison_by_hand():
    # want (3, 0, 0, 4), got (3, 0.5, 0, 3), error (0, -0.5, 0, 1)
    found = compare_output("y", REFERENCE, [tensor(3, 0.5), tensor(0, 3)], Limits(RTOL, 2.0))
    assert found.max_abs_error == 1.0
    assert found.max_rel_error == 0.25
    assert found.cosine == pytest.approx((9 + 12) / (5.0 * math.sqrt(9 + 0.25 + 9)), rel=1e-12)
    assert found.snr_db == pytest.approx(10 * math.log10(25 / 1.25), rel=1e-12)
    assert found.change == 4.0  # |(0, 4) - (3, 0)|
    assert found.tolerance == 2.0


def test_exact_agreement_has_no_noise_to_put_in_decibels():
    found = judge(REFERENCE, REFERENCE)
    assert found == Parity(0.0, 0.0, 1.0, None, 4.0, 4.0 * RTOL, 2, BY, "pass", "", nearest_error=0.0)


def test_the_tolerance_is_that_of_the_output_that_comes_nearest_to_its_own():
    boxes, scores = [tensor(100, 0), tensor(0, 200)], [tensor(1, 0), tensor(0, 1)]
    reference = [{"boxes": b, "scores": s} for b, s in zip(boxes, scores, strict=True)]
    actual = [{"boxes": b + tensor(1e-3, 0), "scores": s + tensor(9e-5, 0)} for b, s in zip(boxes, scores, strict=True)]
    found = compare(reference, actual, BY, Limits(RTOL))
    assert found.verdict == "pass" and found.max_abs_error == pytest.approx(1e-3, rel=1e-2)
    assert (found.nearest_error, found.tolerance) == (pytest.approx(9e-5, rel=1e-2), pytest.approx(1e-4))


def test_parity_reports_the_worst_output():
    reference = [{"a": tensor(1, 0), "b": tensor(100, 0)}, {"a": tensor(0, 1), "b": tensor(0, 100)}]
    actual = [{"a": tensor(1.001, 0), "b": tensor(100.01, 0)}, reference[1]]
    found = compare(reference, actual, BY, Limits(1e-2))
    assert found.verdict == "pass"
    assert found.max_abs_error == pytest.approx(0.01, rel=1e-3)  # of b
    assert found.max_rel_error == pytest.approx(1e-3, rel=1e-3)  # of a
    assert found.tolerance == pytest.approx(1e-2)  # of a, where the relative error is largest
    assert found.snr_db == pytest.approx(10 * math.log10(2 / 1e-6), abs=0.01)  # of a
    assert found.sensitivity == 1.0  # of a
    assert found.samples == 2
    assert found.executed_by == BY


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sample", [0, 1])
def test_nan_and_infinity_never_pass(bad, sample):
    spoiled = [r.copy() for r in REFERENCE]
    spoiled[sample][0] = bad
    for atol in (None, 1e30):
        found = judge(REFERENCE, spoiled, atol=atol)
        assert (found.verdict, found.reason) == ("fail", "output 'y' holds NaN or infinity")
        found = judge(spoiled, REFERENCE, atol=atol)
        assert (found.verdict, found.reason) == ("fail", "PyTorch's own output 'y' is not finite")
        assert judge(spoiled, spoiled, atol=atol).verdict == "fail", "not even where both agree"


def test_a_tolerance_that_is_no_number_never_passes():
    found = judge(REFERENCE, [tensor(3, 0), tensor(0, 4.25)], atol=math.nan)
    assert (found.verdict, found.reason) == ("fail", "output 'y' is off by 0.25, allowed is nan")


@pytest.mark.parametrize(
    ("actual", "reason"),
    [
        (tensor(3, 0).reshape(1, 2), "output 'y' has shape [1, 2] instead of [2]"),
        (tensor(3, 0, 0), "output 'y' has shape [3] instead of [2]"),
        (tensor(3, 0, dtype="int32"), "output 'y' is int32 instead of float32"),
        (tensor(3, 0, dtype="bool"), "output 'y' is bool instead of float32"),
    ],
)
def test_another_shape_or_kind_fails(actual, reason):
    found = judge(REFERENCE, [actual, REFERENCE[1]])
    assert (found.verdict, found.reason) == ("fail", reason)
    assert math.isinf(found.max_abs_error)


def test_another_width_of_the_same_kind_is_compared_by_value():
    wide = [r.astype("float64") for r in REFERENCE]
    assert judge(REFERENCE, wide).verdict == "pass"


@pytest.mark.parametrize("sample", [0, 1])
def test_a_missing_output_fails(sample):
    actual = [{"y": r} for r in REFERENCE]
    del actual[sample]["y"]
    found = compare([{"y": r} for r in REFERENCE], actual, BY, Limits(RTOL))
    assert (found.verdict, found.reason) == ("fail", "output 'y' is missing from the artifact")
    assert (found.max_abs_error, found.cosine, found.snr_db) == (math.inf, 0.0, None)


def test_a_surplus_output_is_not_ours_to_judge():
    actual = [{"y": r, "more": tensor(math.nan)} for r in REFERENCE]
    assert compare([{"y": r} for r in REFERENCE], actual, BY, Limits(RTOL)).verdict == "pass"


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
@pytest.mark.parametrize("atol", [None, 10.0])
def test_integers_must_be_equal_whatever_the_tolerance(dtype, atol):
    reference = [tensor(0, 1, dtype=dtype), tensor(1, 1, dtype=dtype)]
    assert judge(reference, reference, atol=atol).verdict == "pass"
    found = judge(reference, [tensor(1, 1, dtype=dtype), reference[1]], atol=atol)
    assert (found.verdict, found.reason) == ("fail", "output 'y' must be equal and is off by 1")
    assert found.tolerance == 0.0


def test_integers_beyond_what_float64_tells_apart_must_be_equal_too():
    reference = [tensor(2**53, dtype="int64"), tensor(0, dtype="int64")]
    found = judge(reference, [tensor(2**53 + 1, dtype="int64"), reference[1]])
    assert (found.verdict, found.reason) == ("fail", "output 'y' must be equal and is off by 1")


def test_a_model_that_ignores_its_input_fails_though_it_agrees():
    same = [tensor(3, 4), tensor(3, 4), tensor(3, 4)]
    found = judge(same, same)
    assert (found.verdict, found.sensitivity) == ("fail", 0.0)
    assert found.reason == "no output changes when the input does: agreement would prove nothing"


def test_a_longer_sample_does_not_hide_a_model_that_ignores_its_input():
    same = [tensor(3, 4), tensor(3, 4), tensor(3, 4, 3, 4)]
    assert judge(same, same).verdict == "fail"


def test_samples_of_all_different_shapes_do_change():
    found = judge([tensor(3, 4), tensor(3, 4, 5)], [tensor(3, 4), tensor(3, 4, 5)])
    assert (found.verdict, found.sensitivity) == ("pass", 1.0)
    assert found.not_proven == ("output 'y' has another shape for every golden input, so that no two can be compared",)


def test_a_first_sample_of_another_shape_does_not_hide_a_model_that_ignores_its_input():
    same = [tensor(3, 4), tensor(3, 4, 5), tensor(3, 4, 5)]
    assert judge(same, same).verdict == "fail"


def test_one_sample_alone_proves_nothing():
    assert judge([tensor(3, 4)], [tensor(3, 4)]).verdict == "fail"


def test_one_constant_output_is_fine_while_another_changes():
    reference = [{"constant": tensor(7), "y": r} for r in REFERENCE]
    found = compare(reference, reference, BY, Limits(RTOL))
    assert (found.verdict, found.sensitivity) == ("pass", 4.0)


def test_an_error_large_against_the_change_between_inputs_fails():
    reference = [tensor(1000.0), tensor(1000.5)]  # allowed is 0.1, and 0.06 is no tenth of the change of 0.5
    found = judge(reference, [tensor(1000.06), reference[1]])
    assert found.verdict == "fail"
    assert found.reason == (
        "the original's own output 'y' hardly changes with the input (sensitivity 0.5, values up to 1e+03), so that an "
        "error of 0.06, which rounding may make, could hide a collapsed model: agreement would prove nothing"
    )
    allowed = 0.5 / SENSITIVITY_MARGIN
    assert judge(reference, [tensor(1000.0 + 0.98 * allowed), reference[1]]).verdict == "pass"


def test_an_original_that_does_change_is_not_at_fault():
    reference = [tensor(4.0, 0.0), tensor(4.0, 1.0)]
    found = judge(reference, [tensor(4.0, 0.2), reference[1]], atol=0.25)
    assert found.reason == "output 'y' changes by only 1 between inputs, its error is 0.2"
    least = 4.0 * SENSITIVITY_MARGIN / INT8_STEPS
    for change, says in ((1.01 * least, "changes by only"), (0.99 * least, "the original's own output")):
        reference = [tensor(4.0, 0.0), tensor(4.0, change)]
        assert says in judge(reference, [tensor(4.0, 0.2), reference[1]], atol=0.25).reason


def test_atol_takes_the_place_of_the_relative_tolerance():
    actual = [tensor(3, 0), tensor(0, 4.125)]
    found = judge(REFERENCE, actual)
    assert (found.verdict, found.reason) == ("fail", "output 'y' is off by 0.125, allowed is 0.0004")
    assert judge(REFERENCE, actual, atol=0.125).verdict == "pass", "the tolerance itself is allowed"
    assert judge(REFERENCE, actual, atol=math.nextafter(0.125, 0)).verdict == "fail", "and nothing beyond"
    nearly = [tensor(3, 0), tensor(0, 4.0001)]
    assert judge(REFERENCE, nearly).verdict == "pass"
    assert judge(REFERENCE, nearly, atol=0.0).verdict == "fail", "it may be stricter as well"


def test_the_relative_tolerance_itself_is_allowed():
    reference = [tensor(8), tensor(0)]
    assert judge(reference, [tensor(8.125), tensor(0)], rtol=0.125 / 8).verdict == "pass"
    assert judge(reference, [tensor(8.125), tensor(0)], rtol=math.nextafter(0.125 / 8, 0)).verdict == "fail"


def test_an_all_zero_output_allows_no_error_without_atol_and_gives_finite_figures_with_one():
    zero = [{"zero": tensor(0, 0), "y": r} for r in REFERENCE]
    off = [{"zero": tensor(0, 1e-3), "y": r} for r in REFERENCE]
    found = compare(zero, off, BY, Limits(RTOL))
    assert (found.verdict, found.reason) == ("fail", "output 'zero' is off by 0.001, allowed is 0")
    found = compare(zero, off, BY, Limits(RTOL, 1e-2))
    assert found.verdict == "pass"
    assert found.max_rel_error == found.max_abs_error == pytest.approx(1e-3)
    assert (found.cosine, found.snr_db) == (0.0, None)


def test_two_all_zero_outputs_agree():
    found = compare_output("y", [tensor(0)], [tensor(0)], Limits(RTOL))
    assert (found.fault, found.cosine, found.snr_db, found.max_rel_error) == ("", 1.0, None, 0.0)


def test_empty_and_zero_dimensional_outputs_are_compared():
    empty, scalar = np.zeros((0, 3), "float32"), np.float32(2.0).reshape(())
    reference = [{"empty": empty, "scalar": scalar}, {"empty": empty, "scalar": scalar + 1}]
    assert compare(reference, reference, BY, Limits(RTOL)).verdict == "pass"
    wrong = [{"empty": empty, "scalar": scalar + 1}, reference[1]]
    assert compare(reference, wrong, BY, Limits(RTOL)).verdict == "fail"


@pytest.mark.parametrize(("wanted", "found"), [(2, 1), (1, 2), (0, 0)])
def test_another_number_of_samples_is_our_own_bug(wanted, found):
    sample = {"y": tensor(1)}
    with pytest.raises(ValueError, match=f"{wanted} reference and {found} actual samples"):
        compare([sample] * wanted, [sample] * found, BY, Limits(RTOL))


def test_no_outputs_at_all_fail():
    assert compare([{}, {}], [{}, {}], BY, Limits(RTOL)).verdict == "fail"


def test_every_type_of_arithmetic_has_its_tolerance():
    assert set(RELATIVE_TOLERANCE) == set(COMPUTE_TYPES)
    assert RELATIVE_TOLERANCE["float32"] < RELATIVE_TOLERANCE["float16"] < 0.1


def compared(error: float, noise: float, change: float = 10.0):
    """Parity of an artifact that is off by `error` where the output changes by `change` between inputs."""
    reference = [{"y": np.array([0.0, change])}, {"y": np.array([change, 0.0])}]
    actual = [{"y": sample["y"] + error} for sample in reference]
    return compare(reference, actual, BY, Limits(noise={"y": noise}))


def test_the_noise_of_quantized_activations_is_allowed_and_no_more():
    assert compared(0.5, noise=0.5).verdict == "pass"
    assert compared(0.51, noise=0.5).reason == "output 'y' is off by 0.51, allowed is 0.5"
    assert compared(0.5, noise=0.0).verdict == "fail"
    assert compared(0.0009, noise=1e-9).verdict == "pass", "the tolerance of floats is the least"


def test_with_noise_the_output_must_still_change_by_more_than_the_error():
    assert compared(4.0, noise=5.0, change=10.0).verdict == "pass"
    assert "changes by only 10 between inputs, its error is 6" in compared(6.0, noise=7.0, change=10.0).reason


VALUES = st.floats(-1024.0, 1024.0, width=32).filter(lambda v: v == 0.0 or abs(v) > 1e-3)
SAMPLES = st.lists(st.tuples(*[arrays(np.float32, (4,), elements=VALUES)] * 2), min_size=2, max_size=5)


def figures(parity: Parity) -> list[float]:
    numbers = (parity.max_abs_error, parity.max_rel_error, parity.cosine, parity.sensitivity, parity.tolerance)
    return [*numbers, 0.0 if parity.snr_db is None else parity.snr_db]


@given(SAMPLES, st.randoms())
def test_the_order_of_samples_does_not_matter(samples, random):
    first, rest = samples[0], samples[1:]
    shuffled = [first, *random.sample(rest, len(rest))]
    one, other = (judge(*zip(*order, strict=True)) for order in (samples, shuffled))
    assert (one.verdict, one.snr_db is None) == (other.verdict, other.snr_db is None)
    assert figures(one) == pytest.approx(figures(other), rel=1e-9, abs=1e-9)


@given(SAMPLES, st.sampled_from([2.0**-8, 0.5, 4.0, 2.0**10]))
def test_scaling_both_sides_scales_what_is_absolute_and_leaves_what_is_relative(samples, factor):
    reference, actual = zip(*samples, strict=True)
    scale = np.float32(factor)
    one, scaled = judge(reference, actual), judge([r * scale for r in reference], [a * scale for a in actual])
    assert scaled.verdict == one.verdict
    assert scaled.max_abs_error == pytest.approx(one.max_abs_error * factor)
    assert scaled.sensitivity == pytest.approx(one.sensitivity * factor)
    assert scaled.cosine == pytest.approx(one.cosine, abs=1e-12)
    if any(r.any() for r in reference):
        assert scaled.max_rel_error == pytest.approx(one.max_rel_error)


@given(SAMPLES)
def test_the_sign_of_both_sides_does_not_matter(samples):
    reference, actual = zip(*samples, strict=True)
    one, other = judge(reference, actual), judge([-r for r in reference], [-a for a in actual])
    assert figures(one) == pytest.approx(figures(other), rel=1e-12)
    assert one.verdict == other.verdict


@given(SAMPLES, st.integers(0, 4), st.integers(0, 3), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_one_value_that_is_not_finite_fails_any_comparison(samples, sample, position, bad):
    reference, actual = zip(*[(r, a.copy()) for r, a in samples], strict=True)
    actual[sample % len(actual)][position] = bad
    assert judge(reference, actual, atol=1e30).verdict == "fail"


@given(SAMPLES)
def test_what_passes_lies_within_its_tolerance_and_changes_with_the_input(samples):
    reference, actual = zip(*samples, strict=True)
    found = judge(reference, actual, rtol=0.5)
    error = max(float(np.abs(r.astype(np.float64) - a).max()) for r, a in samples)
    assert found.max_abs_error == error
    if found.verdict == "pass":
        assert error <= found.tolerance
        assert found.sensitivity >= SENSITIVITY_MARGIN * error
        assert found.sensitivity > 0.0
    else:
        assert error > found.tolerance or found.sensitivity < SENSITIVITY_MARGIN * error or found.sensitivity == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compute", "atol", "noise", "wanted"),
    [
        ("float32", None, 0.0, lambda largest: 1e-4 * largest),
        ("float16", None, 0.0, lambda largest: 1e-2 * largest),
        ("float32", 0.25, 7.0, lambda largest: 0.25),
        ("float32", None, 7.0, lambda largest: 7.0),
    ],
    ids=["float32", "float16", "atol", "noise"],
)
def test_verify_bench_delta_and_embed_use_the_same_limits(exported, copy_of, monkeypatch, compute, atol, noise, wanted):
    """Each gets them from the manifest alone, whatever gave them there."""
    from benchmarks import bench
    from exporter.bundle.writer import write_manifest
    from exporter.delivery import fine_tune
    from exporter.embed import describe
    from runtimes import verify
    from runtimes.bundle import read_manifest
    from runtimes.golden import read_golden

    bundle = copy_of(exported("mlp", "onnx"))
    manifest = read_manifest(bundle)
    output = manifest.signature.outputs[0].name
    artifact = replace(manifest.artifacts[0], compute=compute, noise={output: noise} if noise else {})
    manifest = replace(manifest, artifacts=(artifact,), settings={} if atol is None else {"atol": atol})
    write_manifest(manifest, bundle)
    golden = read_golden(bundle / artifact.golden)
    largest = max(float(np.max(np.abs(sample[output]))) for sample in golden.outputs)
    found = []

    def prove(path, golden, limits):
        found.append(limits)
        return artifact.signature, artifact.parity

    for room in (bench, describe):  # which would refuse a manifest that is not what the file says of itself
        monkeypatch.setattr(room, "check_bundle", lambda *words: None)
    monkeypatch.setattr(verify, "contradictions", lambda *words: iter(()))
    monkeypatch.setattr(verify, "prove", prove)
    monkeypatch.setattr(fine_tune, "prove", prove)
    verify.verify(bundle, manifest)
    found.append(bench.bench_artifacts(bundle)[0].proof.limits)
    (embedded,) = describe.describe(bundle, ("onnx",)).artifacts
    fine_tune._proven(bundle, artifact, manifest)  # the last: it writes golden values that the manifest lacks
    assert len(found) == 3
    assert [limits.tolerance(output, largest) for limits in found] == [wanted(largest)] * 3
    assert embedded.tolerances[output] == wanted(largest)
