"""Fixtures: the command line in a process of its own, and what is made once a run; a run's durations and its skips."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import warm

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models.py"
ABSENT = ROOT / "tests" / "absent"


def run_pocketship(
    *words: object, cwd: Path = ROOT, timeout: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `pocketship WORDS` as a user would; stdout, stderr and exit code. Warm, but in tests marked `cold`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **env}
    if warm.is_warm(environment):
        return warm.run([str(word) for word in words], cwd=cwd, env=environment, timeout=timeout)
    return subprocess.run(
        [sys.executable, "-P", "-m", "exporter", *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """The folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def once(run_folder) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once a run, whichever process asks first: `once(name, make)`, where `make` fills the folder.

    What a folder holds must not be changed; a process that asks while another makes it waits.
    """

    def get(name: str, make: Callable[[Path], object]) -> Path:
        plain = re.sub(r"[^\w.,-]+", "_", name)[:100]
        folder = run_folder / "once" / plain
        folder.parent.mkdir(exist_ok=True)
        with open(folder.with_name(f"{plain}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = folder.with_name(f"{plain}.done")
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session", autouse=True)
def _children_are_warm(run_folder) -> None:
    warm.let_children_be_forked(run_folder, os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="run all of each long matrix, not the sample that CI takes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests marked `matrix(one_in=N)` keep a sample of one in N, chosen by name: the same one every time."""
    if config.getoption("whole"):
        return
    left_out = [item for item in items if (mark := item.get_closest_marker("matrix")) and not sampled(item, mark)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def whole_run(pytestconfig) -> bool:
    """Whether all is run, and not the sample that CI takes: for tests that repeat what chance decides."""
    return pytestconfig.getoption("whole")


def sampled(item: pytest.Item, mark: pytest.Mark) -> bool:
    """Whether a test of a matrix is in the sample."""
    return zlib.crc32(item.name.encode()) % mark.kwargs["one_in"] == 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests marked `cold`, and the fixtures they are the first to ask for, start real processes."""
    if not item.get_closest_marker("cold"):
        return (yield)
    os.environ[warm.COLD] = "yes"
    try:
        return (yield)
    finally:
        del os.environ[warm.COLD]


@pytest.fixture(scope="session")
def pocketship():
    """The command line, as a function of its words."""
    return run_pocketship


@pytest.fixture(scope="session")
def pocketship_without():
    """The same where Python lacks some modules, given with commas, or `all` that a bare install lacks: a cold start.

    These starts are cheap: what is heavy is what is lacking.
    """

    def run(lacks: str, *words: object, **options) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join((str(ROOT), str(ABSENT)))
        return run_pocketship(*words, **options, PYTHONPATH=path, LACKS=lacks)

    return run


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
def exported(once, pocketship):
    """A bundle of `tests/models.py:NAME` for the given targets, exported once; do not change it."""

    def get(name: str, targets: str = "all") -> Path:
        def make(folder: Path) -> None:
            words = ("--target", targets, "-o", folder / "bundle", "--quiet")
            done = pocketship("export", f"{MODELS}:{name}", *words)
            assert done.returncode == 0, done.stderr

        return once(f"bundle {name} {targets}", make) / "bundle"

    return get


@pytest.fixture(scope="session")
def run_once(once, pocketship):
    """What a command of tests/docs/printed.py's `RUN_ONCE` makes, run once; do not change it."""
    from tests.docs.printed import BEGINNINGS, RUN_ONCE

    def get(command: str) -> Path:
        def make(folder: Path) -> None:
            shutil.copy(BEGINNINGS["shifted.py"], folder)
            done = pocketship(*command.split()[1:], cwd=folder)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

        return once(command, make) / RUN_ONCE[command]

    return get


@pytest.fixture
def copy_of(tmp_path):
    """A copy of a bundle that a test may damage."""

    def copy(bundle: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / "copy"))

    return copy


DURATIONS = ROOT / "build" / "durations.tsv"
SLOWEST = 40
seconds_of: Counter[str] = Counter()
"""By test the seconds of its set-up, call and tear-down, in the process that collects the workers' reports."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds_of[report.nodeid] += report.duration


def pytest_terminal_summary(terminalreporter) -> None:
    """Keep every test's seconds, and print the slowest: in CI, where `.ci/run` holds them against its budget."""
    if not os.environ.get("CI") or not seconds_of or terminalreporter.config.getoption("lf"):
        return
    DURATIONS.parent.mkdir(exist_ok=True)
    rows = [f"{seconds:.2f}\t{name}\n" for name, seconds in seconds_of.most_common()]
    DURATIONS.write_text("".join(rows), encoding="utf-8")
    place = DURATIONS.relative_to(ROOT)
    terminalreporter.section(f"the {SLOWEST} slowest of {len(rows)} tests, in seconds; all are in {place}")
    terminalreporter.write("".join(rows[:SLOWEST]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a defect: nothing it was meant to show has been shown."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("CI") and session.exitstatus == 0:
        reporter.write_line(f"{len(skipped)} skipped tests: a defect in CI", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
