"""LiteRT's own benchmark_model: a script that runs it in turns, and a reader of what it prints.

It tells aggregates alone: count, first, current, min, max, average, deviation, and newer ones the median. No sample is
made of them: an invocation is a block of `count` inferences with one time, its median or else its average.
(tensorflow/lite/tools/benchmark/benchmark_model.cc and tensorflow/core/util/stats_calculator.cc have the formats.)
"""

from __future__ import annotations

import random
import re
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.agent.loop import LEAST_ROUNDS
from benchmarks.job import Job, JobArtifact, Json
from benchmarks.results.events import UNREADABLE
from runtimes.errors import BadInput

WARMUP_S = 0.5
"""benchmark_model's own default: it warms up for a time, not until stable."""
ROUNDS_A_LOOK = 5
MEBIBYTE = 2**20
TIMED_OUT, KILLED, LOCKED = 124, 137, 75
MARK = "@pocketship"
TIMINGS = re.compile(
    r"Inference timings in us: Init: (?P<init>[\d.e+]+), First inference: (?P<first>[\d.e+]+), "
    r"Warmup \(avg\): (?P<warmup>[\d.e+]+), Inference \(avg\): (?P<average>[\d.e+]+)"
)
STATISTICS = re.compile(r"\bcount=(\d+)((?: \w+=[\d.e+-]+)*)")
WHOLE = re.compile(r"-?\d{1,15}", re.ASCII)
PEAK = re.compile(r"peak memory footprint \(MB\)[^:]*: ([\d.e+]+)")
LOOK = f"""look() {{
read up rest </proc/uptime; echo "{MARK} look $1 $up"
cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq 2>/dev/null | sed 's/^/khz /'
cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor 2>/dev/null | sort -u | sed 's/^/governor /'
for zone in /sys/class/thermal/thermal_zone*; do
echo "$(cat $zone/type 2>/dev/null) millidegrees $(cat $zone/temp 2>/dev/null)"
done
echo; echo "{MARK} exit 0"
}}"""
"""Prints what the phone tells of its frequencies and temperatures."""
REGULAR_RUNS = "Profiling Info for Regular Benchmark Runs"
SUMMARY = "Summary by node type"
NOTES = (
    "benchmark_model tells no single inference: a block's one time is its median where it tells one, else its average",
    "benchmark_model warms up for half a second, whether times have settled or not",
    "benchmark_model tells no outputs: parity was not checked on this device",
)


@dataclass(frozen=True)
class Statistics:
    """Of one invocation's inferences, in microseconds."""

    count: int
    typical_us: float


@dataclass(frozen=True)
class Invocation:
    """What one invocation told; times in microseconds, None where it did not."""

    init_us: float
    first_us: float
    inference: Statistics
    peak_mb: float | None
    operations: tuple[tuple[str, int, float], ...]
    """(operation, calls an inference, milliseconds an inference)"""


def check(job: Job, name: str) -> None:
    """Refuse what benchmark_model cannot do.

    Raises BadInput.
    """
    asked = {
        "--batch": job.batch is not None,
        "--sustained": job.sustained_s is not None,
        "--data": any(artifact.data for artifact in job.artifacts if artifact.format == "tflite"),
    }
    for option, given in asked.items():
        if given:
            raise BadInput(f"benchmark_model cannot do {option}", where=name, remedy=f"leave {option} out")


