"""What `make setup` and `make wheel` give: an environment for a user's own scripts, and a wheel that holds what its
commands need, on a laptop and on an emulated Raspberry Pi.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rigs.pi import MODELS, USER, USER_ID, emulated_pi

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = Path(pytest.__file__).parent.parent
BOARD_TAGS = [word for glibc in (17, 27, 28, 36) for word in ("--platform", f"manylinux_2_{glibc}_aarch64")]
BOARD_TAGS += ["--platform", "manylinux2014_aarch64", "--python-version", "3.11", "--only-binary=:all:"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the Pi's Python is 3.11")]


def run(*words: object, folder: Path, code: int = 0) -> str:
    """Standard output and error of a command that ends with this code, without what this environment would add."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, words)], cwd=folder, env={**env, "COLUMNS": "200"}, capture_output=True, text=True, timeout=500
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said and "pocketship: internal error" not in said, said
    return said


@pytest.fixture(scope="module")
def wheel(once) -> Path:
    """The wheel, built once a run."""

    def build(folder: Path) -> None:
        run("make", "wheel", f"WHEELS={folder}", folder=ROOT)

    (path,) = once("wheel", build).glob("pocketship-*.whl")
    return path


@pytest.fixture
def venv(tmp_path) -> Callable[..., Path]:
    """Makes an empty environment with a wheel in it; the folder of its programs."""

    def make(wheel: Path, *words: str) -> Path:
        run(sys.executable, "-m", "venv", "venv", folder=tmp_path)
        run("venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", *words, wheel, folder=tmp_path)
        return tmp_path / "venv" / "bin"

    return make


def test_a_script_of_the_users_own_imports_torchvision_beside_torch(tmp_path):
    script = "import torchvision; from transformers import BertForSequenceClassification; import timm; print('done')"
    assert run(sys.executable, "-c", script, folder=tmp_path).splitlines().count("done") == 1


def test_a_bare_wheel_says_what_to_install(wheel, venv, tmp_path):
    pocketship = venv(wheel) / "pocketship"
    assert "export" in run(pocketship, "--help", folder=tmp_path)
    assert "pip install 'pocketship[" in run(pocketship, "doctor", folder=tmp_path, code=2)
    (tmp_path / "model.py").write_text("def make(): ...\n")
    for words in (("export", "model.py:make"), ("keygen", "key")):
        said = run(pocketship, *words, folder=tmp_path, code=2)
        assert said.count("\n") == 1 and "not installed; pip install 'pocketship[" in said, said


@pytest.mark.browser
def test_the_wheel_exports_verifies_inspects_and_benches(wheel, venv, tmp_path):
    """Its packages are those of this environment, itself is the wheel's alone."""
    programs = venv(wheel, "--no-deps")
    (site,) = (programs.parent / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{PACKAGES}\n")  # its own .pth files are not read, so neither is this checkout
    pocketship = programs / "pocketship"
    place = run(programs / "python", "-c", "import exporter; print(exporter.__file__)", folder=tmp_path)
    assert Path(place.strip()).is_relative_to(site)
    run(pocketship, "export", "digits", "--target", "all", "-o", "small", folder=tmp_path)
    assert "model.tflite" in run(pocketship, "verify", "small", folder=tmp_path)
    assert "model.mlpackage" in run(pocketship, "inspect", "small", folder=tmp_path)
    said = run(pocketship, "bench", "small", "--on", "browser", "--seconds", "1", folder=tmp_path)
    assert "onnxruntime-web" in said and "LiteRT.js" in said and said.count("pass") >= 2, said


@pytest.mark.device
def test_a_board_verifies_and_benches(wheel, exported, tmp_path):
    """From the wheels for arm64: there is no coremltools for it, nor torch in this extra."""
    packages = tmp_path / "packages"
    words = ("-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check")
    words += ("--target", packages, *BOARD_TAGS)
    run(sys.executable, *words, f"{wheel}[bench]", folder=tmp_path)
    with emulated_pi(MODELS["4"], tmp_path / "pi", counts=False) as pi:
        for name, folder in (("packages", packages), ("small", exported("mlp"))):
            run("cp", "-r", folder, pi.home / name, folder=tmp_path)
        run("chown", "-R", f"{USER_ID}:{USER_ID}", pi.home, folder=tmp_path)
        options = ("-q", "-o", f"UserKnownHostsFile={pi.known_hosts}", "-o", "IdentitiesOnly=yes", "-i", pi.identity)

        def on_board(words: str, code: int = 0) -> str:
            command = f"COLUMNS=200 PYTHONPATH=packages python3 packages/bin/pocketship {words}"
            return run("ssh", *options, "-p", pi.port, f"{USER}@127.0.0.1", command, folder=tmp_path, code=code)

        said = on_board("verify small")
        assert "onnxruntime" in said and "LiteRT" in said and "refused" not in said, said
        assert "(emulated)" in said and "physical" not in said, said
        said = on_board("inspect small --tensors 2")
        assert "small/model.onnx  onnx" in said and "small/model.tflite  tflite" in said, said
        assert "not read: model.mlpackage: coremltools is not installed; it has no wheel for linux" in said, said
        said = on_board("bench small --seconds 1")
        assert "emulated" in said and "Raspberry Pi 4" in said, said
        assert "model.mlpackage is left out: coremltools is not installed; it has no wheel" in said, said
