"""What a manifest may say, that its paths stay inside, and that a changed byte is seen."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.bundle.schema import manifest_schema
from runtimes import bundle as module
from runtimes.bundle import damage, digest, read_manifest
from runtimes.errors import BadInput
from runtimes.records import from_json
from runtimes.signature import ExecutedBy, Signature, TensorSpec
from runtimes.types import (
    EXECUTION_KINDS,
    FORMATS,
    PRECISIONS,
    SCHEMA_VERSION,
    Artifact,
    BundleFile,
    Manifest,
    Origin,
    Parity,
)

SIGNATURE = Signature((TensorSpec("x", "float32", ("batch", 4)),), (TensorSpec("y", "float32", ("batch", 2)),))
PARITY = Parity(1e-7, 2e-7, 1.0, None, 0.5, 1e-4, 3, ExecutedBy("onnxruntime", "1.20", "physical"), "pass")
MANIFEST = Manifest(
    schema_version=SCHEMA_VERSION,
    name="tiny",
    origin=Origin("tiny.py:make", "factory", "00ff", "random", 10),
    signature=SIGNATURE,
    artifacts=(Artifact("onnx", "model.onnx", 3, "ab", "float32", SIGNATURE, PARITY),),
    files=(BundleFile("golden.npz", 5, "cd"),),
    tool_versions={"torch": "2.13"},
    settings={"opset": 20, "atol": 0.5, "name": "x", "flag": True},
)


def as_json(manifest: Manifest = MANIFEST) -> Any:
    return json.loads(json.dumps(asdict(manifest)))


def with_value(path: str, value: Any) -> Any:
    """The manifest's JSON with the value at a path like `artifacts.0.parity.samples` replaced."""
    document = as_json()
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value
    return document


def without(path: str) -> Any:
    document = with_value(path, None)
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    del place[last]
    return document


def test_a_manifest_survives_json():
    assert from_json(Manifest, as_json()) == MANIFEST


NAMES = st.text(max_size=8)
COUNTS = st.integers(0, 2**62)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SPECS = st.builds(
    TensorSpec, NAMES, st.sampled_from(["float32", "int64"]), st.lists(COUNTS | NAMES, max_size=3).map(tuple)
)
SIGNATURES = st.builds(Signature, *[st.lists(SPECS, max_size=2).map(tuple)] * 2)
PARITIES = st.builds(
    Parity,
    *[FLOATS] * 3,
    st.none() | FLOATS,
    *[FLOATS] * 2,
    COUNTS,
    st.builds(ExecutedBy, NAMES, NAMES, st.sampled_from(EXECUTION_KINDS)),
    st.sampled_from(["pass", "fail"]),
    NAMES,
)
ARTIFACTS = st.builds(
    Artifact, st.sampled_from(FORMATS), NAMES, COUNTS, NAMES, st.sampled_from(PRECISIONS), SIGNATURES, PARITIES
)
MANIFESTS = st.builds(
    Manifest,
    st.just(SCHEMA_VERSION),
    NAMES,
    st.builds(Origin, NAMES, NAMES, NAMES, NAMES, COUNTS, st.none() | NAMES, st.none() | NAMES),
    SIGNATURES,
    st.lists(ARTIFACTS, max_size=2).map(tuple),
    st.lists(st.builds(BundleFile, NAMES, COUNTS, NAMES), max_size=2).map(tuple),
    st.dictionaries(NAMES, NAMES, max_size=2),
    st.dictionaries(NAMES, NAMES | st.integers() | FLOATS | st.booleans(), max_size=3),
)


@settings(max_examples=50)
@given(MANIFESTS)
def test_any_manifest_survives_json(manifest):
    again = from_json(Manifest, as_json(manifest))
    assert again == manifest
    assert [type(v) for v in again.settings.values()] == [type(v) for v in manifest.settings.values()]


def validator() -> jsonschema.Draft202012Validator:
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@given(MANIFESTS)
def test_any_manifest_fits_the_json_schema(manifest):
    VALIDATOR.validate(as_json(manifest))


VALIDATOR = validator()

MISSING = ("name", "origin", "files", "origin.parameters", "artifacts.0.parity.executed_by", "signature.inputs.0.dtype")

