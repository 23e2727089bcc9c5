"""What a bundle says, as data in generated files: a function for each language and context, and a check of its use.

`Environment` is Jinja2 that refuses to print a text which came through none of them.
"""

from __future__ import annotations

import html as _html
import math
import re
import string as _string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

from runtimes.errors import BadInput

PLAIN = frozenset(_string.ascii_letters + _string.digits + " .,:;_+-/=()[]{}!#%@^~|")
"""Characters that stand for themselves in a string literal of every language here; * is none, for simpler readers."""
QUIET = frozenset(" .,:;_+-/=()")
"""Beside letters and digits, what a comment keeps: nothing that ends one, escapes, or is markup in any language."""


class Safe(str):
    """A text that is code on purpose, or data that a function of this module made harmless for its place."""

    __slots__ = ()


# Strings ----------------------------------------------------------------------------------------------------------


def python_string(text: str) -> Safe:
    """A Python literal; lone surrogates and all."""
    return Safe(ascii(str(text)))


def java_string(text: str) -> Safe:
    r"""A Java literal. \uXXXX is read before the lexer looks, so below 128 only octal escapes are used."""
    return _quoted(_units(text), lambda unit: f"\\{unit:03o}" if unit < 128 else f"\\u{unit:04x}")


def kotlin_string(text: str) -> Safe:
    r"""A Kotlin literal: $ would begin a template, and is escaped as all that is not plain."""
    return _quoted(_units(text), lambda unit: f"\\u{unit:04x}")


def javascript_string(text: str) -> Safe:
    """A JavaScript literal, which may stand in a page's script as well."""
    return _quoted(_units(text), lambda unit: f"\\u{unit:04x}")


def swift_string(text: str) -> Safe:
    r"""A Swift literal, without \( of an interpolation; a lone surrogate, which Swift has not, is a question mark."""
    return _quoted(map(ord, _whole(text)), lambda point: f"\\u{{{point:X}}}")


def cpp_string(text: str) -> Safe:
    """A C++ literal of the text's UTF-8 bytes; octal escapes have three digits and take no more, trigraphs need a ?."""
    return _quoted(_whole(text).encode(), lambda byte: f"\\{byte:03o}")


def toml_string(text: str) -> Safe:
    """A basic string of TOML, which has no surrogates either."""
    return _quoted(map(ord, _whole(text)), lambda point: f"\\U{point:08X}")


def _quoted(points: Iterable[int], escaped: Callable[[int], str]) -> Safe:
    """In double quotes: what is `PLAIN` as it is, all else escaped."""
    return Safe('"' + "".join(chr(p) if p < 128 and chr(p) in PLAIN else escaped(p) for p in points) + '"')


def _units(text: str) -> Iterable[int]:
    """UTF-16 code units, in which Java, Kotlin and JavaScript think."""
    return np.frombuffer(str(text).encode("utf-16-le", "surrogatepass"), "<u2").tolist()


def _whole(text: str) -> str:
    """With a question mark for each lone surrogate."""
    return str(text).encode("utf-8", "replace").decode()


# Comments and documents -------------------------------------------------------------------------------------------


def comment(text: object) -> Safe:
    """A text on one line of a comment or docstring, in any of the languages: letters, digits and `QUIET`."""
    return Safe(_line(text, lambda c: c.isalnum() or c in QUIET))


def markdown(text: object) -> Safe:
    """A code span, in a table's cell as well: no emphasis, link, HTML or heading begins in one."""
    return Safe(f"`{_line(text, lambda c: c.isprintable() and c not in '`|')}`")


def html(text: object) -> Safe:
    """Text between tags, or in an attribute's quotes."""
    return Safe(_html.escape(_line(text, str.isprintable)))


def line(text: object) -> Safe:
    """A text on one line of a file that is plain text."""
    return Safe(_line(text, str.isprintable))


def _line(text: object, keep: Callable[[str], bool]) -> str:
    """One line, with a space for what is not kept; never empty, since an empty code span is none."""
    return " ".join("".join(c if keep(c) else " " for c in str(text)).split()) or "-"


# Numbers and words ------------------------------------------------------------------------------------------------


