"""Whom the link trusts, how it logs in, and boards that cannot be used: over real ssh, nothing is computed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import asyncssh
import pytest

from benchmarks.devices import Interrupted, Options
from benchmarks.devices.ssh import bench as ssh_bench
from benchmarks.devices.ssh import device as ssh
from benchmarks.devices.ssh import link
from benchmarks.devices.ssh.keys import Address
from benchmarks.devices.ssh.link import Unreachable
from runtimes.errors import BadInput, NotInstalled
from tests.rigs.jobs import asked, matmul, write_wheels

device = pytest.mark.device


@pytest.fixture
def nothing(tmp_path):
    """A job that computes nothing."""
    return asked(matmul(tmp_path / "a.onnx", 2), cases=[])


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Write a key pair: the private one at `path`."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


def fingerprint(key: Path) -> str:
    said = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True).stdout
    return said.split()[1]


# --- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "host", "port", "user"),
    [
        ("ssh://pi@kitchen", "kitchen", 22, "pi"),
        ("ssh://kitchen:2222", "kitchen", 2222, None),
        ("ssh://pi@[fe80::1]:22", "fe80::1", 22, "pi"),
    ],
)
def test_an_address(target, host, port, user):
    assert Address.of(target) == Address(target, host, port, user)


@pytest.mark.parametrize(
    "target", ["ssh://", "ssh://pi@", "ssh://pi@a:b", "ssh://pi@a:99999", "ssh://pi:secret@a", "ssh://a/b", "ssh://a?b"]
)
def test_an_address_that_is_none(target):
    with pytest.raises(BadInput, match=r"no address of a board.*; give ssh://user@host\[:port\]"):
        Address.of(target)


def test_nobody_answers(nothing, tmp_path):
    with pytest.raises(Unreachable) as error:
        ssh.run("ssh://pi@127.0.0.1:1", nothing.job, nothing.files, Options(known_hosts=tmp_path / "no"), print)
    assert str(error.value) == (
        "ssh://pi@127.0.0.1:1: no board answers (Connection refused); check address, power and sshd"
    )


def test_without_asyncssh(nothing, monkeypatch):
    for name in ("bench", "keys", "link"):
        monkeypatch.delitem(sys.modules, f"benchmarks.devices.ssh.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(NotInstalled, match=r"asyncssh is not installed; pip install 'pocketship\[bench\]'"):
        ssh.run("ssh://pi@board", nothing.job, nothing.files, Options(), print)


def test_a_core_ml_package_does_not_travel(tmp_path):
    bench = asked(matmul(tmp_path / "a.onnx", 2))
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    files = {bench.job.artifacts[0].file: package}
    with pytest.raises(BadInput, match=r"a\.onnx: a Core ML package does not travel over ssh; bench it on that Mac"):
        ssh.run("ssh://pi@board", bench.job, files, Options(), print)


# --- Host keys -------------------------------------------------------------------------------------------------------


@device
def test_an_unknown_host_key_is_refused_until_it_is_accepted(pi, nothing, still, tmp_path):
    known = tmp_path / "ssh" / "known_hosts"
    with pytest.raises(BadInput) as refused:
        nothing.on(pi, known_hosts=known)
    seen = fingerprint(pi.folder / "host_key.pub")
    assert str(refused.value) == (
        f"{pi.target}: its host key is unknown (ssh-ed25519 {seen}); compare it with what ssh-keygen -lf "
        "/etc/ssh/ssh_host_*_key.pub prints on the board, then give --accept-new-host-key"
    )
    assert not known.exists() and nothing.events == []
    known.parent.mkdir()
    other = f"other {(pi.folder / 'identity.pub').read_text().strip()}"
    known.write_text(other)  # without an end of line
    nothing.on(pi, known_hosts=known, accept_new_host_key=True, wheels=still)
    assert seen in nothing.told("notice")[0]["text"]
    kept, line = known.read_text().splitlines()
    assert kept == other and line.split()[:3] == pi.known_hosts.read_text().split()[:3]
    with contextlib.suppress(KeyboardInterrupt):
        nothing.on(pi, stop, known_hosts=known, wheels=still)


def stop(event) -> None:
    """End a bench at its first event."""
    raise KeyboardInterrupt


@device
@pytest.mark.parametrize("accept", [False, True])
def test_a_changed_host_key_is_always_refused(pi, nothing, tmp_path, accept):
    known = tmp_path / "known_hosts"
    key = keygen(tmp_path / "another").with_suffix(".pub").read_text()
    text = f"[127.0.0.1]:{pi.port} {key}"
    known.write_text(text)
    with pytest.raises(BadInput) as refused:
        nothing.on(pi, known_hosts=known, accept_new_host_key=accept)
    assert str(refused.value) == (
        f"{pi.target}: its host key has changed to ssh-ed25519 {fingerprint(pi.folder / 'host_key.pub')}: the board "
        f"was set up anew, or another one answers; if you know why, remove the old key with ssh-keygen -f {known} -R "
        f"'[127.0.0.1]:{pi.port}'"
    )
    assert known.read_text() == text


@device
def test_another_board_at_the_standard_port_is_no_changed_key(pi, nothing, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(f"127.0.0.1 {keygen(tmp_path / 'another').with_suffix('.pub').read_text()}")
    with pytest.raises(BadInput, match="its host key is unknown"):
        nothing.on(pi, known_hosts=known)


@device
def test_a_host_key_of_another_kind_or_revoked(pi, nothing, tmp_path):
    known = tmp_path / "known_hosts"
    ecdsa = keygen(tmp_path / "ecdsa", "ecdsa").with_suffix(".pub").read_text()
    known.write_text(f"[127.0.0.1]:{pi.port} {ecdsa}")
    with pytest.raises(BadInput, match="its host key has changed to ssh-ed25519 "):
        nothing.on(pi, known_hosts=known)
    line = pi.known_hosts.read_text().splitlines()[0] + "\n"
    for text, message in (
        (f"@revoked {line}", f"its host key is revoked .ssh-ed25519 .*; see {known}"),
        (f"{line}@revoked {line}", f"Host key is revoked for host .*; see {known}"),
    ):
        known.write_text(text)
        with pytest.raises(BadInput, match=message):
            nothing.on(pi, known_hosts=known, accept_new_host_key=True)


@contextlib.contextmanager
def serving(**options):
    """The port of a server of the same library."""
    ready, port, loop = threading.Event(), [], asyncio.new_event_loop()

    async def serve() -> None:
        port.append((await asyncssh.listen("127.0.0.1", 0, **options)).get_port())
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()))
    thread.start()
    try:
        assert ready.wait(30)
        yield port[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_a_board_that_speaks_an_old_ssh_alone(nothing, tmp_path):
    """It offers nothing but a method that was given up; whichever side sees it first ends the connection."""
    keys = [str(keygen(tmp_path / "host"))]
    options = Options(known_hosts=tmp_path / "no")
    said = []
    with serving(server_host_keys=keys, kex_algs=["diffie-hellman-group1-sha1"]) as port:
        while len(said) < 5 and not any("no common way to speak (" in line for line in said):
            with pytest.raises(BadInput) as refusal:
                ssh.run(f"ssh://pi@127.0.0.1:{port}", nothing.job, nothing.files, options, print)
            said.append(str(refusal.value))
    assert said[-1].endswith("; update its sshd"), said
    assert all("Connection lost" in line for line in said[:-1]), said


async def flood(process) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        while True:
            process.stdout.write("x" * 65536)
            await process.stdout.drain()


async def silence(process) -> None:
    await process.stdin.read()


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (flood, BadInput, "it answers with more than 1,000,000 bytes; do not trust this board"),
        (silence, Interrupted, "it gave no answer within 0.5 s; look what keeps it busy, and bench again"),
    ],
)
def test_a_board_whose_answer_does_not_end(answer, error, says, nothing, tmp_path, monkeypatch):
    monkeypatch.setattr(link, "MOST_ANSWER_BYTES", 1_000_000)
    if answer is silence:
        monkeypatch.setattr(link, "ANSWER_S", 0.5)
    own, host = keygen(tmp_path / "own"), keygen(tmp_path / "host")
    options = Options(identity=own, known_hosts=tmp_path / "known", accept_new_host_key=True)
    trusted = str(own.with_suffix(".pub"))
    with (
        serving(server_host_keys=[str(host)], authorized_client_keys=trusted, process_factory=answer) as port,
        pytest.raises(error) as refused,
    ):
        ssh.run(f"ssh://pi@127.0.0.1:{port}", nothing.job, nothing.files, options, print)
    assert str(refused.value) == f"ssh://pi@127.0.0.1:{port}: {says}"


@device
def test_a_key_that_the_board_does_not_know(pi, nothing, tmp_path):
    with pytest.raises(BadInput) as refused:
        nothing.on(pi, identity=keygen(tmp_path / "wrong"))
    assert str(refused.value) == (
        f"{pi.target}: it takes none of our keys; append your public key to ~/.ssh/authorized_keys there "
        "(ssh-copy-id), or give another one with --identity"
    )


@device
def test_keys_of_an_agent(pi, nothing, still, tmp_path, monkeypatch):
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(pi.identity)], check=True)
        with pytest.raises(KeyboardInterrupt):
            nothing.on(pi, stop, identity=None, wheels=still)
    finally:
        agent.kill()
        agent.wait()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"id: cannot be read \(No such file or directory\); check the path"),
        (lambda path: path.write_text("no key"), r"id: no private key \(.*\); give the key's private half"),
        (
            lambda path: keygen(path, passphrase="secret"),
            "id: the key has a passphrase; load it with ssh-add and leave out --identity",
        ),
    ],
    ids=["missing", "garbage", "passphrase"],
)
def test_a_key_that_cannot_be_used(make, message, nothing, tmp_path):
    make(tmp_path / "id")
    options = Options(identity=tmp_path / "id", known_hosts=tmp_path / "no")
    with pytest.raises(BadInput, match=message):
        ssh.run("ssh://pi@127.0.0.1:1", nothing.job, nothing.files, options, print)


# --- Boards that cannot be used --------------------------------------------------------------------------------------


@contextlib.contextmanager
def python_of(pi, text: str | None):
    """The board's python3 is a script, or missing, for a while."""
    place, aside = pi.root / "usr/bin/python3", pi.root / "usr/bin/python3.aside"
    place.rename(aside)
    try:
        if text is not None:
            place.write_text(text)
            place.chmod(0o755)
        yield
    finally:
        place.unlink(missing_ok=True)
        aside.rename(place)


