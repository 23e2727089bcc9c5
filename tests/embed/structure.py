"""What a file is made of, as a parser of its own language reads it: names, literals and comments may differ."""

from __future__ import annotations

import ast
import html.parser
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tree_sitter_swift
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tree_sitter import Language, Parser

HERE = Path(__file__).parent
SWIFT = Parser(Language(tree_sitter_swift.language()))
MARKDOWN = MarkdownIt("commonmark").enable("table")
STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'')
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TIMEOUT_S = 500

Texts = Sequence[str]


def structures(suffix: str, texts: Texts, folder: Path) -> list[str]:
    """The structure of each of many files of a kind, which a single process parses; `folder` is for its input."""
    batch = {".java": _java, ".js": _javascript, ".hpp": _cpp, ".cpp": _cpp}.get(suffix)
    if batch:
        folder.mkdir(parents=True)
        return batch(texts, folder)
    one = ONE.get(suffix, _words)
    return [one(text) for text in texts]


def _python(text: str) -> str:
    def kind(node: ast.AST) -> str:
        below = "".join(map(kind, ast.iter_child_nodes(node)))
        return f"({type(node).__name__}{type(node.value).__name__ if isinstance(node, ast.Constant) else ''}{below})"

    return kind(ast.parse(text))


def _swift(text: str) -> str:
    def kinds() -> Iterator[str]:
        stack = [SWIFT.parse(text.encode()).root_node]
        while stack:
            node = stack.pop()
            if node.type in ("comment", "multiline_comment"):
                yield node.type
            elif node.type == "line_string_literal":  # its text is one or several nodes, by the escapes that it has
                yield f"{node.type} {[c.type for c in node.children if c.type not in TEXT_NODES]}"
            else:
                yield "error" if node.is_error or node.is_missing else node.type
                stack += node.children

    return " ".join(kinds())


TEXT_NODES = ("line_str_text", "str_escaped_char")


def _toml(text: str) -> str:
    def kind(value: object) -> str:
        if isinstance(value, dict):
            return "{" + " ".join(kind(item) for item in value.values()) + "}"
        return "[" + " ".join(map(kind, value)) + "]" if isinstance(value, list) else type(value).__name__

    return kind(tomllib.loads(text))


def _html(text: str) -> str:
    class Tags(html.parser.HTMLParser):
        found = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += f"<{tag} {' '.join(name for name, _ in attrs)}>"

        def handle_endtag(self, tag: str) -> None:
            self.found += f"</{tag}>"

        def handle_comment(self, data: str) -> None:
            self.found += "<!---->"

        def handle_decl(self, decl: str) -> None:
            self.found += f"<!{decl}>"

    tags = Tags()
    tags.feed(text)
    tags.close()
    return tags.found


def _markdown(text: str) -> str:
    def kind(token: Token) -> str:
        return f"{token.type}({' '.join(map(kind, token.children or ()))})"

    return " ".join(map(kind, MARKDOWN.parse(text)))


def _words(text: str) -> str:
    """For what has no parser here: the text with its strings and names blanked."""
    return NAME.sub("i", STRING.sub('"', text))


ONE: dict[str, Callable[[str], str]] = {
    ".py": _python, ".swift": _swift, ".toml": _toml, ".html": _html, ".md": _markdown,
}  # fmt: skip


def _java(texts: Texts, folder: Path) -> list[str]:
    sources = folder / "java"
    sources.mkdir()
    for i, text in enumerate(texts):
        (sources / f"{i:06}.java").write_text(text, encoding="utf-8")
    return [line.split("\t", 1)[1] for line in _said(["java", HERE / "ParseJava.java", sources])]


def _javascript(texts: Texts, folder: Path) -> list[str]:
    (folder / "texts.json").write_text(json.dumps(texts))
    return _said(["node", "--expose-internals", HERE / "parse_javascript.cjs", folder / "texts.json"])


def _cpp(texts: Texts, folder: Path) -> list[str]:
    """Its tokens after the preprocessor, with trigraphs; directives that a file has of its own stay as tokens."""
    whole = [re.sub(r"^#(include|pragma) ", r"directive_\1 ", text, flags=re.MULTILINE) for text in texts]
    (folder / "all.cpp").write_text("".join(f"{text}\nFILE_ENDS\n" for text in whole), encoding="utf-8")
    lines = _said(["g++", "-std=c++11", "-trigraphs", "-E", "-P", folder / "all.cpp"])
    *found, rest = re.split(r"\bFILE_ENDS\b", "\n".join(lines))
    assert len(found) == len(texts) and not rest.strip()
    return [" ".join(_words(text).split()) for text in found]


def _said(words: Sequence[object]) -> list[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
