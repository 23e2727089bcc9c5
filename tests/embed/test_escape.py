"""Each language's literals say what the text says, in its own reading; a template cannot print what was not escaped."""

from __future__ import annotations

import ast
import html as html_of_python
import json
import math
import re
import subprocess
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.embed import escape
from exporter.embed.escape import Environment, Safe
from runtimes.errors import BadInput
from tests.embed.hostile import HOSTILE
from tests.embed.structure import MARKDOWN

TEXTS = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(HOSTILE)
WHOLE = tuple(text.encode("utf-8", "replace").decode() for text in HOSTILE)
"""As languages without lone surrogates have them."""


def whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def unescaped(literal: str, escapes: str) -> list[str]:
    """The characters of a literal in double quotes, each as it stands or as the one escape that is allowed."""
    assert literal[0] == literal[-1] == '"'
    parts = re.findall(rf"{escapes}|[^\\\"]", literal[1:-1])
    assert "".join(parts) == literal[1:-1]
    return parts


def of_units(parts: list[str]) -> str:
    """UTF-16 code units, plain or as octal or hexadecimal escapes, as the text that they are."""
    units = [ord(p) if len(p) == 1 else int(p[2:], 16) if p[1] == "u" else int(p[1:], 8) for p in parts]
    return np.array(units, "<u2").tobytes().decode("utf-16-le", "surrogatepass")


