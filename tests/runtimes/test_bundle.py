"""What a manifest may say, that its paths stay inside, and that a changed byte is seen."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.bundle.schema import manifest_schema
from runtimes import bundle as module
from runtimes.bundle import check_files, damage, digest, read_manifest, strays
from runtimes.errors import BadInput, ParityFailed
from runtimes.paths import folded
from runtimes.records import from_json
from runtimes.signature import ExecutedBy, Signature, TensorSpec
from runtimes.types import (
    EXECUTION_KINDS,
    FORMATS,
    PRECISIONS,
    SCHEMA_VERSION,
    SUFFIX_OF,
    Artifact,
    BundleFile,
    Manifest,
    Origin,
    Parity,
)
from tests.runtimes.manifests import MANIFEST, as_json, with_value


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


@pytest.mark.slow
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


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(BadInput, match=r"no bundle here \(not a regular file\); give a folder that"):
        read_manifest(tmp_path)


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"no bundle here \(Not a directory\)"):
        read_manifest(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 200_000, "nested more than 64 deep"),
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
        ("artifacts.0.format", "torchscript", "artifacts[0].format: 'torchscript' is none of onnx, tflite, coreml"),
        (
            "artifacts.0.precision",
            "float64",
            "artifacts[0].precision: 'float64' is none of float32, float16, int8, int4, ternary",
        ),
        ("artifacts.0.compute", "int8", "artifacts[0].compute: 'int8' is none of float32, float16"),
        (
            "artifacts.0.parity.executed_by.kind",
            "guessed",
            "artifacts[0].parity.executed_by.kind: 'guessed' is none of physical, emulated, browser, off-device",
        ),
    ],
)
def test_an_unknown_word_is_refused_with_the_known_ones(tmp_path, path, value, says):
    assert refusal(tmp_path, with_value(path, value)) == f"{says}; do not trust this bundle"


@pytest.mark.parametrize("atol", ["0.1", True])
def test_a_tolerance_that_is_no_number_is_refused(tmp_path, atol):
    line = refusal(tmp_path, with_value("settings.atol", atol))
    assert line == f"settings.atol: {atol!r} is not float or null; export the bundle again"


ESCAPES = ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "", ".", "a\\..\\x", "\\\\host\\x", "C:x", "C:/x", "//h/x"]


@pytest.mark.parametrize("place", ["artifacts.0.path", "files.1.path"])
@pytest.mark.parametrize("name", ESCAPES)
def test_a_path_that_leads_out_is_refused(tmp_path, place, name):
    line = refusal(tmp_path, with_value(place, name))
    assert line == f"path {name!r} leads out of the bundle; do not trust this bundle"


@pytest.mark.parametrize("place", ["artifacts.0.path", "files.1.path"])
@pytest.mark.parametrize("name", ["a/" * 32 + "f", "a/" * 1600 + "f"])
def test_a_path_of_too_many_names_is_refused(tmp_path, place, name):
    """Each costs a folder, and removing them recurses."""
    assert refusal(tmp_path, with_value(place, name)).endswith("; do not trust this bundle")


@pytest.mark.parametrize("name", ["a", "a/b", "a..b", "..a", "ä b", "a/" * 31 + "f"])
def test_a_path_that_stays_inside_is_read(tmp_path, name):
    assert read_manifest(write(tmp_path, with_value("files.1.path", name))).files[1].path == name


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


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("artifacts", [], "the manifest has no artifacts"),
        ("artifacts.0.golden", "other.npz", "artifacts[0].golden: 'other.npz' is not among the files"),
        ("artifacts.0.path", "model.tflite", "artifacts[0].path: 'model.tflite' is no onnx file"),
        ("artifacts.0.format", "coreml", "artifacts[0].path: 'model.onnx' is no coreml file"),
        ("artifacts.0.parity.verdict", "fail", "artifacts[0].parity.reason: a verdict fails for a reason"),
        ("artifacts.0.parity.reason", "it is off", "artifacts[0].parity.reason: a verdict fails for a reason"),
        ("artifacts.0.noise", {"z": 1.0}, "artifacts[0].noise: 'z' is none of its outputs"),
        (
            "artifacts.0.signature.inputs.0.name",
            "z",
            "artifacts[0].signature.inputs: not the names of the model's inputs",
        ),
        ("artifacts.0.signature.inputs.0.dtype", "int32", "inputs[0].dtype: int32 where the model has float32"),
        ("artifacts.0.signature.inputs.0.dtype", "float64", "inputs[0].dtype: float64 where the model has float32"),
        ("artifacts.0.signature.inputs.0.shape", [4], "inputs[0].shape: [4] where the model has ['batch', 4]"),
        ("artifacts.0.signature.inputs.0.shape.1", 5, "shape: ['batch', 5] where the model has ['batch', 4]"),
        ("artifacts.0.signature.inputs.0.shape.1", "n", "shape: ['batch', 'n'] where the model has ['batch', 4]"),
        ("signature.outputs", [], "signature.outputs: there is none"),
        ("signature.inputs.0.shape", [1] * 17, "signature.inputs[0].shape: more than 16 axes"),
        ("signature.inputs.0.shape", [2**20] * 2, "signature.inputs[0].shape: more than 16 axes, or than 17179869184"),
        ("files.1.path", "golden.npz", "path 'golden.npz' is the same as, or lies in, 'golden.npz'"),
        ("files.1.path", "Golden.NPZ", "path 'Golden.NPZ' is the same as, or lies in, 'golden.npz'"),
        ("files.1.path", "ＧＯＬＤＥＮ.npz", "path 'ＧＯＬＤＥＮ.npz' is the same as, or lies in, 'golden.npz'"),
        ("files.1.path", "golden.npz.", "path 'golden.npz.' is the same as, or lies in, 'golden.npz'"),
        ("files.1.path", "model.onnx /x", "path 'model.onnx /x' is the same as, or lies in, 'model.onnx'"),
        ("files.1.path", "model.onnx/x", "path 'model.onnx/x' is the same as, or lies in, 'model.onnx'"),
        ("files.1.path", "manifest.sig", "path 'manifest.sig' is the same as, or lies in, 'manifest.sig'"),
        ("files.1.path", "Manifest.json", "path 'Manifest.json' is the same as, or lies in, 'manifest.json'"),
        ("ledger.0.waterfall", {"a": 4}, "ledger[0].waterfall: its parts do not add up to size_bytes"),
        ("ledger.0.stage", "integer", "ledger[0].stage: the recipe has no stage 0 'integer'"),
        ("ledger.0.index", 2, "ledger[0].stage: the recipe has no stage 2 'original'"),
        ("ledger.0.nonzero", 11, "ledger[0].nonzero: more than there are parameters"),
        ("ledger.0.sparse_bytes", 4, "ledger[0]: sparse_bytes and gzip_bytes are not above size_bytes"),
        ("ledger.0.gzip_bytes", 4000, "ledger[0]: sparse_bytes and gzip_bytes are not above size_bytes"),
        ("ledger.0.accuracy.value", 0.7, "ledger[0].accuracy: the value lies outside of its interval"),
        ("ledger.0.latency.speedup", 2.0, "ledger[0].latency: the speed-up lies outside of its interval"),
        ("ledger.1.format", "coreml", "ledger: its formats are not those of the artifacts"),
        ("ledger", [as_json()["ledger"][0]], "ledger: its onnx rows are not one of each stage, in order"),
        ("ledger", as_json()["ledger"][::-1], "ledger: its onnx rows are not one of each stage, in order"),
        ("ledger", as_json()["ledger"] * 2, "ledger: its onnx rows are not one of each stage, in order"),
        ("artifacts.0.size_bytes", 4, "artifacts[0].size_bytes: the ledger's last onnx file has another size"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, path, value, says):
    line = refusal(tmp_path, with_value(path, value))
    assert says in line and line.endswith("; do not trust this bundle"), line


def test_a_ledger_has_no_row_of_an_update(tmp_path):
    document = with_value("recipe", [*as_json()["recipe"], {"name": "task vector", "settings": {}}])
    assert len(read_manifest(write(tmp_path, document)).ledger) == 2


def test_an_integer_may_be_narrowed_and_an_axis_fixed(tmp_path):
    document = with_value("signature.inputs.0.dtype", "int64")
    with_value("artifacts.0.signature.inputs.0.dtype", "int32", document)
    with_value("artifacts.0.signature.inputs.0.shape.0", 1, document)
    assert read_manifest(write(tmp_path, document)).artifacts[0].signature.inputs[0].shape == (1, 4)


def test_the_suffixes_of_artifacts_are_those_of_the_runtimes():
    from runtimes.session import SUFFIXES

    assert {suffix: name for name, suffix in SUFFIX_OF.items()} == SUFFIXES


@pytest.fixture
def whole(tmp_path) -> tuple[Path, Manifest]:
    """A bundle with a package folder and a file in a folder, all of them as the manifest says."""
    bundle = tmp_path / "bundle"
    names = ("golden.npz", "report/page.md", "model.mlpackage/Data/x")
    package(bundle, {name: name.encode() for name in (*names, "manifest.json", "manifest.sig", "export.log")})
    artifact = replace(
        MANIFEST.artifacts[0], format="coreml", path="model.mlpackage", **kept(bundle / "model.mlpackage")
    )
    files = tuple(BundleFile(name, *digest(bundle / name)) for name in names[:2])
    return bundle, replace(MANIFEST, artifacts=(artifact,), files=files)


def kept(path: Path) -> dict[str, Any]:
    return dict(zip(("size_bytes", "sha256"), digest(path), strict=True))


def test_a_whole_bundle_is_whole_with_its_signature_and_the_log_of_an_old_export(whole):
    check_files(*whole)
    assert strays(*whole) == ()


@pytest.mark.parametrize("other", ["X", "x.", "x ", "\u200dx", "ｘ"], ids=ascii)
def test_a_package_holds_no_two_paths_that_a_file_system_may_take_for_one(whole, other):
    """Copied to such a disk, one would take the other's place; the package's hash covers both."""
    bundle, manifest = whole
    (bundle / "model.mlpackage/Data" / other).touch()
    own = replace(manifest.artifacts[0], **kept(bundle / "model.mlpackage"))
    (stray,) = strays(bundle, replace(manifest, artifacts=(own,)))
    assert "a file system may take it for 'model.mlpackage/Data/" in stray.fault


def test_spellings_of_one_name_are_folded_alike():
    """Greek's capital with its accent folds to letters that have another spelling of their own."""
    assert folded("\u03aa\u0301") == folded("\u0390") and folded("a/b") != folded("ab")


