"""Signatures and encryption: every byte counts, and what is refused leaves nothing behind."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.delivery import keys as key_files
from exporter.delivery import packing, sealing, storage
from exporter.delivery.keys import keygen, private_key_of, public_key_of
from exporter.delivery.packing import pack, unpack
from exporter.delivery.sealing import CHUNK, MAGIC
from exporter.delivery.signature import check_signature, sign_bundle
from exporter.delivery.trust import Trusted
from runtimes import bundle as runtimes_bundle
from runtimes.errors import BadInput, NotInstalled, ParityFailed
from runtimes.writing import write_file

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"
CONTENT = random.Random(0).randbytes(2 * CHUNK + 100)
CHANGED = (
    r"(^|/file: )(this is no sealed file|the file is sealed in another version than 2|the file's header is damaged"
    r"|the file holds a '.*', not a (x|bundle)|the file is cut off or was changed|the file is encrypted"
    r"|the file is not encrypted, and a key was given|the file is not signed"
    r"|the signature is not that of key [0-9a-f]{16}, or the content was changed"
    r"|the key is another one, or the file was changed or cut off); "
)
"""What is said of a sealed file with a changed byte, or cut off, by the place that it is changed at."""


def seal(content: bytes, **options) -> bytes:
    """`sealing.seal` of bytes."""
    return b"".join(sealing.seal(io.BytesIO(content), len(content), **options))


def unseal(sealed: bytes, *, public_key: Path | None = None, **options) -> tuple[bytes, str | None]:
    """`sealing.unseal` of bytes."""
    content = io.BytesIO()
    trusted = Trusted(public_key_of(public_key), True) if public_key else None
    signer = sealing.unseal(io.BytesIO(sealed), content, trusted=trusted, **options)
    return content.getvalue(), signer


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_archive_of_more_folders_than_files_may_be_is_refused(tmp_path):
    """Half a kilobyte a file, which takes 30 folders."""
    names = (f"{i}/" + "a/" * 29 + "f" for i in range(400))
    content = b"".join(packing._header(name, 0) for name in names) + packing.END
    with pytest.raises(BadInput, match="more than 10000 files or folders"):
        packing.extract(io.BytesIO(content), len(content), tmp_path, "it")
    assert len(list(tmp_path.iterdir())) < 340


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


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("signed", "encrypted"), [(True, True), (False, True), (True, False)])
def test_every_changed_byte_and_every_cut_is_refused(signed, encrypted, checked, keys):
    """Of what is neither signed nor encrypted, the hashes within it tell; who signed is told by the key it names."""
    sealed = seal(
        CONTENT, kind="x", sign=keys / "a.key" if signed else None, encrypt=keys / "a.aes" if encrypted else None
    )
    public, key = keys / "a.pub" if signed and checked else None, keys / "a.aes" if encrypted else None
    start = len(MAGIC) + 4 + int.from_bytes(sealed[len(MAGIC) : len(MAGIC) + 4], "little")
    generator = random.Random(1)
    chunks = [start + i * (CHUNK + 16) for i in range(4)]
    places = {*range(start), *chunks[:3], *(c - 1 for c in chunks[1:3]), len(sealed) - 1, len(sealed) - 65}
    places |= {generator.randrange(len(sealed)) for _ in range(60)}
    for place in sorted(places):
        for changed in (sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], sealed[:place]):
            with pytest.raises((BadInput, ParityFailed), match=CHANGED):
                unseal(changed, kind="x", public_key=public, key=key)


@settings(max_examples=100)
@given(st.data())
def test_no_header_makes_it_crash(data):
    """Headers of any JSON, of any type and size in each field, and of no JSON."""
    words = st.text(max_size=80) | st.sampled_from(["", "a" * 64, "A" * 64, "zz" * 32])
    value = (
        st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | words | st.lists(words, max_size=2)
    )
    fields = ("kind", "size", "encrypted", "salt", "commitment", "signer")
    likely = {"kind": "x", "size": 0, "encrypted": False, "salt": "", "commitment": "", "signer": ""}
    header = {**likely, **data.draw(st.dictionaries(st.sampled_from(fields), value, min_size=1, max_size=2))}
    text = data.draw(st.sampled_from([json.dumps(header).encode(), json.dumps(header).encode("utf-16"), b"[" * 4000]))
    sealed = MAGIC + len(text).to_bytes(4, "little") + text + data.draw(st.binary(max_size=200))
    try:
        unseal(sealed, kind="x", key=None)
    except (BadInput, ParityFailed) as refusal:
        assert refusal.remedy


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
    assert unseal(signed, kind="x") == (b"one", unseal(signed, kind="x", public_key=keys / "a.pub")[1])
    with pytest.raises(ParityFailed, match="the signature is not that of key"):
        unseal(signed[:-64] + other[-64:], kind="x")
    with pytest.raises(ParityFailed, match="cut off or was changed"):
        unseal(plain + b"more", kind="x")


def sealed_with(header: object, body: bytes = b"") -> bytes:
    """A file with this header, which somebody wrote who means harm."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(4, "little") + text + body


