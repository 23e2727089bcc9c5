"""What failed once is run once more, what fails twice fails the run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.again import FEW, again

AT_FIRST = "def test_{n}(tmp_path): f = __import__('pathlib').Path('{n}'); seen = f.exists(); f.touch(); assert seen\n"
ALWAYS = "def test_{n}(): assert {n} < 0\n"


@pytest.mark.parametrize(("kinds", "code"), [([AT_FIRST], 0), ([AT_FIRST, ALWAYS], 1), ([AT_FIRST] * (FEW + 1), 1)])
def test_a_few_failures_are_run_again(kinds, code, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a quicker start
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    tests = "def test_good(): open('good', 'a').write('.')\n" + "".join(k.format(n=n) for n, k in enumerate(kinds))
    (tmp_path / "test_it.py").write_text(tests)
    first = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, check=False)
    assert again(first.returncode, tmp_path) == code
    assert (tmp_path / "good").read_text() == ".", "what passed is not run again"
    assert len(list(tmp_path.glob("[0-9]"))) == kinds.count(AT_FIRST)


def test_a_run_that_did_not_end_by_failures_is_not_run_again(tmp_path):
    assert again(pytest.ExitCode.INTERRUPTED, tmp_path) == pytest.ExitCode.INTERRUPTED
    assert again(pytest.ExitCode.TESTS_FAILED, tmp_path) == pytest.ExitCode.TESTS_FAILED
