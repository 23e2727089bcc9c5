"""Updates: small, exact about what they are, and refused whole where a byte is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.delivery import apply as applying
from exporter.delivery import golomb, task_vector, update_file
from exporter.delivery.apply import apply
from exporter.delivery.delta import delta
from exporter.delivery.files import manifest_hash, update_of
from exporter.delivery.patch import compressed, decompressed
from exporter.formats.contents import Region
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput, LimitNotMet, ParityFailed
from runtimes.evidence import UPDATE
from runtimes.verify import verify

ROOT = Path(__file__).resolve().parents[2]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file's hash."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- codes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.sets(st.integers(0, 5000), max_size=300), st.integers(0, 12))
def test_positions_come_back(positions, bits):
    wanted = np.array(sorted(positions), np.int64)
    code = golomb.encode(wanted, bits)
    np.testing.assert_array_equal(golomb.decode(code, len(wanted), bits, 5001), wanted)


@pytest.mark.parametrize(
    ("density", "bits_a_weight"), [(0.05, 0.339), (0.10, 0.576), (0.20, 0.939), (0.30, 1.188), (0.50, 1.500)]
)
def test_the_size_is_that_of_the_papers_formula(density, bits_a_weight):
    """ComPEFT's table, with one bit of sign a position; and what is really written is within 2% of it."""
    assert density * (golomb.bits_a_position(density) + 1) == pytest.approx(bits_a_weight, abs=0.002)
    positions = np.flatnonzero(np.random.default_rng(0).random(400_000) < density)
    code = golomb.encode(positions, golomb.remainder_bits(density))
    written = 8 * len(code) + len(positions)
    assert written == pytest.approx(400_000 * bits_a_weight, rel=0.02)


def test_codes_that_make_no_sense_are_refused():
    code = golomb.encode(np.array([3, 70]), 4)
    for count, bits, length, said in (
        (2, 41, 99, "no sense"),
        (100, 4, 99, "no sense"),
        (2, 4, 70, "leave"),
        (3, 4, 99, "cut off"),
    ):
        with pytest.raises(BadInput, match=said):
            golomb.decode(code, count, bits, length)


def test_positions_that_would_wrap_around_are_refused():
    """Remainders of 40 bits, which are 2^23 times as large as their tensor: as int64 their sum would be negative."""
    count = 1 << 10
    code = np.packbits(np.concatenate([np.zeros(count, np.uint8), np.ones(40 * count, np.uint8)])).tobytes()
    with pytest.raises(BadInput, match="leave"):
        golomb.decode(code, count, golomb.LONGEST_REMAINDER, 100_000)


def test_a_code_that_is_longer_than_its_tensor_needs_is_not_unpacked():
    """A megabyte of zeros is 64 MB of positions, and comes of 50 bytes of update."""
    for code, count, bits in ((bytes(1 << 20), 10, 0), (b"\xff" * (1 << 20), 1, 40), (bytes(1 << 20), 1000, 40)):
        with pytest.raises(BadInput, match="the positions of the update make no sense"), peak_under(1 << 20):
            golomb.decode(code, count, bits, 1000)


def test_a_task_vector_that_changes_a_tensor_again_and_again_is_refused():
    """Each time costs the tensor's size: 38 bytes a time, of which zstd makes one."""
    old, new = np.zeros(600, "<f4").tobytes(), np.arange(600, dtype="<f4").tobytes()
    one = task_vector.encode(old, new, (Region(0, 600),), 0.1)[4:]
    empty = task_vector.ENTRY.pack(0, 0, task_vector.WHOLE, 0, 0, 0.0, 0)
    for vector in ((2).to_bytes(4, "little") + one + one, (1).to_bytes(4, "little") + empty):
        with pytest.raises(BadInput, match="the task vector changes a tensor twice, or an empty one"):
            task_vector.apply(old, vector)


