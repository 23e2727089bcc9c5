"""A Core ML package is what its Manifest.json names, below its folder Data: nothing outside, no link."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtimes.errors import BadInput
from runtimes.mil.package import specification_of

MODEL = "com.apple.CoreML/model.mlmodel"
ITEMS = {"spec": {"path": MODEL}, "weights": {"path": "com.apple.CoreML/weights"}}


@pytest.fixture
def package(tmp_path) -> Path:
    folder = tmp_path / "model.mlpackage"
    for name in (f"Data/{MODEL}", "Data/com.apple.CoreML/weights/weight.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    describe(folder, ITEMS)
    return folder


def describe(folder: Path, items: Any, root: str = "spec") -> None:
    (folder / "Manifest.json").write_text(json.dumps({"itemInfoEntries": items, "rootModelIdentifier": root}))


def refusal(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        specification_of(folder)
    line = str(caught.value)
    assert line.startswith(str(folder)) and line.isprintable()
    return line.removeprefix(str(folder)).lstrip("/: ")


def test_the_specification_of_a_package(package):
    assert specification_of(package) == package / "Data" / MODEL


def test_a_package_without_weights_has_an_empty_folder_for_them(package):
    (package / "Data/com.apple.CoreML/weights/weight.bin").unlink()
    assert specification_of(package) == package / "Data" / MODEL


def test_what_coremltools_leaves_beside_the_manifest_is_no_fault(package):
    (package / "executorch_debug_handle_mapping.json").touch()
    assert specification_of(package) == package / "Data" / MODEL


@pytest.mark.parametrize(
    "path", ["../../../elsewhere/model.mlmodel", "/etc/hostname", "a/../../x", "", ".", "C:x", "a\\b"]
)
@pytest.mark.parametrize("item", ["spec", "weights"])
def test_an_item_outside_of_the_package_is_refused(package, path, item):
    (package.parent.parent / "elsewhere").mkdir(exist_ok=True)
    (package.parent.parent / "elsewhere" / "model.mlmodel").write_bytes(b"x")
    describe(package, {**ITEMS, item: {"path": path}})
    assert refusal(package) == f"Manifest.json: path {path!r} leads out of the bundle; do not trust this bundle"


def link_specification(folder: Path) -> str:
    (folder / "Data" / MODEL).rename(folder.parent / "outside")
    (folder / "Data" / MODEL).symlink_to(folder.parent / "outside")
    return f"its item {MODEL!r} is missing; export the model again"


def link_folder(folder: Path) -> str:
    (folder / "Data").rename(folder.parent / "outside")
    (folder / "Data").symlink_to(folder.parent / "outside")
    return f"its item {MODEL!r} is missing; export the model again"


def link_manifest(folder: Path) -> str:
    (folder / "Manifest.json").rename(folder.parent / "outside")
    (folder / "Manifest.json").symlink_to(folder.parent / "outside")
    return "not a readable Core ML package (FileNotFoundError: Manifest.json is missing, or not a regular file)"


def pipe_for_manifest(folder: Path) -> str:
    (folder / "Manifest.json").unlink()
    os.mkfifo(folder / "Manifest.json")
    return "not a readable Core ML package (FileNotFoundError: Manifest.json is missing, or not a regular file)"


def large_manifest(folder: Path) -> str:
    with open(folder / "Manifest.json", "ab") as stream:
        stream.truncate(2 << 20)
    return "not a readable Core ML package (OSError: [Errno 27] 2,097,152 bytes are more than 1,048,576: "


def deep_manifest(folder: Path) -> str:
    (folder / "Manifest.json").write_text("[" * 100_000)
    return "not a readable Core ML package (ValueError: nested more than 64 deep)"


def doubled_item(folder: Path) -> str:
    """Python takes the second, whoever takes the first opens a file outside."""
    path = folder / "Manifest.json"
    path.write_text(path.read_text().replace('{"path": ', '{"path": "../../outside", "path": ', 1))
    return "not a readable Core ML package (ValueError: an object has two equal keys)"


def unnamed_file(folder: Path) -> str:
    (folder / "Data" / "other.mlmodel").touch()
    return "it holds 'Data/other.mlmodel': file that no item names; do not trust it"


def unnamed_beside(folder: Path) -> str:
    (folder / "more").touch()
    return "it holds 'more': file that no item names; do not trust it"


def link_beside(folder: Path) -> str:
    (folder / "Data" / "com.apple.CoreML" / "weights" / "more").symlink_to("/etc/hostname")
    return "it holds 'Data/com.apple.CoreML/weights/more': symbolic link; do not trust it"


def empty_folder(folder: Path) -> str:
    (folder / "Data" / "empty").mkdir()
    return "it holds 'Data/empty': empty folder that no item names; do not trust it"


def empty_folder_in_an_item(folder: Path) -> str:
    (folder / "Data" / "com.apple.CoreML" / "weights" / "empty").mkdir()
    return "it holds 'Data/com.apple.CoreML/weights/empty': empty folder that no item names; do not trust it"


def folder_as_root(folder: Path) -> str:
    describe(folder, ITEMS, "weights")
    return "its specification is no file; export the model again"


def other_root(folder: Path) -> str:
    describe(folder, ITEMS, "other")
    return "not a readable Core ML package (KeyError: 'rootModelIdentifier')"


def list_of_items(folder: Path) -> str:
    describe(folder, [ITEMS])
    return "not a readable Core ML package (AttributeError: "


def no_text(folder: Path) -> str:
    describe(folder, {**ITEMS, "spec": {"path": 3}})
    return "not a readable Core ML package (TypeError: a path is no text)"


CHANGES = [link_specification, link_folder, link_manifest, pipe_for_manifest, large_manifest, deep_manifest]
CHANGES += [unnamed_file, unnamed_beside, link_beside, empty_folder, empty_folder_in_an_item, folder_as_root]
CHANGES += [doubled_item, other_root, list_of_items, no_text]


@pytest.mark.parametrize("change", CHANGES)
def test_a_package_that_is_not_what_its_manifest_names_is_refused(package, change: Callable[[Path], str]):
    says = change(package)
    assert refusal(package).startswith(says)