def float32(value: Any, suffix: str = "") -> Safe:
    """The shortest decimal of a float32, with its suffix in the language; raises BadInput where it is no number."""
    return Safe(f"{np.float32(_finite(value, float(np.finfo(np.float32).max)))!s}{suffix}")


def double(value: Any) -> Safe:
    """The shortest decimal of a float64; raises BadInput where it is no number."""
    return Safe(repr(_finite(value, math.inf)))


def scientific(value: Any) -> Safe:
    """A number for people, of two digits; raises BadInput where it is none."""
    return Safe(f"{_finite(value, math.inf):.1e}")


def grouped(value: Any) -> Safe:
    """An integer with commas for people; raises BadInput where it is none."""
    return Safe(f"{_integer(value):,}")


def share(value: Any) -> Safe:
    """A share of 1, for people; raises BadInput where it is no number."""
    return Safe(f"{_finite(value, math.inf):.3f}")


def joined(values: Iterable[Any]) -> Safe:
    """Integers, or what is `Safe` already, with commas between them."""
    return Safe(", ".join(printed(value) for value in values))


def word(text: str) -> Safe:
    """One of the words of preprocessor.json, which are names in the code; raises BadInput for anything else."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(text), re.ASCII):
        raise BadInput(f"{str(text)!a:.60} is no word of preprocessor.json", remedy="see docs/preprocessor.md")
    return Safe(text)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise BadInput(f"{value!a:.60} is no integer", where="the bundle", remedy="export it again")
    return value


def _finite(value: Any, largest: float) -> float:
    number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not number or not abs(value) <= min(largest, float(np.finfo(np.float64).max)):
        raise BadInput(f"{value!a:.60} is no finite number", where="the bundle", remedy="export it again")
    return float(value)


# Templates --------------------------------------------------------------------------------------------------------

FILTERS: dict[str, Callable[..., Any]] = {
    "comment": comment,
    "markdown": markdown,
    "html": html,
    "line": line,
    "python": python_string,
    "java": java_string,
    "kotlin": kotlin_string,
    "js": javascript_string,
    "swift": swift_string,
    "cpp": cpp_string,
    "toml": toml_string,
    "double": double,
    "scientific": scientific,
    "grouped": grouped,
    "share": share,
    "joined": joined,
    "word": word,
}


def printed(value: Any) -> str:
    """What `{{ value }}` prints: a `Safe` text or an integer; raises TypeError for any other text or thing."""
    if isinstance(value, Safe | int):
        return str(value)
    if isinstance(value, jinja2.Undefined):
        return str(value)  # nothing for an inline `if` without `else`; an error for a name that is not there
    raise TypeError(f"a template prints {value!a:.60} through none of {', '.join(FILTERS)}")


def literal(value: Any) -> Any:
    """What the text of a template holds, as code: strings, also within tuples, lists and mappings."""
    if isinstance(value, str):
        return Safe(value)
    if isinstance(value, tuple | list):
        return type(value)(literal(item) for item in value)
    if isinstance(value, dict):
        return {literal(key): literal(item) for key, item in value.items()}
    return value


def together(parts: Iterable[Any]) -> str:
    """`a ~ b`: safe where all of it is."""
    parts = list(parts)
    text = "".join(map(str, parts))
    return Safe(text) if all(isinstance(part, Safe | int) for part in parts) else text


class _Generator(CodeGenerator):
    """Compiles string constants of a template to `Safe` ones, and `~` to `together`."""

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        value = node.as_const(frame.eval_ctx)
        if isinstance(value, str | tuple | list | dict):
            self.write(f"environment.literal({value!r})")
        else:
            super().visit_Const(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.together((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Environment(jinja2.Environment):
    """Jinja2 in which `{{ x }}` is an error where x is a text that came through no filter of `FILTERS`."""

    code_generator_class = _Generator
    literal = staticmethod(literal)
    together = staticmethod(together)

    @staticmethod
    def concat(parts: Iterable[str]) -> Safe:
        """The output of a template or a macro: each part was printed, so it is safe."""
        return Safe("".join(parts))

    def __init__(self, folder: Path) -> None:
        super().__init__(
            loader=jinja2.FileSystemLoader(folder),
            undefined=jinja2.StrictUndefined,
            finalize=printed,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # which knows HTML only; `finalize` refuses what is not escaped
        )
        self.filters.update(FILTERS)
