"""A model before and after its fine-tune, as bundles, and the update between them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

SHIFTED = Path(__file__).with_name("shifted.py")


@pytest.fixture(scope="session")
def shifted():
    """tests/delivery/shifted.py."""
    spec = importlib.util.spec_from_file_location("pocketship_shifted", SHIFTED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bundles(once, pocketship) -> tuple[Path, Path]:
    """The old and the new bundle; do not change them."""

    def make(folder: Path) -> None:
        for which in ("old", "new"):
            done = pocketship("export", f"{SHIFTED}:{which}", "-o", folder / which, "--quiet")
            assert done.returncode == 0, done.stderr

    folder = once("shifted", make)
    return folder / "old", folder / "new"


@pytest.fixture(scope="session")
def update(bundles, once) -> Path:
    """The update from old to new, without a task."""
    from exporter.delivery.delta import delta

    return once("update", lambda folder: delta(*bundles, folder / "update")) / "update"


@pytest.fixture
def app(bundles, tmp_path) -> Path:
    """The old bundle, as an app has it."""
    return Path(shutil.copytree(bundles[0], tmp_path / "app"))
