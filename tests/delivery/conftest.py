"""A model before and after its fine-tune, as bundles, and the update between them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from exporter.delivery.keys import keygen
from tests.docs.printed import RUN_ONCE

SHIFTED = Path(__file__).with_name("shifted.py")


@pytest.fixture(scope="session")
def shifted():
    """tests/delivery/shifted.py."""
    spec = importlib.util.spec_from_file_location("pocketship_shifted", SHIFTED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bundles(run_once) -> tuple[Path, Path]:
    """The old and the new bundle; do not change them."""
    old, new = map(run_once, RUN_ONCE)
    return old, new


@pytest.fixture(scope="session")
def update(bundles, once) -> Path:
    """The update from old to new, without a task."""
    from exporter.delivery.delta import delta

    return once("update", lambda folder: delta(*bundles, folder / "update")) / "update"


@pytest.fixture
def app(bundles, tmp_path) -> Path:
    """The old bundle, as an app has it."""
    return Path(shutil.copytree(bundles[0], tmp_path / "app"))


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Two pairs to sign with, two keys to encrypt with."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("a", "b"):
        keygen(folder / name)
        keygen(folder / name, encryption=True)
    return folder
