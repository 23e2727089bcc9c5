"""The Swift package as files: a parser reads each; golden values lie where it says. test_embed_swift.py compiles."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tree_sitter_swift
from tree_sitter import Language, Node, Parser

from runtimes.golden import read_golden

SWIFT = Parser(Language(tree_sitter_swift.language()))
NAMES = ("digits", "rnet", "basicmotions", "cnn", "hearer", "two_inputs")


def faults(node: Node) -> list[str]:
    """Where the parser lost its way."""
    found = [f"line {node.start_point[0] + 1}: {node.type}"] if node.is_error or node.is_missing else []
    return found + [fault for child in node.children if child.has_error or child.is_missing for fault in faults(child)]


def test_the_parser_finds_faults():
    assert faults(SWIFT.parse(b"struct A { let b: Int }").root_node) == []
    assert faults(SWIFT.parse(b"struct A { let b: Int").root_node)
    assert faults(SWIFT.parse(b"func f( -> { }").root_node)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_swift(name, library_of):
    files = sorted(library_of(name, "ios").rglob("*.swift"))
    assert {"Package.swift", "GoldenTests.swift"} <= {file.name for file in files} and len(files) >= 3
    for file in files:
        assert faults(SWIFT.parse(file.read_bytes()).root_node) == [], file.name


def test_text_is_swift_too():
    from exporter.embed.write import environment_of

    text = environment_of("ios").get_template("Sources/{Class}/WordPiece.swift.j2").render()
    assert faults(SWIFT.parse(text.encode()).root_node) == []


@pytest.mark.parametrize("name", ["digits", "rnet"])
def test_golden_values_lie_where_the_code_says(name, library_of, bundle_of):
    (code,) = (f for f in library_of(name, "ios").rglob("*.swift") if f.stem.lower() == name)
    places = [
        (int(a), int(b)) for a, b in re.findall(r"floats\((\d+), (\d+)\)", code.read_text().split("var samples")[1])
    ]
    content = next(library_of(name, "ios").rglob("golden.bin")).read_bytes()
    golden = read_golden(bundle_of(name) / "golden.npz")
    wanted = [v for i, o in zip(golden.inputs, golden.outputs, strict=True) for v in (*i.values(), *o.values())]
    assert len(places) == len(wanted)
    for (offset, count), values in zip(places, wanted, strict=True):
        np.testing.assert_array_equal(np.frombuffer(content, "<f4", count, offset), values.ravel())


def strings_in(node: Node) -> list[str]:
    """The string literals of a file, as Swift reads them; an interpolation would be a node of another kind."""
    if node.type == "line_string_literal":
        assert not [c for c in node.children if c.type == "interpolated_expression"], node.text
        inner = node.text.decode()[1:-1]
        return [re.sub(r"\\u\{([0-9A-F]+)\}", lambda m: chr(int(m[1], 16)), inner)]
    return [text for child in node.children for text in strings_in(child)]


def test_labels_are_what_they_were_and_not_code(library_of, nasty):
    (code,) = (f for f in library_of("cnn", "ios").rglob("Cnn.swift"))
    (line,) = (line for line in code.read_text().splitlines() if "classesLabels = " in line)
    assert tuple(strings_in(SWIFT.parse(line.encode()).root_node)) == nasty


def test_it_says_that_no_apple_device_ran_it(library_of):
    for name in NAMES:
        assert "Not run on an Apple device where it was made" in (library_of(name, "ios") / "README.md").read_text()
