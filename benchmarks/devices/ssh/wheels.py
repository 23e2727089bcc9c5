"""Wheels for a board: which packages it lacks, and their wheels from a folder, a local cache, or by pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from benchmarks.devices.ssh.answers import Facts
from runtimes.errors import BadInput

PIP_TIMEOUT_S = 900.0
OLDEST_GLIBC = 17
MACHINES = ("x86_64", "aarch64", "armv7l")
NUMPY = "numpy>=1.23.2"
RUNTIMES = {"onnx": ("onnxruntime", "onnxruntime"), "tflite": ("ai_edge_litert", "ai-edge-litert")}
"""format -> module and requirement. Both import numpy and nothing else of what their metadata names (seen in
onnxruntime 1.32 and ai-edge-litert 2.3), so that a board is spared the rest."""
RUNTIMES_32_BIT = {"tflite": ("tflite_runtime", "tflite-runtime==2.14.0")}
NUMPY_32_BIT = "numpy<2"


@dataclass(frozen=True)
class BoardPython:
    """A board's own Python: what it is, and the versions of the modules that it has."""

    version: tuple[int, int]
    machine: str
    glibc: tuple[int, int] | None
    system: str
    modules: Mapping[str, str | None]

    @staticmethod
    def of(facts: Facts) -> BoardPython:
        """Of what the agent says. A 32-bit Python on a 64-bit kernel needs 32-bit wheels."""
        machine = facts.machine
        if facts.bits == 32 and machine in ("aarch64", "armv8l"):
            machine = "armv7l"
        libc = re.match(r"(\d{1,3})\.(\d{1,3})\b", facts.libc, re.ASCII)
        glibc = (int(libc[1]), int(libc[2])) if libc else None
        return BoardPython((facts.python[0], facts.python[1]), machine, glibc, facts.system, facts.modules)

    @property
    def name(self) -> str:
        """Its version, machine and C library, in words."""
        libc = f"glibc {self.glibc[0]}.{self.glibc[1]}" if self.glibc else "no glibc"
        return f"Python {self.version[0]}.{self.version[1]}, {self.system} {self.machine}, {libc}"


def needed(board: BoardPython, formats: Sequence[str]) -> tuple[str, ...]:
    """The requirements that a board must be given wheels for, so that it can run artifacts of these formats.

    Raises BadInput where no wheel can help.
    """
    small = board.machine == "armv7l"
    runtimes = RUNTIMES_32_BIT if small else RUNTIMES
    unknown = [name for name in formats if name not in runtimes]
    if unknown:
        raise BadInput(
            f"no runtime for {', '.join(unknown)} on a board with {board.name}",
            remedy=f"give {' or '.join(runtimes)} artifacts",
        )
    wanted = [requirement for module, requirement in map(runtimes.get, formats) if not board.modules.get(module)]  # type: ignore[misc]
    numpy = Requirement(NUMPY_32_BIT if small else NUMPY)
    if not _has(board, numpy):
        if small:
            found = board.modules.get("numpy")
            raise BadInput(
                f"it has {f'numpy {found}' if found else 'no numpy'}, and there is no wheel for a 32-bit board",
                remedy="install numpy below 2 there, such as Debian's python3-numpy",
            )
        wanted.append(NUMPY)
    if wanted and (board.system != "Linux" or board.machine not in MACHINES or board.glibc is None):
        raise BadInput(
            f"no wheels are known for {board.name}", remedy=f"install {', '.join(sorted(wanted))} on the board"
        )
    return tuple(sorted(wanted))


def _has(board: BoardPython, requirement: Requirement) -> bool:
    found = board.modules.get(requirement.name)
    try:
        return found is not None and requirement.specifier.contains(Version(found), prereleases=True)
    except InvalidVersion:
        return False


def find(
    requirements: Sequence[str],
    board: BoardPython,
    *,
    folder: Path | None = None,
    cache: Path | None = None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> tuple[Path, ...]:
    """A wheel for each requirement that the board's Python can use: of `folder` where given, else of the cache.

    What the cache lacks is downloaded into it by pip.

    Raises BadInput for a wheel that the folder lacks, or that pip does not get.
    """
    found = []
    place = folder or cache or cache_folder()
    for requirement in requirements:
        wheel = best(place, Requirement(requirement), board)
        if wheel is None and folder is not None:
            words = " ".join(["pip", "download", *_choice(board), "--dest", str(folder), f"'{requirement}'"])
            raise BadInput(f"no wheel of {requirement} for {board.name}", where=str(folder), remedy=f"get one: {words}")
        if wheel is None:
            on_notice(f"downloading {requirement} for {board.name}")
            wheel = _download(requirement, board, place)
        found.append(wheel)
    return tuple(found)


def cache_folder() -> Path:
    """Where wheels are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pocketship" / "wheels"


def best(folder: Path, requirement: Requirement, board: BoardPython) -> Path | None:
    """The newest wheel in a folder that fits a requirement and the board, None where there is none."""
    supported = set(tags(board))
    fitting: list[tuple[Version, Path]] = []
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, built_for = parse_wheel_filename(path.name)
        except ValueError:  # no wheel's name: not ours
            continue
        fits = requirement.specifier.contains(version, prereleases=False) and not supported.isdisjoint(built_for)
        if name == canonicalize_name(requirement.name) and fits:
            fitting.append((version, path))
    return max(fitting)[1] if fitting else None


def tags(board: BoardPython) -> Iterator[Tag]:
    """The tags of the wheels that a board's Python can use."""
    interpreter = _interpreter(board)
    yield from cpython_tags(board.version, [interpreter], _platforms(board))
    yield from compatible_tags(board.version, interpreter, _platforms(board))


def _interpreter(board: BoardPython) -> str:
    return f"cp{board.version[0]}{board.version[1]}"


def _platforms(board: BoardPython) -> list[str]:
    major, minor = board.glibc or (2, 0)
    new = [f"manylinux_{major}_{n}_{board.machine}" for n in range(minor, OLDEST_GLIBC - 1, -1)]
    return [*new, f"manylinux2014_{board.machine}"] if new else []


def _choice(board: BoardPython) -> list[str]:
    """pip's options that choose wheels for the board instead of this machine."""
    platforms = [word for platform in _platforms(board) for word in ("--platform", platform)]
    interpreter = _interpreter(board)
    version = ".".join(map(str, board.version))
    abi = ["--implementation", "cp", "--abi", interpreter, "--python-version", version]
    return ["--only-binary=:all:", "--no-deps", *abi, *platforms]


def _download(requirement: str, board: BoardPython, cache: Path) -> Path:
    """Let pip fetch a wheel into the cache: whole, or not at all."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as scratch:
        words = ["download", "--quiet", "--disable-pip-version-check", *_choice(board), "--dest", scratch, requirement]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pip", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PIP_TIMEOUT_S,
                check=False,
            )
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = f"ERROR: no answer within {PIP_TIMEOUT_S:g} s"
        wheels = list(Path(scratch).glob("*.whl"))
        if not wheels:
            lines = [line.removeprefix("ERROR: ") for line in said.splitlines() if "WARNING" not in line] or ["nothing"]
            raise BadInput(
                f"pip finds no wheel of {requirement} for {board.name}: {lines[-1]}",
                remedy="give a folder that has one with --wheels",
            )
        return Path(shutil.move(wheels[0], cache / wheels[0].name))
