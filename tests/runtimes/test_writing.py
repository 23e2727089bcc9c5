"""Files in one rename: what is planted beside them stays, what a kill left goes, and a full disk loses nothing."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from runtimes import writing
from runtimes.errors import BadInput
from runtimes.writing import write_file


def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(BadInput, match=r"/file: cannot be written \(the disk is full\); free some space"):
        write_file(tmp_path / "file", [b"x"])
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beside_a_file_stays_and_no_link_is_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".file.part").symlink_to(tmp_path / "mine")
    (tmp_path / ".other.part").write_text("a user's own")
    (tmp_path / "file").symlink_to(tmp_path / "mine")
    write_file(tmp_path / "file", [b"a", b"b"])
    write_file(tmp_path / "other", [b"c"])
    assert (tmp_path / "file").read_bytes() == b"ab" and not (tmp_path / "file").is_symlink()
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / ".file.part").is_symlink()
    assert (tmp_path / ".other.part").read_text() == "a user's own"


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    done = []
    real = os.fsync

    def recorded(descriptor: int) -> None:
        done.append((os.fstat(descriptor).st_ino, (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(writing.os, "fsync", recorded)
    write_file(tmp_path / "file", [b"x"])
    assert done == [((tmp_path / "file").stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_of_those_who_write_one_file_at_once_one_wins_and_nobody_fails(tmp_path):
    failed: list[BaseException] = []
    contents = [bytes([i]) * 100_000 for i in range(6)]

    def write(content: bytes) -> None:
        try:
            for _ in range(12):
                write_file(tmp_path / "file", [content[:500], content[500:]])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_kill_left_is_cleared_and_what_another_writes_is_not(tmp_path):
    stopped = threading.Event()

    def endless():
        yield b"x"
        stopped.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", endless())
    assert stopped.is_set() and list(tmp_path.iterdir()) == []
    descriptor, held = writing._created(tmp_path, writing._mark(tmp_path / "file"), 0o600)
    dead = tmp_path / held.name.replace(held.name[-21:-5], "0" * 16)
    dead.write_text("of a process that was killed")
    foreign = tmp_path / f".pocketship-{'0' * 16}-{'0' * 16}.part"
    foreign.write_text("of another file")
    write_file(tmp_path / "file", [b"x"])
    assert held.exists() and not dead.exists() and foreign.exists()
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
    write_file(tmp_path / "file", [b"x"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", foreign.name])


def test_results_and_reports_are_written_so_too(tmp_path):
    from benchmarks.report import write_markdown
    from benchmarks.results.result import write_results
    from tests.benchmarks.synthetic import result

    (tmp_path / "mine").write_text("mine")
    for write, name in ((write_results, "results.json"), (write_markdown, "report.md")):
        (tmp_path / f"{name}.part").symlink_to(tmp_path / "mine")
        write([result()], tmp_path / name)
        assert (tmp_path / name).stat().st_size and (tmp_path / f"{name}.part").is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"
