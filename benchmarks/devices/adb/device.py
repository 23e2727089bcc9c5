"""A phone behind the real `adb` client: push what it lacks, run a native runner there, pass its events on.

ONNX files run in our own runner (benchmarks/devices/adb/runner), which links ONNX Runtime's library; TFLite files in
LiteRT's own benchmark_model, which the user gives. Everything lies below one folder of the phone that any user of adb
may write; files keep their hash as name, so that what is there is not pushed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.devices import Interrupted, OnEvent, Options
from benchmarks.devices.adb import benchmark_model
from benchmarks.devices.adb.link import EXIT, Phone, pick
from benchmarks.devices.adb.tensor_files import unpack
from benchmarks.devices.lines import told_by
from benchmarks.job import Job, Json
from runtimes.errors import BadInput, NotInstalled
from runtimes.scratch import scratch_folder

FOLDER = "/data/local/tmp/pocketship"
RUNNERS = Path(__file__).resolve().parents[3] / "build" / "runner"
"""Where benchmarks/devices/adb/runner/build.sh puts them."""
BUILDS = {
    "android-aarch64": "android-arm64",
    "linux-aarch64": "linux-arm64",
    "linux-x86_64": "linux-x64",
}
"""System and processor -> what build.sh calls it; boards with Linux may be reached over adb, too."""
MARGIN_S = 60.0
"""How much longer than the runner itself waits for a model."""
LOCKED = 75
DIGITS = re.compile(r"\d{1,12}(?!\S)", re.ASCII)
QEMU_PROPERTIES = ("ro.kernel.qemu", "ro.boot.qemu")
LOOK = """getprop 2>/dev/null | grep -a -E '^\\[ro\\.' | sed 's/^/p /'
echo "architecture $(uname -m)"
echo "cores $(nproc 2>/dev/null)"
grep MemTotal: /proc/meminfo
[ -e /system/bin/linker64 ] && echo linker bionic
true"""


@dataclass(frozen=True)
class Found:
    """What a phone is, and which build of the runner it takes."""

    facts: Json
    runner: str


def run(target: str, job: Job, files: Mapping[str, Path], options: Options, on_event: OnEvent) -> None:
    """See `benchmarks.devices`.

    Raises BadInput where the phone or the job cannot be used as given, and where another bench runs on the phone;
    Interrupted where the link is lost, the runner is killed, or the phone is full.
    """
    onnx, tflite = _cases(job, options)
    phone = Phone(pick(target), options.check)
    found = look(phone)
    runner = _runner(found, phone) if onnx else None
    on_event({"event": "device", "facts": found.facts})
    folder = f"{FOLDER}/jobs/{hashlib.sha256(job.id.encode()).hexdigest()[:16]}"
    try:
        with scratch_folder() as here:
            if runner:
                wanted = {**_files_of(job, onnx, files, here), **runner}
                put(phone, wanted, folder)
                _run_ours(phone, job, onnx, list(runner), folder, here, on_event)
            if tflite and options.runner:
                part = _part(job, tflite)
                wanted = {
                    job.artifacts[case.artifact].file: files[job.artifacts[case.artifact].file] for case in part.cases
                }
                binary = _content_name(options.runner, "-benchmark_model")
                put(phone, {**wanted, binary: options.runner}, folder)
                _run_theirs(phone, part, tflite, binary, folder, here, on_event)
    finally:
        phone.forget(folder)
    on_event({"event": "end"})


def reach(target: str, options: Options) -> None:
    """See that the phone is connected and ready; raises as `pick` does."""
    pick(target)


def _cases(job: Job, options: Options) -> tuple[list[int], list[int]]:
    """The numbers of the cases that our runner measures, and of those that benchmark_model does."""
    by_format: dict[str, list[int]] = {"onnx": [], "tflite": []}
    for i, case in enumerate(job.cases):
        artifact = job.artifacts[case.artifact]
        if artifact.format not in by_format:
            raise BadInput("Core ML does not run on Android", where=artifact.name, remedy="leave it out")
        by_format[artifact.format].append(i)
    if by_format["tflite"]:
        name = job.artifacts[job.cases[by_format["tflite"][0]].artifact].name
        if options.runner is None:
            remedy = "give --runner FILE, LiteRT's benchmark_model binary for the phone, or bench the ONNX file"
            raise BadInput("no LiteRT library for Android can be had here", where=name, remedy=remedy)
        if not options.runner.is_file():
            raise BadInput("no such file", where=str(options.runner), remedy="give LiteRT's benchmark_model binary")
        benchmark_model.check(_part(job, by_format["tflite"]), name)
    return by_format["onnx"], by_format["tflite"]


def _part(job: Job, cases: list[int]) -> Job:
    return replace(job, cases=tuple(job.cases[i] for i in cases))


# --- the phone -------------------------------------------------------------------------------------------------------


def look(phone: Phone) -> Found:
    """What a phone is.

    Raises BadInput for a processor that no runner is built for, Interrupted where the link is lost.
    """
    lines = phone.shell(LOOK).output.splitlines()
    pairs = [line[2:].strip("[]").partition("]: [") for line in lines if line.startswith("p [")]
    properties = {key: value for key, _, value in pairs}
    told = {key.rstrip(":"): value.strip() for key, _, value in (line.partition(" ") for line in lines if " " in line)}
    android = properties.get("ro.build.version.release", "")
    emulated = any(properties.get(name) == "1" for name in QEMU_PROPERTIES)
    architecture = told.get("architecture", "")
    system = "android" if "linker" in told else "linux"
    abi = properties.get("ro.product.cpu.abi", "")
    build = f"{system}-{architecture}" if not abi.startswith("armeabi") else abi  # of a 64-bit kernel below it, too
    if build not in BUILDS:
        raise BadInput(f"no runner is built for {build}", where=phone.where, remedy="use a 64-bit ARM phone")
    cores, memory_kb = (DIGITS.match(told.get(name, "")) for name in ("cores", "MemTotal"))
    facts = {
        "model": _named(properties, "ro.product.manufacturer", "ro.product.model") or "unknown",
        "family": "phone" if android else "board",
        "cpu": _named(properties, "ro.soc.manufacturer", "ro.soc.model")
        or properties.get("ro.board.platform")
        or properties.get("ro.hardware", "unknown"),
        "architecture": architecture,
        "cores": int(cores[0]) if cores else None,
        "memory_bytes": int(memory_kb[0]) * 1024 if memory_kb else None,
        "os": f"Android {android} (API {properties.get('ro.build.version.sdk', '?')})" if android else "Linux",
        "executed": "emulated" if emulated else "physical",
        "emulator": "Android's emulator (QEMU)" if emulated else "",
        "software": {"android": android} if android else {},
    }
    return Found(facts, BUILDS[build])


def _named(properties: Mapping[str, str], *keys: str) -> str:
    return " ".join(properties[key] for key in keys if properties.get(key))


def _runner(found: Found, phone: Phone) -> dict[str, Path]:
    """Our runner and ONNX Runtime's library, by the names that they get on the phone, in this order.

    Raises NotInstalled where they are not built.
    """
    folder = RUNNERS / found.runner
    paths = [folder / "runner", folder / "libonnxruntime.so"]
    if not all(path.is_file() for path in paths):
        raise NotInstalled(
            f"no runner for {found.runner} is built",
            where=phone.where,
            remedy=f"run benchmarks/devices/adb/runner/build.sh {found.runner}",
        )
    return {_content_name(path, f"-{path.name}"): path for path in paths}


# --- files -----------------------------------------------------------------------------------------------------------


def put(phone: Phone, wanted: Mapping[str, Path], folder: str) -> None:
    """Push the files whose content is not on the phone yet, and make the job's folder."""
    store = f"{FOLDER}/files"
    made = f"mkdir -p {shlex.join([store, folder])} && cd {shlex.quote(store)}"
    listing = phone.shell(f"{made} && sha256sum {shlex.join(wanted)} 2>/dev/null")
    there = {words[1]: words[0] for words in map(str.split, listing.output.splitlines()) if len(words) == 2}
    for name, path in wanted.items():
        if there.get(name) != sha256_of(path):
            phone.push(path, f"{store}/{name}")


