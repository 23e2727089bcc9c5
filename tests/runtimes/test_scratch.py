"""Temporary folders: gone at the end, and after a kill once the next process asks; nobody else's are touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtimes import scratch
from runtimes.scratch import OWNER, PREFIX, clear_abandoned, scratch_folder

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from runtimes.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("content")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for temporary ones that nobody has cleared yet."""
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    clear_abandoned.cache_clear()
    return tmp_path


def another(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ROOT)],
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_at_the_end_and_after_an_exception(place):
    with scratch_folder() as folder:
        assert folder.parent == place and folder.name.startswith(PREFIX)
        assert [p.name for p in folder.iterdir()] == [OWNER]
        assert (folder / OWNER).read_text().startswith(f"process {os.getpid()} since 20")
    with pytest.raises(KeyboardInterrupt), scratch_folder():
        raise KeyboardInterrupt
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_by_the_next(place):
    process, folder = another(place)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / "deep" / "file").is_file()
    (place / f"{PREFIX}00000000").mkdir()  # killed before it could leave its mark
    with scratch_folder() as mine:
        assert list(place.iterdir()) == [mine]


def test_what_belongs_to_a_living_process_stays(place):
    process, folder = another(place)
    with scratch_folder() as mine:
        assert sorted(place.iterdir()) == sorted([mine, folder])
    assert (folder / "deep" / "file").is_file()
    process.communicate("")
    assert process.returncode == 0 and list(place.iterdir()) == []


def test_what_is_somebody_elses_stays(place, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / OWNER).touch()
    (place / f"{PREFIX}abcdefgh").symlink_to(outside)
    for name in ("pocketship-notebook", f"{PREFIX}notebook", f"{PREFIX}abcdefghi"):
        (place / name).mkdir()
        (place / name / "letter.txt").write_text("mine")
    (place / f"{PREFIX}abcdefghi" / OWNER).touch()
    (place / f"{PREFIX}notebook" / OWNER).symlink_to(outside / OWNER)
    before = sorted(place.rglob("*"))
    with scratch_folder():
        pass
    assert sorted(place.rglob("*")) == before and (outside / OWNER).is_file()


def test_many_at_once_never_clear_each_other(place):
    lost: list[Path] = []

    def work() -> None:
        for _ in range(60):
            with scratch_folder() as folder:
                clear_abandoned.cache_clear()
                if not (folder / OWNER).is_file():
                    lost.append(folder)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == [] and list(place.iterdir()) == []