WRONG_TYPES = [
    ("name", 3, "name: 3 is not str"),
    ("origin", [], "origin: [] is not an object"),
    ("origin.parameters", "10", "origin.parameters: '10' is not int"),
    ("origin.parameters", True, "origin.parameters: True is not int"),
    ("origin.parameters", 1.5, "origin.parameters: 1.5 is not int"),
    ("origin.parameters", None, "origin.parameters: None is not int"),
    ("origin.task", 5, "origin.task: 5 is not str or null"),
    ("artifacts", {}, "artifacts: {} is not a list"),
    ("artifacts.0", "model.onnx", "artifacts[0]: 'model.onnx' is not an object"),
    ("artifacts.0.size_bytes", False, "artifacts[0].size_bytes: False is not int"),
    ("artifacts.0.parity.max_abs_error", "0", "artifacts[0].parity.max_abs_error: '0' is not float"),
    ("artifacts.0.parity.max_abs_error", True, "artifacts[0].parity.max_abs_error: True is not float"),
    ("artifacts.0.parity.snr_db", "high", "artifacts[0].parity.snr_db: 'high' is not float or null"),
    ("artifacts.0.signature.outputs.0.shape", 4, "artifacts[0].signature.outputs[0].shape: 4 is not a list"),
    ("signature.inputs.0.shape.1", 4.5, "signature.inputs[0].shape[1]: 4.5 is not int or str"),
    ("signature.inputs.0.shape.1", True, "signature.inputs[0].shape[1]: True is not int or str"),
    ("signature.inputs.0.shape.1", None, "signature.inputs[0].shape[1]: None is not int or str"),
    ("tool_versions", [], "tool_versions: [] is not an object"),
    ("tool_versions.torch", 2.13, "tool_versions.torch: 2.13 is not str"),
    ("settings.opset", [20], "settings.opset: [20] is not str or int or float or bool"),
    ("settings.opset", None, "settings.opset: None is not str or int or float or bool"),
]


@pytest.mark.parametrize(("path", "value", "says"), WRONG_TYPES)
def test_another_type_is_refused_with_its_place_and_by_the_schema_too(path, value, says):
    document = with_value(path, value)
    with pytest.raises(BadInput) as caught:
        from_json(Manifest, document)
    assert str(caught.value) == f"{says}; export the bundle again"
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_field_is_refused_with_its_place_and_by_the_schema_too(path):
    document = without(path)
    place, _, field = path.replace(".0", "[0]").rpartition(".")
    with pytest.raises(BadInput) as caught:
        from_json(Manifest, document)
    assert str(caught.value) == f"{place or 'manifest'}: no field {field!r}; export the bundle again"
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize("path", ["extra", "origin.extra", "artifacts.0.parity.extra"])
def test_an_unknown_field_is_refused_with_its_place(path):
    document = with_value(path, 1)
    with pytest.raises(BadInput) as caught:
        from_json(Manifest, document)
    place = path.replace(".0", "[0]").rpartition(".")[0] or "manifest"
    assert str(caught.value) == f"{place}: unknown field 'extra'; export the bundle again"


def test_a_manifest_that_is_no_object_is_refused():
    with pytest.raises(BadInput, match=re.escape("manifest: [1] is not an object; export the bundle again")):
        from_json(Manifest, [1])


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(BadInput) as caught:
        from_json(Manifest, with_value("origin.parameters", "9" * 10_000))
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("path", ["artifacts.0.parity.max_abs_error", "artifacts.0.parity.snr_db"])
def test_an_integer_is_taken_for_a_float(path):
    document = with_value(path, 60)
    parity = from_json(Manifest, document).artifacts[0].parity
    value = getattr(parity, path.rpartition(".")[2])
    assert (type(value), value) == (float, 60.0)
    assert VALIDATOR.is_valid(document)


def test_a_settings_integer_stays_one():
    settings = from_json(Manifest, as_json()).settings
    assert {k: type(v) for k, v in settings.items()} == {"opset": int, "atol": float, "name": str, "flag": bool}


def test_what_may_be_absent_gets_its_default():
    document = as_json()
    for place, field in ((document, "settings"), (document["origin"], "task"), (document["origin"], "license")):
        del place[field]
    del document["artifacts"][0]["parity"]["reason"]
    manifest = from_json(Manifest, document)
    assert (manifest.settings, manifest.origin.task, manifest.artifacts[0].parity.reason) == ({}, None, "")
    assert VALIDATOR.is_valid(document)


def test_a_real_manifest_fits_the_json_schema_and_comes_back(exported):
    text = (exported("two_inputs") / "manifest.json").read_text()
    VALIDATOR.validate(json.loads(text))
    manifest = read_manifest(exported("two_inputs"))
    assert json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n" == text


