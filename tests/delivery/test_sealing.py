"""Signatures and encryption: every byte counts, and what is refused leaves nothing behind."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from exporter.delivery import keys as key_files
from exporter.delivery import sealing, storage
from exporter.delivery.keys import keygen
from exporter.delivery.sealing import CHUNK, MAGIC, is_sealed, pack, seal, unpack, unseal
from exporter.delivery.signature import check_signature, sign_bundle
from runtimes.errors import BadInput, NotInstalled, ParityFailed

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"
CONTENT = random.Random(0).randbytes(2 * CHUNK + 100)
CHANGED = (
    r"(^|/file: )(this is no sealed file|the file's header is damaged|the file holds a '.', not a x"
    r"|the signature is not that of key [0-9a-f]{16}, or the content was changed"
    r"|the key is another one, or the file was changed or cut off); "
)
"""What is said of a sealed file with a changed byte, or cut off, by the place that it is changed at."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs to sign with, two keys to encrypt with."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("a", "b"):
        keygen(folder / name)
        keygen(folder / name, encryption=True)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("encrypted", [True, False])
def test_what_is_sealed_comes_back(size, signed, encrypted, keys):
    content = CONTENT[:1] * size
    sealed = seal(
        content, kind="x", sign=keys / "a.key" if signed else None, encrypt=keys / "a.aes" if encrypted else None
    )
    opened, signer = unseal(
        sealed, kind="x", public_key=keys / "a.pub" if signed else None, key=keys / "a.aes" if encrypted else None
    )
    assert opened == content and (signer is not None) == signed
    if encrypted and size > 100:
        assert content[:100] not in sealed


def test_two_seals_of_one_content_have_nothing_in_common(keys):
    one, two = (seal(CONTENT, kind="x", encrypt=keys / "a.aes") for _ in range(2))
    assert one[-1000:] != two[-1000:]


@pytest.mark.parametrize("signed", [True, False])
def test_every_changed_byte_and_every_cut_is_refused(signed, keys):
    sealed = seal(CONTENT, kind="x", sign=keys / "a.key" if signed else None, encrypt=keys / "a.aes")
    public = keys / "a.pub" if signed else None
    start = len(MAGIC) + 4 + int.from_bytes(sealed[len(MAGIC) : len(MAGIC) + 4], "little")
    generator = random.Random(1)
    chunks = [start + i * (CHUNK + 16) for i in range(4)]
    places = {*range(start), *chunks[:3], *(c - 1 for c in chunks[1:3]), len(sealed) - 1, len(sealed) - 65}
    places |= {generator.randrange(len(sealed)) for _ in range(60)}
    for place in sorted(places):
        for changed in (sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], sealed[:place]):
            with pytest.raises((BadInput, ParityFailed), match=CHANGED):
                unseal(changed, kind="x", public_key=public, key=keys / "a.aes")


def test_chunks_that_change_places_or_come_from_another_file_are_refused(keys):
    sealed, other = (seal(CONTENT, kind="x", encrypt=keys / "a.aes") for _ in range(2))
    start = len(sealed) - (len(CONTENT) + 3 * 16)
    step = CHUNK + 16
    first, second, rest = (
        sealed[start : start + step],
        sealed[start + step : start + 2 * step],
        sealed[start + 2 * step :],
    )
    for body in (second + first + rest, first + first + rest, other[start : start + step] + second + rest):
        with pytest.raises(ParityFailed, match="another one, or the file was changed"):
            unseal(sealed[:start] + body, kind="x", key=keys / "a.aes")


def test_other_keys_and_missing_ones_are_refused(keys):
    sealed = seal(CONTENT, kind="x", sign=keys / "a.key", encrypt=keys / "a.aes")
    with pytest.raises(ParityFailed, match="the signature is not that of key"):
        unseal(sealed, kind="x", public_key=keys / "b.pub", key=keys / "a.aes")
    with pytest.raises(ParityFailed, match="the key is another one"):
        unseal(sealed, kind="x", public_key=keys / "a.pub", key=keys / "b.aes")
    with pytest.raises(BadInput, match="the file is encrypted"):
        unseal(sealed, kind="x", public_key=keys / "a.pub")
    with pytest.raises(BadInput, match="holds a 'x', not a y"):
        unseal(sealed, kind="y", key=keys / "a.aes")


def test_a_signature_that_was_taken_off_or_is_of_another_file_is_refused(keys):
    signed, other = (seal(content, kind="x", sign=keys / "a.key") for content in (b"one", b"two"))
    plain = seal(b"one", kind="x")
    with pytest.raises(ParityFailed, match="not signed"):
        unseal(plain, kind="x", public_key=keys / "a.pub")
    with pytest.raises(ParityFailed, match="the signature is not"):
        unseal(signed[:-64] + other[-64:], kind="x", public_key=keys / "a.pub")
    assert unseal(signed, kind="x") == (b"one", None)
    with pytest.raises(ParityFailed, match="cut off or was changed"):
        unseal(plain + b"more", kind="x")


