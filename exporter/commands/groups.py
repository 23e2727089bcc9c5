"""The help of `pocketship` as plain text: commands under headings, each with a whole sentence, at any width."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

EXIT_CODES = (
    "Exit codes: 0 done, 1 internal error, 2 bad input, 3 parity failed, 4 a limit is not met, 5 an operation that a "
    "target lacks, 6 a runtime is missing and nothing else is wrong (verify), 130 and 143 interrupted."
)


class Headings(TyperGroup):
    """A group that lists its commands by their headings, in the order in which they were mounted."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list a heading; a command's first sentence is wrapped, never cut."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                heading = str(getattr(command, "rich_help_panel", None) or "Commands")
                said = " ".join((command.help or "").split())
                rows.setdefault(heading, []).append((name, said))
        width = max(len(name) for row in rows.values() for name, _ in row)
        for heading, row in rows.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), said) for name, said in row])
