"""What the documents say that commands print, and what they do print.

A document is a Markdown file. Its fenced blocks whose first line is `# NAME.EXT`, or whose fence says title="NAME.EXT",
are files; the `$ ` lines of its ```console blocks are commands, the lines below a command are what it prints, "..."
alone on a line stands for lines that are left out. All of a document runs in order in one fresh folder, which it shows
as `/home/you`. Two comments tell more of it:

    <!-- begins with: digits, digits-int8 -->       what the folder holds from the start: see `BEGINNINGS`
    <!-- varies: `REGEX`: REASON -->                what in it differs between machines, beside `VARYING` and `PATTERNS`

    python -m tests.docs.printed --write FILES

runs the documents and prints the blocks that are no longer right anew, in place (`--all`: every block).
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import warm
from tests.rigs.adbd import adb_server, emulated_phone
from tests.rigs.onnx_job import built
from tests.rigs.pi import MODELS, RIGS, emulated_pi

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600
SHOWN_FOLDER = "/home/you"
PI = "ssh://pi@raspberrypi"
ELIDED = "..."
BEGINNINGS: dict[str, tuple[str, ...] | Path] = {
    "digits": ("export", "digits", "-o", "digits"),
    "digits-int8": ("export", "digits", "--quantize", "int8", "--no-measure", "-o", "digits-int8"),
    "shifted.py": ROOT / "tests" / "delivery" / "shifted.py",
}
"""What a document may begin with: bundles, by the command that exports them once for all, and files."""
RUN_ONCE = {
    "pocketship export shifted.py:old -o old --quiet": "old",
    "pocketship export shifted.py:new -o new --quiet": "new",
}
"""Commands that print nothing and take long, and the folder each makes: it is made once for tests/delivery, too."""
PROGRAMS = ("cat", "cp", "ls", "mv")
"""What a document may run beside pocketship and python."""
NOT_RUN = {
    "make setup": "the tests run in what it sets up",
    "make wheel": "takes minutes, and a package index",
    "make apk": "make test runs it in CI",
    "make android-models": "a part of make apk",
    "source .venv/bin/activate": "changes the shell that it is typed in, and nothing else",
    "pip install": "takes minutes, and a package index",
    "pocketship bench digits-int8 --fleet": "needs boards of one's own, and ten minutes",
    "pocketship compare main.json branch.json": "needs the results of a branch of one's own",
    "pocketship suite": "takes minutes; it has tests of its own",
    "adb": "an app's own folder, which the double of a phone lacks",
    "pocketship report results.json": "follows the app's bench",
    "benchmarks/devices/adb/runner/build.sh": "takes minutes; the runner's tests run it",
    "pocketship bench model.onnx --on adb": "follows the runner's build; docs/bench.md has such a bench that runs",
}
"""How the commands of ```console notest blocks begin, and why they are not run."""

VARYING = frozenset(
    ("p50 ms", "p90", "p99", "against the first", "load ms", "first ms", "peak MB", "instructions", "median ms")
    + ("max error", "max abs error", "max rel error", "cosine", "SNR dB", "speed, 1 thread", "speed-up")
    + ("update", "plain", "gzip", "binary diff")
)
"""Headings of columns whose figures are of one machine and one run: all that is below them is not compared."""
BETWEEN = r"\(\d+\.\d+ to \d+\.\d+\)"
PATTERNS = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"(?<!\w)\d[\d.,]* ?(?:s|ms|us|µs|min|minutes|seconds)\b", "# s"),  # times
        (r"(?<=\S)[;,]? the machine was busy \(load [\d.]+ on \d+ cores\), measure again when it is idle", ""),
        (rf"(?<![\w.])\d+\.\d+x {BETWEEN}(?:: (?:faster|slower) than (?:the original here|[^\s,]+))?", "#"),  # ratios
        (rf"no difference shown {BETWEEN}", "#"),
        (r"(?<![\w.%(])[\d.,]+ to [\d.,]+(?![\w.,%)])", "# to #"),  # intervals of times; those of accuracies have %
        (r"\b\d+ cores\b", "# cores"),  # of this machine, on the double of a phone, too
        (r"\btime: \d+%", "time: #%"),  # shares of the time
        (r"\d(?:\.\d+)?e[-+]\d\d", "#e#"),  # errors: kernels differ from processor to processor
        (r"^(local|browser): .*?( \((?:physical|browser|off-device)\))", r"\1: #\2"),  # this machine
        (r"\b20\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:Z| UTC)?)?", "DATE"),
        (r"\b[0-9a-f]{16}(?:[0-9a-f]{48})?\b", "KEY"),  # a signer, a hash
        (r"\d[\d,]* bytes(?=\); every hash|, (?:encrypted|signed))", "# bytes"),  # they hold errors as measured here
        (r"1/\d+\.\d", "1/#"),
    )
)
"""What else differs between machines and runs, wherever it stands. All that is not named here must be equal."""
LEFT_OUT = re.compile(
    r"^the machine was busy \(load|the warm-up did not settle|the device was slowed while it ran|"
    r"since you are root$|: downloading \S+ for Python|^#$"
)
"""Lines that a busy machine has and another has not: remarks on its figures, and the rest of a varying cell."""
IN_ANY_ORDER = re.compile(r"(?:onnx|tflite|coreml) # s ")
"""Stages that run side by side: whichever ends first is told first."""


@dataclass
class Step:
    """A command, and the lines of the document that hold what it prints: first and one past the last, from 0."""

    command: str
    first: int
    last: int
    expected: list[str]


@dataclass
class Document:
    """What a Markdown file says, in order: files to write (name and text), and commands."""

    lines: list[str]
    begins_with: tuple[str, ...] = ()
    varies: tuple[re.Pattern[str], ...] = ()
    parts: list[Step | tuple[str, str]] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        """The commands that are run."""
        return [part for part in self.parts if isinstance(part, Step)]

    def says(self, *words: str) -> bool:
        """Whether a command that is run holds one of the words."""
        return any(word in step.command for step in self.steps for word in words)


FENCE = re.compile(r"^(`{3,})(\w*)(?: (notest)| title=\"([\w.-]+)\")?\s*$")
FILE_NAME = re.compile(r"^(?:#|//) ([\w-]+\.\w+)$")
BEGINS_WITH = re.compile(r"<!-- begins with: ([\w., -]+) -->")
VARIES = re.compile(r"<!-- varies: `(.+)`: .+ -->")