def script(job: Job, binary: str, path_of: Callable[[JobArtifact], str], lock: str) -> str:
    """A script for the phone's shell: every case a block a round in shuffled turns, one bench at a time.

    Memory and profile have invocations of their own, since watching slows inferences down.
    """
    lines = [f"exec 9>{shlex.quote(lock)}", f"flock -n 9 9>&9 || exit {LOCKED}"]  # Android's mksh passes 9 on when told
    cases = list(range(len(job.cases)))
    shuffled = random.Random(job.seed)
    seconds = job.seconds / LEAST_ROUNDS

    def invoke(kind: str, case: int, *options: str) -> None:
        artifact, threads = job.artifacts[job.cases[case].artifact], job.cases[case].threads
        words = [binary, f"--graph={path_of(artifact)}", f"--warmup_min_secs={WARMUP_S}", *options]
        words += [f"--num_threads={threads}"] if threads else []
        pinned = ["taskset", f"{sum(1 << core for core in job.affinity):x}"] if job.affinity else []
        command = shlex.join(["timeout", f"{job.timeout_s:g}", *pinned, *words])
        mark = f"{MARK} {kind} {case}"
        lines.extend(
            (
                f'if [ -z "$lost{case}" ]; then read up rest </proc/uptime; echo "{mark} $up"; {command} 2>&1',
                f'code=$?; echo; echo "{MARK} exit $code"; [ $code = 0 ] || lost{case}=1; fi',
            )
        )

    lines.append(LOOK)
    lines.append("look before")
    for case in cases:
        invoke("first", case, "--num_runs=1", "--min_secs=0", "--report_peak_memory_footprint=true")
    for done in range(LEAST_ROUNDS):
        order = list(cases)
        shuffled.shuffle(order)
        for case in order:
            invoke("block", case, "--num_runs=1", f"--min_secs={seconds:.6g}")
        lines.append(f'echo "{MARK} round {done + 1}"')
        if (done + 1) % ROUNDS_A_LOOK == 0:
            lines.append("look during")
    if job.profile:
        for case in cases:
            invoke("profile", case, "--num_runs=1", "--min_secs=0.1", "--enable_op_profiling=true")
    lines.append("look after")
    return "\n".join(lines) + "\nexit 0\n"


def events(job: Job, lines: Iterable[str], version: str) -> Iterator[Json]:
    """Events of the script's output, as soon as an invocation has ended; `version` names the binary."""
    script = _Script(version)
    for line in lines:
        try:
            told = script.take(line)
        except (IndexError, ValueError, OverflowError) as error:  # whatever stands where the script's own words do
            yield {UNREADABLE: f"{line.strip()[:100]!r}, which is none of benchmark_model's lines ({error})"}
        else:
            yield from told


