"""What the commands print: tables on stdout, or the same facts as JSON; everything else on stderr.

All that is printed goes through here, since names, paths and facts come from files and boards of any origin: nothing
of them is a command to the terminal (escapes, a bell, a turn of the writing's direction), and a line stays one line.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runtimes.errors import shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    from runtimes.signature import ExecutedBy


def shown_lines(text: str) -> str:
    """The same of a text of several lines, which it keeps."""
    return "\n".join(map(shown, text.split("\n")))


def terminal() -> Console:
    """The console of stderr."""
    return _console(stderr=True)


def out() -> Console:
    """The console of stdout."""
    console = _console(stderr=False)
    if not console.is_terminal:
        console.width = 200  # tables in a pipe or a log keep their lines whole
    return console


def _console(stderr: bool) -> Console:
    from rich import console, segment

    class Screen(console.Console):
        """Prints a string as one line, whatever is in it: of markup, emoji codes and control characters nothing."""

        def print(self, *objects: Any, **options: Any) -> None:
            """What rich would turn into text by itself is a string first."""
            shapes = ("__rich_console__", "__rich__")
            super().print(*(o if any(hasattr(o, s) for s in shapes) else str(o) for o in objects), **options)

        def render_str(self, text: str, **options: Any) -> Text:
            """Called for every string, in a table, too."""
            return super().render_str(shown(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            """Called for all that is printed: what is no string may have several lines."""
            for part in super().render(renderable, options):
                yield part if part.control else segment.Segment(shown_lines(part.text), part.style)

    return Screen(stderr=stderr, highlight=False, markup=False, emoji=False)


def say_next(purpose: str, *words: object) -> None:
    """Print the next sensible command on stdout, in one line."""
    out().print(f"next, {purpose}: {command(*words)}", soft_wrap=True)


def command(*words: object) -> str:
    """A command of pocketship to copy: what a shell would take apart is quoted."""
    import shlex

    return f"pocketship {shlex.join(map(str, words))}"


def complain(text: str) -> None:
    """Print an error or a warning on stderr, as one line that says who complains."""
    print(f"pocketship: {shown(' '.join(text.split()))}", file=sys.stderr)


def print_log(text: str) -> None:
    """Print the lines of a log or a traceback on stderr."""
    print(shown_lines(text), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print JSON on stdout; dataclasses are objects, infinity and NaN, which JSON lacks, are null.

    What is not ASCII, or commands a terminal, is escaped: it is the same data.
    """
    print(json.dumps(plain(value), indent=2, ensure_ascii=True, allow_nan=False))


def print_csv(fields: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Print CSV on stdout, with the fields' names as its first line."""
    writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: shown(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def in_words(by: ExecutedBy) -> str:
    """What computed a result."""
    return f"{by.runtime} {by.version} ({by.kind})"
