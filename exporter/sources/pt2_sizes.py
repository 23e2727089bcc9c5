"""The sizes in a .pt2 file are text that sympy evaluates as Python: which of it is plain arithmetic and stays small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

LONGEST = 4096
MOST_WORDS = 64
"""Of 64 bits: how large a number may become that an expression computes."""

SYMBOL = re.compile(r"[A-Za-z_]\w{0,40}")
ASSUMPTION = re.compile(r"[a-z_]{1,30}")
DECIMAL = re.compile(r"-?\d{1,20}(\.\d{0,40})?(e[+-]?\d{1,3})?")

SUMS = {"Add", "Max", "Min", "And", "Or", "Not", "Identity", "ToFloat", "Where"}
SUMS |= {"Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan"}
"""What is as large as the largest of its arguments."""
PRODUCTS = {
    "Mul",
    "FloorDiv",
    "CeilDiv",
    "CleanDiv",
    "Mod",
    "PythonMod",
    "ModularIndexing",
    "IntTrueDiv",
    "FloatTrueDiv",
}
PRODUCTS |= {"CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "RoundDecimal", "RShift"}
PRODUCTS |= {"Abs", "FloatPow", "IsNonOverlappingAndDenseIndicator"}
"""What is at most as large as the product of its arguments."""
POWERS = {"Pow", "PowByNatural", "LShift"}
"""What a number that stands there has to be the second argument of."""


def is_size(expression: str) -> bool:
    """Whether it is arithmetic of whole numbers and symbols, as torch writes it, that stays within MOST_WORDS."""
    if len(expression) > LONGEST:
        return False
    try:
        return _words(ast.parse(expression, mode="eval").body) <= MOST_WORDS
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _words(node: ast.expr) -> int:
    """How many words of 64 bits its value takes at most; raises ValueError for what is no plain arithmetic."""
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return 1
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("no function of sizes")
    name, arguments = node.func.id, node.args
    options = {option.arg: _literal(option.value) for option in node.keywords}
    if name == "Symbol":
        plain = all(ASSUMPTION.fullmatch(str(key)) and type(value) is bool for key, value in options.items())
        return _one(plain and len(arguments) == 1 and _matches(SYMBOL, arguments[0]))
    if name == "Float":
        precise = set(options) <= {"precision"} and all(type(v) is int and 0 < v <= 64 for v in options.values())
        return _one(precise and len(arguments) == 1 and _matches(DECIMAL, arguments[0]))
    if options:
        raise ValueError("an option")
    if name == "Integer":
        return _one(len(arguments) == 1 and _is_whole(_literal(arguments[0])))
    if name == "Rational":
        return _one(
            len(arguments) == 2 and all(_is_whole(_literal(a)) for a in arguments) and _literal(arguments[1]) != 0
        )
    if name in POWERS and len(arguments) == 2:
        exponent = _exponent(arguments[1])
        return _words(arguments[0]) + exponent if name == "LShift" else _words(arguments[0]) * max(1, abs(exponent))
    if name not in SUMS | PRODUCTS or not arguments:
        raise ValueError("no function of sizes")
    found: Iterable[int] = map(_words, arguments)
    return max(found) if name in SUMS else sum(found)


def _one(holds: bool) -> int:
    if not holds:
        raise ValueError("no number and no symbol")
    return 1


def _exponent(node: ast.expr) -> int:
    """A whole number that stands there: what a symbol is worth is said elsewhere in the file."""
    if not isinstance(node, ast.Call) or _words(node) != 1 or getattr(node.func, "id", "") != "Integer":
        raise ValueError("an exponent that is no number")
    exponent = _literal(node.args[0])
    assert isinstance(exponent, int)
    return exponent


def _literal(node: ast.expr) -> object:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    if not isinstance(inner, ast.Constant) or (negative and type(inner.value) is not int):
        raise ValueError("no literal")
    return -inner.value if negative else inner.value  # type: ignore[operator]  # which is an int


def _matches(pattern: re.Pattern[str], node: ast.expr) -> bool:
    value = _literal(node)
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_whole(value: object) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63