def parse(text: str) -> Document:
    """Read a document; raises ValueError where a fence is not closed, or output stands before a command."""
    document = Document(text.split("\n"))
    if begins := BEGINS_WITH.search(text):
        document.begins_with = tuple(begins[1].split(", "))
    document.varies = tuple(re.compile(pattern) for pattern in VARIES.findall(text))
    number = 0
    while number < len(document.lines):
        fence = FENCE.match(document.lines[number])
        if fence:
            end = next((i for i in range(number + 1, len(document.lines)) if document.lines[i] == fence[1]), None)
            if end is None:
                raise ValueError(f"line {number + 1}: the block has no end")
            _read_block(document, fence, number + 1, end)
            number = end
        number += 1
    return document


def _read_block(document: Document, fence: re.Match[str], first: int, end: int) -> None:
    lines = document.lines[first:end]
    if fence[4]:
        document.parts.append((fence[4], "\n".join(lines) + "\n"))
    elif fence[2] == "console" and fence[3]:
        document.not_run += [line[2:] for line in lines if line.startswith("$ ")]
    elif fence[2] == "console":
        starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
        if starts[:1] != [0]:
            raise ValueError(f"line {first + 1}: a console block begins with a command")
        for start, after in zip(starts, [*starts[1:], len(lines)], strict=True):
            document.parts.append(Step(lines[start][2:], first + start + 1, first + after, lines[start + 1 : after]))
    elif lines and (name := FILE_NAME.match(lines[0])):
        document.parts.append((name[1], "\n".join(lines) + "\n"))


# Comparing --------------------------------------------------------------------------------------------------------


def differences(expected: Sequence[str], printed: Sequence[str], varies: Sequence[re.Pattern[str]] = ()) -> list[str]:
    """What is wrong with the expected lines, each as `- expected` or `+ printed`; nothing where they are right."""
    wanted, found = masked(expected, varies), masked(printed, varies)
    if ELIDED in wanted:
        place = wanted.index(ELIDED)
        head, tail = wanted[:place], wanted[place + 1 :]
        if ELIDED in tail:
            return [f"- more than one line of {ELIDED!r}"]
        if len(found) >= len(head) + len(tail):
            found = [*found[:place], ELIDED, *found[len(found) - len(tail) :]]
    if wanted == found:
        return []
    return [line for line in difflib.ndiff(wanted, found) if not line.startswith("  ")]