class _Script:
    """How far the script is, by its output."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._kind, self._when, self._case, self._started_s, self._rounds = "", "", 0, 0.0, 0
        self._begun_s: float | None = None
        self._said: list[str] = []

    def take(self, line: str) -> list[Json]:
        """What a line completes.

        Raises IndexError, ValueError or OverflowError for one that is none of the script's.
        """
        if not line.startswith(MARK):
            self._said.append(line)
            return []
        words = line.split()
        at_s = self._started_s - (self._begun_s or 0)
        if words[1] == "round":
            self._rounds += 1
            return [{"event": "progress", "done": self._rounds, "total": LEAST_ROUNDS}]
        if words[1] == "exit" and self._kind == "look":
            return [{"event": "condition", "at_ns": round(at_s * 1e9), **condition_of(self._when, self._said)}]
        if words[1] == "exit":
            text = "".join(self._said)
            return list(_told(self._kind, self._case, int(words[2]), text, at_s, self._rounds, self._version))
        self._kind, self._when, self._started_s, self._said = words[1], words[2], float(words[3]), []
        self._case = int(self._when) if self._when.isdecimal() else 0
        self._begun_s = self._started_s if self._begun_s is None else self._begun_s
        return []


def _told(kind: str, case: int, code: int, text: str, at_s: float, rounds: int, version: str) -> Iterator[Json]:
    found = invocation_of(text) if code == 0 else None
    if found is None:
        cause, detail = _failure(code, text)
        yield {"event": "failed", "case": case, "cause": cause, "detail": detail}
    elif kind == "first":
        yield {
            "event": "loaded",
            "case": case,
            "runtime": "LiteRT benchmark_model",
            "version": f"binary {version}",
            "inputs": "random",
            "import_ns": None,
            "load_cold_ns": None,
            "load_warm_ns": round(found.init_us * 1000),
            "first_inference_ns": round(found.first_us * 1000),
            "page_cache_dropped": False,
            "notes": list(NOTES),
        }
        yield {"event": "warm", "case": case, "warmup_ns": [], "stable": False}
        if found.peak_mb is not None:
            peak = round(found.peak_mb * MEBIBYTE)
            yield {"event": "memory", "case": case, "baseline_bytes": None, "steady_bytes": None, "peak_bytes": peak}
    elif kind == "block":
        times = [round(found.inference.typical_us * 1000)]
        runs = found.inference.count
        yield {
            "event": "block",
            "case": case,
            "process": rounds,
            "at_ns": round(at_s * 1e9),
            "runs": runs,
            "times_ns": times,
        }
    elif found.operations:
        operations = [
            {"operation": name, "calls": calls, "total_ns": round(ms * 1e6), "runs": 1}
            for name, calls, ms in found.operations
        ]
        yield {"event": "profile", "case": case, "operations": operations}


def condition_of(when: str, lines: Iterable[str]) -> Json:
    """The fields of a `condition` event, of what `LOOK` printed; the hottest zone is a processor's if one says so."""
    khz, governors, zones = [], [], []
    for line in lines:
        name, _, value = line.strip().rpartition(" ")
        if name == "khz" and WHOLE.fullmatch(value):
            khz.append(int(value))
        elif name == "governor":
            governors.append(value)
        elif name.endswith("millidegrees") and WHOLE.fullmatch(value):
            zones.append((name, int(value) / 1000))
    zones = [
        (name, celsius) for name, celsius in zones if -40 < celsius <= 150
    ]  # a sensor that is off tells more or less
    processor = [celsius for name, celsius in zones if "cpu" in name.lower() or "soc" in name]
    return {
        "when": when,
        "frequencies_khz": khz,
        "governor": (governors[0] if len(governors) == 1 else "mixed") if governors else None,
        "temperature_c": max(processor or [celsius for _, celsius in zones], default=None),
        "throttled": None,
        "load": None,
    }


def _failure(code: int, text: str) -> tuple[str, str]:
    """(cause, detail) of an invocation that did not end well."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "it printed nothing").strip()
    if code == TIMED_OUT:
        return "timed-out", "benchmark_model gave no answer in time and was killed"
    if code == KILLED:
        return "out-of-memory", "benchmark_model was killed by the system (SIGKILL), as it does when memory runs out"
    if code > 128:
        number = code - 128
        known = number in {s.value for s in signal.Signals}
        return "crashed", f"benchmark_model crashed with {signal.Signals(number).name if known else f'signal {number}'}"
    if code == 0:
        return "refused", f"benchmark_model printed no timings: {last:.200}"
    return "refused", f"benchmark_model ended with exit code {code}: {last:.200}"


def invocation_of(text: str) -> Invocation | None:
    """What an invocation printed; None where its timings are missing."""
    timings = TIMINGS.search(text)
    if not timings:
        return None
    told = list(STATISTICS.finditer(text[: timings.start()]))  # of the warm-up, then of the inferences
    average = float(timings["average"])
    count = int(told[-1][1]) if told else 1
    figures = dict(pair.split("=") for pair in told[-1][2].split()) if told else {}
    peak = PEAK.search(text)
    return Invocation(
        init_us=float(timings["init"]),
        first_us=float(timings["first"]),
        inference=Statistics(count, float(figures.get("median", average))),
        peak_mb=float(peak[1]) if peak else None,
        operations=_operations(text),
    )


def _operations(text: str) -> tuple[tuple[str, int, float], ...]:
    """The table "Summary by node type" of the regular runs: type, count, average in ms, and columns not used here."""
    _, regular, rest = text.partition(REGULAR_RUNS)
    _, summary, table = (rest if regular else "").partition(SUMMARY)
    found = []
    for line in table.splitlines()[2:] if summary else ():  # the title's end and the columns' names
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if len(cells) < 3 or not WHOLE.fullmatch(cells[1]):
            break
        found.append((cells[0], int(cells[1]), float(cells[2])))
    return tuple(found)
