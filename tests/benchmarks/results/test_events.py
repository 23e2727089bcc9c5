"""One contract of bench events: who tells or takes them, in Python, C, TypeScript or Java, and what documents them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path

import pytest

from benchmarks.devices.browser import events as posted
from benchmarks.results.events import EVENTS, LENGTHS, OF_A_CASE, WORDS, range_of
from benchmarks.results.record import TAKEN, Recorder

ROOT = Path(__file__).resolve().parents[3]
RUNNER = ROOT / "benchmarks/devices/adb/runner"
PAGE = ROOT / "benchmarks/devices/browser/page/src/contract.ts"
DEMO = ROOT / "android_demo/app/src/main/java/pocketship/demo"

Kinds = dict[str, frozenset[str]]
"""Field -> the kinds of JSON value that it may hold; those of nested records are `outer.inner`."""


def kinds_of(hint: object) -> frozenset[str]:
    """The kinds of JSON value of a Python type."""
    if typing.get_origin(hint) is typing.Annotated:
        return kinds_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return frozenset().union(*map(kinds_of, typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return frozenset().union(*(kinds_of(type(value)) for value in typing.get_args(hint)))
    base = typing.get_origin(hint) or hint
    plain = {int: "number", float: "number", str: "string", bool: "boolean", type(None): "null"}
    return frozenset({plain.get(base) or {tuple: "array", list: "array"}.get(base, "object")})


def records(hint: object) -> list[type]:
    """The records (dataclasses, pydantic's models) that a type holds."""
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "model_fields")):
        return [hint]
    return [record for argument in typing.get_args(hint) for record in records(argument)]


def fields(record: type, under: str = "") -> Kinds:
    """The fields of a record, and of those inside."""
    found: Kinds = {}
    model = getattr(record, "model_fields", None)  # pydantic's
    hints = {name: field.annotation for name, field in model.items()} if model else typing.get_type_hints(record)
    for name, hint in hints.items():
        if name == "event":
            continue
        found[under + name] = kinds_of(hint)
        for inner in records(hint):
            found |= fields(inner, f"{under}{name}.")
    return found


def optional(record: type, under: str = "") -> set[str]:
    """The fields that may be left out."""
    found: set[str] = set()
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
            found.add(under + field.name)
        for inner in records(hints[field.name]):
            found |= optional(inner, f"{under}{field.name}.")
    return found


CONTRACT = {
    name: ({"case": frozenset({"number"})} if name in OF_A_CASE else {}) | fields(EVENTS[name]) for name in EVENTS
}


def faults(teller: str, told: dict[str, Kinds]) -> list[str]:
    """What is missing, extra or of another type in what somebody tells."""
    found = [f"{teller}: no event {name!r}" for name in told if name not in CONTRACT]
    for name in set(told) & set(CONTRACT):
        wanted, here = CONTRACT[name], told[name]
        nested = {outer.rpartition(".")[0] for outer in here if "." in outer}
        missing = {
            key
            for key in set(wanted) - set(here) - optional(EVENTS[name])
            if "." not in key or key.rpartition(".")[0] in nested
        }
        found += [f"{teller}: {name} lacks {key}" for key in sorted(missing)]
        found += [f"{teller}: {name} has {key} besides" for key in sorted(set(here) - set(wanted))]
        for key in sorted(set(here) & set(wanted)):
            if not here[key] or not here[key] <= wanted[key]:
                found.append(f"{teller}: {name}.{key} is {sorted(here[key])}, not {sorted(wanted[key])}")
    return found


# --- reading the other languages -----------------------------------------------------------------------------------


def of_c(source: str) -> dict[str, Kinds]:
    """The events that C code writes: its literals joined, and what its calls write between them."""
    written = {"text_string": '"a"', "governor_text": '"a"', "text_numbers": "[]", "throttled_text": "[]"}
    written["model_outputs"] = "{}"
    token = re.compile(rf'"((?:[^"\\]|\\.)*)"|\b({"|".join(written)})\(')
    found: dict[str, Kinds] = {}
    for start in re.finditer(r'"\{\\"event\\":\\"(\w+)\\"', source):
        body = source[start.start() : source.index("\n}\n", start.start())]
        body = re.sub(r'bytes_or_null\(&text, "(\w+)"', r'",\\"\1\\":0null"', body)
        body = re.sub(r',\s*[\w>*.-]+ \? "[^"]*" : "[^"]*"', "", body)  # what a %s is: true or false, a comma or none
        stream = ""
        for match in token.finditer(body):
            stream += written[match[2]] if match[2] else match[1].replace('\\"', '"').replace("\\n", "\n")
            if stream.endswith("}\n"):
                break
        stream = re.sub(r"%(?:zu|lld|\.\d[fg])", "0", stream.replace('"%s"', '"a"').replace(":%s", ":true"))
        found[start[1]] = of_stream(stream)
    return found


