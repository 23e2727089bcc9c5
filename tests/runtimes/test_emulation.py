"""An emulator shows itself behind a thread of the process."""

from __future__ import annotations

import pytest

from runtimes import emulation


@pytest.mark.parametrize(
    ("program", "by", "execution"),
    [("/usr/bin/qemu-aarch64", "qemu-aarch64", "emulated"), ("/usr/bin/python3", "", "physical"), ("", "", "physical")],
)
def test_who_executes(program, by, execution, monkeypatch, tmp_path):
    if program:
        (tmp_path / "proc/thread-self").mkdir(parents=True)
        (tmp_path / "proc/thread-self/exe").symlink_to(program)
    assert emulation.emulator(tmp_path) == by
    monkeypatch.setattr(emulation, "emulator", lambda: by)
    assert emulation.execution() == execution
