"""What takes the place of a signed bundle: only what its signer signed, of its name, and no older."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.delivery import packing, signature
from exporter.delivery.apply import apply
from exporter.delivery.delta import delta
from exporter.delivery.keys import private_key_of
from exporter.delivery.packing import pack, unpack
from exporter.delivery.signature import check_signature, read_signature, sign_bundle
from runtimes.errors import BadInput, ParityFailed


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    """A copy, not signed."""
    return Path(shutil.copytree(exported("mlp", "onnx"), tmp_path / "source"))


@pytest.fixture
def packed(bundle, keys, tmp_path) -> Callable[..., Path]:
    """The file of the bundle, signed with a number by one of the keys, or by nobody."""

    def make(key: str | None, sequence: int | None = None) -> Path:
        file = tmp_path / f"{key}-{sequence}"
        pack(bundle, file, sign=keys / f"{key}.key" if key else None, sequence=sequence, force=True)
        return file

    return make


def changed(bundle: Path, **fields: object) -> None:
    """Another manifest: it is not signed any more."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["settings"].update(fields.pop("settings", {}))
    (bundle / "manifest.json").write_text(json.dumps({**manifest, **fields}))
    (bundle / "manifest.sig").unlink(missing_ok=True)


def old_signature(bundle: Path, key: Path) -> None:
    """As the first pocketships signed: no number, and no public key."""
    private = private_key_of(key)
    found = private.sign(b"pocketship manifest 1\0" + (bundle / "manifest.json").read_bytes())
    signer = signature.key_id(private.public_key())
    (bundle / "manifest.sig").write_text(json.dumps({"signer": signer, "ed25519": base64.b64encode(found).decode()}))


def number(bundle: Path) -> int | None:
    signed = read_signature(bundle)
    return signed and signed.sequence


def test_an_older_bundle_takes_no_place_unless_that_is_meant(packed, keys, tmp_path, refused, pocketship):
    out, public = tmp_path / "out", ("--public-key", keys / "a.pub")
    new, old = packed("a", 9), packed("a", 5)
    unpack(new, out, public_key=keys / "a.pub")
    for words in (public, ()):  # whoever is trusted: the user's key, or that of the bundle which is there
        line = refused("unpack", old, "-o", out, "--force", *words)
        assert f"{out}: the bundle there is number 9, it would become number 5, an older one; add --allow-older" in line
        assert number(out) == 9
    unpack(new, out, force=True)  # the same once more
    done = pocketship("unpack", old, "-o", out, "--force", "--allow-older")
    assert done.returncode == 0 and "signed by key" in done.stdout and done.stderr == "" and number(out) == 5
    unpack(packed("a", 6), out, force=True)
    assert number(out) == 6
    first = signature.time.time()
    unpack(packed("a"), out, force=True)
    assert first - 1 <= number(out) <= signature.time.time(), "by default the time"


def test_an_unsigned_bundle_and_one_by_another_key_take_no_place_of_a_signed_one(packed, keys, tmp_path, refused):
    out = tmp_path / "out"
    signer = read_id(unpack(packed("a", 1), out).claimed)
    line = refused("unpack", packed(None), "-o", out, "--force", code=3)
    assert f"the file is not signed, and the bundle whose place it would take is, by key {signer}; get a signed" in line
    line = refused("unpack", packed("b", 2), "-o", out, "--force", code=3)
    assert f"the signature is not that of key {signer}, or the content was changed" in line
    assert number(out) == 1
    unpack(packed("b", 2), out, force=True, public_key=keys / "b.pub")  # the user says whom to trust from now on
    assert check_signature(out, keys / "b.pub")
    with pytest.raises(ParityFailed, match="the signature is not that of key"):
        unpack(packed("a", 3), out, force=True)
    with pytest.raises(ParityFailed, match="the file is not signed; get"):
        unpack(packed(None), out, force=True, public_key=keys / "b.pub")


def read_id(claimed: str | None) -> str:
    assert claimed is not None and len(claimed) == 16
    return claimed


def test_another_model_of_the_same_signer_takes_no_place(packed, bundle, tmp_path):
    out = tmp_path / "out"
    unpack(packed("a", 1), out)
    changed(bundle, name="other")
    with pytest.raises(BadInput, match="the signed bundle of 'mlp' would become one of 'other'; give another place"):
        unpack(packed("a", 2), out, force=True)
    shutil.rmtree(out)
    unpack(packed(None), out)
    changed(bundle, name="third")
    unpack(packed(None), out, force=True)  # nobody signed it: --force says enough


def test_without_signatures_the_number_of_updates_tells_what_is_older(packed, bundle, tmp_path, refused):
    out, old = tmp_path / "out", packed(None)
    changed(bundle, settings={"update": 2})
    unpack(packed(None, None), out)
    signed = packed("a", 7)
    line = refused("unpack", write(tmp_path / "file", old_content(old, bundle, packed)), "-o", out, "--force")
    assert "the bundle there is number 2, it would become number 0, an older one" in line
    unpack(signed, out, force=True)
    changed(bundle, settings={"update": 0})
    unpack(packed("a", 8), out, force=True)  # a new export: the signature's number decides