PLAIN = {"kind": "x", "size": 1, "encrypted": False, "salt": "", "commitment": "", "signer": ""}


def test_headers_that_make_no_sense_are_refused():
    changes: list[dict[str, object]] = [{"size": -1}, {"size": 10**400}, {"size": 1.0}, {"size": True}, {"more": 1}]
    changes += [{"salt": value} for value in ("zz", "aa", "a" * 64)] + [{"commitment": "a" * 64}, {"encrypted": True}]
    changes += [{"encrypted": True, "salt": "a" * 64}, {"encrypted": 1}, {"encrypted": True, "commitment": "a" * 64}]
    claims = (3, "deadbeef", "a" * 63, "A" * 64, "a" * 64 + "\n", "\n pocketship: checked", "\x1b[31m")
    changes += [{"signer": claim} for claim in claims]
    for header in (b"{", b"[]", b"{}", b"[" * 4000, b"\xff", *({**PLAIN, **change} for change in changes)):
        with pytest.raises(ParityFailed, match="header is damaged"):
            unseal(sealed_with(header, b"1"), kind="x")
    for length in (b"\xff\xff\xff\xff", b"\xff", (4097).to_bytes(4, "little") + b" " * 5000):
        with pytest.raises(ParityFailed, match="header is damaged"):
            unseal(MAGIC + length, kind="x")
    with pytest.raises(BadInput, match="no sealed file"):
        unseal(b"text", kind="x")


