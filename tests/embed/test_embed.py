"""What every library has, and what is refused; the names and texts of a bundle never become code."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from exporter.embed import describe as described
from exporter.embed import write as writing
from exporter.embed.describe import camel, describe, pascal, snake, unique
from exporter.embed.write import PLATFORMS, embed
from runtimes.bundle import digest, read_manifest
from runtimes.errors import BadInput, ParityFailed
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.processing.preprocessor import Preprocessor, Text, to_bytes


@pytest.mark.parametrize(
    ("name", "plain", "humps", "kind"),
    [
        ("input_ids", "input_ids", "inputIds", "InputIds"),
        ("MobileNetV3-small", "mobile_net_v_3_small", "mobileNetV3Small", "MobileNetV3Small"),
        ("class", "class_", "class_", "Class"),
        ("3d", "n3_d", "n3D", "N3D"),
        ("été", "t", "t", "T"),
        ("*/", "model", "model", "Model"),
        ("", "model", "model", "Model"),
    ],
)
def test_any_name_becomes_an_identifier(name, plain, humps, kind):
    assert (snake(name), camel(name), pascal(name)) == (plain, humps, kind)


def test_names_that_would_be_the_same_are_numbered():
    assert unique(["a-b", "a.b", "a_b", "c"]) == ["a_b", "a_b_2", "a_b_3", "c"]


@pytest.mark.parametrize("name", ["digits", "rnet", "basicmotions", "cnn", "hearer", "two_inputs"])
@pytest.mark.parametrize("platform", [p for p in PLATFORMS if p != "web"])
def test_every_library_has_what_an_app_needs(name, platform, library_of, bundle_of):
    folder = library_of(name, platform)
    assert len((folder / "README.md").read_text().splitlines()) < 40
    card = (folder / "MODEL_CARD.md").read_text()
    manifest = read_manifest(bundle_of(name))
    assert manifest.origin.weights_sha256 in card and f"{manifest.origin.parameters:,}" in card
    assert "Apache License" in (folder / "LICENSE").read_text()
    licence = (folder / "LICENSE.model").read_text()
    ours = {"rnet": "Timothy Esler", "digits": "Apache License", "basicmotions": "Apache License"}
    theirs = dict.fromkeys(("cnn", "hearer", "two_inputs"), "states no licence")
    assert {**ours, **theirs}[name] in licence
    assert list(folder.rglob("golden.bin"))
    assert not [p for p in folder.rglob("*") if "{" in p.name or p.suffix == ".j2"]


def test_golden_values_lie_where_the_code_is_told(bundle_of):
    library = describe(bundle_of("rnet"), ("onnx", "tflite"))
    content = library.files["golden.bin"]
    golden = read_golden(bundle_of("rnet") / "golden.npz")
    for artifact in library.artifacts:
        for i, sample in enumerate(artifact.samples):
            for tensors, values in ((sample.inputs, golden.inputs[i]), (sample.outputs, golden.outputs[i])):
                for tensor in tensors:
                    assert tensor.offset % 8 == 0
                    found = np.frombuffer(content, tensor.dtype, tensor.count, tensor.offset).reshape(tensor.shape)
                    np.testing.assert_array_equal(found, values[tensor.name])


def test_the_command_says_what_it_wrote(bundle_of, pocketship, tmp_path):
    words = ("embed", bundle_of("digits"), "--python", tmp_path / "p", "--cpp", tmp_path / "c")
    done = pocketship(*words)
    assert done.returncode == 0, done.stderr
    assert "Digits" in done.stdout and "predict" in done.stdout and "model.onnx, model.tflite" in done.stdout
    told = json.loads(pocketship(*words, "--force", "--json").stdout)
    assert [library["platform"] for library in told] == ["cpp", "python"]
    assert pocketship(*words, "--force", "--quiet").stdout == ""


def test_another_name_and_package(bundle_of, tmp_path):
    embed(bundle_of("digits"), "android", tmp_path / "a", name="Post Code", package="org.example.post")
    assert (tmp_path / "a/src/main/java/org/example/post/PostCode.java").is_file()
    assert (tmp_path / "a/src/main/assets/post_code/model.onnx").is_file()
    for package in ("example", "org.Example", "org.class.x", "org..x", "org.x;"):
        with pytest.raises(BadInput, match="no package name"):
            embed(bundle_of("digits"), "android", tmp_path / "b", package=package)


def test_no_platform_is_refused(bundle_of, refused, tmp_path):
    assert "add one of --android DIR" in refused("embed", bundle_of("digits"))
    with pytest.raises(BadInput, match="no platform 'symbian'"):
        embed(bundle_of("digits"), "symbian", tmp_path / "x")


def test_only_a_library_is_replaced_and_only_when_asked(bundle_of, refused, tmp_path):
    words = ("embed", bundle_of("digits"), "--python", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert "exists" in refused(*words)
    assert "no library that embed wrote" in refused(*words, "--force")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_bundle_without_the_format_is_refused(exported, refused, tmp_path):
    line = refused("embed", exported("mlp", "onnx"), "--ios", tmp_path / "out")
    assert "the bundle has onnx; the library needs coreml" in line and "--target coreml" in line


def test_a_changed_bundle_is_refused(bundle_of, copy_of, refused, tmp_path):
    bundle = copy_of(bundle_of("digits"))
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-1] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    assert "model.onnx" in refused("embed", bundle, "--cpp", tmp_path / "out", code=3)
    assert not (tmp_path / "out").exists()


def changed_manifest(bundle, change) -> None:
    from exporter.bundle.writer import write_manifest

    manifest = change(read_manifest(bundle))
    files = tuple(replace(f, size_bytes=s, sha256=h) for f in manifest.files for s, h in [digest(bundle / f.path)])
    write_manifest(replace(manifest, files=files), bundle)


def test_an_artifact_that_was_never_proven_is_refused(bundle_of, copy_of, tmp_path):
    bundle = copy_of(bundle_of("digits"))
    changed_manifest(
        bundle,
        lambda m: replace(
            m, artifacts=tuple(replace(a, parity=replace(a.parity, verdict="fail")) for a in m.artifacts)
        ),
    )
    with pytest.raises(ParityFailed, match="never proven"):
        embed(bundle, "cpp", tmp_path / "out")


def test_dynamic_axes_and_other_types_are_refused(bundle_of, copy_of, tmp_path):
    bundle = copy_of(bundle_of("digits"))
    spec = read_manifest(bundle).signature.inputs[0]
    for changed, said in (
        (replace(spec, shape=("n", 3, 32, 32)), "dynamic axis"),
        (replace(spec, dtype="bool"), "is bool"),
    ):
        changed_manifest(bundle, lambda m, c=changed: replace(m, signature=replace(m.signature, inputs=(c,))))
        with pytest.raises(BadInput, match=said):
            embed(bundle, "cpp", tmp_path / "out")


def test_golden_values_of_another_type_are_refused(bundle_of, copy_of, tmp_path):
    bundle = copy_of(bundle_of("digits"))
    golden = read_golden(bundle / "golden.npz")
    wide = tuple({k: v.astype(np.float64) for k, v in sample.items()} for sample in golden.outputs)
    write_golden(Golden(golden.inputs, wide), bundle / "golden.npz")
    changed_manifest(bundle, lambda m: m)
    with pytest.raises(BadInput, match="golden values of 'logits' are float64"):
        embed(bundle, "cpp", tmp_path / "out")


def test_a_text_without_its_tokenizer_and_two_texts_are_refused(bundle_of, copy_of, tmp_path, monkeypatch):
    bundle = copy_of(bundle_of("digits"))
    (bundle / "preprocessor.json").write_bytes(to_bytes(Preprocessor((Text(8, "a"),))))
    changed_manifest(bundle, lambda m: m)
    monkeypatch.setattr(described, "check_signature", lambda *_: None)
    with pytest.raises(BadInput, match="tokenizer is missing"):
        embed(bundle, "cpp", tmp_path / "out")
    (bundle / "preprocessor.json").write_bytes(to_bytes(Preprocessor((Text(8, "a"), Text(8, "b", name="other")))))
    changed_manifest(bundle, lambda m: m)
    with pytest.raises(BadInput, match="two texts"):
        embed(bundle, "cpp", tmp_path / "out")


def test_the_web_needs_the_page_that_brings_its_runtime(bundle_of, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "RUNTIMES", tmp_path / "runtimes")
    with pytest.raises(BadInput, match="ONNX Runtime Web is not here"):
        embed(bundle_of("digits"), "web", tmp_path / "out")
    assert not (tmp_path / "out").exists()