def add_file(bundle: Path) -> str:
    (bundle / "more.bin").touch()
    return "'more.bin': not in the manifest"


def add_deep_file(bundle: Path) -> str:
    (bundle / "report" / "more").touch()
    return "'report/more': not in the manifest"


def add_link(bundle: Path) -> str:
    (bundle / "LICENSE").symlink_to("/etc/hostname")
    return "'LICENSE': a bundle holds no symbolic link"


def log_as_link(bundle: Path) -> str:
    (bundle / "export.log").unlink()
    (bundle / "export.log").symlink_to("/etc/hostname")
    return "'export.log': a bundle holds no symbolic link"


def log_as_folder(bundle: Path) -> str:
    (bundle / "export.log").unlink()
    package(bundle / "export.log", {"x": b""})
    return "'export.log': not in the manifest"


def add_empty_folder(bundle: Path) -> str:
    (bundle / "report" / "empty").mkdir()
    return "'report/empty': a bundle holds no empty folder"


def add_folder(bundle: Path) -> str:
    package(bundle / "more", {"x": b""})
    return "'more': not in the manifest; 'more/x': not in the manifest"


def add_pipe(bundle: Path) -> str:
    os.mkfifo(bundle / "pipe")
    return "'pipe': a bundle holds no special file"


def add_to_package(bundle: Path) -> str:
    (bundle / "model.mlpackage" / "more").touch()
    return "model.mlpackage: its bytes are not those of the manifest"