def test_a_task_vector_of_more_than_delta_writes_is_refused():
    """Each tensor and each position costs time and memory, and compresses to next to nothing."""
    many = (task_vector.MOST_TENSORS + 1).to_bytes(4, "little")
    with pytest.raises(BadInput, match="changes more than 65536 tensors"):
        task_vector.apply(bytes(100), many)
    count, length = 600, 1000
    for kind in (task_vector.TERNARY, task_vector.TERNARY + task_vector.IN_HALF):
        code = bytes(2 * -(-count // 8))
        entry = task_vector.ENTRY.pack(0, length, kind, 0, count, 0.0, len(code))
        with pytest.raises(BadInput, match="changes in more than 50%"):
            task_vector.apply(bytes(4 * length), (1).to_bytes(4, "little") + entry + code)


@contextlib.contextmanager
def peak_under(size_bytes: int):
    """No more than so much is allocated meanwhile, by Python, numpy or zstd for what it gives."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size_bytes, peak


def test_a_task_vector_is_the_largest_signs_times_alpha_times_the_spread():
    generator = np.random.default_rng(1)
    old = generator.standard_normal(5000).astype("<f4")
    change = (generator.standard_normal(5000) * 0.01).astype("<f4")
    new = old + change
    vector = task_vector.encode(old.tobytes(), new.tobytes(), (Region(0, 5000),), 0.1, 2.0)
    made = np.frombuffer(task_vector.apply(old.tobytes(), vector), "<f4")
    moved = np.flatnonzero(made != old)
    largest = np.sort(np.argsort(-np.abs(new - old), kind="stable")[:500])
    np.testing.assert_array_equal(moved, largest)
    np.testing.assert_allclose((made - old)[moved], np.sign(change[moved]) * 2.0 * (new - old).std(), rtol=1e-3)


def test_small_tensors_are_kept_whole_and_equal_ones_left_out():
    old = np.array([1.0, 2.0, np.inf, 4.0], "<f4")
    new = np.array([1.5, 1.0, np.inf, 4.0], "<f4")
    regions = (Region(0, 2), Region(8, 2))
    vector = task_vector.encode(old.tobytes(), new.tobytes(), regions, 0.1, 1.0)
    np.testing.assert_array_equal(np.frombuffer(task_vector.apply(old.tobytes(), vector), "<f4"), new)
    assert not task_vector.is_finite_change(new.tobytes(), (Region(8, 1),), old.tobytes(), (Region(0, 1),))


def test_a_change_too_large_for_half_precision_is_kept_in_single():
    old, new = np.zeros(4, "<f4"), np.array([1e5, -3e38, 1.0, 0.0], "<f4")
    vector = task_vector.encode(old.tobytes(), new.tobytes(), (Region(0, 4),), 0.1, 1.0)
    np.testing.assert_array_equal(np.frombuffer(task_vector.apply(old.tobytes(), vector), "<f4"), new)


def test_tensors_of_half_precision_change_in_half_precision():
    """A large one by its largest signs, a small one whole, and none beside them."""
    generator = np.random.default_rng(3)
    old = generator.standard_normal(3001).astype("<f2")
    new = (old + generator.standard_normal(3001).astype("<f2") / 64).astype("<f2")
    regions = (Region(0, 100, "<f2"), Region(200, 2900, "<f2"))
    vector = task_vector.encode(old.tobytes(), new.tobytes(), regions, 0.1, 2.0)
    made = np.frombuffer(task_vector.apply(old.tobytes(), vector), "<f2")
    np.testing.assert_allclose(made[:100], new[:100], rtol=2e-3)
    change, large = (made.astype("<f4") - old)[100:3000], (new.astype("<f4") - old)[100:3000]
    assert np.count_nonzero(change) == 290 == np.count_nonzero(change * large > 0)
    np.testing.assert_allclose(np.abs(change[change != 0]), 2.0 * large.std(), atol=2e-3)
    assert made[3000] == old[3000]
    with pytest.raises(BadInput, match="leads out"):
        task_vector.apply(old.tobytes()[:-3], vector)


def test_scaling_a_task_vector_is_encoding_it_with_that_alpha():
    generator = np.random.default_rng(2)
    old, new = (generator.standard_normal(3000).astype("<f4").tobytes() for _ in range(2))
    regions = (Region(0, 100), Region(400, 2900))
    one = task_vector.encode(old, new, regions, 0.1)
    both = task_vector.scaled(one, 2.5), task_vector.encode(old, new, regions, 0.1, 2.5)
    made = [task_vector.apply(old, vector) for vector in both]
    np.testing.assert_allclose(*(np.frombuffer(m, "<f4") for m in made), rtol=1e-6)


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_tensors_of_a_file_that_is_none_are_not_looked_for(name):
    for content in (b"nonsense, and more of it" * 9, b"\x3a\xff\xff\xff\xff\x0f" + bytes(40), b"\xff" * 64):
        with pytest.raises(BadInput, match=r"cannot be found|leads out"):
            task_vector.regions_of(name, content)


def test_task_vectors_that_make_no_sense_are_refused():
    old = np.zeros(600, "<f4").tobytes()
    new = np.arange(600, dtype="<f4").tobytes()
    vector = task_vector.encode(old, new, (Region(0, 600),), 0.1, 1.0)
    for cut in range(len(vector)):
        with pytest.raises(BadInput, match=r"^the task vector is cut off"):
            task_vector.apply(old, vector[:cut])
    with pytest.raises(BadInput, match="belong to no tensor"):
        task_vector.apply(old, vector + b"x")
    with pytest.raises(BadInput, match="leads out"):
        task_vector.apply(old[:-4], vector)
    for at, value, said in ((20, 7, "no kind"), (20, 0, "another size")):
        with pytest.raises(BadInput, match=said):
            task_vector.apply(old, vector[:at] + bytes([value]) + vector[at + 1 :])


@settings(max_examples=60)
@given(st.binary(max_size=4000), st.binary(max_size=4000))
def test_a_patch_gives_the_content_back(old, new):
    assert decompressed(compressed(new, old), old, len(new)) == new


def test_a_frame_of_another_size_is_not_unpacked():
    bomb = compressed(bytes(50_000_000), b"")
    assert len(bomb) < 10_000
    with pytest.raises(BadInput, match="another size"):
        decompressed(bomb, b"", 1000)
    with pytest.raises(BadInput, match="cannot be unpacked"):
        decompressed(b"no frame", b"", 1000)


# --- a fine-tune -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tensors_are_found_in_every_format(bundles):
    for name, folder in (("model.onnx", ""), ("model.tflite", ""), ("weight.bin", "model.mlpackage/")):
        (path,) = (p for p in bundles[0].rglob(name))
        regions = task_vector.regions_of(f"{folder}{name}", path.read_bytes())
        assert sum(region.count for region in regions) >= 283_000  # nearly all of 283,723 parameters
    assert task_vector.regions_of("README.md", b"") == ()


TUNED = """
import torch
from torch import nn


def old():
    torch.manual_seed(0)
    layers = nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 8)
    return nn.Sequential(*layers), torch.randn(1, 32)


def new():
    model, example = old()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn(weight.shape)
    return model, example
"""


@pytest.mark.slow
def test_a_fine_tune_in_float16_travels_as_a_task_vector(pocketship, tmp_path):
    (tmp_path / "tuned.py").write_text(TUNED)
    for name in ("old", "new"):
        words = ("--quantize", "float16", "--target", "all", "--no-measure", "--quiet", "-o", tmp_path / name)
        done = pocketship("export", tmp_path / f"tuned.py:{name}", *words)
        assert done.returncode == 0, done.stderr
    said: list[str] = []
    found = delta(tmp_path / "old", tmp_path / "new", tmp_path / "update", say=said.append)
    vectors = {file.path: file for file in found.files if file.kind == "vector"}
    assert len(vectors) == 3 and all(f.update_bytes < f.size_bytes / 10 for f in vectors.values()), found.files
    assert [line.partition(":")[0] for line in said] == ["task vector"]
    apply(tmp_path / "update", tmp_path / "old")
    assert [check.fault for check in verify(tmp_path / "old", read_manifest(tmp_path / "old")) if check.fault] == []


@pytest.mark.slow
def test_an_update_is_small_and_what_comes_of_it_proves_itself(bundles, update, app):
    plain = sum(a.size_bytes for a in read_manifest(bundles[1]).artifacts)
    assert update.stat().st_size < plain / 20
    done = apply(update, app)
    manifest = read_manifest(app)
    assert done.update == update_of(manifest) == 1
    checks = verify(app, manifest)
    assert [check.fault for check in checks if check.fault] == []
    assert {part.kind for part in read(update).header.parts} >= {"vector", "patch", "same"}
    assert (
        manifest.recipe[-1].name == "task vector"
        and "from the new model's golden outputs" in manifest.recipe[-1].notes[0]
    )


def test_each_artifact_alone_travels_in_a_twentieth(update):
    header = read(update).header
    for part in header.parts:
        if part.path.endswith((".onnx", ".tflite", "weight.bin")):
            assert part.kind == "vector" and part.length + part.vector_length < part.size / 20


@pytest.mark.slow
def test_the_command_states_sizes_and_the_accuracy_that_is_lost(bundles, pocketship, tmp_path):
    task = f"{Path(__file__).with_name('shifted.py')}:few"
    done = pocketship("delta", *bundles, "-o", tmp_path / "u", "--data", task, "--json")
    assert (done.returncode, done.stderr) == (0, ""), "no runtime runs in this process, and none prints"
    told = json.loads(done.stdout)
    for name in ("model.onnx", "model.tflite", "model.mlpackage"):
        old, new, delivered = (told["accuracies"][name][which]["value"] for which in ("old", "new", "delivered"))
        assert old < 0.8 and new > 0.9 and delivered > new - 0.05
    costs = {file["path"]: file for file in told["files"]}["model.onnx"]
    assert costs["update_bytes"] < costs["diff_bytes"] / 20 and costs["gzip_bytes"] > costs["size_bytes"] / 2
    line = pocketship("delta", *bundles, "-o", tmp_path / "u", "--data", task, "--max-drop", "0.0001%", "--force", "-q")
    is_worse = any(a["delivered"]["value"] < a["new"]["value"] for a in told["accuracies"].values())
    assert line.returncode == (4 if is_worse else 0) and ("would lose" in line.stderr) == is_worse
    shown = pocketship("delta", *bundles, "-o", tmp_path / "v")
    assert "of a plain download" in shown.stdout and "binary diff" in shown.stdout
    applied = pocketship("apply", tmp_path / "v", bundles[0], "-o", tmp_path / "out")
    assert applied.returncode == 0 and "every hash is right" in applied.stdout
    assert snapshot(bundles[0]) and read_manifest(tmp_path / "out").settings[UPDATE] == 1


def test_an_exact_update_gives_the_new_files_byte_for_byte(bundles, app, tmp_path):
    found = delta(*bundles, tmp_path / "exact", exact=True)
    assert found.exact and found.alpha is None
    apply(tmp_path / "exact", app)
    new = snapshot(bundles[1])
    made = snapshot(app)
    assert {k: v for k, v in made.items() if k != "manifest.json"} == {
        k: v for k, v in new.items() if k != "manifest.json"
    }


def test_another_structure_is_a_binary_patch(bundles, exported, tmp_path):
    said = []
    found = delta(exported("mlp"), bundles[0], tmp_path / "u", say=said.append)
    assert found.exact and said == ["more than floating-point weights differ: a binary patch of each file"]
    app = Path(shutil.copytree(exported("mlp"), tmp_path / "app"))
    apply(tmp_path / "u", app)
    assert snapshot(app)["model.onnx"] == snapshot(bundles[0])["model.onnx"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_replayed_an_older_and_a_foreign_update_are_refused(bundles, update, app, tmp_path, exported):
    apply(update, app)
    after = snapshot(app)
    with pytest.raises(BadInput, match="applied already"):
        apply(update, app)
    delta(app, bundles[1], tmp_path / "second", exact=True)
    delta(app, bundles[0], tmp_path / "back", exact=True)
    assert snapshot(app) == after
    apply(tmp_path / "back", app)
    with pytest.raises(BadInput, match="the update is number 1, the bundle has had 2"):
        apply(update, app)
    with pytest.raises(BadInput, match="number 2, the bundle has had 2"):
        apply(tmp_path / "second", app)
    other = Path(shutil.copytree(exported("mlp"), tmp_path / "other"))
    before = snapshot(other)
    with pytest.raises(BadInput, match="for another bundle"):
        apply(update, other)
    assert snapshot(other) == before


def test_a_changed_base_is_refused(update, app):
    content = bytearray((app / "model.onnx").read_bytes())
    content[1000] ^= 1
    (app / "model.onnx").write_bytes(content)
    with pytest.raises(ParityFailed, match=r"model\.onnx"):
        apply(update, app)


def test_every_truncation_and_every_changed_byte_is_refused_with_the_old_bundle_intact(update, app, tmp_path):
    content = update.read_bytes()
    before = snapshot(app)
    header, start = read(update).header, read(update).start
    places = {0, 5, len(update_file.MAGIC), start, *(start + part.offset for part in header.parts), len(content) - 32}
    generator = random.Random(0)
    places |= {generator.randrange(len(content)) for _ in range(40)}
    broken = tmp_path / "broken"
    for place in sorted(places):
        said = "this is no update" if place < len(update_file.MAGIC) else "the update is cut off or damaged"
        for changed in (content[:place], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]):
            broken.write_bytes(changed)
            with pytest.raises(BadInput, match=f"/broken: {said}; "):
                apply(broken, app)
    assert snapshot(app) == before
    assert [p.name for p in app.parent.iterdir() if p.name.startswith(".")] == []


def read(update: Path) -> update_file.Update:
    """`update_file.read` of a whole file."""
    return update_file.read(io.BytesIO(update.read_bytes()))


def resealed(update: Path, to: Path, change) -> Path:
    """The update with another header, and a hash that fits: what somebody who means harm would send."""
    found = read(update)
    to.write_bytes(update_file.write(change(found.header), found.piece(0, found.size_bytes - 32 - found.start)))
    return to


def with_part(index: int, **fields):
    def change(header):
        parts = list(header.parts)
        parts[index] = replace(parts[index], **fields)
        return replace(header, parts=tuple(parts))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_part(1, path="../../escaped"), "leads out"),
        (with_part(1, path="/etc/escaped"), "leads out"),
        (with_part(1, source="../../../etc/passwd"), "leads out"),
        (with_part(1, path="a\0b"), "holds a character that cannot be printed"),
        (with_part(1, path="a\ud800"), "the update's header is no JSON"),
        (with_part(1, path="a/" * 32 + "f"), "has more than 1024 characters or 32 names"),
        (with_part(1, path="a/" * 1600 + "f"), "has more than 1024 characters or 32 names"),
        (with_part(1, path="manifest.json"), "makes no sense"),
        (with_part(1, kind="shell"), "makes no sense"),
        (with_part(1, offset=10**9), "makes no sense"),
        (with_part(1, offset=-1), "makes no sense"),
        (with_part(1, size=-1), "makes no sense"),
        (with_part(1, size=2**40), "makes more than"),
        (with_part(1, size=2**30), "of bundle would make"),
        (with_part(1, source="export.log"), "which the bundle has not"),
        (with_part(1, source="model.onnx/"), "leads out"),
        (with_part(1, sha256="\x1b]52;c;x\a"), "a hash in the update makes no sense"),
        (lambda h: replace(h, base="0"), "a hash in the update makes no sense"),
        (lambda h: replace(h, base_update=1, update=2), "the number of the update makes no sense"),
        (lambda h: replace(h, base_update=-1, update=0), "the number of the update makes no sense"),
        (lambda h: replace(h, parts=h.parts[:1] * 10_001), "makes more than 4294967296 bytes or 10000 files"),
        (with_part(1, size=5), "another size"),
        (with_part(1, sha256="0" * 64), "makes another"),
        (with_part(1, kind="same"), "makes another"),
        (lambda h: replace(h, result="0" * 64), "another manifest"),
        (lambda h: replace(h, parts=h.parts[1:]), "the update holds bytes that make no part of it"),
        (lambda h: replace(h, parts=h.parts[:-1]), "the manifest says"),
        (lambda h: replace(h, parts=(*h.parts, replace(h.parts[1], path="x.sh"))), "'x.sh': not in the manifest"),
        (lambda h: replace(h, name="another"), "header and its manifest differ"),
        (lambda h: replace(h, update=h.update + 1), "the number of the update makes no sense"),
    ],
)
def test_a_crafted_update_is_refused_with_the_old_bundle_intact(change, said, update, app, tmp_path):
    before = snapshot(app)
    with pytest.raises((BadInput, ParityFailed), match=said):
        apply(resealed(update, tmp_path / "crafted", change), app)
    assert snapshot(app) == before and not (tmp_path / "escaped").exists()


def test_a_vector_that_is_larger_than_its_file_is_not_unpacked(update):
    frame = compressed(bytes(10_000_000), b"")
    with pytest.raises(BadInput, match="larger than its file"):
        applying._declared(frame, 1000)
    with pytest.raises(BadInput, match="no zstd"):
        applying._declared(b"nonsense", 1000)


def zeros(size_bytes: int) -> bytes:
    """A zstd frame of so many zeros (a multiple of 128 KiB), by hand: 4 bytes a block (RFC 8878)."""
    blocks, step = size_bytes >> 17, 1 << 17
    head = (0xFD2FB528).to_bytes(4, "little") + bytes([0b11100000]) + size_bytes.to_bytes(8, "little")
    body = b"".join((step << 3 | 0b010 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks))
    return head + body


@pytest.mark.parametrize("kind", ["patch", "vector"])
@pytest.mark.parametrize("size_bytes", [(1 << 32) - (1 << 26), 1 << 29])
def test_an_update_that_would_fill_the_memory_is_refused_before_any_of_it_is_unpacked(
    kind, size_bytes, update, app, tmp_path
):
    """131 KB that are 4.2 GB of zeros: a bundle of 4 MB and an update of that size cannot make so much."""
    before, found = snapshot(app), read(update)
    part = update_file.Part("model.onnx", "patch", 1 << 17, hashlib.sha256(bytes(1 << 17)).hexdigest())
    small, bomb = zeros(1 << 17), zeros(size_bytes)
    assert decompressed(small, b"", 1 << 17) == bytes(1 << 17), "the frame is one"
    part = replace(part, kind=kind, size=size_bytes, length=len(bomb))
    if kind == "vector":  # the file itself is small, what would be added to it is not
        part = replace(part, size=1 << 17, length=len(small), vector_offset=len(small), vector_length=len(bomb))
        bomb = small + bomb
    content = update_file.write(replace(found.header, parts=(part,)), bomb)
    assert len(content) < 140_000
    (tmp_path / "bomb").write_bytes(content)
    said = "of bundle would make" if kind == "patch" else "a task vector is larger than its file"
    with pytest.raises(BadInput, match=said), peak_under(32 << 20):
        apply(tmp_path / "bomb", app)
    assert snapshot(app) == before


def test_delta_makes_no_update_that_apply_takes_for_a_bomb(bundles, exported, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(update_file, "MOST_RATIO", 0)
    monkeypatch.setattr(update_file, "SMALL_BUNDLE", 0)
    with pytest.raises(
        BadInput, match=r"/new: \d+ bytes of update on .*; get the new bundle whole \(pocketship pack\)"
    ):
        delta(exported("mlp", "onnx"), bundles[1], tmp_path / "u")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_updates_are_refused(app, tmp_path, refused):
    (tmp_path / "text").write_text("hello")
    assert f"{tmp_path / 'text'}: this is no update" in refused("apply", tmp_path / "text", app)
    assert "cannot be read" in refused("apply", tmp_path / "none", app)
    magic = update_file.MAGIC
    for header, said in ((b"{", "no JSON"), (b"[]", "header"), (b'{"name": 3}', "header")):
        content = magic + len(header).to_bytes(8, "little") + header
        (tmp_path / "bad").write_bytes(content + hashlib.sha256(content).digest())
        assert said in refused("apply", tmp_path / "bad", app)
    content = magic + (2**40).to_bytes(8, "little") + b"{}"
    (tmp_path / "bad").write_bytes(content + hashlib.sha256(content).digest())
    assert "header is too long" in refused("apply", tmp_path / "bad", app)


@pytest.mark.slow
def test_what_delta_cannot_do_is_refused(bundles, refused, tmp_path, copy_of):
    old, new = bundles
    assert "both bundles are the same" in refused("delta", old, old, "-o", tmp_path / "u")
    assert "a density of" in refused("delta", old, new, "-o", tmp_path / "u", "--density", "60%")
    assert "a limit needs a task" in refused("delta", old, new, "-o", tmp_path / "u", "--max-drop", "1%")
    (tmp_path / "u").write_text("mine")
    assert "the update exists" in refused("delta", old, new, "-o", tmp_path / "u")
    assert (tmp_path / "u").read_text() == "mine"
    for nowhere in (tmp_path / "none" / "u", tmp_path / "u" / "v"):
        assert "there is no such folder" in refused("delta", old, new, "-o", nowhere)
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in refused("delta", old, new, "-o", tmp_path / "folder", "--force", "--exact")
    damaged = copy_of(new)
    (damaged / "model.onnx").write_bytes(b"x")
    assert "model.onnx" in refused("delta", old, damaged, "-o", tmp_path / "v", code=3)
    manifest = read_manifest(old)
    with pytest.raises(BadInput, match=r"settings\.update"):
        update_of(replace(manifest, settings={**manifest.settings, UPDATE: -1}))


@pytest.mark.slow
def test_a_limit_is_kept(bundles, shifted, tmp_path, monkeypatch):
    from exporter.delivery import fine_tune

    monkeypatch.setattr(fine_tune, "ALPHAS", (8.0,))
    with pytest.raises(LimitNotMet, match="would lose"):
        delta(*bundles, tmp_path / "u", density=0.5, task=shifted.task(), max_drop=0.0)
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_a_kill_leaves_the_old_bundle_or_the_new_one(after_s, update, app, bundles):
    old = snapshot(app)
    header = read(update).header
    process = subprocess.Popen([sys.executable, "-m", "exporter", "apply", update, app, "-q"], cwd=ROOT)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if manifest_hash(app) == header.result:
        assert [c.fault for c in verify(app, read_manifest(app)) if c.fault] == []
    else:
        assert snapshot(app) == old
        apply(update, app)
        assert manifest_hash(app) == header.result
