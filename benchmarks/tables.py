"""Tables on a terminal of any width: a column becomes narrower, then small print moves below its figure, then each row
becomes lines of its own. No number is ever cut: a cell breaks between words alone, a column of figures not even there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.console import out, shown

GAP = 2
"""Spaces between two columns."""
LONGEST_WORD = 40
"""Characters; a longer word is a path or a name, and may go on in the next line of its column."""
BREAKS = re.compile(r"(?<=/)(?=[^/])|(?<=[a-z]-)(?=[a-z])")
"""Where a word may go on in the next line: in a path and between the parts of a name, never in a number."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its figure, what belongs to it in small print, and "good", "bad", "weak" or nothing."""

    text: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table: its caption, its columns, which of them hold figures, and rows of one cell a column."""

    caption: str
    columns: tuple[str, ...]
    figures: frozenset[str]
    rows: tuple[tuple[Cell, ...], ...]


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], figures: Sequence[str] = ()) -> Table:
    """A table without a caption; a cell may be given as its text."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table("", tuple(columns), frozenset(figures), cells)


def print_table(table: Table) -> None:
    """A table on stdout, whose width it takes."""
    screen = out()
    for line in lines_of(table, screen.width):
        screen.print(line, soft_wrap=True)


def lines_of(table: Table, width: int) -> list[str]:
    """The lines of a table that is `width` characters wide, the first of the forms that fits.

    In one line a row; with the small print below its figure, texts in several lines; each row as a list.
    """
    right = [name in table.figures for name in table.columns]
    beside = [[(_beside(cell),) for cell in row] for row in table.rows]
    below = [[(shown(cell.text), *([shown(cell.detail)] if cell.detail else [])) for cell in row] for row in table.rows]
    names = [(name,) for name in table.columns]
    for rows, may_break in ((beside, False), (below, True)):
        columns = list(zip(names, *rows, strict=True))
        natural = [max(map(_length, (line for cell in column for line in cell))) for column in columns]
        narrow = [_narrowest(column, is_figure) for column, is_figure in zip(columns, right, strict=True)]
        widths = _fitted(natural, narrow if may_break else natural, width - GAP * (len(columns) - 1))
        if widths:
            return [line for row in (names, *rows) for line in _row(row, widths, right)]
    return _listed(table, width)


def _beside(cell: Cell) -> str:
    """A cell as one line."""
    joined = f"{cell.text}, {cell.detail}" if cell.text.endswith(")") else f"{cell.text} ({cell.detail})"
    return shown(joined if cell.detail and cell.text else cell.text or cell.detail)


def _narrowest(column: Sequence[Sequence[str]], is_figure: bool) -> int:
    """The least width of a column: its longest word, or for figures the longest of their lines."""
    head, *cells = column
    lines = [line for cell in cells for line in cell]
    words = [word for line in (*head, *([] if is_figure else lines)) for word, _ in _words(line)]
    longest = max((min(_length(word), LONGEST_WORD) for word in words), default=1)
    return max([longest, *(map(_length, lines) if is_figure else ())])


def _fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """The widths that fit into `room`, the widest column made narrower first; None where none do."""
    widths = list(natural)
    while sum(widths) > room:
        i = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[i] <= least[i]:
            return None
        widths[i] -= 1
    return widths


def _row(cells: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """The lines of one row."""
    wrapped = [
        [part for line in cell for part in _wrapped(line, width)] for cell, width in zip(cells, widths, strict=True)
    ]
    found = []
    for i in range(max(map(len, wrapped))):
        parts = [lines[i] if i < len(lines) else "" for lines in wrapped]
        filled = (
            " " * (width - _length(part)) + part if is_figure else part + " " * (width - _length(part))
            for part, width, is_figure in zip(parts, widths, right, strict=True)
        )
        found.append((" " * GAP).join(filled).rstrip())
    return found


def _listed(table: Table, width: int) -> list[str]:
    """Each row as lines of its own: the first cell, then `name: figure`, what is empty left out."""
    found = []
    for row in table.rows:
        first, *others = (_beside(cell) for cell in row)
        found += _wrapped(first, width)
        for name, text in zip(table.columns[1:], others, strict=True):
            head, *more = _wrapped(f"{name}: {text}", width - GAP)
            found += [" " * GAP + line for line in (head, *more)] if text else []
    return found


def _wrapped(line: str, width: int) -> list[str]:
    """A line in several of at most `width`, broken between words; a word that is longer is broken within."""
    from rich.cells import chop_cells

    found: list[str] = []
    for word, joint in _words(line):
        if found and _length(found[-1]) + len(joint) + _length(word) <= width:
            found[-1] += joint + word
        else:
            found += chop_cells(word, width)
    return found or [""]


def _words(line: str) -> list[tuple[str, str]]:
    """The parts of a line that stay whole, each with what stands before it: a space, or nothing within a word."""
    return [(part, "" if i else " ") for word in line.split() for i, part in enumerate(BREAKS.split(word))]


def _length(text: str) -> int:
    """The places that a text takes on a terminal, whose letters may be two wide."""
    from rich.cells import cell_len

    return cell_len(text)
