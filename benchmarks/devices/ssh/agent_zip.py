"""Pack the agent for a board: its own files and those of the runtimes that a job needs, in a zip that Python runs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from runtimes.session import RUNTIMES

ROOT = Path(__file__).resolve().parents[3]
AGENT = (
    "benchmarks/__init__.py",
    *(
        f"benchmarks/agent/{name}.py"
        for name in ("__init__", "__main__", "loop", "machine", "run", "samples", "worker")
    ),
    *(f"runtimes/{name}.py" for name in ("__init__", "emulation", "errors", "session", "signature")),
)
STARTED = (1980, 1, 1, 0, 0, 0)
"""The time that every entry gets, so that the same files make the same bytes."""
UNPACK = '''\
"""Unpack this zip beside itself, once, so that Python keeps what it compiles, and run the agent."""
import os, runpy, shutil, sys, zipfile
here = os.path.abspath(sys.argv[0])
root = here + ".d"
if not os.path.isdir(root):
    part = "%s.%d" % (root, os.getpid())
    with zipfile.ZipFile(here) as archive:
        archive.extractall(part)
    try:
        os.rename(part, root)
    except OSError:  # another was faster
        shutil.rmtree(part)
        if not os.path.isdir(root):
            raise
sys.path[0] = root
sys.argv[0] = os.path.join(root, "benchmarks", "agent", "__main__.py")
runpy.run_path(sys.argv[0], run_name="__main__")
'''


def files_of(formats: Sequence[str]) -> tuple[str, ...]:
    """The files that an agent for these formats is made of, relative to the project."""
    runtimes = {f"{RUNTIMES[name].replace('.', '/')}.py" for name in formats if name != "coreml"}
    evaluator = {str(f.relative_to(ROOT)) for f in (ROOT / "runtimes/mil").glob("*.py")} if "coreml" in formats else ()
    modules = ("coreml_runtime", "files", "paths") if "coreml" in formats else ()
    coreml = {*evaluator, *(f"runtimes/{name}.py" for name in modules)}
    return (*AGENT, *sorted(runtimes | coreml))


def build(formats: Sequence[str]) -> bytes:
    """The agent as a zip that `python3 FILE.pyz COMMAND` runs; the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (
            ("__main__.py", UNPACK.encode()),
            *((n, (ROOT / n).read_bytes()) for n in files_of(formats)),
        ):
            archive.writestr(zipfile.ZipInfo(name, STARTED), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
