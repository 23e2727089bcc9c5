"""What the machine says of itself: facts, its condition, resident memory and energy; what it does not say is None."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from runtimes.emulation import emulator

Json = dict[str, Any]
ROOT = Path("/")
MODEL_FILES = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")
CPU_PARTS = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd05": "Cortex-A55"}
THROTTLED_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of the Raspberry Pi's firmware: what is so now."""


def facts(root: Path = ROOT) -> Json:
    """The `facts` of the event `device`: see docs/results.md."""
    cpuinfo = _cpuinfo(root)
    model = _first_line([root / name for name in MODEL_FILES]) or cpuinfo.get("Model", "")
    emulated_by = emulator(root)
    family = "raspberry-pi" if "raspberry pi" in model.lower() else "board" if model else "desktop"
    system = os.uname()  # the module platform takes long to import
    cpu = cpuinfo.get("model name") or CPU_PARTS.get(cpuinfo.get("CPU part", ""), "") or system.machine
    return {
        "model": model or _product(root) or cpu,
        "family": family,
        "cpu": cpu,
        "architecture": system.machine,
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "os": _os_name(root),
        "executed": "emulated" if emulated_by else "physical",
        "emulator": emulated_by,
        "software": {"python": "{}.{}.{}".format(*sys.version_info[:3])},
    }


def condition(root: Path = ROOT) -> Json:
    """The condition of the moment, without its time: see `results.result.Condition`."""
    cores = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    temperatures = [t for t in map(_int, (root / "sys/class/thermal").glob("thermal_zone*/temp")) if t is not None]
    return {
        "frequencies_khz": [f for f in (_int(core / "scaling_cur_freq") for core in cores) if f is not None],
        "governor": _first_line([core / "scaling_governor" for core in cores]) or None,
        "temperature_c": max(temperatures) / 1000 if temperatures else None,
        "throttled": _throttled(root),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def resident_bytes() -> tuple[int | None, int | None]:
    """Resident memory of this process: now, and at its peak."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes, others have /proc
        return None, peak if sys.platform == "darwin" else peak * 1024
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmHWM", "VmRSS"))}
    return sizes.get("VmRSS"), sizes.get("VmHWM")


def available_bytes(root: Path = ROOT) -> int | None:
    """Memory that new processes may take without swapping."""
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


class EnergyMeter:
    """Energy between `start` and `stop` by the first counter that the machine has: RAPL (microjoules of the processor
    packages), else hwmon (energy in microjoules; or power in microwatts, taken at both ends).
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.source, self.note = "", ""
        self._counters = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*/energy_uj"))
        self._counters = [c for c in self._counters if c.parent.name.count(":") == 1]  # packages, not their parts
        self._powers: list[Path] = []
        if self._counters:
            self.source = "RAPL"
        else:
            self._counters = sorted((root / "sys/class/hwmon").glob("hwmon*/energy*_input"))
            self._powers = [] if self._counters else sorted((root / "sys/class/hwmon").glob("hwmon*/power1_input"))
            self.source = "hwmon" if self._counters or self._powers else ""
        self.note = "" if self.source else "no energy counter"
        self._started: tuple[list[int], int] = ([], 0)

    def start(self, at_ns: int) -> None:
        """Read the counters."""
        self._started = (self._read(), at_ns)

    def stop(self, at_ns: int) -> float | None:
        """Joules since `start`; None where they are unknown."""
        before, began_ns = self._started
        after = self._read()
        if not before or len(before) != len(after):
            return None
        if self._powers:
            return sum(b + a for b, a in zip(before, after)) / 2 * (at_ns - began_ns) / 1e15
        limits = [_int(c.parent / "max_energy_range_uj") or 0 for c in self._counters]
        return sum(a - b if a >= b else a + limit - b for b, a, limit in zip(before, after, limits)) / 1e6

    def _read(self) -> list[int]:
        """The counters, in microjoules or microwatts; none where one may not be read."""
        values = [_int(path) for path in (self._powers or self._counters)]
        if any(value is None for value in values):
            self.note = f"{self.source} may not be read"
            return []
        return [value for value in values if value is not None]


def _cpuinfo(root: Path) -> dict[str, str]:
    """Of each key of /proc/cpuinfo the first processor's value."""
    pairs = (line.partition(":") for line in _lines(root / "proc/cpuinfo"))
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip(), value.strip())
    return found


def _product(root: Path) -> str:
    dmi = root / "sys/class/dmi/id"
    words = [_first_line([dmi / name]) for name in ("sys_vendor", "product_name")]
    return " ".join(word for word in words if word)


def _os_name(root: Path) -> str:
    for line in _lines(root / "etc/os-release"):
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return f"{os.uname().sysname} {os.uname().release}"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _throttled(root: Path) -> list[str] | None:
    """What slows the processor now: the Pi's firmware flags, or Linux's count of thermal throttling; None: unknown."""
    flags = _first_line(sorted((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")))
    if flags:
        value = int(flags, 16)
        return [word for bit, word in THROTTLED_BITS.items() if value >> bit & 1]
    counters = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [count for count in map(_int, counters) if count is not None]
    return None if not counts else [f"throttled {sum(counts)} times since it booted"] if sum(counts) else []


def _int(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _first_line(paths: list[Path]) -> str:
    """The first line of the first of the files that has one."""
    for path in paths:
        lines = _lines(path)
        if lines:
            return lines[0].strip("\0 ")
    return ""


def _lines(path: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