def masked(lines: Sequence[str], varies: Sequence[re.Pattern[str]] = ()) -> list[str]:
    """The lines without what differs between machines and runs, and without blank ones at the end."""
    headings: list[tuple[int, int, str]] = []
    found = []
    for line in lines:
        cells = _cells(line)
        if len(cells) > 2 and VARYING & {name for *_, name in cells}:
            headings = cells
        elif not line.strip():
            headings = []
        elif headings:
            line = _without_varying(line, cells, headings)
        for pattern, instead in (*PATTERNS, *((pattern, "#") for pattern in varies)):
            line = pattern.sub(instead, line)
        found.append(" ".join(line.split()))
    while found and not found[-1]:
        found.pop()
    return _in_order(line for line in found if not LEFT_OUT.search(line))


def _in_order(lines: Iterable[str]) -> list[str]:
    """The lines, with those of stages that run side by side sorted."""
    groups = itertools.groupby(lines, key=lambda line: bool(IN_ANY_ORDER.match(line)))
    return [line for side_by_side, group in groups for line in (sorted(group) if side_by_side else group)]


def _cells(line: str) -> list[tuple[int, int, str]]:
    """Where the parts of a line begin and end that are two or more spaces apart, and what they say."""
    return [(m.start(), m.end(), m[0]) for m in re.finditer(r"\S+(?: \S+)*", line)]


def _without_varying(line: str, cells: Sequence[tuple[int, int, str]], headings: Sequence[tuple[int, int, str]]) -> str:
    """The line of a table with `#` for each cell below one heading alone, and that a varying one."""
    for start, end, text in reversed(cells):
        above = [name for first, last, name in headings if start < last and first < end]
        if len(above) == 1 and above[0] in VARYING:
            line = line[:start] + "#" * len(text) + line[end:]
    return re.sub(r"#+", "#", line)


# Running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a document runs. `shown` has what is written for a word of this machine, as the folder's own name."""

    folder: Path
    environment: Mapping[str, str]
    shown: Mapping[str, str]

    def real(self, word: str) -> str:
        """A word of a command as it is on this machine."""
        for ours, written in self.shown.items():
            word = word.replace(written, ours)
        return word

    def written(self, text: str) -> list[str]:
        """The lines of an output as the document has them."""
        for ours, written in self.shown.items():
            text = text.replace(ours, written)
        return [line.rstrip() for line in text.rstrip("\n").split("\n")] if text.strip() else []


