"""Words of the command line become options, and every wrong one is named."""

from __future__ import annotations

from dataclasses import fields

import pytest

from exporter.lowering.settings import CoreMlSettings, OnnxSettings
from exporter.lowering.target import TARGETS
from exporter.stages.options import (
    Options,
    check_installed,
    check_options,
    options_of,
    parse_dynamic,
    parse_shapes,
    parse_targets,
)
from runtimes.errors import BadInput


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        ([], ("onnx", "tflite", "coreml")),
        (["all"], ("onnx", "tflite", "coreml")),
        (["onnx", "all"], ("onnx", "tflite", "coreml")),
        (["coreml,onnx"], ("coreml", "onnx")),
        (["coreml", "onnx", "coreml"], ("coreml", "onnx")),
        ([" tflite , onnx "], ("tflite", "onnx")),
    ],
)
def test_targets(words, targets):
    assert parse_targets(words) == targets


@pytest.mark.parametrize("words", [["onxx"], ["onnx,"], [""], ["onnx", "all", "tf"]])
def test_an_unknown_target(words):
    with pytest.raises(BadInput, match=r"--target: unknown target '.*'; give onnx, tflite, coreml or all"):
        parse_targets(words)


def test_shapes():
    assert parse_shapes([]) == {}
    assert parse_shapes(["image=1,3,224,224", "n=4"]) == {"image": (1, 3, 224, 224), "n": (4,)}


@pytest.mark.parametrize("word", ["image", "image=", "image=1,,3", "image=-1", "=1", "image=1x3", "a b=1", "image=1,"])
def test_a_shape_of_another_form(word):
    with pytest.raises(BadInput, match=r"--input-shape: cannot read '.*'; write it as name=1,3,224,224"):
        parse_shapes([word])


def test_dynamic_axes():
    assert parse_dynamic([]) == ()
    assert parse_dynamic(["ids:1", "mask:1", "ids:1"]) == (("ids", 1), ("mask", 1))


@pytest.mark.parametrize("word", ["ids", "ids:", ":1", "ids:-1", "ids:1:2", "ids=1"])
def test_a_dynamic_axis_of_another_form(word):
    with pytest.raises(BadInput, match=r"--dynamic: cannot read '.*'; write it as name:axis, axes from 0"):
        parse_dynamic([word])


def test_the_defaults_are_in_range():
    check_options(options_of())
    check_installed(Options())


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ({"opset": 17}, "--opset 17 is none of 18 to 23"),
        ({"opset": 24}, "--opset 24 is none of 18 to 23"),
        ({"min_ios": 14}, "--min-ios 14 is none of 15 to 18"),
        ({"min_ios": 19}, "--min-ios 19 is none of 15 to 18"),
        ({"coreml_precision": "int8"}, "--coreml-precision int8 is none of float32, float16"),
        ({"atol": -1.0}, "--atol -1.0 is no tolerance"),
        ({"atol": float("nan")}, "--atol nan is no tolerance"),
        ({"atol": float("inf")}, "--atol inf is no tolerance"),
        ({"targets": ("onxx",)}, "unknown target 'onxx'"),
    ],
)
def test_an_option_out_of_range(option, fault):
    with pytest.raises(BadInput) as refusal:
        check_options(options_of(**option))
    assert str(refusal.value) == f"{fault}; see pocketship export --help"


def test_all_faults_are_listed_at_once():
    with pytest.raises(BadInput) as refusal:
        check_options(options_of(opset=1, min_ios=1, coreml_precision="x", atol=-1.0, targets=("y",)))
    for fault in ("--opset 1", "--min-ios 1", "--coreml-precision x", "--atol -1.0", "unknown target 'y'"):
        assert fault in str(refusal.value)


def test_packages_that_the_targets_need(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "coremltools" else real(name))
    check_installed(Options(targets=("onnx", "tflite")))
    with pytest.raises(BadInput, match=r"coremltools not installed; pip install 'pocketship\[export\]'"):
        check_installed(Options())


def test_words_of_a_target_go_to_its_settings():
    options = options_of(targets=("onnx",), opset=19, coreml_precision="float16", seed=3)
    assert options.settings["onnx"] == OnnxSettings(19)
    assert options.settings["coreml"] == CoreMlSettings(None, "float16")
    assert options.seed == 3 and options_of().settings == Options().settings
    with pytest.raises(TypeError, match="unexpected keyword argument 'opsett'"):
        options_of(opsett=19)


def test_no_word_belongs_to_two_targets_or_to_an_export_too():
    words = [f.name for target in TARGETS.values() for f in fields(target.settings)]
    assert len(words) == len(set(words)) and not set(words) & {f.name for f in fields(Options)}