def test_headers_that_make_no_sense_are_refused():
    def sealed(header: bytes) -> bytes:
        return MAGIC + len(header).to_bytes(4, "little") + header

    whole = {"kind": "x", "size": 1, "salt": "", "signer": ""}
    changed = [
        {**whole, **change} for change in ({"size": -1}, {"salt": "zz"}, {"salt": "aa"}, {"signer": 3}, {"more": 1})
    ]
    changed += [{**whole, "signer": claim} for claim in ("deadbeef", "a" * 17, "\n pocketship: checked", "\x1b[31m")]
    for header in (b"{", b"[]", b"{}", *(json.dumps(value).encode() for value in changed)):
        with pytest.raises(ParityFailed, match="header is damaged"):
            unseal(sealed(header), kind="x")
    with pytest.raises(ParityFailed, match="header is damaged"):
        unseal(MAGIC + b"\xff\xff\xff\xff", kind="x")
    with pytest.raises(BadInput, match="no sealed file"):
        unseal(b"text", kind="x")


def test_an_independent_implementation_opens_it_by_the_documentation(keys, tmp_path):
    (tmp_path / "sealed").write_bytes(seal(CONTENT, kind="x", sign=keys / "a.key", encrypt=keys / "a.aes"))
    words = [
        "node",
        CONFORMANCE / "javascript/unseal.mjs",
        tmp_path / "sealed",
        keys / "a.pub",
        keys / "a.aes",
        tmp_path / "out",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == CONTENT


# --- keys ------------------------------------------------------------------------------------------------------------


def test_secret_keys_are_their_owners_alone_and_not_overwritten(tmp_path, refused, pocketship):
    assert pocketship("keygen", tmp_path / "k").returncode == 0
    assert (tmp_path / "k.key").stat().st_mode & 0o777 == 0o600
    done = pocketship("keygen", tmp_path / "k", "--encryption")
    assert "is secret" in done.stdout and (tmp_path / "k.aes").stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode((tmp_path / "k.aes").read_text())) == 32
    before = tree(tmp_path)
    assert "the key exists" in refused("keygen", tmp_path / "k")
    assert "the key exists" in refused("keygen", tmp_path / "k", "--encryption")
    assert tree(tmp_path) == before
    keygen(tmp_path / "k", force=True)
    assert (tmp_path / "k.key").read_bytes() != before["k.key"]
    assert "cannot be written" in refused("keygen", tmp_path / "none" / "k")
    (tmp_path / "m.pub").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        keygen(tmp_path / "m", force=True)