def joined_pairs(text: str) -> str:
    """Two surrogates that happen to make a pair are one character to whoever thinks in UTF-16."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@given(TEXTS)
def test_a_literal_is_the_text(text):
    assert ast.literal_eval(escape.python_string(text)) == text
    assert tomllib.loads(f"x = {escape.toml_string(text)}")["x"] == whole(text)
    assert json.loads(escape.javascript_string(text)) == joined_pairs(text)
    assert of_units(unescaped(escape.java_string(text), r"\\[01]\d\d|\\u[0-9a-f]{4}")) == joined_pairs(text)
    assert of_units(unescaped(escape.kotlin_string(text), r"\\u[0-9a-f]{4}")) == joined_pairs(text)
    swift = unescaped(escape.swift_string(text), r"\\u\{[0-9A-F]+\}")
    assert "".join(p if len(p) == 1 else chr(int(p[3:-1], 16)) for p in swift) == whole(text)
    cpp = unescaped(escape.cpp_string(text), r"\\[0-3]\d\d")
    assert bytes(ord(p) if len(p) == 1 else int(p[1:], 8) for p in cpp) == whole(text).encode()


@given(TEXTS)
def test_a_literal_is_plain_ascii_and_begins_nothing_in_any_language(text):
    for language in ("python", "toml", "js", "java", "kotlin", "swift", "cpp"):
        literal = escape.FILTERS[language](text)
        assert isinstance(literal, Safe) and re.fullmatch(r"[ -~]*", literal)
        if language != "python":  # whose quotes hold these
            assert not re.search(r"[$<>&?*`']", literal) and "\\(" not in literal
    early = re.findall(r"\\u(?!00[0-7])", escape.java_string(text))  # read before Java's lexer looks
    assert len(early) == escape.java_string(text).count("\\u")


@given(TEXTS)
def test_a_comment_ends_and_begins_nothing(text):
    found = escape.comment(text)
    assert found and found == found.strip() and not re.search(r"[\\*\"'`<>@{}$?#|&!%~^\[\]\n\r\0]|\s\s", found)
    assert found.isprintable()


@given(TEXTS)
def test_markdown_is_one_code_span_also_in_a_table(text):
    found = escape.markdown(text)
    paragraph, inline, end = MARKDOWN.parse(f"a {found} b")
    assert (paragraph.type, end.type) == ("paragraph_open", "paragraph_close")
    assert [child.type for child in inline.children] == ["text", "code_inline", "text"]
    cells = [t for t in MARKDOWN.parse(f"|a|b|\n|-|-|\n|{found}|x|\n") if t.type == "inline"]
    assert [[child.type for child in cell.children] for cell in cells[2:]] == [["code_inline"], ["text"]]


@given(TEXTS)
def test_html_is_text(text):
    found = escape.html(text)
    assert not re.search(r"[<>\"']|&(?!\w+;|#x27;)", found)
    assert html_of_python.unescape(found) == escape.line(text) and found.isprintable()


JAVA = """public final class Texts {{
    public static void main(String[] arguments) {{
        for (String text : new String[] {{ {literals} }}) {{
            for (char c : text.toCharArray()) System.out.print((int) c + " ");
            System.out.println();
        }}
    }}
}}
"""
CPP = """#include <cstdio>
#include <string>
int main() {{
    for (const std::string &text : {{ {literals} }}) {{
        for (const unsigned char c : text) std::printf("%d ", c);
        std::puts("");
    }}
}}
"""


def said(*words: object) -> list[list[int]]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]


def units_of(text: str) -> list[int]:
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").tolist()


@pytest.mark.device
def test_java_reads_the_hostile_strings_as_they_are(tmp_path):
    (tmp_path / "Texts.java").write_text(JAVA.format(literals=", ".join(map(escape.java_string, HOSTILE))))
    assert said("java", tmp_path / "Texts.java") == [units_of(text) for text in HOSTILE]


@pytest.mark.device
def test_cpp_reads_the_hostile_strings_as_they_are(tmp_path):
    literals = ", ".join(f"std::string({escape.cpp_string(text)}, {len(text.encode())})" for text in WHOLE)
    (tmp_path / "texts.cpp").write_text(CPP.format(literals=literals))
    build = ["g++", "-std=c++11", "-trigraphs", "-Wall", "-Werror", tmp_path / "texts.cpp", "-o", tmp_path / "texts"]
    subprocess.run(build, check=True, timeout=300)
    assert said(tmp_path / "texts") == [list(text.encode()) for text in WHOLE]


@pytest.mark.browser
def test_javascript_reads_the_hostile_strings_as_they_are(tmp_path):
    code = (
        "for (const text of [{}]) console.log(...Array.from({{ length: text.length }}, (_, i) => text.charCodeAt(i)));"
    )
    (tmp_path / "texts.mjs").write_text(code.format(", ".join(map(escape.javascript_string, HOSTILE))))
    assert said("node", tmp_path / "texts.mjs") == [units_of(text) for text in HOSTILE]


def rendered(template: str, tmp_path, **names: object) -> str:
    (tmp_path / "template.j2").write_text(template)
    return Environment(tmp_path).get_template("template.j2").render(names)


@pytest.mark.parametrize(
    "template",
    [
        "{{ x }}",
        "{% for c in x %}{{ c }}{% endfor %}",
        "{{ x | upper }}",
        "{{ x ~ x }}",
        "{{ 'a' ~ x }}",
        "{{ [x] | join(', ') }}",
        "{{ [x] | joined }}",
        "{{ '%s' | format(x) }}",
        "{{ 'a' if no else x }}",
        "{{ (x | comment).upper() }}",
        "{% macro m(y) %}{{ y }}{% endmacro %}{{ m(x) }}",
        "{{ none }}",
        "{{ 1.5 }}",
    ],
)
def test_a_text_without_a_filter_is_not_printed(template, tmp_path):
    with pytest.raises(TypeError, match="through none of comment, markdown"):
        rendered(template, tmp_path, x="os.abort()", no=False)


def test_what_a_template_says_itself_is_code(tmp_path):
    template = (
        "{% macro m(y) %}<{{ y | comment }}>{% endmacro %}{% set kinds = {'a': 'int', 'b': ('x', 'y')} %}"
        "{{ m('*/') }} {{ kinds['a'] }} {{ kinds['b'] | joined }} {{ 'a' ~ 1 ~ (x | word) }} {{ ', ' if no }}{{ 7 }}"
        " {{ b }}"
    )
    assert rendered(template, tmp_path, x="word", no=False, b=True) == "</> int x, y a1word 7 True"


def test_a_name_that_is_not_there_is_an_error(tmp_path):
    import jinja2

    with pytest.raises(jinja2.UndefinedError, match="'missing' is undefined"):
        rendered("{{ missing }}", tmp_path)


@pytest.mark.parametrize("text", [t for t in HOSTILE if not re.fullmatch("[a-z]+", t)])
def test_a_word_is_a_word_or_refused(text):
    with pytest.raises(BadInput, match=r"is no word of preprocessor\.json"):
        escape.word(text)
    assert escape.word("mel_time") == "mel_time"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", "1e999", None, True, 10**400, [1.0]])
def test_only_a_finite_number_is_printed(value):
    for print_it in (escape.double, escape.float32, escape.scientific, escape.share):
        with pytest.raises(BadInput, match="is no finite number"):
            print_it(value)
    with pytest.raises(BadInput, match="is no finite number"):
        escape.float32(1e39)


@pytest.mark.parametrize("value", ["1", 1.0, True, None])
def test_only_an_integer_is_grouped(value):
    with pytest.raises(BadInput, match="is no integer"):
        escape.grouped(value)


def test_numbers_are_the_shortest_that_are_read_back():
    assert (escape.float32(0.1, "f"), escape.float32(1, "f"), escape.double(0.1)) == ("0.1f", "1.0f", "0.1")
    assert (escape.scientific(1.26e-7), escape.grouped(1234567), escape.share(0.5)) == ("1.3e-07", "1,234,567", "0.500")
