"""Results as benches would find them, made up and seeded: devices, precisions, formats, and what goes wrong."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from benchmarks.results.result import (
    ArtifactFacts,
    Block,
    Condition,
    DeviceFacts,
    Energy,
    Failure,
    Memory,
    OperationTime,
    Result,
    Samples,
    Settings,
    statistics_of,
)
from benchmarks.results.stats import wilson
from runtimes.kernels import KernelTruth
from runtimes.signature import ExecutedBy
from runtimes.types import Accuracy, Parity

GIB = 1 << 30
S = 1_000_000_000
SOFTWARE = {"python": "3.11.9", "numpy": "2.3.5", "onnxruntime": "1.32.0", "ai-edge-litert": "2.3.0"}

TOLD_FACTS = {
    "model": "board",
    "family": "board",
    "cpu": "cpu",
    "architecture": "arm",
    "cores": 1,
    "memory_bytes": 1,
    "os": "os",
    "executed": "physical",
    "emulator": "",
    "software": {},
}
"""What a board may tell of itself in the event `device`."""

DESKTOP = DeviceFacts(
    "Xeon Gold 6248", "desktop", "Intel Xeon Gold 6248", "x86_64", 2, 24 * GIB, "Debian 12", "physical", "", SOFTWARE
)
PI_5 = DeviceFacts(
    *("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi", "Cortex-A76", "aarch64", 4, 8 * GIB, "Debian 12", "physical"),
    software=SOFTWARE,
)
PI_4_EMULATED = DeviceFacts(
    *("Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi", "Cortex-A72", "aarch64", 4, 4 * GIB, "Debian 12", "emulated"),
    emulator="qemu-aarch64 7.2.22, QEMU_CPU=cortex-a72",
    software=SOFTWARE,
)
PHONE = DeviceFacts(
    "Pixel 8", "phone", "Tensor G3", "arm64-v8a", 9, 8 * GIB, "Android 15", "physical", "", {"onnxruntime": "1.31.0"}
)
BROWSER = DeviceFacts(
    *("Chrome 141 on Android 15", "phone", "", "", 8, None, "Android 15", "browser"),
    software={"onnxruntime-web": "1.30.0", "@litertjs/core": "2.5.0"},
)
FORMATS = {"onnx": "onnxruntime", "tflite": "LiteRT", "coreml": "pocketship MIL evaluator"}
SIZES = {"float32": 1_146_000, "int8": 340_000, "int4": 221_000, "ternary": 176_000}
SPEED = {"float32": 1.0, "int8": 0.55, "int4": 0.71, "ternary": 0.9}
CORRECT = {"float32": 494, "int8": 494, "int4": 489, "ternary": 471}
LOW_BIT = {"float32": 0.0, "int8": 0.97, "int4": 0.62, "ternary": 0.31}


def blocks_of(
    median_ms: float,
    *,
    seed: int = 0,
    processes: int = 1,
    blocks: int = 20,
    runs: int = 25,
    spread: float = 0.02,
    between: float = 0.0,
    gap_s: float = 0.05,
) -> tuple[Block, ...]:
    """Blocks of right-skewed times about a median; `spread` varies blocks, `between` whole processes."""
    generator = np.random.default_rng(seed)
    found, at_ns = [], 0
    for process in range(processes):
        own = generator.normal(0.0, between) if between else 0.0
        for _ in range(blocks):
            level = median_ms * 1e6 * np.exp(own + generator.normal(0.0, spread))
            times = level * (1.0 + generator.gamma(1.5, 0.008, runs))
            found.append(Block(process, at_ns, runs, tuple(int(t) for t in times)))
            at_ns += int(times.sum() + gap_s * S)
    return tuple(found)


def samples_of(blocks: tuple[Block, ...], median_ms: float = 1.0) -> Samples:
    """Samples of these blocks, with a load and a warm-up before them."""
    warm_up = tuple(int(median_ms * 1e6 * (1 + 1.5 * 0.6**i)) for i in range(12))
    return Samples(180_000_000, 21_000_000, 7_400_000, int(3.1e6 * median_ms), True, warm_up, True, blocks)


def settings_of(threads: int | None = 1, **changed) -> Settings:
    """What a bench asks by default."""
    asked = Settings(threads, 2.0, 10.0, None, None, None, None, 1, 0, inputs="golden")
    return replace(asked, **changed)


def parity_of(by: ExecutedBy, verdict: str = "pass") -> Parity:
    """A proof that passed, or one that did not."""
    error = 2.5e-7 if verdict == "pass" else 0.83
    reason = "" if verdict == "pass" else "output y: max abs error 0.83 is above the tolerance 1e-4"
    return Parity(error, error * 4, 0.99999, 118.0, 0.7, 1e-4, 4, by, verdict, reason)


def result(
    device: DeviceFacts = DESKTOP,
    format: str = "onnx",
    precision: str = "float32",
    *,
    bundle: str = "digits",
    name: str = "",
    median_ms: float = 1.0,
    blocks: tuple[Block, ...] | None = None,
    threads: int | None = 1,
    target: str = "local",
    started_at: str = "2026-11-25T10:00:00+00:00",
    id: str = "",
    verdict: str = "pass",
    kind: str = "",
    **changed,
) -> Result:
    """One result; what is measured by time is left out where nothing real executed."""
    by = ExecutedBy(FORMATS[format], "1.32.0", kind or device.executed)
    suffix = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}[format]
    folder = "" if name else f"{bundle}-{precision}"
    named = name or f"model.{suffix}"
    sha256 = hashlib.sha256(f"{bundle}{format}{precision}{name}".encode("utf-8", "replace")).hexdigest()
    settings = changed.pop("settings", settings_of(threads))
    given = blocks if blocks is not None else blocks_of(median_ms, seed=int(sha256[:6], 16))
    samples = samples_of(given, median_ms) if by.kind in ("physical", "browser") else None
    size = int(SIZES[precision] * {"onnx": 1.0, "tflite": 1.04, "coreml": 1.01}[format])
    low, high = wilson(CORRECT[precision], 500)
    low_bit = LOW_BIT[precision]
    recipe = () if precision == "float32" else ("ternary" if precision == "ternary" else "quantize",)
    found = Result(
        schema_version=1,
        id=id
        or hashlib.sha256(f"{device.model}{device.executed}{sha256}{threads}{started_at}".encode()).hexdigest()[:16],
        started_at=started_at,
        target=target,
        device=device,
        executed_by=by,
        artifact=ArtifactFacts(named, format, size, sha256, folder, folder.partition("-")[0], precision, recipe),
        settings=settings,
        samples=samples,
        statistics=statistics_of(samples, settings.sustained_s) if samples else None,
        memory=Memory(31_000_000, 31_000_000 + 4 * size, 36_000_000 + 6 * size),
        parity=parity_of(by, verdict),
        accuracy=Accuracy("accuracy", CORRECT[precision] / 500, low, high, 500),
        kernels=KernelTruth(low_bit, 0.97 - low_bit, 0.03) if low_bit else KernelTruth(0.0, 0.0, 1.0),
        versions={"pocketship": "0.1.0", FORMATS[format]: "1.32.0"},
    )
    return replace(found, **changed)


def conditions_of(device: DeviceFacts) -> tuple[Condition, ...]:
    """A cool board before, during and after."""
    cores = device.cores or 1
    return tuple(
        Condition(at * S, when, (2_400_000,) * cores, "ondemand", celsius, (), 0.4)
        for at, when, celsius in ((0, "before", 44.0), (3, "during", 51.5), (6, "after", 52.0))
    )


def throttling(device: DeviceFacts = PI_5) -> Result:
    """Ten minutes in which the board gets hot at the fourth and slows down to 1.5 of 2.4 GHz."""
    generator = np.random.default_rng(5)
    blocks, conditions = [], [Condition(0, "before", (2_400_000,) * 4, "ondemand", 45.0, ())]
    for second in range(600):
        heat = 85.0 - 40.0 * np.exp(-second / 130.0)
        hot = max(0.0, min(1.0, (heat - 80.0) / 4.0))
        khz = int(2_400_000 - 900_000 * hot)
        level = 2.9e6 * 2_400_000 / khz * np.exp(generator.normal(0, 0.01))
        blocks.append(
            Block(0, second * S, int(1e9 / level), tuple(int(level * (1 + g)) for g in generator.gamma(1.5, 0.008, 20)))
        )
        if second % 10 == 0:
            flags = ("soft temperature limit", "frequency capped") if hot > 0.05 else ()
            conditions.append(Condition(second * S, "during", (khz,) * 4, "ondemand", float(heat), flags, 1.2))
    return result(
        device,
        "tflite",
        "int8",
        blocks=tuple(blocks),
        median_ms=2.9,
        target="ssh://pi@pi5.local",
        settings=settings_of(4, sustained_s=600.0),
        conditions=tuple(conditions),
        started_at="2026-11-25T11:00:00+00:00",
        energy=Energy(1830.0, 130_000, "hwmon in0", ""),
    )


PROFILE = (
    OperationTime("Fully Connected (NC, QS8)", 2400, 310_000_000, 200),
    OperationTime("Convolution (NHWC, QS8)", 400, 120_000_000, 200),
    OperationTime("Softmax (NC, F32)", 400, 61_000_000, 200),
    OperationTime("Transpose", 1600, 40_000_000, 200),
    OperationTime("Mean", 1000, 21_000_000, 200),
    OperationTime("Add (ND)", 1200, 17_000_000, 200),
)


def fleet() -> tuple[Result, ...]:
    """Desktop, Raspberry Pi 5, emulated Pi 4, phone and browser over four precisions; and what went wrong."""
    found = []
    places = (
        (DESKTOP, "local", 0.4, ("onnx", "tflite")),
        (PI_5, "ssh://pi@pi5.local", 2.1, ("onnx", "tflite")),
        (PI_4_EMULATED, "ssh://pi@127.0.0.1:2222", 0.0, ("onnx", "tflite")),
        (PHONE, "adb://37261FDH2001", 1.3, ("onnx",)),
        (BROWSER, "browser", 3.2, ("onnx", "tflite")),
    )
    for device, target, base_ms, formats in places:
        for format in formats:
            for precision in SIZES:
                ms = base_ms * SPEED[precision] * (0.8 if format == "tflite" else 1.0)
                emulated = device.executed == "emulated"
                found.append(
                    result(
                        device,
                        format,
                        precision,
                        median_ms=ms or 1.0,
                        target=target,
                        conditions=() if device.executed == "browser" else conditions_of(device),
                        instructions=9.4e6 * SPEED[precision] if emulated else None,
                        profile=PROFILE if device is PI_5 and precision == "int8" and format == "tflite" else (),
                        memory=None if device.executed == "browser" else Memory(31_000_000, 36_000_000, 41_000_000),
                    )
                )
    for precision in SIZES:
        found.append(result(DESKTOP, "coreml", precision, kind="off-device"))
    return (*found, throttling(), *wrong())


def wrong() -> tuple[Result, ...]:
    """A crash, a parity that failed, a link that was cut in the middle, random inputs."""
    rnet = {"bundle": "rnet", "median_ms": 0.9, "target": "ssh://pi@pi5.local"}
    crash = Failure("crashed", "crashed with SIGSEGV in libtensorflowlite.so")
    link = Failure("link-lost", "pi5.local closed the connection after 7 of 20 blocks")
    nothing = {
        "samples": None,
        "statistics": None,
        "memory": None,
        "accuracy": None,
        "parity": None,
        "executed_by": None,
    }
    return (
        replace(result(PI_5, "tflite", "int4", **rnet, failure=crash), **nothing),
        result(PI_5, "onnx", "int8", **rnet, verdict="fail", failure=Failure("parity", "output y: 0.83 off")),
        result(PI_5, "tflite", "int8", **rnet, blocks=blocks_of(0.9, blocks=7), failure=link),
        result(
            PI_5,
            "onnx",
            "float32",
            **rnet,
            settings=settings_of(4, inputs="random"),
            accuracy=None,
            parity=None,
            notes=("weights are random: good for size and latency, useless for accuracy",),
        ),
    )


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>' + "very-long-name-" * 30 + "/a|b`c\n# model.onnx"


def hostile() -> tuple[Result, ...]:
    """Names as an enemy would choose them, wherever a result holds a string."""
    device = replace(PI_5, model=HOSTILE, cpu=HOSTILE, os=HOSTILE, software={HOSTILE: HOSTILE})
    return (
        result(
            device,
            name=HOSTILE,
            bundle=HOSTILE,
            target=HOSTILE,
            notes=(HOSTILE,),
            versions={HOSTILE: HOSTILE},
            profile=(OperationTime(HOSTILE, 1, 1000, 1),),
            conditions=(Condition(0, "before", (1,), HOSTILE, 1.0, (HOSTILE,)),),
            energy=Energy(None, 0, HOSTILE, HOSTILE),
        ),
        replace(result(device, "tflite", name=HOSTILE), failure=Failure("crashed", HOSTILE)),
    )
