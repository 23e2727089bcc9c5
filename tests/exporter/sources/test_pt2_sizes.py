"""Which texts of a size torch may hand to sympy: arithmetic as torch writes it, of numbers that stay small."""

from __future__ import annotations

import pytest

from exporter.sources.pt2_sizes import MOST_WORDS, is_size

S = "Symbol('s77', positive=True, integer=True)"
U = "Symbol('u0', integer=True)"
NINE = "Integer(9)"


def power(base: str, *exponents: int) -> str:
    for exponent in exponents:
        base = f"Pow({base}, Integer({exponent}))"
    return base


@pytest.mark.parametrize(
    "text",
    [
        S,
        U,
        "Integer(-3)",
        "Rational(1, 2)",
        "Float('0.5', precision=53)",
        "true",
        f"Add(FloorDiv({power(S, 2)}, Integer(4)), Integer(1))",
        f"Max(Integer(5), {S})",
        f"Mul(Integer(-1), {S}, {U})",
        f"Equality(Mod({S}, Integer(8)), Integer(0))",
        f"And(StrictLessThan({S}, Integer(8)), Not(Unequality({U}, Integer(0))))",
        f"TruncToInt(FloatTrueDiv(ToFloat({S}), Float('3.25', precision=53)))",
        f"LShift({S}, Integer(3))",
        power(S, MOST_WORDS),
        power(S, 8, 8),
        power(S, -1),
        f"Add({', '.join([S] * 80)})",
        f"Mul({', '.join([S] * MOST_WORDS)})",
    ],
)
def test_what_torch_writes_is_a_size(text):
    assert is_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s77",
        "7",
        "9**9**9**9",
        "2*s77",
        "-" * 999 + "1",
        "Matrix(1,1,breakpoint)",
        "Matrix(1, 1, Integer)",
        "Symbol('s77').func",
        "Symbol(name='s77')",
        "Symbol('s77', integer=breakpoint)",
        "Symbol('s77', **{})",
        "Symbol('s 77')",
        "Symbol('s77', 's78')",
        "Symbol(*Integer(1))",
        "Integer('1' * 9)",
        "Integer(1.5)",
        "Integer(True)",
        f"Integer({1 << 63})",
        f"Integer({'9' * 4000})",
        "Integer(--1)",
        "Rational(1, 0)",
        "Float('1e999999999', precision=53)",
        "Float('0.5', precision=999999999)",
        "Float('0x9', precision=53)",
        "Lambda(Symbol('x'), Integer(1))",
        "Add()",
        f"Add({S}, evaluate=False)",
        f"{NINE} + {NINE}",
        f"[{NINE}]",
        f"{NINE} if true else {NINE}",
        f"Pow({NINE})",
        f"Pow({NINE}, {NINE}, {NINE})",
        f"Pow(Integer(2), {S})",
        f"Pow(Integer(2), Mul({NINE}, {NINE}))",
        f"Pow({NINE}, Rational(1, 2))",
        f"LShift(Integer(1), {S})",
        power("Integer(2)", 10**12),
        f"LShift(Integer(1), Integer({10**12}))",
        power(NINE, MOST_WORDS + 1),
        power(NINE, 8, -9),
        f"Mul({power(S, 60)}, {power(U, 5)})",
        f"Mul({', '.join([S] * (MOST_WORDS + 1))})",
        f"{'Not(' * 3000}{NINE}{')' * 3000}",
        f"Add({', '.join([S] * 200)})",
        "(" * 4000,
        "Symbol('s77')\x00",
    ],
)
def test_anything_else_is_not(text):
    assert not is_size(text)