@device
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the board has no python3; install Python 3.9 or newer there"),
        (
            '#!/bin/sh\necho \'{"python": [3, 8],"folder": "", "free_bytes": 9, "busy":"", "error":"", "has":[]}\'\n',
            "the board has Python 3.8; install Python 3.9 or newer there, as python3",
        ),
        ("#!/bin/sh\necho broken >&2\nexit 1\n", "python3 there says: broken; try it by hand"),
        ("#!/bin/sh\nexit 3\n", "python3 there says: exit code 3 and no word; try it by hand"),
    ],
    ids=["none", "old", "broken", "silent"],
)
def test_a_board_without_a_python_that_serves(text, message, pi, nothing):
    with python_of(pi, text), pytest.raises(BadInput) as refused:
        nothing.on(pi)
    assert str(refused.value) == f"{pi.target}: {message}"


@device
def test_a_home_that_cannot_be_written(pi, nothing, still):
    """First all of it, then the folder of files alone."""
    folder = pi.home / ".cache/pocketship"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file")
    with pytest.raises(BadInput, match=r"~/\.cache/pocketship cannot be written: .*; make it a folder"):
        nothing.on(pi)
    folder.unlink()
    files = folder / "files"
    files.mkdir(parents=True)
    for place in (folder.parent, folder):
        os.chown(place, 1000, 1000)
    assert stat.S_IMODE(files.stat().st_mode) == 0o755 and files.stat().st_uid == 0
    with pytest.raises(BadInput, match=r"\.whl cannot be written: Permission denied; check the board's disk"):
        nothing.on(pi, wheels=still)
    shutil.rmtree(folder)


