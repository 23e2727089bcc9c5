"""Results in order: one section a device, with the heading that its results may stand under, and its tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results import words
from benchmarks.results.execution import execution
from benchmarks.results.result import Result
from benchmarks.results.speed import busy_in_words, first_like, load_of
from benchmarks.results.words import model_of
from benchmarks.tables import Cell, Table

KINDS = {
    "physical": "measured on the device itself",
    "browser": "measured inside a browser, with its clock and its sandbox",
    "emulated": words.NOT_HARDWARE,
    "off-device": "computed elsewhere: parity only, nothing about speed or memory",
}
"""What each kind of execution is worth."""


@dataclass(frozen=True)
class Section:
    """One machine and all that it executed; `kind` is one of `KINDS`."""

    anchor: str
    heading: str
    kind: str
    facts: tuple[tuple[str, str], ...]
    results: tuple[Result, ...]


def sections_of(results: Sequence[Result]) -> tuple[Section, ...]:
    """One section a device and kind of execution, what was really measured first; within it by bundle and artifact."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        device = result.device
        kind = execution(result)
        by = result.executed_by.runtime if kind == "off-device" and result.executed_by else ""
        groups.setdefault((kind, device.model, device.cpu, device.os, device.emulator, by), []).append(result)
    order = list(KINDS)
    ranked = sorted(groups.items(), key=lambda group: order.index(str(group[0][0])))
    return tuple(_section(i, str(key[0]), group) for i, (key, group) in enumerate(ranked))


def latest(results: Sequence[Result]) -> tuple[tuple[Result, ...], int]:
    """The last of the results that measure the same file in the same way on one device, and how many were older."""
    last: dict[tuple[object, ...], Result] = {}
    for result in sorted(results, key=lambda result: result.started_at):
        asked, device = result.settings, result.device
        how = (asked.threads, asked.batch, asked.affinity, asked.sustained_s, asked.inputs)
        where = (execution(result), device.model, device.cpu, device.os)
        last[(result.artifact.name, result.artifact.sha256, result.artifact.format, *how, *where)] = result
    return tuple(last.values()), len(results) - len(last)


def heading_of(result: Result) -> str:
    """What a result may stand under: a board's or a phone's name alone only where the record says physical."""
    device, kind = result.device, execution(result)
    model = words.short(device.model, 120)
    if kind == "physical":
        return model
    if kind == "browser":
        return f"Browser on {words.short(device.os or device.model, 80)}"
    if kind == "emulated":
        return f"Emulated {model}: {words.NOT_HARDWARE}"
    by = result.executed_by.runtime if result.executed_by else "an evaluator"
    return f"Off-device, {words.short(by, 80)}: parity only"


def _section(number: int, kind: str, group: Sequence[Result]) -> Section:
    first = group[0]
    device = first.device
    runtimes = {f"{r.executed_by.runtime} {r.executed_by.version}" for r in group if r.executed_by}
    memory = None if device.memory_bytes is None else f"{device.memory_bytes / (1 << 30):.3g} GiB"
    cores = None if device.cores is None else f"{device.cores} cores"
    facts = {
        "Device": device.model,
        "Emulator": device.emulator,
        "CPU": ", ".join(w for w in (device.cpu, device.architecture, cores) if w),
        "Memory": memory,
        "System": device.os,
        "Runtimes": ", ".join(sorted(runtimes)),
        "Reached by": ", ".join(dict.fromkeys(r.target for r in group)),
    }
    ordered = sorted(group, key=place)
    shown = tuple((name, words.short(value)) for name, value in facts.items() if value)
    return Section(f"device-{number + 1}", heading_of(first), kind, shown, tuple(ordered))


PRECISION_ORDER = ("float32", "float16", "int8", "int4", "ternary")


def place(result: Result) -> tuple[object, ...]:
    """What results are sorted by: the model, the fewest bits last, then format, name and settings."""
    artifact = result.artifact
    precision = artifact.precision
    rank = PRECISION_ORDER.index(precision) if precision in PRECISION_ORDER else len(PRECISION_ORDER)
    settings = result.settings
    return (
        model_of(artifact),
        rank,
        artifact.format,
        artifact.bundle,
        artifact.name,
        settings.threads or 0,
        settings.sustained_s or 0,
    )


Column = Callable[[Result], Cell]