def old_content(old: Path, bundle: Path, packed) -> bytes:
    manifest = (bundle / "manifest.json").read_bytes()
    changed(bundle, settings={"update": 0})
    content = packed(None).read_bytes()
    (bundle / "manifest.json").write_bytes(manifest)
    return content


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_signatures_of_the_first_version_are_checked_and_give_way_to_numbers(
    bundle, packed, keys, tmp_path, refused, monkeypatch
):
    old_signature(bundle, keys / "a.key")
    assert check_signature(bundle, keys / "a.pub") == read_signature(bundle).signer
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    old = packed(None)
    new = packed("a", 3)
    line = refused("unpack", new, "-o", out, "--force", code=3)
    assert (
        f"{out}: the bundle there is signed by key {read_signature(bundle).signer}, which it does not hold; give"
        in line
    )
    unpack(new, out, force=True, public_key=keys / "a.pub")
    assert number(out) == 3
    with pytest.raises(ParityFailed, match="the file is not signed, and the bundle"):
        unpack(old, out, force=True)
    with monkeypatch.context() as patched:  # as the first pocketships signed it, in a file of today
        patched.setattr(packing, "_signature", lambda source, *rest: (source / "manifest.sig").read_bytes())
        before_numbers = packed("a", 9)
    with pytest.raises(
        BadInput, match="the bundle there is number 3, it would become one without a number, an older one"
    ):
        unpack(before_numbers, out, force=True)
    shutil.copyfile(bundle / "manifest.sig", out / "manifest.sig")
    (out / "manifest.sig").write_text((out / "manifest.sig").read_text().replace('"ed25519": "', '"ed25519": "AAAA'))
    with pytest.raises(ParityFailed, match="the signature is not that of key"):
        check_signature(out, keys / "a.pub")


def test_a_signature_that_does_not_fit_is_neither_packed_nor_unpacked(bundle, keys, tmp_path):
    sign_bundle(bundle, keys / "a.key", 4)
    whole = json.loads((bundle / "manifest.sig").read_text())
    for field, value in {"sequence": 5, "public_key": "0" * 64, "signer": "0" * 16}.items():
        (bundle / "manifest.sig").write_text(json.dumps({**whole, field: value}))
        with pytest.raises(ParityFailed, match=r"the signature is not that of key|signature cannot be read"):
            pack(bundle, tmp_path / "file")
        with pytest.raises(ParityFailed, match=r"the signature is not that of key|signature cannot be read"):
            check_signature(bundle, keys / "a.pub")
    for value in (-1, 1 << 63, 1.0, True, "5", None, 10**400):
        (bundle / "manifest.sig").write_text(json.dumps({**whole, "sequence": value}))
        with pytest.raises(ParityFailed, match="the bundle's signature cannot be read"):
            check_signature(bundle, keys / "a.pub")
    (bundle / "manifest.sig").unlink()
    for make in (os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), lambda path: path.write_bytes(bytes(70_000))):
        make(bundle / "manifest.sig")
        with pytest.raises(ParityFailed, match="the bundle's signature cannot be read"):
            check_signature(bundle, keys / "a.pub")
        (bundle / "manifest.sig").unlink()


def test_a_damaged_bundle_gives_way_to_a_whole_one_by_a_key_that_the_user_names(packed, keys, tmp_path):
    out = tmp_path / "out"
    unpack(packed("a", 5), out)
    (out / "model.onnx").unlink()
    unpack(packed("a", 5), out, force=True)
    assert (out / "model.onnx").is_file()
    (out / "manifest.sig").write_text("{")
    with pytest.raises(
        ParityFailed, match="the signature of the bundle there cannot be read; give --public-key, or rem"
    ):
        unpack(packed("a", 5), out, force=True)
    (out / "manifest.json").write_text("{")
    unpack(packed("a", 5), out, force=True, public_key=keys / "a.pub")
    assert check_signature(out, keys / "a.pub")
    (out / "manifest.json").write_text("{")
    with pytest.raises(BadInput, match="the bundle there is number 5, it would become number 4, an older one"):
        unpack(packed("a", 4), out, force=True)


def test_a_bundle_that_was_signed_keeps_its_number_and_one_key_a_file(bundle, packed, keys, tmp_path, refused):
    sign_bundle(bundle, keys / "a.key", 4)
    for key, given, wanted in (("a", None, 4), ("a", 6, 6), (None, None, 4), ("b", 1, 1)):
        unpack(packed(key, given), tmp_path / "out")
        assert number(tmp_path / "out") == wanted
        shutil.rmtree(tmp_path / "out")
    assert number(bundle) == 4
    pack_words = ("pack", bundle, "-o", tmp_path / "x", "--sequence")
    assert "--sequence: a number is for a signature; add --sign KEY" in refused(*pack_words, 5)
    assert "is no sequence; give 0 to" in refused("sign", bundle, "--key", keys / "a.key", "--sequence", -1)
    assert "is no sequence; give 0 to" in refused(*pack_words, 2**63, "--sign", keys / "a.key")


