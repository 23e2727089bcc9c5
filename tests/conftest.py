"""Fixtures: the command line in a process of its own, and bundles exported once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models.py"


def run_pocketship(
    *words: object, cwd: Path = ROOT, timeout: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `pocketship WORDS` as a user would; stdout, stderr and exit code."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "exporter", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def pocketship():
    """The command line, as a function of its words."""
    return run_pocketship


@pytest.fixture(scope="session")
def refused(pocketship):
    """Run a command that must be refused: checks exit code and a single line on stderr, returns that line."""

    def run(*words: object, code: int = 2, **options) -> str:
        done = pocketship(*words, "--quiet", **options) if "--quiet" not in words else pocketship(*words, **options)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert len(lines) == 1 and lines[0].startswith("pocketship: "), done.stderr
        assert done.stdout == ""
        return lines[0]

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory, pocketship):
    """A bundle of `tests/models.py:NAME` for the given targets, exported once; do not change it."""
    bundles: dict[tuple[str, str], Path] = {}

    def get(name: str, targets: str = "all") -> Path:
        if (name, targets) not in bundles:
            output = tmp_path_factory.mktemp(name) / "bundle"
            done = pocketship("export", f"{MODELS}:{name}", "--target", targets, "-o", output, "--quiet")
            assert done.returncode == 0, done.stderr
            bundles[name, targets] = output
        return bundles[name, targets]

    return get


@pytest.fixture
def copy_of(tmp_path):
    """A copy of a bundle that a test may damage."""

    def copy(bundle: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / "copy"))

    return copy


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a defect: nothing it was meant to show has been shown."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("CI") and session.exitstatus == 0:
        reporter.write_line(f"{len(skipped)} skipped tests: a defect in CI", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