def of_stream(stream: str) -> Kinds:
    """The members of what is nearly JSON: more than one value may follow a key, one of which is written."""
    found: dict[str, set[str]] = {}
    value = re.compile(r'("[^"]*"(?!:))|(\[)|(\{)|(-?\d)|(null)|(true|false)')
    outer = ""
    for match in re.finditer(r'"(\w+)":', stream):
        if match[1] == "event":
            continue
        name = f"{outer}.{match[1]}" if outer and match[1] != outer else match[1]
        at = match.end()
        kinds = found.setdefault(name, set())
        while (first := value.match(stream, at)) is not None:
            kinds.add(("string", "array", "object", "number", "null", "boolean")[first.lastindex - 1])
            at = first.end()
            if first[2] and stream[at : at + 1] == "]":
                at += 1
            elif first[2]:
                if '{"' in stream[at : at + 4]:
                    outer = match[1]
                break
            elif first[3]:
                at += stream[at : at + 1] == "}"
    return {name: frozenset(kinds) for name, kinds in found.items()}


def of_typescript(source: str) -> dict[str, Kinds]:
    """The members of `Events` in contract.ts."""
    shapes = dict(re.findall(r"export interface (\w+) \{\n(.*?)\n\}", source, re.S))

    def members(body: str, under: str = "") -> Kinds:
        found: Kinds = {}
        for name, hint in re.findall(r"(\w+): ([^;]+);", body.rstrip().removesuffix(";") + ";"):
            found[under + name] = frozenset(map(kind, hint.split(" | ")))
            for inner in re.findall(r"[A-Z]\w+", hint):
                if inner in shapes:
                    found |= members(shapes[inner], f"{under}{name}.")
        return found

    def kind(word: str) -> str:
        if word.endswith("[]"):
            return "array"
        if word.startswith('"'):
            return "string"
        return word if word in ("number", "string", "boolean", "null") else "object"

    events = re.sub(r"Record<never, never>", "{ }", shapes["Events"])
    return {name: members(body) for name, body in re.findall(r"^  (\w+): \{(.*?)\}(?:;|$)", events, re.S | re.M)}


def of_java(*sources: str) -> dict[str, Kinds]:
    """The events of Bench.java: all that a method that names an event puts."""
    source = "\n".join(sources)
    methods = re.split(r"\n    (?=(?:@Override|private|public|static) )", source)
    found: dict[str, Kinds] = {}
    for method in methods:
        for name in re.findall(r'event\("(\w+)", running\)', method) + re.findall(r'put\("event", "(\w+)"\)', method):
            found[name] = {"case": frozenset({"number"})} if name in OF_A_CASE else {}
            for key, value in re.findall(r'\.put\("(\w+)", ((?:[^()]|\([^()]*\))*)\)', method):
                if key not in ("event", "schema_version", "results"):
                    found[name][key] = frozenset({of_java_value(value, method + source)})
    for key, value in re.findall(r'\.put\("(\w+)", (.+?)\)(?:;|\n)', sources[1].split("JSONObject facts(", 1)[1]):
        found["device"][f"facts.{key}"] = frozenset({of_java_value(value, sources[1])})
    found["end"] = {}
    return found


def of_java_value(value: str, source: str) -> str:
    """The kind of an expression, by its literals or by how its last name is declared."""
    for pattern, kind in (
        (r"JSONObject\.NULL", "null"),
        (r"new JSONArray|numbers\(", "array"),
        (r"new JSONObject", "object"),
        (r'"|Build\.|runtime\[', "string"),
        (r"\d+$|.*availableProcessors", "number"),
        (r"true|false", "boolean"),
    ):
        if re.match(pattern, value) or (pattern.startswith('"') and '"' in value):
            return kind
    name = re.split(r"[.\s]", value)[-1]
    declared = re.search(rf"\b(long|int|String|boolean|JSONObject) {name}\b", source)
    plain = {"long": "number", "int": "number", "String": "string", "boolean": "boolean", "JSONObject": "object"}
    return plain[declared[1]] if declared else f"unknown ({value})"


# --- who tells -----------------------------------------------------------------------------------------------------


def test_the_runner_in_c_tells_what_the_contract_says():
    told: dict[str, Kinds] = {}
    for file in sorted(RUNNER.glob("*.c")):
        told |= of_c(file.read_text())
    assert set(told) == set(EVENTS) - {"device", "instructions", "notice"}, "the host tells the device"
    assert faults("C", told) == []