def test_nothing_is_allocated_for_a_size_that_the_file_has_not():
    for change in ({"size": 1 << 32}, {"encrypted": True, "salt": "a" * 64, "commitment": "a" * 64, "size": 1 << 32}):
        header = {**PLAIN, **change}
        tracemalloc.start()
        with pytest.raises(ParityFailed, match="the file is cut off or was changed"):
            unseal(sealed_with(header, b"1"), kind="x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


class Swapped(io.BytesIO):
    """A file that somebody writes another content into once its signature was checked."""

    reads = 0

    def seek(self, place: int, whence: int = 0) -> int:
        self.reads += place > 0
        if self.reads == 2:
            self.getbuffer()[-70:-64] = b"harmed"
        return super().seek(place, whence)


def test_what_changes_after_its_signature_was_checked_is_refused(keys):
    sealed = seal(CONTENT, kind="x", sign=keys / "a.key")
    with pytest.raises(ParityFailed, match="/file: the file changed while it was read; get the file again"):
        sealing.unseal(Swapped(sealed), io.BytesIO(), kind="x", where="/file")


# --- keys that are committed to --------------------------------------------------------------------------------------


def test_with_a_key_what_was_never_encrypted_is_refused(keys, exported, refused, tmp_path):
    """Or whoever carries a file takes the encryption off, and puts another content in."""
    bundle = exported("mlp", "onnx")
    key = ("--key", keys / "a.aes")
    for sign in (None, keys / "a.key"):
        pack(bundle, tmp_path / "file", sign=sign, force=True)
        said = refused("unpack", tmp_path / "file", "-o", tmp_path / "out", *key, code=3)
        assert f"{tmp_path / 'file'}: the file is not encrypted, and a key was given; get the file again" in said
    (tmp_path / "update").write_bytes(seal(b"", kind="update"))
    assert "the file is not encrypted, and a key" in refused("apply", tmp_path / "update", bundle, *key, code=3)
    (tmp_path / "update").write_bytes(b"pocketship update 1\n")
    assert "this is no sealed file" in refused("apply", tmp_path / "update", bundle, *key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "update"]


def test_a_file_of_the_first_version_is_refused_since_it_commits_to_no_key(keys, exported, refused, tmp_path):
    (tmp_path / "old").write_bytes(
        seal(CONTENT, kind="bundle", encrypt=keys / "a.aes").replace(MAGIC, b"pocketship seal 1\n")
    )
    said = refused("unpack", tmp_path / "old", "-o", tmp_path / "out", "--key", keys / "a.aes")
    assert f"{tmp_path / 'old'}: the file is sealed in another version than 2; pack it again" in said
    assert "another version than 2" in refused("apply", tmp_path / "old", exported("mlp", "onnx"))


def two_key_file(keys: Path, first: str, second: str) -> bytes:
    """A file of one chunk that AES-GCM alone opens with both keys, to two different texts.

    The last block of the ciphertext is chosen so that the tag is the same under both: GHASH is linear, and the chunk's
    first key decides all the others (Dodis and others, "Fast message franking", 2018; Len and others, 2021).
    """
    secrets = [base64.b64decode((keys / f"{name}.aes").read_text()) for name in (first, second)]
    salt = bytes(32)
    header = {**PLAIN, "size": 32, "encrypted": True, "salt": salt.hex()}
    header["commitment"] = sealing._derived(secrets[0], salt, sealing.COMMITMENT_DOMAIN).hex()
    head = sealed_with(header)
    nonce = sealing._nonce(0, True)
    masks, powers = [], []
    for secret in secrets:
        key = sealing._derived(secret, salt, sealing.FILE_DOMAIN)
        block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        powers.append(int.from_bytes(block.update(bytes(16)), "big"))
        masks.append(int.from_bytes(block.update(nonce + b"\0\0\0\1"), "big"))
    associated = head + bytes(-len(head) % 16)
    blocks = [int.from_bytes(associated[i : i + 16], "big") for i in range(0, len(associated), 16)]
    lengths = (8 * len(head)) << 64 | 8 * 32

    def tag(h: int, mask: int, last: int) -> int:
        value = 0
        for word in (*blocks, 0, last, lengths):  # the first block of the ciphertext is zero
            value = times(value ^ word, h)
        return value ^ mask

    zero = tag(powers[0], masks[0], 0) ^ tag(powers[1], masks[1], 0)
    squares = times(powers[0], powers[0]) ^ times(powers[1], powers[1])
    last = times(zero, inverse(squares))
    made = tag(powers[0], masks[0], last)
    assert made == tag(powers[1], masks[1], last)
    return head + bytes(16) + last.to_bytes(16, "big") + made.to_bytes(16, "big")


def times(x: int, y: int) -> int:
    """The product in GCM's field of 2^128 elements (NIST SP 800-38D, 6.3)."""
    product = 0
    for i in range(127, -1, -1):
        product ^= y if x >> i & 1 else 0
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def inverse(x: int) -> int:
    """x to the power of 2^128 - 2."""
    result, power = 1 << 127, x
    for _ in range(127):
        power = times(power, power)
        result = times(result, power)
    return result


def test_a_file_that_two_keys_open_is_refused_with_the_second(keys, monkeypatch):
    sealed = two_key_file(keys, "a", "b")
    first, _ = unseal(sealed, kind="x", key=keys / "a.aes")
    with pytest.raises(ParityFailed, match=r"^the key is another one, or the file was changed"):
        unseal(sealed, kind="x", key=keys / "b.aes")
    monkeypatch.setattr(sealing.hmac, "compare_digest", lambda a, b: True)
    second, _ = unseal(sealed, kind="x", key=keys / "b.aes")
    assert len(first) == len(second) == 32 and first != second, "or the test is blind: AES-GCM would open it"


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


@pytest.mark.parametrize("force", [False, True])
def test_of_two_that_make_keys_of_one_name_at_once_both_halves_are_of_one(force, tmp_path, monkeypatch):
    """The second one begins when the first has written the secret half, and not yet the public one."""
    told: list[BaseException | None] = []

    def second() -> None:
        try:
            keygen(tmp_path / "k", force=force)
            told.append(None)
        except BadInput as error:
            told.append(error)

    other = threading.Thread(target=second)

    def write(path: Path, content, *, secret: bool = False) -> int:
        size = write_file(path, content, secret=secret)
        if secret and threading.current_thread() is not other:
            other.start()
            other.join(0.3)
        return size

    monkeypatch.setattr(key_files, "write_file", write)
    keygen(tmp_path / "k", force=force)
    other.join()
    assert (told == [None]) if force else ("the key exists" in str(told[0]))
    pair = private_key_of(tmp_path / "k.key").public_key().public_bytes_raw()
    assert pair == public_key_of(tmp_path / "k.pub").public_bytes_raw()


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
    unchecked = pocketship("verify", bundle)
    assert unchecked.returncode == 0 and "signed it, which was not checked: give --public-key" in unchecked.stderr
    assert "the signature is not that of key" in refused("verify", bundle, "--public-key", keys / "b.pub", code=3)
    content = (bundle / "README.md").read_bytes()
    (bundle / "README.md").write_bytes(content + b"more")
    assert "README.md" in refused("verify", bundle, *public, code=3)
    (bundle / "README.md").write_bytes(content)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "mlp"', '"name": "mlq"'))
    with pytest.raises(ParityFailed, match="the content was changed"):
        check_signature(bundle, keys / "a.pub")
    for command in (("verify", bundle), ("embed", bundle, "--cpp", bundle.parent / "out")):
        assert "or the content was changed" in refused(*command, code=3), "without a key as well"
    twice = (bundle / "manifest.sig").read_text().replace("{", '{"sequence": 9, ', 1)
    for text in (twice, "{", "[]", '{"ed25519": 3}', '{"ed25519": "!"}', "é", "[" * 100_000):
        (bundle / "manifest.sig").write_text(text)
        with pytest.raises(ParityFailed, match="cannot be read"):
            check_signature(bundle, keys / "a.pub")


@pytest.mark.slow
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


@pytest.mark.parametrize("harm", ["flipped", "missing", "stranger", "link", "pipe", "folder link"])
def test_a_damaged_bundle_is_neither_signed_nor_packed(harm, exported, copy_of, keys, refused, tmp_path):
    bundle = copy_of(exported("mlp", "onnx"))
    said = harmed(bundle, harm)
    for words in (("sign", bundle, "--key", keys / "a.key"), ("pack", bundle, "-o", tmp_path / "file")):
        line = refused(*words, code=3)
        assert line == f"pocketship: {bundle}: {said}; get the whole bundle again"
    assert not (bundle / "manifest.sig").exists() and not (tmp_path / "file").exists()


def harmed(bundle: Path, harm: str) -> str:
    """Do harm to a bundle; what is to be said of it."""
    model = bundle / "model.onnx"
    if harm == "flipped":
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 1
        model.write_bytes(content)
        return f"model.onnx: its bytes are not those of the manifest (sha256 {sha256(content).hexdigest()[:12]})"
    if harm == "missing":
        model.unlink()
        return "model.onnx: missing, or not a regular file"
    stranger = bundle / "run.sh"
    if harm == "stranger":
        stranger.write_text("x")
        return "'run.sh': not in the manifest"
    if harm == "pipe":
        os.mkfifo(stranger)
        return "'run.sh': a bundle holds no special file"
    stranger.symlink_to("/etc/passwd" if harm == "link" else "/etc")
    return "'run.sh': a bundle holds no symbolic link"


def test_a_bundle_whose_folder_cannot_be_read_is_not_packed(exported, monkeypatch, tmp_path):
    def unreadable(folder: Path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runtimes_bundle, "walk", unreadable)
    with pytest.raises(ParityFailed, match=r"the folder cannot be read \(Permission denied\); get the whole bundle"):
        pack(exported("mlp", "onnx"), tmp_path / "file")


def test_a_log_of_an_export_is_left_behind(exported, copy_of, keys, tmp_path):
    bundle = copy_of(exported("mlp", "onnx"))
    (bundle / "export.log").write_text("changed by anybody, for no hash covers it")
    pack(bundle, tmp_path / "file", sign=keys / "a.key")
    unpack(tmp_path / "file", tmp_path / "out", public_key=keys / "a.pub")
    assert not (tmp_path / "out" / "export.log").exists()


@pytest.mark.parametrize("harm", ["flipped", "missing", "stranger", "export.log"])
@pytest.mark.parametrize("signed", [True, False])
def test_a_file_that_holds_a_damaged_bundle_never_takes_the_place_of_a_whole_one(
    harm, signed, exported, copy_of, keys, refused, tmp_path
):
    """Even where the right key signed it: what made it may have been damaged."""
    bundle = exported("mlp", "onnx")
    files = {name: content for name, content in tree(bundle).items() if name != "export.log"}
    if harm == "flipped":
        content = bytearray(files["model.onnx"])
        content[len(content) // 2] ^= 1
        files["model.onnx"], said = bytes(content), "model.onnx: its bytes are not those of the manifest"
    elif harm == "missing":
        del files["model.onnx"]
        said = "model.onnx: missing, or not a regular file"
    else:
        files[harm], said = b"x", f"'{harm}': not in the manifest"
    entries = [(name, tarfile.REGTYPE, content) for name, content in files.items()]
    (tmp_path / "file").write_bytes(archive(*entries, sign=keys / "a.key" if signed else None))
    there = copy_of(bundle)
    before, names = tree(there), sorted(path.name for path in tmp_path.iterdir())
    key = ("--public-key", keys / "a.pub") if signed else ()
    line = refused("unpack", tmp_path / "file", "-o", there, "--force", *key, code=3)
    assert line.startswith(f"pocketship: {tmp_path / 'file'}: {said}") and line.endswith("; get the whole bundle again")
    assert tree(there) == before and sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_bundle_of_too_many_files_is_not_packed(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(packing, "MOST_FILES", 3)
    with pytest.raises(BadInput, match="files are too many; 3 can be packed"):
        pack(exported("mlp", "onnx"), tmp_path / "file")
    monkeypatch.setattr(sealing, "LARGEST", 3)
    with pytest.raises(BadInput, match="the content has 4 bytes; 3 can be sealed"):
        seal(b"1234", kind="x")


def test_a_folder_in_the_place_of_a_signature_is_refused(exported, copy_of, keys):
    bundle = copy_of(exported("mlp", "onnx"))
    (bundle / "manifest.sig").mkdir()
    with pytest.raises(ParityFailed, match=r"'manifest\.sig': a bundle holds no empty folder; get the whole bundle"):
        sign_bundle(bundle, keys / "a.key")


@pytest.mark.slow
def test_a_bundle_travels_as_one_file(exported, keys, pocketship, refused, tmp_path):
    bundle = exported("mlp", "onnx")
    file = tmp_path / "mlp.pocketship"
    done = pocketship("pack", bundle, "-o", file, "--sign", keys / "a.key", "--encrypt", keys / "a.aes")
    assert done.returncode == 0 and "encrypted and signed" in done.stdout, done.stderr
    assert "the file exists" in refused("pack", bundle, "-o", file)
    assert "the file is encrypted" in refused("unpack", file, "-o", tmp_path / "x", "--public-key", keys / "a.pub")
    assert "the key is another one" in refused("unpack", file, "-o", tmp_path / "x", "--key", keys / "b.aes", code=3)
    assert not (tmp_path / "x").exists()
    unchecked = pocketship("unpack", file, "-o", tmp_path / "y", "--key", keys / "a.aes")
    assert unchecked.returncode == 0 and "was not checked" in unchecked.stderr
    done = pocketship("unpack", file, "-o", tmp_path / "z", "--key", keys / "a.aes", "--public-key", keys / "a.pub")
    assert done.returncode == 0 and "signed by key" in done.stdout and done.stderr == ""
    made, given = tree(tmp_path / "z"), tree(bundle)
    assert made.keys() - given.keys() == {"manifest.sig"} and given.keys() - made.keys() <= {"export.log"}
    assert all(made[name] == given[name] for name in made.keys() - {"manifest.sig"})
    assert pocketship("verify", tmp_path / "z").returncode == 0
    assert "exists" in refused("unpack", file, "-o", tmp_path / "z", "--key", keys / "a.aes")


HUGE = b"huge"


def archive(*entries: tuple[str, bytes, bytes], end: bytes | None = None, sign: Path | None = None) -> bytes:
    """A sealed archive of (name, type, content)."""
    stream = io.BytesIO()
    for name, kind, content in entries:
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.mode = (tarfile.REGTYPE if kind == HUGE else kind), len(content), 0o644
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry.linkname = "/etc/passwd"
        if kind == HUGE:  # a header that claims what is not there
            entry.size = 2**33 - 1
        stream.write(entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    stream.write(bytes(1024) if end is None else bytes(512) + end)
    return seal(stream.getvalue(), kind="bundle", sign=sign)


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        (archive(("../escaped", tarfile.REGTYPE, b"x")), "leads out"),
        (archive(("/tmp/escaped", tarfile.REGTYPE, b"x")), "leads out"),
        (archive(("link", tarfile.SYMTYPE, b"")), "no plain file"),
        (archive(("hard", tarfile.LNKTYPE, b"")), "no plain file"),
        (archive(("pipe", tarfile.FIFOTYPE, b"")), "no plain file"),
        (archive(("sparse", tarfile.GNUTYPE_SPARSE, b"1")), "'sparse' is no plain file"),
        (archive(("pax", tarfile.XHDTYPE, b"30 path=other\n")), "'pax' is no plain file"),
        (archive(("pax", tarfile.XGLTYPE, b"30 path=other\n")), "'pax' is no plain file"),
        (archive(("long", tarfile.GNUTYPE_LONGNAME, b"other\0")), "'long' is no plain file"),
        (archive(("folder", tarfile.DIRTYPE, b"")), "no plain file"),
        (archive(("device", tarfile.BLKTYPE, b"")), "no plain file"),
        (archive(("a", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")), "'a' is there twice"),
        (archive(("a", tarfile.REGTYPE, b"1"), ("a/b", tarfile.REGTYPE, b"2")), "'a/b' is there twice"),
        (archive(("a/b", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")), "'a' is there twice"),
        (archive(("a//b", tarfile.REGTYPE, b"1")), "leads out"),
        (archive(("./a", tarfile.REGTYPE, b"1")), "leads out"),
        (archive(("a", tarfile.REGTYPE, b"1"), ("huge", HUGE, b"")), "'huge' is longer than the archive"),
        (archive(("a", tarfile.REGTYPE, b"1"), end=b"x" * 512), "does not end where it says"),
        (archive(("a", tarfile.REGTYPE, b"1"), end=bytes(1024)), "does not end where it says"),
        (archive(("a", tarfile.REGTYPE, b"1"), end=b""), "does not end where it says"),
        (archive(*((f"f{i}", tarfile.REGTYPE, b"") for i in range(10_001))), "holds more than 10000 files"),
        (seal(b"no archive" * 100, kind="bundle"), "cannot be read"),
        (archive(("a", tarfile.REGTYPE, b"1")), "no bundle here"),
    ],
)
def test_archives_that_mean_harm_leave_nothing(sealed, said, tmp_path):
    (tmp_path / "file").write_bytes(sealed)
    with pytest.raises(BadInput, match=said):
        unpack(tmp_path / "file", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_sparse_archive_is_refused_before_its_holes_are_filled(tmp_path):
    """GNU tar's sparse files: each header says as much as the whole archive has, of which nothing follows."""
    entry = tarfile.TarInfo("manifest.json")
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % 1500  # the real size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert tarfile.TarInfo.frombuf(bytes(block), "utf-8", "strict").type == tarfile.GNUTYPE_SPARSE
    (tmp_path / "file").write_bytes(seal(bytes(block) + bytes(1024), kind="bundle"))
    with pytest.raises(BadInput, match=r"/file: 'manifest\.json' is no plain file; do not trust this file"):
        unpack(tmp_path / "file", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
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
    assert "the old bundle is signed, by key" in refused(
        "delta", old, exported("mlp", "onnx"), "-o", tmp_path / "plain"
    )


def test_a_packed_bundle_that_was_changed_leaves_nothing(exported, keys, tmp_path):
    pack(exported("mlp", "onnx"), tmp_path / "file", sign=keys / "a.key")
    sealed = (tmp_path / "file").read_bytes()
    for place in (0, 30, len(sealed) // 2, len(sealed) - 70, len(sealed) - 1):
        for changed in (sealed[:place], sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]):
            (tmp_path / "file").write_bytes(changed)
            with pytest.raises((BadInput, ParityFailed), match=CHANGED):
                unpack(tmp_path / "file", tmp_path / "out", public_key=keys / "a.pub")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_files_with_short_paths_are_packed(exported, copy_of, tmp_path):
    bundle = copy_of(exported("mlp", "onnx"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in ("x" * 150, "x" * 90 + "/" + "y" * 101):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text("long")
        row = {"path": name, "size_bytes": 4, "sha256": sha256(b"long").hexdigest()}
        changed = {**manifest, "files": [*manifest["files"], row]}
        (bundle / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(BadInput, match=r"a path is too long \(.*\); give shorter names"):
            pack(bundle, tmp_path / "file")
        (bundle / name).unlink()
    assert not (tmp_path / "file").exists()


def test_what_cannot_be_read_or_written_is_refused(exported, monkeypatch, tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        pack(exported("mlp", "onnx"), tmp_path / "none" / "file")
    monkeypatch.setattr(storage, "LARGEST", 10)
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(BadInput, match="11 bytes are more than 10"):
        unpack(tmp_path / "large", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_signed_file_holds_the_inner_signature_of_the_same_key(exported, copy_of, keys, tmp_path):
    bundle = copy_of(exported("mlp", "onnx"))
    (bundle / "export.log").unlink(missing_ok=True)
    sign_bundle(bundle, keys / "a.key", 1)
    files = tree(bundle)
    unsigned = {name: content for name, content in files.items() if name != "manifest.sig"}
    another = {**files, "manifest.json": files["manifest.json"] + b"\n"}
    for inner, key, said in (
        (unsigned, "a", "the bundle in it is not signed by key"),
        (files, "b", "the bundle in it is not signed by key"),
        (another, "a", "the signature is not that of key"),
        (another, None, "the signature is not that of key"),
    ):
        entries = [(name, tarfile.REGTYPE, content) for name, content in inner.items()]
        (tmp_path / "file").write_bytes(archive(*entries, sign=keys / f"{key}.key" if key else None))
        with pytest.raises(ParityFailed, match=rf"/file: {said}"):
            unpack(tmp_path / "file", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_bytes(archive(*((name, tarfile.REGTYPE, c) for name, c in unsigned.items())))
    assert unpack(tmp_path / "file", tmp_path / "out") == packing.Unpacked(None, None)