def write(folder: Path, document: Any) -> Path:
    (folder / "manifest.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_read_manifest_reads_one(tmp_path):
    assert read_manifest(write(tmp_path, as_json())) == MANIFEST


def refusal(folder: Path, document: Any) -> str:
    """The one line about a manifest, without its path."""
    with pytest.raises(BadInput) as caught:
        read_manifest(write(folder, document))
    line = str(caught.value)
    assert "\n" not in line
    return line.removeprefix(f"{folder / 'manifest.json'}: ")


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BadInput) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/manifest.json: no bundle here (No such file or directory); "
        "give a folder that pocketship export wrote"
    )


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"no bundle here \(Not a directory\)"):
        read_manifest(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 200_000, "maximum recursion depth"),
        (json.dumps(asdict(MANIFEST)).replace("0.5", "NaN"), "NaN is no JSON"),
        (json.dumps(asdict(MANIFEST)).replace("0.5", "-Infinity"), "-Infinity is no JSON"),
    ],
    ids=["empty", "cut", "deep", "nan", "infinity"],
)
def test_a_manifest_that_is_no_json_is_refused(tmp_path, text, cause):
    line = refusal(tmp_path, text)
    assert line.startswith(f"not JSON ({cause}") and line.endswith("export the bundle again")


def test_a_manifest_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None])
def test_another_schema_version_is_refused_before_anything_else(tmp_path, version):
    document = {"schema_version": version, "unheard": "of"}
    says = f"schema version is {version!r}, this pocketship reads {SCHEMA_VERSION}; export the bundle again"
    assert refusal(tmp_path, document) == says


@pytest.mark.parametrize("document", [{}, [], 1, "null"])
def test_a_manifest_without_schema_version_is_refused(tmp_path, document):
    assert refusal(tmp_path, document).startswith("schema version is None")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("artifacts.0.format", "torchscript", "'torchscript' is none of onnx, tflite, coreml"),
        ("artifacts.0.precision", "float64", "'float64' is none of float32, float16, int8, int4, ternary"),
        ("artifacts.0.compute", "int8", "'int8' is none of float32, float16"),
        (
            "artifacts.0.parity.executed_by.kind",
            "guessed",
            "'guessed' is none of physical, emulated, browser, off-device",
        ),
    ],
)
def test_an_unknown_word_is_refused_with_the_known_ones(tmp_path, path, value, says):
    assert refusal(tmp_path, with_value(path, value)) == says


@pytest.mark.parametrize("atol", ["0.1", True])
def test_a_tolerance_that_is_no_number_is_refused(tmp_path, atol):
    line = refusal(tmp_path, with_value("settings.atol", atol))
    assert line == f"settings.atol: {atol!r} is not float or null; export the bundle again"


ESCAPES = ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "", ".", "a\\..\\x", "\\\\host\\x", "C:x", "C:/x", "//h/x"]


@pytest.mark.parametrize("place", ["artifacts.0.path", "files.0.path"])
@pytest.mark.parametrize("name", ESCAPES)
def test_a_path_that_leads_out_is_refused(tmp_path, place, name):
    line = refusal(tmp_path, with_value(place, name))
    assert line == f"path {name!r} leads out of the bundle; do not trust this bundle"


@pytest.mark.parametrize("name", ["a", "a/b", "a..b", "..a", "ä b"])
def test_a_path_that_stays_inside_is_read(tmp_path, name):
    assert read_manifest(write(tmp_path, with_value("files.0.path", name))).files[0].path == name


def test_digest_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert digest(tmp_path / "f") == (3, hashlib.sha256(b"abc").hexdigest())


def test_digest_of_a_large_file_is_that_of_all_its_chunks(tmp_path):
    content = os.urandom(module.HASH_CHUNK_BYTES * 2 + 5)
    (tmp_path / "f").write_bytes(content)
    assert digest(tmp_path / "f") == (len(content), hashlib.sha256(content).hexdigest())


def package(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FILES = {"Manifest.json": b"{}", "Data/model": b"abc", "Data/weights/w": b"defg"}


def test_digest_of_a_folder_by_hand(tmp_path):
    parts = [b"Data/model\x003\0abc", b"Data/weights/w\x004\0defg", b"Manifest.json\x002\0{}"]
    assert digest(package(tmp_path / "p", FILES)) == (9, hashlib.sha256(b"".join(parts)).hexdigest())


def test_digest_does_not_depend_on_the_order_of_creation_or_on_the_folders_name(tmp_path):
    backwards = dict(reversed(FILES.items()))
    assert digest(package(tmp_path / "a", FILES)) == digest(package(tmp_path / "b", backwards))


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "Data/model": b"abd"},
        {**{k: v for k, v in FILES.items() if k != "Data/model"}, "Data/Model": b"abc"},
        {**FILES, "Data/model": b"abcd", "Data/weights/w": b"efg"},
        {**FILES, "empty": b""},
        {k: v for k, v in FILES.items() if k != "Manifest.json"},
    ],
    ids=["byte", "rename", "moved between files", "added", "removed"],
)
def test_digest_sees_every_change_of_a_folder(tmp_path, files):
    assert digest(package(tmp_path / "a", FILES))[1] != digest(package(tmp_path / "b", files))[1]


