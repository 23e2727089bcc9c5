"""What native programs measure of the same model: a loop in C, and onnxruntime's own tool where it is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.processes import BARE, ROOT
from benchmarks.peers.stacks import Stack

HEADERS = ROOT / "build" / "runner" / "aar" / "headers"
FETCH = (str(ROOT / "benchmarks/devices/adb/runner/build.sh"), "headers")
"""Lays onnxruntime's C header there: it is in no wheel."""
PERF_TEST = "onnxruntime_perf_test"
P50 = re.compile(r"^P50 Latency: (\S+) s$", re.MULTILINE)
END_S = 10.0


def compile_loop(folder: Path) -> Path:
    """Compile bare/ort_loop.c into `folder`, with the header that is fetched where it is not there yet."""
    if not (HEADERS / "onnxruntime_c_api.h").is_file():
        _said(FETCH)
    program = folder / "ort_loop"
    words = ["gcc", "-std=gnu11", "-O2", "-isystem", str(HEADERS), str(BARE / "ort_loop.c"), "-o", str(program), "-ldl"]
    _said(words)
    return program


def _said(words: list[str] | tuple[str, ...]) -> str:
    """What a command prints; where it fails, its last line ends the comparison."""
    if shutil.which(words[0]) is None:
        sys.exit(f"{words[0]} is not installed; apt install {words[0]}")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{Path(words[0]).name} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def library() -> Path:
    """The library of onnxruntime's wheel that exports its C interface, of the version that Python imports."""
    spec = importlib.util.find_spec("onnxruntime")
    version = importlib.metadata.version("onnxruntime")
    found = sorted(Path(str(spec and spec.origin)).parent.glob(f"capi/libonnxruntime.so.{version}"))
    if not found:
        sys.exit(f"onnxruntime {version} has no libonnxruntime.so here; pip install 'pocketship[onnxruntime]'")
    return found[0]


class Loop:
    """The C program with a loaded model, in a process of its own."""

    def __init__(self, program: Path, stack: Stack, threads: int) -> None:
        words = [str(program), str(library()), str(stack.path), str(threads), str(stack.raw)]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # as the agent's workers have it
        )

    def times_ns(self, runs: int) -> list[int]:
        """How long each of `runs` inferences took."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        times = [int(word) for word in self._process.stdout.readline().split()]
        if len(times) != runs:
            sys.exit(f"the C loop ended with exit code {self._process.wait(END_S)}")
        return times

    def close(self) -> None:
        """Let it end."""
        self._process.communicate(timeout=END_S)


def perf_test() -> str | None:
    """Where onnxruntime's own tool is, None where it is not on PATH."""
    return shutil.which(PERF_TEST)


def perf_test_p50_ns(tool: str, stack: Stack, threads: int, runs: int) -> float:
    """The median that the tool tells of so many inferences with random inputs."""
    words = [tool, "-e", "cpu", "-m", "times", "-r", str(runs), "-x", str(threads), "-I", "-s", str(stack.path)]
    said = _said(words)
    match = P50.search(said)
    if not match:
        sys.exit(f"{PERF_TEST} told no P50 Latency:\n{said[-2000:]}")
    return float(match[1]) * 1e9