def test_keys_of_another_kind_are_refused_and_nothing_of_them_is_said(keys, tmp_path):
    wrong = rsa.generate_private_key(65537, 2048)
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    formats = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
    private, public = wrong.private_bytes(pem, formats[0], none), wrong.public_key().public_bytes(pem, formats[1])
    for name, data in (("rsa.key", private), ("rsa.pub", public)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    secret = (keys / "a.key").read_text().splitlines()[1]
    for call, said in (
        (lambda: seal(b"", kind="x", sign=tmp_path / "rsa.key"), "another kind than Ed25519"),
        (lambda: seal(b"", kind="x", sign=keys / "a.aes"), "no private key"),
        (lambda: seal(b"", kind="x", encrypt=keys / "a.key"), "no key to encrypt with"),
        (
            lambda: unseal(seal(b"", kind="x", sign=keys / "a.key"), kind="x", public_key=tmp_path / "rsa.pub"),
            "another kind",
        ),
        (
            lambda: unseal(seal(b"", kind="x", sign=keys / "a.key"), kind="x", public_key=keys / "a.key"),
            "no public key",
        ),
        (lambda: seal(b"", kind="x", sign=tmp_path / "none.key"), "cannot be read"),
    ):
        with pytest.raises(BadInput, match=said) as refusal:
            call()
        assert secret not in str(refusal.value)


def test_a_key_of_an_unknown_algorithm_is_refused(tmp_path):
    der = bytes.fromhex("300c300506032a03040303000102")
    for kind, call in (("PUBLIC", key_files.public_key_of), ("PRIVATE", key_files.private_key_of)):
        text = f"-----BEGIN {kind} KEY-----\n{base64.b64encode(der).decode()}\n-----END {kind} KEY-----\n"
        (tmp_path / "odd").write_text(text)
        with pytest.raises(BadInput, match="this is no p"):
            call(tmp_path / "odd")


def test_without_the_library_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(NotInstalled, match="cryptography is not installed"):
        keygen(tmp_path / "k")


def test_a_secret_key_that_others_may_read_is_refused(keys, tmp_path):
    shutil.copyfile(keys / "a.aes", tmp_path / "open.aes")
    (tmp_path / "open.aes").chmod(0o640)
    with pytest.raises(BadInput, match="others may read"):
        seal(b"", kind="x", encrypt=tmp_path / "open.aes")
    shutil.copyfile(keys / "a.key", tmp_path / "open.key")
    (tmp_path / "open.key").chmod(0o644)
    with pytest.raises(BadInput, match=r"others may read this secret key.*chmod 600 open\.key"):
        seal(b"", kind="x", sign=tmp_path / "open.key")


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_a_signed_bundle_verifies_and_a_changed_one_does_not(exported, copy_of, keys, pocketship, refused):
    bundle = copy_of(exported("mlp", "onnx"))
    public = ("--public-key", keys / "a.pub")
    assert "the bundle is not signed" in refused("verify", bundle, *public, code=3)
    assert "is not signed" in refused("embed", bundle, "--cpp", bundle.parent / "out", *public, code=3)
    assert pocketship("sign", bundle, "--key", keys / "a.key").returncode == 0
    assert pocketship("verify", bundle, *public).returncode == 0
    assert pocketship("verify", bundle).returncode == 0
    assert "the signature is not that of key" in refused("verify", bundle, "--public-key", keys / "b.pub", code=3)
    content = (bundle / "README.md").read_bytes()
    (bundle / "README.md").write_bytes(content + b"more")
    assert "README.md" in refused("verify", bundle, *public, code=3)
    (bundle / "README.md").write_bytes(content)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "mlp"', '"name": "mlq"'))
    with pytest.raises(ParityFailed, match="the content was changed"):
        check_signature(bundle, keys / "a.pub")
    for text in ("{", "[]", '{"ed25519": 3}', '{"ed25519": "!"}', "é", "[" * 100_000):
        (bundle / "manifest.sig").write_text(text)
        with pytest.raises(ParityFailed, match="cannot be read"):
            check_signature(bundle, keys / "a.pub")


def test_export_signs(keys, pocketship, refused, tmp_path):
    models = Path(__file__).resolve().parents[1] / "models.py"
    words = ("export", f"{models}:mlp", "-t", "onnx", "-o", tmp_path / "b", "--quiet")
    assert "no private key" in refused(*words, "--sign", keys / "a.pub")
    assert not (tmp_path / "b").exists()
    done = pocketship(*words, "--sign", keys / "a.key")
    assert done.returncode == 0, done.stderr
    assert (
        check_signature(tmp_path / "b", keys / "a.pub")
        == json.loads((tmp_path / "b/manifest.sig").read_text())["signer"]
    )


def test_a_bundle_that_cannot_be_written_into_is_not_signed(exported, copy_of, keys):
    bundle = copy_of(exported("mlp", "onnx"))
    (bundle / "manifest.sig").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        sign_bundle(bundle, keys / "a.key")


def test_a_bundle_travels_as_one_file(exported, keys, pocketship, refused, tmp_path):
    bundle = exported("mlp", "onnx")
    file = tmp_path / "mlp.pocketship"
    done = pocketship("pack", bundle, "-o", file, "--sign", keys / "a.key", "--encrypt", keys / "a.aes")
    assert done.returncode == 0 and "encrypted and signed" in done.stdout, done.stderr
    assert is_sealed(file) and not is_sealed(bundle / "manifest.json") and not is_sealed(tmp_path / "none")
    assert "the file exists" in refused("pack", bundle, "-o", file)
    assert "the file is encrypted" in refused("unpack", file, "-o", tmp_path / "x", "--public-key", keys / "a.pub")
    assert "the key is another one" in refused("unpack", file, "-o", tmp_path / "x", "--key", keys / "b.aes", code=3)
    assert not (tmp_path / "x").exists()
    unchecked = pocketship("unpack", file, "-o", tmp_path / "y", "--key", keys / "a.aes")
    assert unchecked.returncode == 0 and "was not checked" in unchecked.stderr
    done = pocketship("unpack", file, "-o", tmp_path / "z", "--key", keys / "a.aes", "--public-key", keys / "a.pub")
    assert done.returncode == 0 and "signed by key" in done.stdout and done.stderr == ""
    assert tree(tmp_path / "z") == tree(bundle)
    assert pocketship("verify", tmp_path / "z").returncode == 0
    assert "exists" in refused("unpack", file, "-o", tmp_path / "z", "--key", keys / "a.aes")


HUGE = b"huge"


def archive(*entries: tuple[str, bytes, bytes]) -> bytes:
    """A sealed archive of (name, type, content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            if kind == HUGE:  # a header that claims what is not there
                entry.type, entry.size = tarfile.REGTYPE, 2**33 - 1
                stream.write(entry.tobuf(tarfile.USTAR_FORMAT))
                continue
            tar.addfile(entry, io.BytesIO(content))
    return seal(stream.getvalue(), kind="bundle")


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        (archive(("../escaped", tarfile.REGTYPE, b"x")), "leads out"),
        (archive(("/tmp/escaped", tarfile.REGTYPE, b"x")), "leads out"),
        (archive(("link", tarfile.SYMTYPE, b"")), "no plain file"),
        (archive(("hard", tarfile.LNKTYPE, b"")), "no plain file"),
        (archive(("pipe", tarfile.FIFOTYPE, b"")), "no plain file"),
        (archive(("a", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")), "no plain file"),
        (archive(("a", tarfile.REGTYPE, b"1"), ("a/b", tarfile.REGTYPE, b"2")), "no plain file"),
        (archive(("a/b", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")), "no plain file"),
        (archive(("a//b", tarfile.REGTYPE, b"1")), "leads out"),
        (archive(("./a", tarfile.REGTYPE, b"1")), "leads out"),
        (archive(("a", tarfile.REGTYPE, b"1"), ("huge", HUGE, b"")), "no plain file"),
        (seal(b"no archive" * 100, kind="bundle"), "cannot be read"),
        (archive(("a", tarfile.REGTYPE, b"1")), "no bundle here"),
    ],
)
def test_archives_that_mean_harm_leave_nothing(sealed, said, tmp_path):
    (tmp_path / "file").write_bytes(sealed)
    with pytest.raises(BadInput, match=said):
        unpack(tmp_path / "file", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_an_update_travels_sealed(exported, copy_of, keys, pocketship, refused, tmp_path):
    old = copy_of(exported("mlp", "onnx"))
    done = pocketship(
        "delta",
        old,
        exported("cnn", "onnx"),
        "-o",
        tmp_path / "u",
        "--sign",
        keys / "a.key",
        "--encrypt",
        keys / "a.aes",
        "-q",
    )
    assert done.returncode == 0, done.stderr
    before = tree(old)
    assert "the file is encrypted" in refused("apply", tmp_path / "u", old)
    assert "signature" in refused(
        "apply", tmp_path / "u", old, "--key", keys / "a.aes", "--public-key", keys / "b.pub", code=3
    )
    assert tree(old) == before
    keyed = ("--key", keys / "a.aes", "--public-key", keys / "a.pub")
    assert pocketship("apply", tmp_path / "u", old, *keyed).returncode == 0
    assert tree(old)["model.onnx"] == tree(exported("cnn", "onnx"))["model.onnx"]
    pocketship("delta", old, exported("mlp", "onnx"), "-o", tmp_path / "plain", "-q")
    assert "no sealed file" in refused("apply", tmp_path / "plain", old, "--public-key", keys / "a.pub")


def test_a_packed_bundle_that_was_changed_leaves_nothing(exported, keys, tmp_path):
    pack(exported("mlp", "onnx"), tmp_path / "file", sign=keys / "a.key")
    sealed = (tmp_path / "file").read_bytes()
    for place in (0, 30, len(sealed) // 2, len(sealed) - 70, len(sealed) - 1):
        for changed in (sealed[:place], sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]):
            (tmp_path / "file").write_bytes(changed)
            with pytest.raises((BadInput, ParityFailed), match=CHANGED):
                unpack(tmp_path / "file", tmp_path / "out", public_key=keys / "a.pub")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_plain_files_with_short_paths_are_packed(exported, copy_of, monkeypatch, tmp_path):
    bundle = copy_of(exported("mlp", "onnx"))
    (bundle / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="no plain file"):
        pack(bundle, tmp_path / "file")
    (bundle / "link").unlink()
    (bundle / ("x" * 150)).write_text("long")
    with pytest.raises(BadInput, match="a path is too long"):
        pack(bundle, tmp_path / "file")
    (bundle / ("x" * 150)).unlink()

    def broken(*words: object, **options: object) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(sealing.tarfile, "open", broken)
    with pytest.raises(BadInput, match="a file cannot be read"):
        pack(bundle, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_what_cannot_be_read_or_written_is_refused(exported, monkeypatch, tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        pack(exported("mlp", "onnx"), tmp_path / "none" / "file")
    monkeypatch.setattr(storage, "LARGEST", 10)
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(BadInput, match="too large"):
        unpack(tmp_path / "large", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]