def summary(section: Section) -> Table:
    """The section's figures: only those that its kind of execution can tell."""
    columns: dict[str, Column] = {"artifact": _named, "size": lambda r: Cell(words.bytes_of(r.artifact.size_bytes))}
    if section.kind == "off-device":
        columns = {"artifact": _named}
    if section.kind != "off-device":
        columns["accuracy"] = words.accuracy
    if section.kind in ("physical", "browser"):
        columns |= {
            "median latency": words.latency,
            "p90": lambda r: words.tail(r, 90),
            "p99": lambda r: words.tail(r, 99),
            "against the first": lambda r: words.speedup(first_like(section.results, r), r),
        }
    if section.kind != "off-device":
        columns["peak memory"] = words.memory
    if any(r.instructions is not None for r in section.results) and section.kind != "off-device":
        columns["instructions"] = lambda r: Cell(words.count_of(r.instructions), "an inference")
    columns["parity"] = words.parity
    rows = tuple(tuple(cell(result) for cell in columns.values()) for result in section.results)
    figures = frozenset(columns) - {"artifact", "parity", "against the first"}
    return Table("Summary", tuple(columns), figures, rows)


def _named(result: Result) -> Cell:
    details = [words.short(result.artifact.bundle, 80)] if result.artifact.bundle else [result.artifact.format]
    details.append(words.threads_of(result.settings.threads))
    if result.settings.batch not in (None, 1):
        details.append(f"batch {result.settings.batch}")
    if result.settings.sustained_s:
        details.append(f"sustained {result.settings.sustained_s / 60:.3g} min")
    if result.settings.inputs == "random":
        details.append("RANDOM INPUTS")
    return Cell(words.artifact_label(result), ", ".join(details))


def remarks(section: Section) -> tuple[tuple[str, str], ...]:
    """What else is to be said, and of which artifacts: notes, a sustained run's two ends, energy, the warm-up."""
    said_of: dict[str, list[str]] = {}
    for result in section.results:
        for sentence in _said_of(result, section.kind):
            said_of.setdefault(sentence, []).append(label_in_section(result))
    everywhere = len({label_in_section(result) for result in section.results})
    return tuple((_joined(list(dict.fromkeys(labels)), everywhere), said) for said, labels in said_of.items())


def _joined(labels: Sequence[str], everywhere: int) -> str:
    return f"all {everywhere}" if 1 < everywhere == len(labels) else words.short("; ".join(labels), 600)


def _said_of(result: Result, kind: str) -> list[str]:
    said = [words.short(note) for note in result.notes]
    if result.settings.inputs == "random":
        said.append("random inputs: good for latency, useless for parity and accuracy")
    said += [words.short(f"not proven: {line}") for line in (result.parity.not_proven if result.parity else ())]
    said.append(words.slowdown(result))
    used = words.energy(result)
    said.append(f"energy {used}" if used else "")
    if kind in ("physical", "browser"):
        said.append(busy_in_words(load_of(result.conditions), result.device.cores))
    if kind in ("physical", "browser") and result.samples and not result.samples.stable:
        said.append("the warm-up had not settled when its time was up")
    return [sentence for sentence in said if sentence]


def label_in_section(result: Result) -> str:
    """An artifact's label with its bundle and threads."""
    bundle = words.short(result.artifact.bundle, 80)
    label = words.artifact_label(result)
    precision = result.artifact.precision
    if precision and re.search(rf"(^|[-_. ]){re.escape(precision)}\b", bundle):
        label = label.removeprefix(precision).strip()
    threads = "" if result.settings.threads is None else f", {words.threads_of(result.settings.threads)}"
    return f"{bundle} {label}".strip() + threads


def labels_of(results: Sequence[Result]) -> list[str]:
    """The shortest labels that tell results apart: without bundle where there is one model, or threads if alike."""
    short = [words.artifact_label(r) for r in results]
    if len({r.settings.threads for r in results}) > 1:
        short = [f"{label}, {words.threads_of(r.settings.threads)}" for label, r in zip(short, results, strict=True)]
    is_one_model = len({words.model_of(r.artifact) for r in results}) == 1
    return short if is_one_model and len(set(short)) == len(short) else [label_in_section(r) for r in results]


def failures(results: Sequence[Result]) -> Table:
    """What did not work, with its cause."""
    rows = []
    for result in results:
        if result.failure or words.parity_failed(result):
            cause = result.failure.cause if result.failure else "parity"
            detail = result.failure.detail if result.failure else result.parity.reason if result.parity else ""
            kept = len(result.samples.blocks) if result.samples else 0
            rows.append(
                (
                    Cell(label_in_section(result), words.short(words.file_of(result), 160)),
                    Cell(heading_of(result).partition(":")[0]),
                    Cell(words.PARITY_FAILED if cause == "parity" else cause, "", "bad"),
                    Cell(words.short(detail), f"{kept} blocks were kept" if kept and cause != "parity" else ""),
                )
            )
    return Table("Failures", ("artifact", "device", "cause", "what happened"), frozenset(), tuple(rows))


