"""The table of representations: a row for every combination, and a refusal with its reason for every other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from exporter.low_bit.weight import (
    ACTIVATIONS,
    GROUPS,
    HALF_BITS,
    KINDS,
    LARGEST_CODE,
    OTHER_USE,
    Granularity,
    LowBitWeight,
)
from exporter.lowering.representation import GROUPS as STORES_GROUPS
from exporter.lowering.representation import TABLE, Refusal, representation
from exporter.lowering.target import TARGETS
from runtimes.errors import BadInput


def weight(kind, bits=4, group=None):
    granularity = Granularity(group=group)
    scale = np.ones(granularity.scale_shape((2, 128)), np.float32)
    return LowBitWeight(np.ones((2, 128), np.int8), scale, bits, kind, granularity=granularity)


def test_every_combination_has_a_row_of_bits_that_hold_its_codes():
    halves = set(itertools.product(TARGETS, (*KINDS, OTHER_USE), [HALF_BITS], ["float"]))
    assert set(TABLE) == set(itertools.product(TARGETS, KINDS, LARGEST_CODE, ACTIVATIONS)) | halves
    assert all(row.bits >= bits and row.why for (_, _, bits, _), row in TABLE.items())
    assert set(STORES_GROUPS) == set(itertools.product(TARGETS, KINDS))


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_a_transposed_convolution_computes_in_integers_where_the_runtime_can(bits):
    for target in ("onnx", "coreml"):
        assert {TABLE[target, "conv_transpose", bits, asked].activations for asked in ACTIVATIONS} == {"float"}
    row = TABLE["tflite", "conv_transpose", bits, "static"]
    assert row.activations == ("static" if bits == 8 else "float")


REFUSED = {place: refusal for place, refusal in STORES_GROUPS.items() if isinstance(refusal, Refusal)}
SAYS = {
    "onnx": "what is written for ONNX multiplies all codes of a channel by one scale; quantize it per channel",
    "tflite": "what is written for TFLite has one scale for all codes of a channel; quantize it per channel",
    "coreml": "Core ML's blocks run along one axis, and a group of a convolution's values runs along several; "
    "quantize it per channel",
}


@pytest.mark.parametrize(("target", "kind"), REFUSED, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_a_format_cannot_store_is_refused_with_the_reason(target, kind, group):
    with pytest.raises(BadInput) as refusal:
        representation(target, weight(kind, group=group))
    assert str(refusal.value) == f"{target}: {SAYS[target]}"
    assert representation(target, weight(kind)) == TABLE[target, kind, 4, "float"]


@pytest.mark.parametrize("bits", LARGEST_CODE)
def test_a_group_that_a_format_stores_is_named_and_asks_for_its_version(bits):
    stored = representation("coreml", weight("linear", bits, 64))
    assert stored.min_ios == 18 and stored.bits == bits
    assert (
        stored.name == {8: "int8 in groups of 64", 4: "int4 in groups of 64", 2: "2-bit palette in groups of 64"}[bits]
    )