@contextlib.contextmanager
def place_for(document: Document, bundle: Callable[[str], Path]) -> Iterator[Place]:
    """A fresh folder with what the document begins with, and the boards and phones that its commands name.

    `bundle(name)` gives one of `BEGINNINGS`. Raises RuntimeError where a rig is not installed.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docs")))
        environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        for name in ("SSH_AUTH_SOCK", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            environment.pop(name, None)
        shown = {str(folder): SHOWN_FOLDER}
        if document.says("ssh://"):
            keys = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docs-pi")))
            board = stack.enter_context(emulated_pi(MODELS["4"], keys, counts=False))
            (folder / ".ssh").mkdir(mode=0o700)
            shutil.copy(board.identity, folder / ".ssh" / "id_ed25519")
            shutil.copy(board.known_hosts, folder / ".ssh" / "known_hosts")
            wheels = RIGS / "cache" / "pocketship" / "wheels"
            wheels.mkdir(parents=True, exist_ok=True)
            (folder / ".cache" / "pocketship").mkdir(parents=True)
            (folder / ".cache" / "pocketship" / "wheels").symlink_to(wheels)
            shown[board.target] = PI
        if document.says("--on adb"):
            built("linux-arm64")
            files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docs-phone")))
            environment.update(stack.enter_context(adb_server(files / "adb")) | {"HOME": str(folder)})
            phone = stack.enter_context(emulated_phone(files / "phone"))
            words = ["adb", "connect", phone.serial]
            subprocess.run(words, env=environment, check=True, capture_output=True, timeout=60)
            shown[phone.serial] = "R58M1234"
        for name in document.begins_with:
            given = BEGINNINGS[name]
            if isinstance(given, Path):
                shutil.copy(given, folder / name)
            else:
                shutil.copytree(bundle(name), folder / name)
        yield Place(folder, environment, shown)


def runs(
    document: Document, place: Place, made: Callable[[str], Path] | None = None
) -> Iterator[tuple[Step, list[str]]]:
    """Run the document; each command with the lines that it printed, stdout and stderr in the order of time.

    `made(command)` is the folder that one of `RUN_ONCE` made, where it ran before; by default it runs here.

    Raises AssertionError where a command fails and the next one is not `echo $?`.
    """
    code, steps = 0, document.steps
    after = {id(step): later.command for step, later in itertools.pairwise(steps)}
    for part in document.parts:
        if not isinstance(part, Step):
            name, text = part
            (place.folder / name).write_text(text, encoding="utf-8")
            continue
        if part.command == "echo $?":
            yield part, [str(code)]
            continue
        if made and part.command in RUN_ONCE:
            shutil.copytree(made(part.command), place.folder / RUN_ONCE[part.command])
            yield part, []
            continue
        code, output = run(shlex.split(place.real(part.command), comments=True), place)
        expected_to_fail = after.get(id(part)) == "echo $?"
        assert code == 0 or expected_to_fail, f"$ {part.command}\nexit code {code}\n{output}"
        yield part, place.written(output)


def run(words: Sequence[str], place: Place) -> tuple[int, str]:
    """Run a command of a document: exit code and all that it printed."""
    if words[0] in PROGRAMS:
        done = subprocess.run(
            words, cwd=place.folder, env=place.environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr
    if words[0] not in ("pocketship", "python"):
        raise ValueError(f"a document does not run {words[0]}: mark the block `console notest`, and say why in NOT_RUN")
    role = "pocketship" if words[0] == "pocketship" else "script"
    with tempfile.TemporaryFile() as output:
        process = warm.Process(role, words[1:], env=place.environment, cwd=place.folder, stdout=output, stderr=output)
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output.seek(0)
        return code, output.read().decode()


# Writing ----------------------------------------------------------------------------------------------------------


def rewritten(document: Document, printed: Sequence[tuple[Step, list[str]]], everything: bool) -> str:
    """The document's text with what its commands printed, where that is not what it says; all of it on demand.

    Where lines are left out, as many are kept before and after them as there were.
    """
    lines = list(document.lines)
    for step, output in reversed(printed):
        if everything or differences(step.expected, output, document.varies):
            new = output
            if ELIDED in step.expected:
                before = step.expected.index(ELIDED)
                after = len(step.expected) - before - 1
                new = [*output[:before], ELIDED, *(output[-after:] if after else ())]
            lines[step.first : step.last] = new
    return "\n".join(lines)


def exporter_of(folder: Path) -> Callable[[str], Path]:
    """Gives the bundles that documents begin with, exported into `folder` when they are first asked for."""

    def bundle(name: str) -> Path:
        if not (folder / name).exists():
            place = Place(folder, {**os.environ, "PYTHONPATH": str(ROOT)}, {})
            code, output = run(["pocketship", *BEGINNINGS[name], "--quiet"], place)
            assert code == 0, output
        return folder / name

    return bundle


def main() -> None:
    """Check the documents that the command line names, or write them anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="print what is no longer right anew, in place")
    parser.add_argument("--all", action="store_true", help="with --write: print everything anew")
    asked = parser.parse_args()
    wrong, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="docs-run") as shared:
        warm.let_children_be_forked(Path(shared), os.getpid())
        bundle = exporter_of(Path(shared))
        for file in asked.files:
            document = parse(file.read_text(encoding="utf-8"))
            if not document.steps:
                continue
            try:
                with place_for(document, bundle) as place:
                    printed = list(runs(document, place))
            except (AssertionError, RuntimeError) as error:  # a command failed, or a rig is missing: the others go on
                failed += 1
                print(f"{file}: not run to its end: {error}", flush=True)
                continue
            for step, output in printed:
                if lines := differences(step.expected, output, document.varies):
                    wrong += 1
                    print(f"{file}:{step.first}: $ {step.command}", *lines, sep="\n", flush=True)
            if asked.write:
                file.write_text(rewritten(document, printed, asked.all), encoding="utf-8")
    sys.exit(bool(failed or (wrong and not asked.write)))


if __name__ == "__main__":
    main()