def profile(result: Result, most: int = 8) -> Table:
    """The runtime's own profile, the longest operations first; only shares where no latency may be shown."""
    timed = execution(result) in ("physical", "browser") and not words.parity_failed(result)
    total = sum(row.total_ns for row in result.profile) or 1
    ordered = sorted(result.profile, key=lambda row: -row.total_ns)
    rows = []
    for row in ordered[:most]:
        each = Cell(words.milliseconds(row.total_ns / 1e6 / max(1, row.runs))) if timed else Cell("")
        rows.append(
            (
                Cell(words.short(row.operation, 120)),
                Cell(f"{row.calls / max(1, row.runs):.3g}"),
                Cell(f"{row.total_ns / total:.1%}"),
                each,
            )
        )
    if len(ordered) > most:
        rest = sum(row.total_ns for row in ordered[most:])
        each = (
            Cell(words.milliseconds(sum(r.total_ns / max(1, r.runs) for r in ordered[most:]) / 1e6))
            if timed
            else Cell("")
        )
        rows.append((Cell(f"{len(ordered) - most} more", "", "weak"), Cell(""), Cell(f"{rest / total:.1%}"), each))
    names = ("operation", "calls", "share of time", "an inference")
    columns = names if timed else names[:3]
    return Table(
        label_in_section(result),
        columns,
        frozenset(names[1:]),
        tuple(row[: len(columns)] for row in rows),
    )


def conditions(section: Section) -> Table:
    """What the machine was like before, during and after: a row for all results that were measured in the same."""
    alike: dict[tuple[Cell, ...], list[str]] = {}
    for result in section.results:
        if result.conditions:
            alike.setdefault(_conditions(result), []).append(label_in_section(result))
    rows = [(_of_all(labels), *cells) for cells, labels in alike.items()]
    columns = ("artifact", "governor", "frequency", "temperature", "throttled", "load")
    return Table("Device conditions", columns, frozenset(("frequency", "temperature", "load")), tuple(rows))


def _of_all(labels: Sequence[str]) -> Cell:
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        return Cell(names[0])
    return Cell(f"{len(names)} artifacts", words.short("; ".join(names), 600))


def _conditions(result: Result) -> tuple[Cell, ...]:
    seen = result.conditions
    frequencies = [khz / 1e6 for c in seen for khz in c.frequencies_khz]
    temperatures = [c.temperature_c for c in seen if c.temperature_c is not None]
    flags = sorted({flag for c in seen for flag in c.throttled or ()})
    told = any(c.throttled is not None for c in seen)
    return (
        Cell(", ".join(sorted({words.short(c.governor, 40) for c in seen if c.governor})) or "unknown"),
        Cell(_range(frequencies, "GHz", 2)),
        Cell(_range(temperatures, "°C", 0)),
        Cell(words.short(", ".join(flags)) or ("none" if told else "unknown"), "", "bad" if flags else ""),
        Cell(_range([c.load for c in seen if c.load is not None], "", 1)),
    )


def _range(values: Sequence[float], unit: str, digits: int) -> str:
    if not values:
        return "unknown"
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()


def commands(results: Sequence[Result]) -> tuple[str, ...]:
    """The command lines that measure the same again, one a target and settings."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        asked = result.settings
        key = (result.target, asked.seconds, asked.warmup_s, asked.batch, asked.affinity, asked.sustained_s)
        groups.setdefault((*key, asked.precision, asked.processes, asked.seed), []).append(result)
    return tuple(_command(group) for group in groups.values())


def _command(group: Sequence[Result]) -> str:
    asked = group[0].settings
    line = ["pocketship", "bench", *dict.fromkeys(_no_option(words.short(words.file_of(r))) for r in group)]
    line += ["--on", words.short(group[0].target), "--seconds", f"{asked.seconds:g}", "--warmup", f"{asked.warmup_s:g}"]
    threads = sorted({r.settings.threads for r in group if r.settings.threads is not None})
    options = {
        "--threads": ",".join(map(str, threads)) or None,
        "--batch": asked.batch,
        "--affinity": None if asked.affinity is None else ",".join(map(str, asked.affinity)),
        "--sustained": None if asked.sustained_s is None else f"{asked.sustained_s:g}s",
        "--precision": None if asked.precision is None else f"{100 * asked.precision:g}%",
        "--processes": None if asked.sustained_s else asked.processes,
        "--seed": asked.seed or None,
    }
    for name, value in options.items():
        line += [] if value is None else [name, str(value)]
    return shlex.join(line)


def _no_option(file: str) -> str:
    """A file's name that a command takes for one, though results of others may call it --output=..."""
    return f"./{file}" if file.startswith("-") else file


def versions(results: Sequence[Result]) -> Table:
    """Versions of everything that took part, with how many results were made with each."""
    counts: dict[tuple[str, str], int] = {}
    for result in results:
        for name, version in {**result.device.software, **result.versions}.items():
            key = words.short(name, 80), words.short(version, 80)
            counts[key] = counts.get(key, 0) + 1
    rows = tuple((Cell(name), Cell(version), Cell(str(n))) for (name, version), n in sorted(counts.items()))
    return Table("Versions", ("what", "version", "results"), frozenset(("results",)), rows)
