"""A folder of the user's may have the name of one of our packages: ours are found all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("benchmarks", "exporter", "runtimes")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A working folder with packages of all three names, and modules of two that our children import."""
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('of the user')\n")
    for name in ("json", "pip"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the user')\n")
    return tmp_path


def run(folder: Path, *words: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


SCRIPT = "import sys; sys.path[0] = '/nowhere'; sys.argv[1:] = {!r}; from exporter.cli import main; main()"
"""What the script `pocketship` does: its own folder, not the working folder, stands first on the path."""


def test_doctor_and_its_children_find_ours(folder):
    done = run(folder, "-c", SCRIPT.format(["doctor", "--json"]))
    assert done.returncode == 0, done.stderr
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert all(found[f"package {name!r} is ours"]["works"] for name in NAMES)
    assert found["run ONNX"]["works"] and found["run TFLite"]["works"]


@pytest.mark.parametrize("path", [str(ROOT), f"{ROOT}{os.pathsep}"], ids=["whole", "with an empty entry"])
@pytest.mark.parametrize("name", ["benchmarks", "runtimes"])
def test_python_m_exporter_finds_ours(name, path, folder):
    for other in {*NAMES, "json", "pip"} - {name}:
        (folder / other).rename(folder / f"not-{other}") if other in NAMES else (folder / f"{other}.py").unlink()
    done = run(folder, "-m", "exporter", "tasks", path=path)
    assert done.returncode == 0 and "digits" in done.stdout, done.stderr
