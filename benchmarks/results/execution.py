"""What executed a result, and whether its times may be printed at all: emulation is not hardware."""

from __future__ import annotations

from benchmarks.results.result import Result

REAL = ("physical", "browser")


def execution(result: Result) -> str:
    """One of `EXECUTION_KINDS`: that of the device, or of the runtime where that is further from hardware.

    Core ML's evaluator is "off-device" on any machine; a machine that names an emulator is "emulated" whatever it says.
    """
    if result.device.executed == "off-device" or (result.executed_by and result.executed_by.kind == "off-device"):
        return "off-device"
    emulated = result.device.executed == "emulated" or bool(result.device.emulator)
    if emulated or (result.executed_by and result.executed_by.kind == "emulated"):
        return "emulated"
    return result.device.executed


def latency_is_real(result: Result) -> bool:
    """Whether a latency of this result may be shown: it ran on hardware or in a browser, its outputs are right, and
    nothing that the device told of it was malformed."""
    is_right = result.parity is None or result.parity.verdict == "pass"
    fell = result.failure is not None and result.failure.cause in ("parity", "malformed")
    return execution(result) in REAL and is_right and not fell and result.statistics is not None