# --- A disk that is full ---------------------------------------------------------------------------------------------

SMALL_DISK_BYTES = 4 << 20
PAGE_BYTES = 4096


@pytest.fixture
def small_disk(pi):
    """The board with our folder on a disk of 4 MiB."""
    pi.mount_small("/home/pi/.cache/pocketship", SMALL_DISK_BYTES)
    yield pi
    pi.unmount("/home/pi/.cache/pocketship")


def fill(pi) -> None:
    """Fill the small disk."""
    with contextlib.suppress(OSError), open(pi.home / ".cache/pocketship/filler", "wb") as file:
        while True:
            file.write(bytes(1 << 12))
            file.flush()


@device
def test_a_disk_that_is_too_small_or_filled_meanwhile(small_disk, still, tmp_path):
    """Seen before the first byte; while a file comes; while wheels are unpacked; while the agent writes its events."""
    large = tmp_path / "large.onnx"
    large.write_bytes(bytes(SMALL_DISK_BYTES))
    bench = asked(large, cases=[])
    with pytest.raises(
        Interrupted, match=r"no room: 4\.2 MB are to be put there, 4\.\d MB are free; make room"
    ) as full:
        bench.on(small_disk, wheels=still)
    assert full.value.cause == "disk-full" and bench.pushed_bytes == 0
    large.write_bytes(bytes(2 << 20))
    bench = asked(large, cases=[])
    with pytest.raises(Interrupted, match=r"\.onnx cannot be written: No space left on device; make room") as full:
        bench.on(small_disk, lambda event: fill(small_disk), wheels=still)
    assert full.value.cause == "disk-full" and bench.pushed_bytes > 2 << 20
    kept = [path.name for path in (small_disk.home / ".cache/pocketship/files").iterdir()]
    assert not [name for name in kept if name.endswith(".part")]
    (small_disk.home / ".cache/pocketship/filler").unlink()
    bench = asked(matmul(tmp_path / "a.onnx", 2))

    def fill_the_events(event) -> None:
        if event["event"] == "condition" and not bench.told("notice"):
            fill(small_disk)
            place = small_disk.home / ".cache/pocketship/jobs" / bench.job.id / "events.jsonl"
            notice = '{"event": "notice", "text": "%s"}\n'
            room = PAGE_BYTES - place.stat().st_size % PAGE_BYTES - len(notice) + 2
            with open(place, "a") as events:  # the file's last page is full now too
                events.write(notice % ("x" * room))

    slow = {"numpy": ("2.0.0", ""), "onnxruntime": ("1.0.0", "import time; time.sleep(2)")}
    with pytest.raises(
        Interrupted, match="the agent ended before its job was done: the disk is full; make room"
    ) as full:
        bench.on(small_disk, fill_the_events, wheels=write_wheels(tmp_path, slow))
    assert full.value.cause == "disk-full" and bench.told("device")


@device
def test_a_disk_that_wheels_fill_as_they_are_unpacked(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_bench.Bench, "_check_room", lambda *words: None)
    fat = "x = '" + "0" * (2 * SMALL_DISK_BYTES) + "'"
    wheels = write_wheels(tmp_path, {"numpy": ("2.0.0", fat), "onnxruntime": ("1.0.0", "")})
    with pytest.raises(Interrupted, match=r"the agent's unpack says: .*No space left on device; make room") as full:
        asked(matmul(tmp_path / "a.onnx", 2)).on(small_disk, wheels=wheels)
    assert full.value.cause == "disk-full"
