"""A few tests that failed in CI's whole run, once more and alone: on a noisy machine a wait can be too short.

`python -m tests.again CODE`, where CODE is how the whole run ended. What fails twice fails the run; what does not is
told, since such a test waits for time instead of for an event and is to be mended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAST_FAILED = Path(".pytest_cache", "v", "cache", "lastfailed")
FEW = 3
"""More failures than these are no noise."""


def again(code: int, root: Path = ROOT) -> int:
    """The exit code of a second run in the folder `root`, or `code` where there is nothing to be run again."""
    failed = root / LAST_FAILED
    if code != pytest.ExitCode.TESTS_FAILED or not failed.exists():
        return code
    names = sorted(json.loads(failed.read_text(encoding="utf-8")))
    if not 0 < len(names) <= FEW:
        return code
    print("##### ONCE MORE, ALONE; WHAT PASSES NOW IS A TEST TO BE MENDED #####", *names, sep="\n", flush=True)
    return subprocess.run([sys.executable, "-m", "pytest", "-v", "--last-failed"], cwd=root).returncode


if __name__ == "__main__":
    sys.exit(again(int(sys.argv[1])))
