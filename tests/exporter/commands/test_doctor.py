"""`doctor` says what works here and what to do about the rest."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import shutil
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest

from benchmarks.devices.browser import files as browser_files
from exporter.commands import doctor


@pytest.fixture(scope="module", autouse=True)
def runtimes_are_asked_once():
    """Each in a child process: the machine does not change between these tests."""
    real, doctor._runs = doctor._runs, functools.cache(doctor._runs)
    yield
    doctor._runs = real


def finding(what: str) -> doctor.Finding:
    (found,) = [f for f in doctor.examine() if f.what == what]
    return found


def test_everything_that_export_needs_is_here():
    required = [f for f in doctor.examine() if f.required]
    assert len(required) >= 9
    assert all(f.works and f.found and not f.remedy for f in required)
    assert importlib.metadata.version("torch") in finding("trace PyTorch models").found


def test_a_package_that_is_missing_has_its_remedy(monkeypatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "coremltools":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = finding("convert to Core ML")
    assert not found.works and found.required
    assert found.found == "coremltools is not installed"
    assert found.remedy == "pip install 'pocketship[export]'"


def test_what_phones_and_browsers_need(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert finding("measure on phones").remedy == "install adb"
    assert finding("measure in a browser").found == "no Chromium or Chrome on the PATH"
    for name in ("adb", "chromium"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert finding("measure on phones").found == str(tmp_path / "adb")
    assert finding("measure in a browser").found == str(tmp_path / "chromium")


def test_the_page_is_built_or_it_says_how(monkeypatch, tmp_path):
    real = browser_files.page_routes
    monkeypatch.setattr(browser_files, "page_routes", lambda: real(tmp_path))
    assert finding("its page").remedy == "make page (needs node and npm)"
    (tmp_path / "index.html").write_text("")
    assert finding("its page").works


@pytest.mark.parametrize(("version", "works"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 14, 0), False)])
def test_python_itself(version, works, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    found = finding("Python 3.11 to 3.13")
    assert found.works is works
    assert bool(found.remedy) is not works


def test_a_package_that_took_our_name(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    stranger = SimpleNamespace(origin=str(tmp_path / "benchmarks" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: stranger if name == "benchmarks" else real(name))
    found = finding("package 'benchmarks' is ours")
    assert not found.works and found.required
    assert found.remedy == "remove the other package 'benchmarks' from the Python path"
    assert finding("package 'runtimes' is ours").works


def test_a_full_disk(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 10**9))
    found = finding("disk space here")
    assert (found.works, found.found, found.remedy) == (False, "1.0 GB free", "free some space")


def test_core_ml_off_a_mac_is_said_to_be_off_device(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert "off-device" in finding("run Core ML").found


def test_what_cannot_be_imported_does_not_run(pocketship_without):
    done = pocketship_without("ai_edge_litert,coremltools", "doctor", "--json")
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 2
    assert found["run ONNX"]["works"] and found["convert to TFLite"]["works"]
    assert not found["run TFLite"]["works"] and not found["run Core ML"]["works"]
    assert found["run TFLite"]["remedy"] == "pip install 'pocketship[litert]'"
    assert found["run Core ML"]["remedy"] == "pip install 'pocketship[coreml]'"


WHATS = ("trace PyTorch models", "convert to ONNX", "run ONNX", "convert to TFLite", "run TFLite", "run Core ML")


@pytest.mark.parametrize(
    ("lacks", "line"),
    [
        ((), "here pocketship can export to ONNX and TFLite, and verify and bench ONNX, TFLite and Core ML"),
        (WHATS[:1], "here pocketship can export to no format, and verify and bench ONNX, TFLite and Core ML"),
        (WHATS[2:3], "here pocketship can export to TFLite, and verify and bench TFLite and Core ML"),
        (WHATS, "here pocketship can export to no format, and verify and bench no format"),
    ],
)
def test_what_this_machine_can_do_in_one_line(lacks, line):
    findings = [doctor.Finding(what, what not in lacks, "") for what in WHATS]
    assert doctor.abilities(findings) == line