# --- updates ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def update_of(bundle, exported, keys, tmp_path) -> Callable[..., Path]:
    """An update of a bundle to another model, signed by one of the keys, or by nobody."""

    def make(base: Path, key: str | None, sequence: int | None = None) -> Path:
        file = tmp_path / f"update-{key}-{sequence}"
        delta(
            base,
            exported("cnn", "onnx"),
            file,
            sign=keys / f"{key}.key" if key else None,
            sequence=sequence,
            exact=True,
        )
        return file

    return make


def test_an_unsigned_update_and_one_by_another_key_are_not_for_a_signed_bundle(
    bundle, update_of, keys, refused, pocketship, tmp_path
):
    unsigned, stolen = update_of(bundle, None), update_of(bundle, "b", 9)
    sign_bundle(bundle, keys / "a.key", 4)
    signer = read_signature(bundle).signer
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    line = refused("apply", unsigned, bundle, code=3)
    assert f"{unsigned}: the file is not signed, and the bundle whose place it would take is, by key {signer}" in line
    assert f"the signature is not that of key {signer}" in refused("apply", stolen, bundle, code=3)
    for public in ("a", "b"):
        assert "this is no sealed file" in refused("apply", unsigned, bundle, "--public-key", keys / f"{public}.pub")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    own = update_of(bundle, "a")
    done = pocketship("apply", own, bundle, "-o", tmp_path / "new")
    assert done.returncode == 0 and done.stderr == "" and f"every hash is right, signed by key {signer}" in done.stdout
    assert check_signature(tmp_path / "new", keys / "a.pub") == signer and number(tmp_path / "new") > 4
    apply(stolen, bundle, public_key=keys / "b.pub")
    assert check_signature(bundle, keys / "b.pub")


def test_a_signed_update_that_nobody_checked_says_so(bundle, update_of, keys, pocketship, tmp_path):
    update = update_of(bundle, "a")
    words = ("apply", update, bundle, "-o", tmp_path / "new")
    done = pocketship(*words, "--quiet")
    signer = read_signature(tmp_path / "new").signer
    said = f"pocketship: it says that key {signer} signed it, which was not checked: give --public-key\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
    checked = pocketship(*words, "--force", "--public-key", keys / "a.pub")
    assert checked.returncode == 0 and checked.stderr == "" and f"signed by key {signer}" in checked.stdout


def test_an_update_takes_no_place_of_a_newer_or_of_another_signers_bundle(bundle, packed, update_of, keys, tmp_path):
    there, update = tmp_path / "there", update_of(bundle, "a", 5)
    unpack(packed("b", 1), there)
    with pytest.raises(ParityFailed, match="the signature is not that of key"):
        apply(update, bundle, there, force=True)
    signed = Path(shutil.copytree(bundle, tmp_path / "signed"))
    sign_bundle(signed, keys / "a.key", 1)
    with pytest.raises(
        ParityFailed, match=rf"/there: the bundle there and {signed} are signed by two keys; say by --pub"
    ):
        apply(update, signed, there, force=True)
    shutil.rmtree(there)
    apply(update, bundle, there)
    sign_bundle(there, keys / "a.key", 6)
    with pytest.raises(BadInput, match="the bundle there is number 6, it would become number 5, an older one"):
        apply(update, bundle, there, force=True)
    apply(update, bundle, there, force=True, allow_older=True)
    assert number(there) == 5


def test_delta_makes_no_update_that_nobody_would_apply(bundle, exported, keys, refused, tmp_path):
    sign_bundle(bundle, keys / "a.key", 1 << 40)
    words = ("delta", bundle, exported("cnn", "onnx"), "-o", tmp_path / "u")
    line = refused(*words)
    assert f"the old bundle is signed, by key {read_signature(bundle).signer}; add --sign KEY: apps refuse" in line
    signed = (*words, "--sign", keys / "a.key")
    assert f"{1 << 40} is older than the old bundle; give {(1 << 40) + 1} or more" in refused(
        *signed, "--sequence", 1 << 40
    )
    assert not (tmp_path / "u").exists()
    delta(bundle, exported("cnn", "onnx"), tmp_path / "u", sign=keys / "a.key", exact=True)
    apply(tmp_path / "u", bundle)
    assert number(bundle) == (1 << 40) + 1, "the clock of whoever signed was wrong: it still rises"
    changed(bundle)
    assert "--sequence: a number is for a signature" in refused(
        "delta", bundle, exported("mlp", "onnx"), "-o", tmp_path / "v", "--sequence", 1
    )
