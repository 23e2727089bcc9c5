"""What keys, signatures and sealed files are read from and written to: no pipes, and a full disk loses nothing."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.delivery.keys import keygen
from exporter.delivery.packing import pack
from exporter.delivery.signature import check_signature, sign_bundle
from exporter.delivery.storage import opened, read_key
from runtimes.errors import BadInput
from runtimes.writing import write_file


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


def on_a_full_disk(call: Callable[[], object]) -> str:
    """What is said where not one byte can be written; by the limit of a process, which no other can see."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(BadInput) as refusal:
            call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return str(refusal.value)


def test_a_full_disk_loses_no_signature_and_leaves_none_that_is_empty(exported, copy_of, tmp_path):
    bundle = copy_of(exported("mlp", "onnx"))
    keygen(tmp_path / "k")
    said = on_a_full_disk(lambda: sign_bundle(bundle, tmp_path / "k.key"))
    assert said == f"{bundle}/manifest.sig: cannot be written (File too large); give another place"
    assert not (bundle / "manifest.sig").exists() and parts(bundle) == []
    sign_bundle(bundle, tmp_path / "k.key")
    before = (bundle / "manifest.sig").read_bytes()
    assert "cannot be written" in on_a_full_disk(lambda: sign_bundle(bundle, tmp_path / "k.key", 7))
    assert (bundle / "manifest.sig").read_bytes() == before and parts(bundle) == []
    assert check_signature(bundle, tmp_path / "k.pub")
    assert "cannot be written" in on_a_full_disk(lambda: pack(bundle, tmp_path / "file"))
    assert "cannot be written" in on_a_full_disk(lambda: keygen(tmp_path / "m"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "k.key", "k.pub"]


def test_what_is_no_plain_file_is_neither_read_nor_replaced(tmp_path, exported, refused):
    os.mkfifo(tmp_path / "pipe")
    for call in (
        lambda: write_file(tmp_path / "pipe", [b"x"]),
        lambda: pack(exported("mlp", "onnx"), tmp_path / "pipe", force=True),
    ):
        with pytest.raises(BadInput, match=r"/pipe: cannot be written \(it is no plain file\); give another place"):
            call()
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        for words in (("unpack", place, "-o", tmp_path / "out"), ("apply", place, exported("mlp", "onnx"))):
            assert f"{place}: cannot be read (not a regular file); check the path" in refused(*words)
    with pytest.raises(BadInput, match=r"cannot be read \(Is a directory\); check the path"), opened(tmp_path):
        pass
    with pytest.raises(BadInput, match="/dev/zero: the file is too large for a key; give another"):
        read_key(Path("/dev/zero"))
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