def test_the_page_in_typescript_tells_what_the_contract_says():
    told = of_typescript(PAGE.read_text())
    assert set(told) == set(EVENTS) - {"condition", "profile", "instructions", "notice"}
    assert faults("TypeScript", told) == []


def test_the_app_in_java_tells_what_the_contract_says():
    told = of_java((DEMO / "bench/Bench.java").read_text(), (DEMO / "BenchActivity.java").read_text())
    assert set(told) == {"device", "loaded", "outputs", "warm", "block", "failed", "end"}
    assert faults("Java", told) == []


def test_what_a_browser_may_post_is_what_the_contract_says_and_what_the_page_tells():
    models = typing.get_args(posted.Event)
    told = {typing.get_args(model.model_fields["event"].annotation)[0]: fields(model) for model in models}
    assert faults("pydantic", told) == []
    page = of_typescript(PAGE.read_text())
    assert set(told) == set(page)
    assert {name: set(told[name]) for name in told} == {name: set(page[name]) for name in page}


def test_the_recorder_takes_every_event_and_asks_for_no_other_field():
    assert set(TAKEN) == set(EVENTS)
    for name, take in TAKEN.items():
        asked = set(re.findall(r'fields(?:\.get\(|\[)"(\w+)"', inspect.getsource(take)))
        assert asked <= set(CONTRACT[name]), name
    assert all(getattr(Recorder, take.__name__) is take for take in TAKEN.values())


def test_every_number_has_a_range_and_every_list_a_length():
    for name, fields in CONTRACT.items():
        outer = {key.rpartition(".")[0] for key in fields}
        for key, kinds in fields.items():
            word = key.rpartition(".")[2]
            if "array" in kinds or ("object" in kinds and key not in outer):
                assert LENGTHS[word] > 0, f"{name}: {key}"
            if kinds & {"number", "array"} and word not in ("case", "notes", "operations", "throttled"):
                least, most = range_of(word)
                assert least < most, f"{name}: {key}"


def test_every_word_that_a_field_may_hold_is_documented():
    text = (ROOT / "docs/results.md").read_text()
    assert {key.rpartition(".")[2] for keys in CONTRACT.values() for key in keys} >= set(WORDS)
    for words in WORDS.values():
        assert all(word in text for word in words)


def test_the_documentation_lists_every_event_and_field():
    text = (ROOT / "docs/results.md").read_text().split("## Events")[1].split("## Results")[0]
    listed = {}
    for name, line in re.findall(r"^\| `(?!event`)(\w+)` \| (.*)\|$", text, re.M):
        while line != (shorter := re.sub(r"\([^()]*\)", "", line)):
            line = shorter
        listed[name] = set(re.findall(r"\w+", line))
    wanted = {name: {word for key in keys for word in key.split(".")} for name, keys in CONTRACT.items()}
    assert listed == wanted


# --- the checks themselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"\"at_ns\":%lld", r"\"at\":%lld", ["C: block has at besides", "C: block lacks at_ns"]),
        (r",\"runs\":%zu,\"times_ns\":", r",\"times_ns\":", ["C: block lacks runs"]),
        (r"\"runs\":%zu,\"times", r"\"runs\":\"%s\",\"times", ["C: block.runs is ['string'], not ['number']"]),
        (
            "text_numbers(&text, worker->times_ns",
            "text_string(&text, worker->times_ns",
            ["C: block.times_ns is ['string']"],
        ),
    ],
)
def test_a_field_that_is_missing_extra_or_of_another_type_is_found_in_c(old, new, said):
    source = (RUNNER / "worker.c").read_text()
    assert old in source
    found = faults("C", of_c(source.replace(old, new)))
    assert sorted(line.split(", not")[0] for line in found) == sorted(line.split(", not")[0] for line in said)


def test_a_field_that_is_missing_extra_or_of_another_type_is_found_in_typescript_and_java():
    page = PAGE.read_text().replace(
        "  warm: { case: number; warmup_ns: number[]; stable: boolean }", "  warm: { warm: null }"
    )
    assert faults("TypeScript", of_typescript(page)) == [
        *(f"TypeScript: warm lacks {name}" for name in ("case", "stable", "warmup_ns")),
        "TypeScript: warm has warm besides",
    ]
    bench = (DEMO / "bench/Bench.java").read_text().replace('.put("load_warm_ns", loadNs)', '.put("load_ns", "5")')
    assert faults("Java", of_java(bench, (DEMO / "BenchActivity.java").read_text())) == [
        "Java: loaded lacks load_warm_ns",
        "Java: loaded has load_ns besides",
    ]
