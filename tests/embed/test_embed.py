"""What every library has, and what is refused; the names and texts of a bundle never become code."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from exporter.embed import card
from exporter.embed import describe as described
from exporter.embed import write as writing
from exporter.embed.describe import describe
from exporter.embed.write import PLATFORMS, embed, rendered
from runtimes.bundle import digest, read_manifest
from runtimes.compare import limits_of
from runtimes.errors import BadInput, ParityFailed
from runtimes.golden import Golden, read_golden, write_golden
from runtimes.processing.preprocessor import Preprocessor, Text, to_bytes
from runtimes.signature import TensorSpec
from tests.embed.hostile import library, saying


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "rnet", "basicmotions", "cnn", "hearer", "two_inputs"])
@pytest.mark.parametrize("platform", [p for p in PLATFORMS if p != "web"])
def test_every_library_has_what_an_app_needs(name, platform, library_of, bundle_of):
    folder = library_of(name, platform)
    readme = (folder / "README.md").read_text()
    assert len(readme.splitlines()) < 40
    said = bundle_of(name) / "preprocessor.json"
    assert ("label" in readme and ".score" in readme) == (said.is_file() and '"classes"' in said.read_text())
    assert said.is_file() or (("preprocessor.json" not in readme and "--labels" in readme) or platform != "python")
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


def test_the_method_that_is_told_is_one_that_is_there(library_of, bundle_of):
    for name, method in (("digits", "predict"), ("two_inputs", "run")):
        (code,) = library_of(name, "python").glob("*/__init__.py")
        assert describe(bundle_of(name), ("onnx",)).method == method and f"def {method}(" in code.read_text()


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


def test_what_each_element_may_be_off_by_lies_in_the_golden_file(bundle_of):
    bundle = bundle_of("detector")
    library, golden = describe(bundle, ("onnx",)), read_golden(bundle / "golden.npz")
    (artifact,) = library.artifacts
    (place,) = artifact.allowed
    found = np.frombuffer(library.files["golden.bin"], place.dtype, place.count, place.offset).reshape(place.shape)
    manifest = read_manifest(bundle)
    limits = limits_of(manifest, manifest.artifacts[0])
    axes = limits.axes("found", [outputs["found"] for outputs in golden.outputs], golden.noise["onnx"])
    rows, columns = (axis.tolerance for axis in axes)
    np.testing.assert_allclose(found[0], np.minimum(rows[:, None], columns), rtol=1e-6)
    assert (found[0] >= np.minimum(rows[:, None], columns)).all(), "rounded up"
    assert found.max() <= artifact.tolerances["found"] * 1.000001 and found[..., 4:].max() < found.max() / 100


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
            m, artifacts=tuple(replace(a, parity=replace(a.parity, verdict="fail", reason="off")) for a in m.artifacts)
        ),
    )
    with pytest.raises(ParityFailed, match="never proven"):
        embed(bundle, "cpp", tmp_path / "out")


@pytest.mark.parametrize(("dtype", "shape", "said"), [("float32", ("n", 3), "dynamic axis"), ("bool", (3,), "is bool")])
def test_dynamic_axes_and_other_types_are_refused(tmp_path, dtype, shape, said):
    with pytest.raises(BadInput, match=said):
        described._tensors([TensorSpec("x", dtype, shape)], tmp_path)


@pytest.mark.parametrize("length", [-16, 10**18])
def test_a_shape_that_no_tensor_has_is_refused(bundle_of, copy_of, refused, tmp_path, length):
    bundle = copy_of(bundle_of("mlp"))
    document = json.loads((bundle / "manifest.json").read_text())
    for holder in (document, *document["artifacts"]):
        holder["signature"]["inputs"][0]["shape"][0] = length
    (bundle / "manifest.json").write_text(json.dumps(document))
    line = refused("embed", bundle, "--cpp", tmp_path / "out")
    assert f"signature.inputs[0].shape[0]: {length} is not 0 to 2147483648; do not trust this bundle" in line
    assert not (tmp_path / "out").exists()


def test_names_that_the_golden_values_lack_are_refused(bundle_of, copy_of, refused, tmp_path):
    bundle = copy_of(bundle_of("mlp"))
    text = (bundle / "manifest.json").read_text().replace('"name": "input"', '"name": "other"')
    (bundle / "manifest.json").write_text(text)
    line = refused("embed", bundle, "--cpp", tmp_path / "out", code=3)
    assert "model.onnx: its own signature.inputs is not the manifest's; do not ship it" in line


def test_a_licence_that_is_a_link_out_of_the_bundle_is_refused(bundle_of, copy_of, refused, tmp_path):
    bundle = copy_of(bundle_of("mlp"))
    (bundle / "LICENSE").symlink_to("/etc/hostname")
    line = refused("embed", bundle, "--cpp", tmp_path / "out", code=3)
    assert "'LICENSE': a bundle holds no symbolic link; do not ship it" in line


def test_golden_values_of_another_type_are_refused(bundle_of, copy_of, tmp_path):
    bundle = copy_of(bundle_of("digits"))
    golden = read_golden(bundle / "golden.npz")
    wide = tuple({k: v.astype(np.float64) for k, v in sample.items()} for sample in golden.outputs)
    write_golden(Golden(golden.inputs, wide), bundle / "golden.npz")
    changed_manifest(bundle, lambda m: m)
    with pytest.raises(ParityFailed, match=r"'logits' of sample 0 in golden.npz is float64\[1, 10\], not float32"):
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


def test_a_text_that_is_larger_than_any_of_ours_is_refused(tmp_path):
    with open(tmp_path / "LICENSE", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadInput, match=r"/LICENSE: cannot be read .1,099,511,627,776 bytes are more than 16,777,216."):
        card.model_license(library("ios"), tmp_path)


def test_a_token_that_would_shift_the_others_is_refused(tmp_path):
    with pytest.raises(BadInput, match="a token of the vocabulary has a line break"):
        described._vocabulary(SimpleNamespace(vocabulary=("a", "a\nb")), tmp_path)
    assert described._vocabulary(SimpleNamespace(vocabulary=("a", "\r")), tmp_path) == b"a\n\r\n"


@pytest.mark.parametrize("asked", ["18", "16.0), .linux", 0, 10**30, True, 16.5])
def test_an_ios_that_is_no_version_is_refused(asked):
    made = library("ios")
    with pytest.raises(BadInput, match=r"min_ios is .*, no version of iOS"):
        rendered(replace(made, manifest=replace(made.manifest, settings={"min_ios": asked})), "ios")


@pytest.mark.parametrize(("asked", "ios", "mac"), [(None, 16, 13), (14, 16, 13), (18, 18, 15)])
def test_the_package_says_which_ios_it_needs(asked, ios, mac):
    made = library("ios")
    settings = {} if asked is None else {"min_ios": asked}
    text = rendered(replace(made, manifest=replace(made.manifest, settings=settings)), "ios")["Package.swift"]
    assert f'[.iOS("{ios}.0"), .macOS("{mac}.0")]' in text


def test_the_licence_of_the_model_is_copied_or_told_on_one_line(tmp_path):
    from exporter.embed.card import model_license

    evil = library("python", saying("MIT\n\nApache License\x1b[2J", "license"))
    assert (
        model_license(evil, tmp_path).decode().splitlines()[0]
        == "The model is under this licence: MIT Apache License [2J"
    )
    assert b"Apache License" in model_license(library("python", saying("Apache-2.0", "license")), tmp_path)
    for name in ("../licenses/Apache-2.0", "x" * 5000, "Apache-2.0\0"):
        assert model_license(library("python", saying(name, "license")), tmp_path).startswith(
            b"The model is under this"
        )
    (tmp_path / "LICENSE").write_bytes(b"\xff\xfe no UTF-8")
    assert model_license(evil, tmp_path) == b"\xff\xfe no UTF-8"


@pytest.mark.slow
def test_the_web_needs_the_page_that_brings_its_runtime(bundle_of, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "RUNTIMES", tmp_path / "runtimes")
    with pytest.raises(BadInput, match="ONNX Runtime Web is not here"):
        embed(bundle_of("digits"), "web", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_platform_that_fails_leaves_none_of_the_others(bundle_of, refused, pocketship, tmp_path):
    """What stood before stays as it was, and the same words do it once the cause is mended."""
    (tmp_path / "web").mkdir()
    assert pocketship("embed", bundle_of("digits"), "--cpp", tmp_path / "cpp", "--name", "before").returncode == 0
    old = (tmp_path / "cpp" / "README.md").read_text()
    words = ["embed", bundle_of("digits")]
    for platform in ("android", "cpp", "python", "web"):
        words += [f"--{platform}", tmp_path / platform]
    (tmp_path / "web" / "thesis.txt").write_text("mine")
    assert "no library that embed wrote" in refused(*words, "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpp", "web"]
    assert (tmp_path / "cpp" / "README.md").read_text() == old


def test_a_rename_that_fails_takes_back_those_before_it(bundle_of, tmp_path, monkeypatch):
    """The second of two cannot take its place: the first, which replaced another library, is that one again."""
    bundle = bundle_of("digits")
    embed(bundle, "cpp", tmp_path / "cpp", name="before")
    old = (tmp_path / "cpp" / "README.md").read_text()
    outputs = {"android": tmp_path / "android", "cpp": tmp_path / "cpp", "python": tmp_path / "python"}

    def commit(partial: Path, output: Path) -> None:
        if output.name == "python":
            raise OSError(errno.EIO, "Input/output error", str(output))
        written(partial, output)

    written = writing.commit
    monkeypatch.setattr(writing, "commit", commit)
    with pytest.raises(BadInput, match="cannot write"):
        writing.embed_all(bundle, outputs, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["cpp"]
    assert (tmp_path / "cpp" / "README.md").read_text() == old


@pytest.mark.parametrize(
    ("android", "ios", "said"),
    [
        ("lib", "lib", "--ios lies in the folder of --android"),
        ("lib", "Lib", "--ios lies in the folder of --android, on a disk that does not tell a from A"),
        ("lib/android", "lib", "--android lies in the folder of --ios"),
        ("BUNDLE", "lib", "--android lies in the folder of the bundle"),
        ("BUNDLE/android", "lib", "--android lies in the folder of the bundle"),
    ],
)
def test_folders_that_would_share_files_are_refused(bundle_of, tmp_path, android, ios, said):
    bundle = bundle_of("digits")
    outputs = {"android": android.replace("BUNDLE", str(bundle)), "ios": ios}
    with pytest.raises(BadInput, match=re.escape(said)):
        writing.embed_all(bundle, {platform: tmp_path / folder for platform, folder in outputs.items()})
    assert list(tmp_path.iterdir()) == []