def remove(bundle: Path) -> str:
    (bundle / "golden.npz").unlink()
    return "golden.npz: missing, or not a regular file"


def rename(bundle: Path) -> str:
    (bundle / "golden.npz").rename(bundle / "golden2.npz")
    return "golden.npz: missing, or not a regular file; 'golden2.npz': not in the manifest"


def link_listed(bundle: Path) -> str:
    (bundle / "golden.npz").rename(bundle.parent / "golden.npz")
    (bundle / "golden.npz").symlink_to(bundle.parent / "golden.npz")
    return "golden.npz: missing, or not a regular file"


def name_with_escape(bundle: Path) -> str:
    (bundle / "\x1b[2J").touch()
    return "'\\x1b[2J': not in the manifest"


CHANGES = [add_file, add_deep_file, add_link, log_as_link, log_as_folder, add_empty_folder, add_folder, add_pipe]
CHANGES += [add_to_package, remove, rename, link_listed, name_with_escape]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_listed_regular_and_covered_is_refused(whole, change):
    bundle, manifest = whole
    says = change(bundle)
    with pytest.raises(ParityFailed) as caught:
        check_files(bundle, manifest)
    assert str(caught.value).startswith(f"{bundle}: {says}")
    assert str(caught.value).endswith("; do not ship it, export it again")


def test_an_artifact_that_was_never_proven_is_refused(whole):
    bundle, manifest = whole
    failed = replace(manifest.artifacts[0], parity=replace(manifest.artifacts[0].parity, verdict="fail", reason="off"))
    with pytest.raises(ParityFailed, match=r"model\.mlpackage was never proven"):
        check_files(bundle, replace(manifest, artifacts=(failed,)))


def test_of_a_folder_full_of_others_files_only_some_are_told(whole):
    bundle, manifest = whole
    for i in range(100):
        (bundle / f"file{i}").touch()
    assert len(strays(bundle, manifest)) == 20