def sha256_of(path: Path) -> str:
    """The hash of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content_name(path: Path, suffix: str) -> str:
    return sha256_of(path)[:16] + suffix


def _files_of(job: Job, cases: Iterable[int], files: Mapping[str, Path], here: Path) -> dict[str, Path]:
    """What the runner reads: artifacts, and golden inputs and data in a layout that needs no Python."""
    found = {}
    for artifact in {job.cases[i].artifact: job.artifacts[job.cases[i].artifact] for i in cases}.values():
        found[artifact.file] = files[artifact.file]
        for key in (artifact.golden, artifact.data):
            if key is not None and f"{key}.safetensors" not in found:
                unpacked = found[f"{key}.safetensors"] = here / f"{key}.safetensors"
                unpack(files[key], unpacked)
    return found


# --- runs ------------------------------------------------------------------------------------------------------------


def _run_ours(
    phone: Phone,
    job: Job,
    cases: list[int],
    runner: list[str],
    folder: str,
    here: Path,
    on_event: OnEvent,
) -> None:
    asked = here / "job.json"
    asked.write_text(json.dumps(asdict(_part(job, cases))), encoding="utf-8")
    phone.push(asked, f"{folder}/job.json")
    binary, library = (f"{FOLDER}/files/{name}" for name in runner)
    words = [binary, folder, "--library", library, "--files", f"{FOLDER}/files", "--lock", f"{FOLDER}/lock"]
    quiet_s = job.timeout_s + max(job.warmup_s, job.data_s) + MARGIN_S
    with contextlib.closing(_run(phone, shlex.join(words), quiet_s, "runner")) as lines:
        for line in lines:
            event = event_of(line)
            if event is None or event.get("event") in ("device", "end"):
                continue
            on_event(_of_whole_job(event, cases))


def _run_theirs(
    phone: Phone, job: Job, cases: list[int], binary: str, folder: str, here: Path, on_event: OnEvent
) -> None:
    """LiteRT's benchmark_model, an invocation a block; `job` has its cases alone, `cases` are their numbers."""
    script = here / "bench.sh"
    store = f"{FOLDER}/files"
    text = benchmark_model.script(
        job, f"{store}/{binary}", lambda artifact: f"{store}/{artifact.file}", f"{FOLDER}/lock"
    )
    script.write_text(text, encoding="utf-8")
    phone.push(script, f"{folder}/bench.sh")
    quiet_s = job.timeout_s + MARGIN_S
    with contextlib.closing(_run(phone, shlex.join(["sh", f"{folder}/bench.sh"]), quiet_s, "benchmark_model")) as lines:
        for event in benchmark_model.events(job, (line.decode(errors="replace") for line in lines), binary[:16]):
            on_event(_of_whole_job(event, cases))