def test_digest_refuses_what_is_missing(tmp_path):
    with pytest.raises(BadInput, match="f: missing, or not a regular file; export the bundle again"):
        digest(tmp_path / "f")


def link_to_file(folder: Path) -> None:
    (folder / "Data" / "model").unlink()
    (folder / "Data" / "model").symlink_to(folder.parent / "outside" / "model")


def link_to_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent / "outside")


def dangling_link(folder: Path) -> None:
    (folder / "more").symlink_to(folder / "nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "more")


@pytest.mark.parametrize("change", [link_to_file, link_to_folder, dangling_link, pipe])
def test_digest_refuses_links_and_pipes_inside_a_folder(tmp_path, change):
    package(tmp_path / "outside", {"model": b"abc"})
    folder = package(tmp_path / "p", FILES)
    change(folder)
    with pytest.raises(BadInput, match="missing, or not a regular file"):
        digest(folder)


def test_digest_refuses_a_link_itself(tmp_path):
    package(tmp_path / "p", FILES)
    (tmp_path / "folder").symlink_to(tmp_path / "p")
    (tmp_path / "file").symlink_to(tmp_path / "p" / "Manifest.json")
    for name in ("folder", "file"):
        with pytest.raises(BadInput, match="not a regular file"):
            digest(tmp_path / name)


def entry(folder: Path, name: str = "f") -> BundleFile:
    return BundleFile(name, *digest(folder / name))


def test_an_intact_file_has_no_damage(tmp_path):
    package(tmp_path, {"f": b"abc", "sub/g": b"abc"})
    assert damage(tmp_path, entry(tmp_path)) == damage(tmp_path, entry(tmp_path, "sub/g")) == ""


def test_damage_says_what_is_wrong(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    known = entry(tmp_path)
    (tmp_path / "f").write_bytes(b"abd")
    changed = hashlib.sha256(b"abd").hexdigest()[:12]
    assert damage(tmp_path, known) == f"f: its bytes are not those of the manifest (sha256 {changed})"
    (tmp_path / "f").write_bytes(b"ab")
    assert damage(tmp_path, known) == "f: has 2 bytes, the manifest says 3"
    (tmp_path / "f").unlink()
    assert damage(tmp_path, known) == "f: missing, or not a regular file"
    (tmp_path / "f").symlink_to(tmp_path / "g")
    (tmp_path / "g").write_bytes(b"abc")
    assert damage(tmp_path, known) == "f: missing, or not a regular file"


def test_damage_sees_a_folder_that_leads_out(tmp_path):
    package(tmp_path / "bundle", {"sub/f": b"abc"})
    known = entry(tmp_path / "bundle", "sub/f")
    (tmp_path / "bundle" / "sub").rename(tmp_path / "outside")
    (tmp_path / "bundle" / "sub").symlink_to(tmp_path / "outside")
    assert damage(tmp_path / "bundle", known) == "sub/f: behind a symbolic link"


def test_damage_of_a_bundle_that_is_reached_through_a_link_is_none(tmp_path):
    package(tmp_path / "bundle", {"sub/f": b"abc"})
    (tmp_path / "link").symlink_to(tmp_path / "bundle")
    assert damage(tmp_path / "link", entry(tmp_path / "bundle", "sub/f")) == ""


def test_damage_of_a_name_that_no_file_system_takes(tmp_path):
    long = BundleFile("x" * 5000, 3, "ab")
    assert damage(tmp_path, long) == f"{long.path}: cannot be read (File name too long)"
    assert damage(tmp_path, BundleFile("a\0b", 3, "ab")) == "a\0b: missing, or not a regular file"


def test_damage_of_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"abc")
    known = entry(tmp_path)

    def fail(*words):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "open", fail, raising=False)
    assert damage(tmp_path, known) == "f: cannot be read (Input/output error)"


def test_a_field_that_may_be_a_tuple_or_null():
    kind = tuple[int, ...] | None
    assert from_json(kind, [1, 2]) == (1, 2) and from_json(kind, None) is None and from_json(kind, []) == ()
    with pytest.raises(BadInput, match=r"affinity: 3 is not a list"):
        from_json(kind, 3, "affinity")
