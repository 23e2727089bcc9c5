"""What a user may choose of a target, and what low-bit weights make of it."""

from __future__ import annotations

import pytest

from exporter.lowering.settings import CoreMlSettings, OnnxSettings, TfliteSettings
from exporter.lowering.target import TARGETS
from runtimes.errors import BadInput


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_settings_that_are_in_range_as_they_are(target):
    settings = TARGETS[target].settings()
    assert settings.faults() == [] and settings.compute == "float32"
    assert settings.raised_to(0).facts == settings.facts


def test_a_version_is_as_chosen_or_as_low_as_is_needed():
    assert OnnxSettings().raised_to(18).facts == {"opset": 20}
    assert OnnxSettings().raised_to(25).facts == {"opset": 25}
    assert OnnxSettings(22).raised_to(21).facts == {"opset": 22}
    assert CoreMlSettings().raised_to(18).facts == {"min_ios": 18}
    assert CoreMlSettings(15, "float16").raised_to(15) == CoreMlSettings(15, "float16")
    assert TfliteSettings().raised_to(7).facts == {}


@pytest.mark.parametrize(
    ("settings", "needed", "fault"),
    [
        (OnnxSettings(20), 21, "--opset: the recipe's weights need opset 21, not 20; leave --opset out, or choose"),
        (CoreMlSettings(16), 18, "--min-ios: the recipe's weights need min ios 18, not 16; leave --min-ios out, or"),
    ],
)
def test_less_than_is_needed_is_refused(settings, needed, fault):
    with pytest.raises(BadInput, match=fault):
        settings.raised_to(needed)