def _of_whole_job(event: Json, cases: list[int]) -> Json:
    """An event of a part of the job, whose cases have these numbers in the whole; of a case that it lacks, of none."""
    case = event.get("case")
    whole = cases[case] if type(case) is int and 0 <= case < len(cases) else None
    return {**event, "case": whole} if "case" in event else event


def _run(phone: Phone, command: str, quiet_s: float, name: str) -> Generator[bytes, None, None]:
    """A command's lines but for the last.

    Raises BadInput where another bench runs, Interrupted where the command did not end well.
    """
    tail: list[str] = []
    code = ""
    with contextlib.closing(phone.lines(command, quiet_s, tail)) as lines:
        for line in lines:
            if line.startswith(EXIT.encode()):
                code = line[len(EXIT) :].decode(errors="replace").strip()
            else:
                yield line
    if code == str(LOCKED):
        raise BadInput("another bench is running on the phone", where=phone.where, remedy="wait until it has ended")
    if code != "0":
        said = f" ({tail[-1]})" if tail[-1] else ""
        raise Interrupted(
            "agent-killed",
            f"the {name} on the phone ended with exit code {code}{said}",
            where=phone.where,
            remedy="keep the phone awake and its other apps closed, and bench again",
        )


def event_of(line: bytes) -> Json | None:
    """The event of a line of the runner's output; None for what a library or the system's linker printed between."""
    event = told_by(line)
    return event if isinstance(event.get("event"), str) else None
